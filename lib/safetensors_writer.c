#include "safetensors_writer.h"

#include "bytes.h"
#include "error.h"
#include "file.h"
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

enum { PREFIX = 8, SEAL = FI_HASH_TEXT - 1 };

struct fi_safetensors_writer {
    fi_writer *file;
    fi_hash *hash;
    uint64_t written, total; /* bytes of the file: so far, and once it is whole */
    bool sealable;           /* the last tensor can hold a seal */
};

/* One entry of the header; *at: where its data begins, relative to all data, moved on. */
static featinv_status describe(json_t *root, const fi_safetensors_entry *entry, uint64_t *at) {
    size_t bytes;
    const char *dtype = fi_safetensors_dtype_name(entry->dtype);
    if (!dtype || json_object_get(root, entry->key) ||
        !fi_checked_size(&bytes, entry->shape, entry->ndim, fi_dtype_size(entry->dtype)) ||
        bytes > UINT64_MAX / 4 - *at)
        return fi_fail(FEATINV_ERROR_INTERNAL, "%s cannot be stored as safetensors", entry->key);
    json_t *shape = json_array();
    for (int32_t i = 0; i < entry->ndim; i++)
        (void)json_array_append_new(shape, json_integer(entry->shape[i]));
    json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                              "data_offsets", (json_int_t)*at, (json_int_t)(*at + bytes));
    if (!value || json_object_set_new(root, entry->key, value) != 0)
        return fi_fail_memory(sizeof *value);
    *at += bytes;
    return FEATINV_OK;
}

/* The header's text, padded so that data begins at a multiple of eight. */
static featinv_status make_header(char **text, size_t *size, uint64_t *data,
                                  const fi_safetensors_entry *entries, int64_t count,
                                  const json_t *metadata) {
    json_t *root = json_object();
    featinv_status status = root ? FEATINV_OK : fi_fail_memory(sizeof(json_t *));
    *data = 0;
    if (!status && metadata && json_object_set_new(root, "__metadata__", json_deep_copy(metadata)))
        status = fi_fail_memory(json_object_size(metadata));
    for (int64_t i = 0; !status && i < count; i++)
        status = describe(root, &entries[i], data);
    char *dumped = status ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (status)
        return status;
    size_t length = dumped ? strlen(dumped) : 0;
    *size = (length + 7) / 8 * 8;
    *text = dumped ? realloc(dumped, *size + 1) : NULL;
    if (!*text) {
        free(dumped);
        return fi_fail_memory(*size);
    }
    memset(*text + length, ' ', *size - length);
    return FEATINV_OK;
}

static void put(fi_safetensors_writer *writer, const void *bytes, size_t size) {
    if (writer->hash)
        fi_hash_update(writer->hash, bytes, size);
    fi_writer_write(writer->file, bytes, size);
    writer->written += size;
}

featinv_status fi_safetensors_writer_open(fi_safetensors_writer **out, const char *path,
                                          const fi_safetensors_entry *entries, int64_t count,
                                          const json_t *metadata) {
    char *text = NULL;
    size_t size = 0;
    uint8_t prefix[PREFIX];
    *out = NULL;
    fi_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return fi_fail_memory(sizeof *writer);
    featinv_status status = make_header(&text, &size, &writer->total, entries, count, metadata);
    if (!status)
        status = fi_hash_create(&writer->hash);
    if (!status)
        status = fi_writer_open(&writer->file, path);
    if (status) {
        fi_safetensors_writer_abort(writer);
        free(text);
        return status;
    }
    writer->total += PREFIX + size;
    const fi_safetensors_entry *last = count ? &entries[count - 1] : NULL;
    writer->sealable =
        last && last->dtype == FEATINV_DTYPE_U8 && last->ndim == 1 && last->shape[0] == SEAL;
    fi_put_le64(prefix, size);
    put(writer, prefix, PREFIX);
    put(writer, text, size);
    free(text);
    *out = writer;
    return FEATINV_OK;
}

void fi_safetensors_writer_write(fi_safetensors_writer *writer, const void *bytes, size_t size) {
    put(writer, bytes, size);
}

featinv_status fi_safetensors_writer_seal(fi_safetensors_writer *writer) {
    char text[FI_HASH_TEXT];
    if (!writer->sealable || !writer->hash || writer->written + SEAL != writer->total)
        return fi_fail(FEATINV_ERROR_INTERNAL, "a safetensors file has no place for its seal");
    fi_hash_finish(text, writer->hash);
    writer->hash = NULL;
    if (strlen(text) != SEAL)
        return fi_fail(FEATINV_ERROR_MEMORY, "no SHA-256 from OpenSSL");
    put(writer, text, SEAL);
    return FEATINV_OK;
}

featinv_status fi_safetensors_writer_commit(char sha256[FI_HASH_TEXT], uint64_t *bytes,
                                            fi_safetensors_writer *writer) {
    char text[FI_HASH_TEXT] = "";
    if (writer->written != writer->total) {
        featinv_status status =
            fi_fail(FEATINV_ERROR_INTERNAL, "a safetensors file got %llu of its %llu bytes",
                    (unsigned long long)writer->written, (unsigned long long)writer->total);
        fi_safetensors_writer_abort(writer);
        return status;
    }
    if (writer->hash)
        fi_hash_finish(text, writer->hash);
    writer->hash = NULL;
    if (sha256)
        memcpy(sha256, text, sizeof text);
    if (bytes)
        *bytes = writer->total;
    featinv_status status = fi_writer_commit(writer->file);
    free(writer);
    return status;
}

void fi_safetensors_writer_abort(fi_safetensors_writer *writer) {
    if (!writer)
        return;
    fi_writer_abort(writer->file);
    fi_hash_destroy(writer->hash);
    free(writer);
}

featinv_status fi_safetensors_check_seal(const fi_safetensors *header, int fd, const char *path) {
    enum { BLOCK = 1 << 20 };
    const fi_safetensors_entry *last = header->count ? &header->entries[header->count - 1] : NULL;
    char stored[FI_HASH_TEXT] = "", found[FI_HASH_TEXT];
    fi_hash *hash = NULL;
    if (!last || last->dtype != FEATINV_DTYPE_U8 || last->end - last->begin != SEAL)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: does not end in a checksum", path);
    uint8_t *block = malloc(BLOCK);
    featinv_status status = block ? fi_hash_create(&hash) : fi_fail_memory(BLOCK);
    if (!status)
        status = fi_file_read_at(fd, stored, SEAL, last->begin, path);
    for (uint64_t at = 0; !status && at < last->begin; at += BLOCK) {
        size_t part = last->begin - at < BLOCK ? (size_t)(last->begin - at) : BLOCK;
        status = fi_file_read_at(fd, block, part, at, path);
        if (!status)
            fi_hash_update(hash, block, part);
    }
    if (!status) {
        fi_hash_finish(found, hash);
        hash = NULL;
        if (strcmp(stored, found) != 0)
            status = fi_fail(FEATINV_ERROR_HASH, "%s: SHA-256 %s, its checksum says %.64s", path,
                             found, stored);
    }
    fi_hash_destroy(hash);
    free(block);
    return status;
}
