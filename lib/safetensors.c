#define _POSIX_C_SOURCE 200809L /* strdup */
#include "safetensors.h"

#include "bytes.h"
#include "error.h"
#include "file.h"
#include "tensor.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The format: 8 bytes little-endian length of a JSON object, the object, the data. Each key has
 * dtype, shape and data_offsets relative to the data; "__metadata__" holds strings. */
enum { PREFIX = 8, HEADER_LIMIT = 100 * 1000 * 1000, COMMA_LIMIT = 4 * 1000 * 1000, DEPTH = 3 };

static const struct {
    char name[5];
    featinv_dtype dtype;
} names[] = {
    {"F32", FEATINV_DTYPE_F32}, {"F16", FEATINV_DTYPE_F16},   {"BF16", FEATINV_DTYPE_BF16},
    {"F64", FEATINV_DTYPE_F64}, {"U8", FEATINV_DTYPE_U8},     {"I32", FEATINV_DTYPE_I32},
    {"I64", FEATINV_DTYPE_I64}, {"BOOL", FEATINV_DTYPE_BOOL}, {"I8", FEATINV_DTYPE_I8},
    {"I16", FEATINV_DTYPE_I16}, {"U16", FEATINV_DTYPE_U16},   {"U32", FEATINV_DTYPE_U32},
    {"U64", FEATINV_DTYPE_U64},
};
enum { NAMES = sizeof names / sizeof *names };

const char *fi_safetensors_dtype_name(featinv_dtype dtype) {
    for (int i = 0; i < NAMES; i++)
        if (names[i].dtype == dtype)
            return names[i].name;
    return NULL;
}

/* Bounds what the JSON library will allocate, before it does: a value costs it far more memory than
 * the two bytes of "0," in the text. */
static featinv_status check_text(const char *text, size_t size, const char *path) {
    size_t commas = 0, depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '['))
            depth++;
        else if (!quoted && (c == '}' || c == ']'))
            depth -= depth > 0;
        else if (!quoted && c == ',')
            commas++;
        if (depth > DEPTH)
            return fi_fail(FEATINV_ERROR_FORMAT, "%s: safetensors header is nested too deep", path);
    }
    if (commas > COMMA_LIMIT)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: safetensors header holds %zu values", path,
                       commas);
    return FEATINV_OK;
}

static featinv_status refuse(const char *path, const char *key, const char *what) {
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: tensor '%.100s': %s", path, key, what);
}

static featinv_status read_metadata(fi_safetensors *out, const json_t *metadata, const char *path) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return refuse(path, "__metadata__", "is not an object");
    json_object_foreach(
        (json_t *)(uintptr_t)metadata, key,
        value) if (!json_is_string(value)) return refuse(path, "__metadata__",
                                                         "holds something else than strings");
    out->metadata = json_dumps(metadata, JSON_COMPACT);
    return out->metadata ? FEATINV_OK : fi_fail_memory(json_object_size(metadata));
}

static featinv_status read_shape(fi_safetensors_entry *entry, const json_t *shape,
                                 const char *path) {
    if (!json_is_array(shape))
        return refuse(path, entry->key, "has no shape");
    if (json_array_size(shape) > FEATINV_MAX_DIMS)
        return refuse(path, entry->key, "has too many dimensions");
    entry->ndim = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < entry->ndim; i++) {
        const json_t *extent = json_array_get(shape, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return refuse(path, entry->key, "its shape is not made of counts");
        entry->shape[i] = json_integer_value(extent);
    }
    return FEATINV_OK;
}

/* Data offsets against the file and against dtype and shape. */
static featinv_status read_extent(fi_safetensors_entry *entry, const json_t *offsets,
                                  const fi_safetensors *header, const char *path) {
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return refuse(path, entry->key, "has no data_offsets");
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > header->file_bytes - header->header_bytes)
        return refuse(path, entry->key, "its data_offsets lie outside the file");
    size_t bytes;
    if (!fi_checked_size(&bytes, entry->shape, entry->ndim, fi_dtype_size(entry->dtype)) ||
        bytes != (uint64_t)(end - begin))
        return refuse(path, entry->key, "dtype and shape do not give the size of its data");
    entry->begin = header->header_bytes + (uint64_t)begin;
    entry->end = header->header_bytes + (uint64_t)end;
    return FEATINV_OK;
}

