#include "bundle.h"

#include "error.h"
#include "file.h"
#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST_LIMIT ((size_t)16 << 20)
#define SMALL_FILE_LIMIT ((size_t)1 << 30) /* programs and contexts, read whole */

const fi_bundle_file *fi_bundle_find(const fi_bundle *bundle, const char *name) {
    for (int64_t i = 0; i < bundle->file_count; i++)
        if (strcmp(bundle->files[i].name, name) == 0)
            return &bundle->files[i];
    return NULL;
}

static char *join(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        (void)snprintf(path, size, "%s/%s", folder, name);
    return path;
}

char *fi_bundle_file_path(const fi_bundle *bundle, const char *name) {
    return join(bundle->path, name);
}

/* Every file below folder must be listed; hidden names are none of the bundle's. */
static featinv_status check_listed(const fi_bundle *bundle, const char *relative, int depth) {
    featinv_status status = FEATINV_OK;
    char *folder = *relative ? join(bundle->path, relative) : strdup(bundle->path);
    DIR *directory = folder ? opendir(folder) : NULL;
    if (!folder)
        return fi_fail_memory(PATH_MAX);
    if (!directory) {
        status = fi_fail(FEATINV_ERROR_READ, "%s: %s", folder, strerror(errno));
        goto done;
    }
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        char name[1024];
        struct stat info;
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(name, sizeof name, "%s%s%s", relative, *relative ? "/" : "", entry->d_name);
        char *path = join(bundle->path, name);
        if (!path) {
            status = fi_fail_memory(PATH_MAX);
        } else if (stat(path, &info) != 0) {
            status = fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s", path, strerror(errno));
        } else if (S_ISDIR(info.st_mode)) {
            status = depth >= 4 ? fi_fail(FEATINV_ERROR_BUNDLE, "%s: folders nest too deeply", path)
                                : check_listed(bundle, name, depth + 1);
        } else if (strcmp(name, "manifest.json") != 0 && !fi_bundle_find(bundle, name)) {
            status =
                fi_fail(FEATINV_ERROR_BUNDLE, "%s: the manifest does not list this file", path);
        }
        free(path);
    }
done:
    if (directory)
        (void)closedir(directory);
    free(folder);
    return status;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A listed file must lie inside the folder with the listed size, and, weights aside, hash. */
static featinv_status check_file(const fi_bundle *bundle, const fi_bundle_file *file) {
    featinv_status status = FEATINV_OK;
    struct stat info;
    char hash[FI_HASH_TEXT], *path = join(bundle->path, file->name), *real = NULL;
    size_t prefix = strlen(bundle->path);
    if (!path)
        return fi_fail_memory(PATH_MAX);
    if (!(real = realpath(path, NULL)) || stat(real, &info) != 0) {
        status =
            fi_fail(FEATINV_ERROR_BUNDLE, "%s: listed in the manifest: %s", path, strerror(errno));
    } else if (strncmp(real, bundle->path, prefix) != 0 || real[prefix] != '/') {
        status = fi_fail(FEATINV_ERROR_BUNDLE, "%s: a link that leaves the bundle's folder", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = fi_fail(FEATINV_ERROR_BUNDLE, "%s: not a regular file", path);
    } else if ((uint64_t)info.st_size != file->bytes) {
        status = fi_fail(FEATINV_ERROR_HASH, "%s: %lld bytes, the manifest says %llu", path,
                         (long long)info.st_size, (unsigned long long)file->bytes);
    } else if (!ends_with(file->name, ".safetensors")) {
        status = fi_hash_file(hash, path);
        if (!status && strcmp(hash, file->sha256) != 0)
            status = fi_fail(FEATINV_ERROR_HASH, "%s: SHA-256 %s, the manifest says %s", path, hash,
                             file->sha256);
    }
    free(real);
    free(path);
    return status;
}

static featinv_status read_manifest(fi_bundle *bundle) {
    size_t size = 0;
    char *path = join(bundle->path, "manifest.json");
    if (!path)
        return fi_fail_memory(PATH_MAX);
    uint8_t *bytes = NULL;
    featinv_status status = fi_file_read(&bytes, &size, path, MANIFEST_LIMIT);
    free(path);
    if (status)
        return status == FEATINV_ERROR_NOT_FOUND || status == FEATINV_ERROR_MEMORY
                   ? status
                   : fi_fail_prefix(FEATINV_ERROR_BUNDLE, "the bundle is refused");
    bundle->manifest = (char *)bytes;
    status = fi_hash_bytes(bundle->sha256, bytes, size);
    if (!status)
        status = fi_manifest_parse(bundle, bytes, size);
    return status ? fi_fail_prefix(status, "%s", bundle->path) : FEATINV_OK;
}

featinv_status fi_bundle_open(fi_bundle **out, const char *path) {
    fi_bundle *bundle = calloc(1, sizeof *bundle);
    if (!bundle)
        return fi_fail_memory(sizeof *bundle);
    featinv_status status = FEATINV_OK;
    bundle->path = realpath(path, NULL);
    if (!bundle->path && (errno == ENOENT || errno == ENOTDIR))
        status = fi_fail(FEATINV_ERROR_NOT_FOUND, "%s: no such folder", path);
    else if (!bundle->path)
        status = fi_fail(FEATINV_ERROR_READ, "%s: cannot be read (%s)", path, strerror(errno));
    if (!status)
        status = read_manifest(bundle);
    if (!status)
        status = check_listed(bundle, "", 0);
    for (int64_t i = 0; !status && i < bundle->file_count; i++)
        status = check_file(bundle, &bundle->files[i]);
    if (status) {
        fi_bundle_close(bundle);
        return status;
    }
    *out = bundle;
    return FEATINV_OK;
}

void fi_bundle_close(fi_bundle *bundle) {
    if (!bundle)
        return;
    for (int64_t i = 0; i < bundle->file_count; i++)
        free(bundle->files[i].name);
    char *const texts[] = {bundle->path,    bundle->manifest,  bundle->name,
                           bundle->head,    bundle->base_path, bundle->base_sha256,
                           bundle->layer,   bundle->layout,    bundle->backbone_name,
                           bundle->context, bundle->uncontext, bundle->prediction};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    free(bundle->files);
    free(bundle);
}

featinv_status fi_bundle_read(uint8_t **bytes, size_t *size, const fi_bundle *bundle,
                              const char *name) {
    const fi_bundle_file *file = fi_bundle_find(bundle, name);
    if (!file)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: the manifest lists no %s", bundle->path, name);
    char hash[FI_HASH_TEXT], *path = join(bundle->path, name);
    if (!path)
        return fi_fail_memory(PATH_MAX);
    *bytes = NULL;
    featinv_status status = fi_file_read(bytes, size, path, SMALL_FILE_LIMIT);
    if (!status)
        status = fi_hash_bytes(hash, *bytes, *size);
    if (!status && strcmp(hash, file->sha256) != 0)
        status = fi_fail(FEATINV_ERROR_HASH, "%s: SHA-256 %s, the manifest says %s", path, hash,
                         file->sha256);
    if (status) {
        free(*bytes);
        *bytes = NULL;
    }
    free(path);
    return status;
}
