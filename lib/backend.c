#include "backend.h"

#include "error.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two copies of libtorch in one process end it inside static initialisers, which nothing can catch.
 * So before a backend is opened, the objects that are loaded already are walked: a libtorch found
 * there is the one to use if its version is the backend's, and an error if it is not. */

#define BACKEND_FILE "libfeatinv-torch.so"
#define TORCH_FILE "libtorch_cpu.so"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const fi_backend *table;
static char opened_path[PATH_MAX];
static pid_t opened_by;

featinv_status fi_library_folder(char *path, size_t capacity) {
    Dl_info info;
    char real[PATH_MAX];
    if (!dladdr((void *)(uintptr_t)&featinv_version, &info) || !info.dli_fname ||
        !realpath(info.dli_fname, real))
        return fi_fail(FEATINV_ERROR_INTERNAL, "the folder of libfeatinv.so cannot be told");
    char *slash = strrchr(real, '/');
    *slash = '\0';
    if (strlen(real) + 1 > capacity)
        return fi_fail(FEATINV_ERROR_CAPACITY, "the folder of libfeatinv.so has a too long name");
    memcpy(path, real, strlen(real) + 1);
    return FEATINV_OK;
}

static int note_torch(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    if (strcmp(slash ? slash + 1 : info->dlpi_name, TORCH_FILE) != 0)
        return 0;
    (void)snprintf(data, PATH_MAX, "%s", info->dlpi_name);
    return 1;
}

/* Value of the line `key=value` in a small text file; false where there is none. */
static bool setting(char *value, size_t capacity, const char *path, const char *key) {
    char line[PATH_MAX + 64];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        size_t n = strlen(key);
        line[strcspn(line, "\r\n")] = '\0';
        if (strncmp(line, key, n) == 0 && line[n] == '=') {
            (void)snprintf(value, capacity, "%s", line + n + 1);
            found = true;
        }
    }
    (void)fclose(file);
    return found;
}

/* "2.11.0" of the wheel that holds this lib folder (torch/version.py), without a local suffix. */
static bool torch_version(char *version, size_t capacity, const char *folder) {
    static const struct {
        const char *file, *key;
    } places[] = {{"../version.py", "__version__ = "}, {"../build-version", ""}};
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX + 32], line[256];
        (void)snprintf(path, sizeof path, "%s/%s", folder, places[i].file);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        while (fgets(line, sizeof line, file)) {
            size_t n = strlen(places[i].key);
            if (strncmp(line, places[i].key, n) != 0)
                continue;
            const char *start = line + n + strspn(line + n, "'\" ");
            (void)snprintf(version, capacity, "%.*s", (int)strspn(start, "0123456789."), start);
            (void)fclose(file);
            return *version != '\0';
        }
        (void)fclose(file);
    }
    return false;
}

static featinv_status check_version(const char *folder, const char *wanted, const char *what) {
    char found[64];
    if (!*wanted || !torch_version(found, sizeof found, folder) || strcmp(found, wanted) == 0)
        return FEATINV_OK;
    return fi_fail(FEATINV_ERROR_BACKEND, "%s is libtorch %s (%s), this backend needs %s", what,
                   found, folder, wanted);
}

/* Brings libtorch_cpu.so into the process, or accepts the one that is there. */
static featinv_status open_torch(const char *backend_path) {
    char conf[PATH_MAX + 8], wanted[64] = "", folder[PATH_MAX] = "", file[PATH_MAX + 32];
    char loaded[PATH_MAX] = "";
    (void)snprintf(conf, sizeof conf, "%s", backend_path);
    char *end = strrchr(conf, '.');
    bool named = end && strcmp(end, ".so") == 0;
    if (named)
        memcpy(end, ".conf", sizeof ".conf");
    if (!named || access(conf, R_OK) != 0)
        return FEATINV_OK; /* a backend that does not say which libtorch it needs brings its own */
    (void)setting(wanted, sizeof wanted, conf, "torch_version");

    if (dl_iterate_phdr(note_torch, loaded)) {
        char *slash = strrchr(loaded, '/');
        if (slash)
            *slash = '\0';
        return check_version(loaded, wanted, "the libtorch already in this process");
    }
    const char *given = getenv("FEATINV_LIBTORCH");
    if (given && *given)
        (void)snprintf(folder, sizeof folder, "%s", given);
    else if (!setting(folder, sizeof folder, conf, "torch_lib"))
        folder[0] = '\0';
    (void)snprintf(file, sizeof file, "%s%s%s", folder, *folder ? "/" : "", TORCH_FILE);
    if (*folder && access(file, R_OK) != 0)
        return fi_fail(FEATINV_ERROR_BACKEND,
                       "libtorch was not found at %s (%s); FEATINV_LIBTORCH names the folder that "
                       "holds %s, as in site-packages/torch/lib",
                       file, strerror(errno), TORCH_FILE);
    featinv_status status =
        *folder ? check_version(folder, wanted, "the libtorch found") : FEATINV_OK;
    if (status)
        return status;
    if (!dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
        const char *text = dlerror();
        return fi_fail(FEATINV_ERROR_BACKEND, "libtorch does not load: %s", text ? text : file);
    }
    return FEATINV_OK;
}

