#include "arrays.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- reading -------------------- */

int64_t cli_array_count(const cli_array *array) {
    int64_t count = 1;
    for (int32_t i = 0; i < array->info.ndim; i++)
        count *= array->info.shape[i];
    return count;
}

static size_t element_size(featinv_dtype dtype) {
    return dtype == FEATINV_DTYPE_F64 ? 8 : dtype == FEATINV_DTYPE_F32 ? 4 : 1;
}

/* The library has checked the shape's product against its limits. */
static featinv_status read_all(cli_array *out, const char *path, const char *member,
                               featinv_dtype dtype) {
    *out = (cli_array){.info = {.struct_size = sizeof out->info}, .dtype = dtype};
    featinv_status status = featinv_array_read(NULL, 0, &out->info, path, member, dtype);
    if (status)
        return status;
    size_t bytes = (size_t)cli_array_count(out) * element_size(dtype);
    out->data = malloc(bytes ? bytes : 1);
    if (!out->data)
        return FEATINV_ERROR_MEMORY;
    return featinv_array_read(out->data, bytes, &out->info, path, member, dtype);
}

static int failed(cli_array *out, featinv_status status, const char *path) {
    bool memory = status == FEATINV_ERROR_MEMORY;
    cli_array_free(out);
    return memory ? cli_fail(CLI_MEMORY, "%s: too large for the memory", path)
                  : cli_fail_status(status, path);
}

int cli_array_read(cli_array *out, const char *path, const char *member, featinv_dtype dtype) {
    featinv_status status = read_all(out, path, member, dtype);
    return status ? failed(out, status, path) : CLI_DONE;
}

int cli_array_read_optional(cli_array *out, bool *found, const char *path, const char *member,
                            featinv_dtype dtype) {
    featinv_status status = read_all(out, path, member, dtype);
    *found = !status;
    if (status == FEATINV_ERROR_NOT_FOUND) {
        cli_array_free(out);
        return CLI_DONE;
    }
    return status ? failed(out, status, path) : CLI_DONE;
}

void cli_array_free(cli_array *array) {
    free(array->data);
    *array = (cli_array){0};
}

featinv_tensor cli_array_view(cli_array *array) {
    return featinv_tensor_view(array->data, array->dtype, array->info.ndim, array->info.shape);
}

/* ---------------------------------------------------------------- checks --------------------- */

static void shape_text(char *text, size_t capacity, const int64_t *shape, int32_t ndim) {
    size_t used = (size_t)snprintf(text, capacity, "(");
    for (int32_t i = 0; i < ndim && used < capacity; i++) {
        if (shape[i] < 0)
            used += (size_t)snprintf(text + used, capacity - used, "%sany", i ? ", " : "");
        else
            used += (size_t)snprintf(text + used, capacity - used, "%s%lld", i ? ", " : "",
                                     (long long)shape[i]);
    }
    if (used < capacity)
        (void)snprintf(text + used, capacity - used, ")");
}

int cli_array_check(const cli_array *array, const char *path, const int64_t *wanted, int32_t ndim,
                    const char *what) {
    bool fits = array->info.ndim == ndim;
    for (int32_t i = 0; fits && i < ndim; i++)
        fits = wanted[i] < 0 ? array->info.shape[i] > 0 : array->info.shape[i] == wanted[i];
    if (fits)
        return CLI_DONE;
    char have[160], want[160];
    shape_text(have, sizeof have, array->info.shape, array->info.ndim);
    if (cli_array_count(array) == 0)
        return cli_fail(CLI_INPUT, "%s: holds nothing, its shape is %s", path, have);
    shape_text(want, sizeof want, wanted, ndim);
    return cli_fail(CLI_INPUT, "%s: shape is %s, wanted %s %s", path, have, what, want);
}

int cli_array_check_finite(const cli_array *array, const char *path, const char *row) {
    const float *values = array->data;
    int64_t count = cli_array_count(array);
    int64_t size = array->info.ndim ? count / array->info.shape[0] : 1;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return cli_fail(CLI_INPUT, "%s: %s %lld holds %s", path, row, (long long)(i / size),
                            isnan(values[i]) ? "NaN" : "infinity");
    return CLI_DONE;
}

void cli_hash_start(uint64_t *hash) {
    *hash = UINT64_C(0xcbf29ce484222325);
}

void cli_hash_add(uint64_t *hash, const void *bytes, size_t size) {
    const unsigned char *b = bytes;
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ b[i]) * UINT64_C(0x100000001b3);
}

/* ---------------------------------------------------------------- outputs -------------------- */

static bool ends_in(const char *path, const char *suffix) {
    size_t length = strlen(path), n = strlen(suffix);
    return length > n && strcasecmp(path + length - n, suffix) == 0;
}

static bool folder_is_writable(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    bool good = folder && access(folder, W_OK | X_OK) == 0;
    free(folder);
    return good;
}

int cli_check_output_file(const char *option, const char *path, const char *suffix,
                          const char *other_suffix) {
    struct stat info;
    if (!path)
        return CLI_DONE;
    if (!ends_in(path, suffix) && !(other_suffix && ends_in(path, other_suffix)))
        return cli_fail(CLI_USAGE, "%s %s: the name must end in %s%s%s", option, path, suffix,
                        other_suffix ? " or " : "", other_suffix ? other_suffix : "");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return cli_fail(CLI_FAILED, "%s: is a folder", path);
    if (!folder_is_writable(path))
        return cli_fail(CLI_FAILED, "%s: its folder is missing or cannot be written", path);
    return CLI_DONE;
}