static featinv_status read_entry(fi_safetensors_entry *entry, const char *key, const json_t *value,
                                 const fi_safetensors *header, const char *path) {
    entry->key = strdup(key);
    if (!entry->key)
        return fi_fail_memory(strlen(key) + 1);
    if (json_object_size(value) != 3)
        return refuse(path, key, "is not described by dtype, shape and data_offsets");
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    for (int i = 0; i < NAMES && dtype; i++)
        if (strcmp(dtype, names[i].name) == 0)
            entry->dtype = names[i].dtype;
    if (entry->dtype == FEATINV_DTYPE_NONE)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: tensor '%.100s': dtype '%.20s' is not supported",
                       path, key, dtype ? dtype : "");
    featinv_status status = read_shape(entry, json_object_get(value, "shape"), path);
    return status ? status
                  : read_extent(entry, json_object_get(value, "data_offsets"), header, path);
}

static int by_place(const void *a, const void *b) {
    const fi_safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->key, y->key);
}

/* The tensors tile the data. */
static featinv_status check_tiling(const fi_safetensors *header, const char *path) {
    uint64_t at = header->header_bytes;
    for (int64_t i = 0; i < header->count; i++) {
        const fi_safetensors_entry *entry = header->entries + i;
        if (entry->begin != at)
            return refuse(path, entry->key,
                          entry->begin < at ? "overlaps another" : "a gap lies before its data");
        at = entry->end;
    }
    if (at != header->file_bytes)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: %llu bytes belong to no tensor", path,
                       (unsigned long long)(header->file_bytes - at));
    return FEATINV_OK;
}

static featinv_status read_entries(fi_safetensors *out, json_t *root, const char *path) {
    featinv_status status = FEATINV_OK;
    const char *key;
    json_t *value;
    if (!json_is_object(root))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: safetensors header is not an object", path);
    size_t count = json_object_size(root);
    out->entries = calloc(count + 1, sizeof *out->entries);
    if (!out->entries)
        return fi_fail_memory(count * sizeof *out->entries);
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            status = read_metadata(out, value, path);
        else
            status = read_entry(out->entries + out->count++, key, value, out, path);
        if (status)
            return status;
    }
    qsort(out->entries, (size_t)out->count, sizeof *out->entries, by_place);
    return check_tiling(out, path);
}

static featinv_status read_header(fi_safetensors *out, int fd, const char *path) {
    uint8_t prefix[PREFIX];
    char *text = NULL;
    json_t *root = NULL;
    json_error_t error;
    if (out->file_bytes < PREFIX + 2)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: too short for a safetensors file", path);
    featinv_status status = fi_file_read_at(fd, prefix, PREFIX, 0, path);
    if (status)
        return status;
    uint64_t size = fi_le64(prefix);
    if (size < 2 || size > HEADER_LIMIT || size > out->file_bytes - PREFIX)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: a safetensors header of %llu bytes", path,
                       (unsigned long long)size);
    out->header_bytes = PREFIX + size;
    text = malloc((size_t)size);
    if (!text)
        return fi_fail_memory((size_t)size);
    status = fi_file_read_at(fd, text, (size_t)size, PREFIX, path);
    if (!status)
        status = check_text(text, (size_t)size, path);
    if (status)
        goto done;
    root = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: safetensors header: %s at byte %d", path,
                         error.text, error.position);
        goto done;
    }
    status = read_entries(out, root, path);
done:
    json_decref(root);
    free(text);
    return status;
}

featinv_status fi_safetensors_open(fi_safetensors *out, const char *path) {
    int fd;
    memset(out, 0, sizeof *out);
    featinv_status status = fi_file_open(&fd, &out->file_bytes, path);
    if (!status)
        status = read_header(out, fd, path);
    fi_file_close(fd);
    if (status)
        fi_safetensors_close(out);
    return status;
}

void fi_safetensors_close(fi_safetensors *header) {
    for (int64_t i = 0; i < header->count; i++)
        free(header->entries[i].key);
    free(header->entries);
    free(header->metadata);
    header->metadata = NULL;
    header->entries = NULL;
    header->count = 0;
}