static featinv_status backend_path(char *path, const char *given) {
    const char *environment = getenv("FEATINV_BACKEND");
    if (!given && environment && *environment)
        given = environment;
    char folder[PATH_MAX - 32];
    if (!given) {
        featinv_status status = fi_library_folder(folder, sizeof folder);
        if (status)
            return status;
        (void)snprintf(path, PATH_MAX, "%s/%s", folder, BACKEND_FILE);
    } else {
        (void)snprintf(path, PATH_MAX, "%s", given);
    }
    if (access(path, R_OK) != 0)
        return fi_fail(FEATINV_ERROR_BACKEND, "the backend %s cannot be read: %s", path,
                       strerror(errno));
    char real[PATH_MAX];
    if (realpath(path, real))
        memcpy(path, real, strlen(real) + 1);
    return FEATINV_OK;
}

static featinv_status open_backend(const char *given) {
    char path[PATH_MAX], error[512] = "";
    featinv_status status = backend_path(path, given);
    if (status)
        return status;
    if (table)
        return strcmp(path, opened_path) == 0
                   ? FEATINV_OK
                   : fi_fail(FEATINV_ERROR_BACKEND, "%s: another backend is open already, %s", path,
                             opened_path);
    status = open_torch(path);
    if (status)
        return status;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        const char *text = dlerror();
        return fi_fail(FEATINV_ERROR_BACKEND, "the backend does not load: %s", text ? text : path);
    }
    fi_backend_entry entry;
    void *symbol = dlsym(handle, FI_BACKEND_ENTRY);
    memcpy(&entry, &symbol, sizeof entry);
    if (!symbol)
        return fi_fail(FEATINV_ERROR_BACKEND, "%s: not a backend: it lacks %s", path,
                       FI_BACKEND_ENTRY);
    const fi_backend *found = entry(error, sizeof error);
    if (!found)
        return fi_fail(FEATINV_ERROR_BACKEND, "%s: %s", path, error);
    if (found->abi != FI_BACKEND_ABI || found->size != sizeof *found)
        return fi_fail(FEATINV_ERROR_BACKEND, "%s: from another build (interface %u, needed %u)",
                       path, found->abi, (unsigned)FI_BACKEND_ABI);
    memcpy(opened_path, path, strlen(path) + 1);
    opened_by = getpid();
    table = found;
    return FEATINV_OK;
}

featinv_status featinv_backend_load(const char *path) {
    pthread_mutex_lock(&lock);
    featinv_status status = open_backend(path);
    pthread_mutex_unlock(&lock);
    return status;
}

featinv_status fi_backend_get(const fi_backend **out) {
    pthread_mutex_lock(&lock);
    featinv_status status = table ? FEATINV_OK : open_backend(NULL);
    if (!status && opened_by != getpid())
        status =
            fi_fail(FEATINV_ERROR_FORK, "the backend was opened before fork(): a child process "
                                        "cannot use it, open the model after the fork");
    *out = status ? NULL : table;
    pthread_mutex_unlock(&lock);
    return status;
}

featinv_status featinv_backend_info(char *text, size_t capacity) {
    const fi_backend *backend;
    featinv_status status = fi_backend_get(&backend);
    if (status)
        return status;
    if (!text)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the text");
    char line[512];
    int failed = backend->describe(line, sizeof line);
    if (failed)
        return fi_backend_fail(backend, failed, "backend");
    if (strlen(line) + 1 > capacity)
        return fi_fail(FEATINV_ERROR_CAPACITY, "the text is longer than %zu bytes", capacity);
    memcpy(text, line, strlen(line) + 1);
    return FEATINV_OK;
}

featinv_status fi_backend_fail(const fi_backend *backend, int status, const char *what) {
    const char *text = backend->error();
    return strstr(text, what) ? fi_fail(status, "%s", text) : fi_fail(status, "%s: %s", what, text);
}

featinv_status fi_backend_download(void *host, const void *device, size_t bytes,
                                   int32_t device_index) {
    const fi_backend *backend;
    featinv_status status = fi_backend_get(&backend);
    if (status)
        return status;
    int failed = backend->download(host, device, bytes, device_index);
    return failed ? fi_backend_fail(backend, failed, "copy from the device") : FEATINV_OK;
}
