#include "zip.h"

#include "bytes.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

/* Fields as in PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.5.3. ZIP64 fields are written only where a
 * number needs them, which every reader of plain archives thanks us for. */
enum {
    LOCAL_BYTES = 30,
    EXTRA64_LOCAL = 20,
    CENTRAL_BYTES = 46,
    EXTRA64_CENTRAL = 28,
    FLAG_UTF8 = 1 << 11,
    DATE_1980 = 1 << 5 | 1 /* the format's first day: equal arrays give equal files */
};

typedef struct entry {
    char *name;
    uint64_t header, stored, size;
    uint32_t crc;
    uint16_t method, flags;
} entry;

struct fi_zip_writer {
    fi_writer *file;
    uint64_t offset;
    entry *entries;
    size_t count, capacity;
};

featinv_status fi_zip_writer_open(fi_zip_writer **out, const char *path) {
    *out = NULL;
    fi_zip_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return fi_fail_memory(sizeof *writer);
    featinv_status status = fi_writer_open(&writer->file, path);
    if (status)
        free(writer);
    else
        *out = writer;
    return status;
}

static void free_entries(fi_zip_writer *writer) {
    for (size_t i = 0; i < writer->count; i++)
        free(writer->entries[i].name);
    free(writer->entries);
    free(writer);
}

void fi_zip_writer_abort(fi_zip_writer *writer) {
    if (!writer)
        return;
    fi_writer_abort(writer->file);
    free_entries(writer);
}

static void put(fi_zip_writer *writer, const void *bytes, size_t size) {
    fi_writer_write(writer->file, bytes, size);
    writer->offset += size;
}

/* ---------------------------------------------------------------- members -------------------- */

static uint32_t checksum(uint32_t crc, const uint8_t *bytes, size_t size) {
    while (size > 0) {
        uInt count = size < (1u << 30) ? (uInt)size : 1u << 30;
        crc = (uint32_t)crc32(crc, bytes, count);
        bytes += count;
        size -= count;
    }
    return crc;
}

static bool local_needs64(const entry *e) {
    return e->size >= 0xf0000000u; /* leaves room for data that deflate makes longer */
}

/* The local header: written once before the data, and again when the deflated size is known. */
static size_t format_local(uint8_t *bytes, const entry *e) {
    bool large = local_needs64(e);
    size_t name = strlen(e->name);
    memset(bytes, 0, LOCAL_BYTES);
    fi_put_le32(bytes, 0x04034b50);
    fi_put_le16(bytes + 4, large ? 45 : 20);
    fi_put_le16(bytes + 6, e->flags);
    fi_put_le16(bytes + 8, e->method);
    fi_put_le16(bytes + 12, DATE_1980);
    fi_put_le32(bytes + 14, e->crc);
    fi_put_le32(bytes + 18, large ? UINT32_MAX : (uint32_t)e->stored);
    fi_put_le32(bytes + 22, large ? UINT32_MAX : (uint32_t)e->size);
    fi_put_le16(bytes + 26, (uint16_t)name);
    fi_put_le16(bytes + 28, large ? EXTRA64_LOCAL : 0);
    memcpy(bytes + LOCAL_BYTES, e->name, name);
    if (!large)
        return LOCAL_BYTES + name;
    uint8_t *extra = bytes + LOCAL_BYTES + name;
    fi_put_le16(extra, 1);
    fi_put_le16(extra + 2, EXTRA64_LOCAL - 4);
    fi_put_le64(extra + 4, e->size);
    fi_put_le64(extra + 12, e->stored);
    return LOCAL_BYTES + name + EXTRA64_LOCAL;
}

static featinv_status deflate_block(fi_zip_writer *writer, z_stream *z, const uint8_t *bytes,
                                    size_t size, bool last) {
    uint8_t out[1 << 14];
    do {
        uInt count = size < (1u << 30) ? (uInt)size : 1u << 30;
        z->next_in = (Bytef *)(uintptr_t)bytes; /* zlib reads only, its field lacks the const */
        z->avail_in = count;
        size -= count;
        do {
            z->next_out = out;
            z->avail_out = sizeof out;
            if (deflate(z, last && size == 0 ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR)
                return fi_fail(FEATINV_ERROR_INTERNAL, "zlib refused to deflate");
            put(writer, out, sizeof out - z->avail_out);
        } while (z->avail_out == 0);
        if (size > 0)
            bytes += count;
    } while (size > 0);
    return FEATINV_OK;
}

static featinv_status put_deflated(fi_zip_writer *writer, const void *head, size_t head_bytes,
                                   const void *data, size_t data_bytes) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return fi_fail_memory(1 << 18);
    featinv_status status = deflate_block(writer, &z, head, head_bytes, false);
    if (!status)
        status = deflate_block(writer, &z, data, data_bytes, true);
    (void)deflateEnd(&z);
    return status;
}

/* A fresh entry for "NAME.npy". */
static featinv_status add_entry(entry **out, fi_zip_writer *writer, const char *name) {
    if (writer->count == writer->capacity) {
        size_t capacity = writer->capacity ? 2 * writer->capacity : 8;
        entry *entries = realloc(writer->entries, capacity * sizeof *entries);
        if (!entries)
            return fi_fail_memory(capacity * sizeof *entries);
        writer->entries = entries;
        writer->capacity = capacity;
    }
    size_t length = strlen(name);
    entry *e = writer->entries + writer->count;
    memset(e, 0, sizeof *e);
    e->name = malloc(length + 5);
    if (!e->name)
        return fi_fail_memory(length + 5);
    memcpy(e->name, name, length);
    memcpy(e->name + length, ".npy", 5);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] >= 0x80)
            e->flags = FLAG_UTF8;
    writer->count++;
    *out = e;
    return FEATINV_OK;
}

featinv_status fi_zip_writer_add(fi_zip_writer *writer, const char *name, const void *head,
                                 size_t head_bytes, const void *data, size_t data_bytes,
                                 bool deflated) {
    entry *e = NULL;
    uint8_t *local = NULL;
    featinv_status status = add_entry(&e, writer, name);
    if (status)
        return status;
    size_t capacity = LOCAL_BYTES + strlen(e->name) + EXTRA64_LOCAL;
    local = malloc(capacity);
    if (!local)
        return fi_fail_memory(capacity);
    e->header = writer->offset;
    e->method = deflated ? FI_ZIP_DEFLATED : FI_ZIP_STORED;
    e->size = (uint64_t)head_bytes + data_bytes;
    e->stored = e->size;
    e->crc = checksum(checksum(0, head, head_bytes), data, data_bytes);
    put(writer, local, format_local(local, e));
    uint64_t begin = writer->offset;
    if (deflated) {
        status = put_deflated(writer, head, head_bytes, data, data_bytes);
        e->stored = writer->offset - begin;
        fi_writer_patch(writer->file, e->header, local, format_local(local, e));
    } else {
        put(writer, head, head_bytes);
        put(writer, data, data_bytes);
    }
    free(local);
    return status;
}

/* ---------------------------------------------------------------- directory ------------------ */

static size_t format_central(uint8_t *bytes, const entry *e) {
    bool large = e->size >= UINT32_MAX || e->stored >= UINT32_MAX || e->header >= UINT32_MAX;
    size_t name = strlen(e->name);
    memset(bytes, 0, CENTRAL_BYTES);
    fi_put_le32(bytes, 0x02014b50);
    fi_put_le16(bytes + 4, 3 << 8 | 45); /* made on Unix, by version 4.5 */
    fi_put_le16(bytes + 6, large ? 45 : 20);
    fi_put_le16(bytes + 8, e->flags);
    fi_put_le16(bytes + 10, e->method);
    fi_put_le16(bytes + 14, DATE_1980);
    fi_put_le32(bytes + 16, e->crc);
    fi_put_le32(bytes + 20, large ? UINT32_MAX : (uint32_t)e->stored);
    fi_put_le32(bytes + 24, large ? UINT32_MAX : (uint32_t)e->size);
    fi_put_le16(bytes + 28, (uint16_t)name);
    fi_put_le16(bytes + 30, large ? EXTRA64_CENTRAL : 0);
    fi_put_le32(bytes + 38, (uint32_t)0100644 << 16); /* a plain file, rw-r--r-- */
    fi_put_le32(bytes + 42, large ? UINT32_MAX : (uint32_t)e->header);
    memcpy(bytes + CENTRAL_BYTES, e->name, name);
    if (!large)
        return CENTRAL_BYTES + name;
    uint8_t *extra = bytes + CENTRAL_BYTES + name;
    fi_put_le16(extra, 1);
    fi_put_le16(extra + 2, EXTRA64_CENTRAL - 4);
    fi_put_le64(extra + 4, e->size);
    fi_put_le64(extra + 12, e->stored);
    fi_put_le64(extra + 20, e->header);
    return CENTRAL_BYTES + name + EXTRA64_CENTRAL;
}

static void put_end64(fi_zip_writer *writer, uint64_t offset, uint64_t bytes) {
    uint8_t end[56 + 20] = {0};
    fi_put_le32(end, 0x06064b50);
    fi_put_le64(end + 4, 56 - 12);
    fi_put_le16(end + 12, 3 << 8 | 45);
    fi_put_le16(end + 14, 45);
    fi_put_le64(end + 24, writer->count);
    fi_put_le64(end + 32, writer->count);
    fi_put_le64(end + 40, bytes);
    fi_put_le64(end + 48, offset);
    fi_put_le32(end + 56, 0x07064b50); /* the locator */
    fi_put_le64(end + 64, offset + bytes);
    fi_put_le32(end + 72, 1);
    put(writer, end, sizeof end);
}

static void put_end(fi_zip_writer *writer, uint64_t offset, uint64_t bytes) {
    uint8_t end[22] = {0};
    bool large = offset >= UINT32_MAX || bytes >= UINT32_MAX || writer->count >= UINT16_MAX;
    if (large)
        put_end64(writer, offset, bytes);
    uint16_t count = large ? UINT16_MAX : (uint16_t)writer->count;
    fi_put_le32(end, 0x06054b50);
    fi_put_le16(end + 8, count);
    fi_put_le16(end + 10, count);
    fi_put_le32(end + 12, large ? UINT32_MAX : (uint32_t)bytes);
    fi_put_le32(end + 16, large ? UINT32_MAX : (uint32_t)offset);
    put(writer, end, sizeof end);
}

featinv_status fi_zip_writer_commit(fi_zip_writer *writer) {
    uint64_t offset = writer->offset;
    for (size_t i = 0; i < writer->count; i++) {
        const entry *e = writer->entries + i;
        size_t capacity = CENTRAL_BYTES + strlen(e->name) + EXTRA64_CENTRAL;
        uint8_t *bytes = malloc(capacity);
        if (!bytes) {
            fi_zip_writer_abort(writer);
            return fi_fail_memory(capacity);
        }
        put(writer, bytes, format_central(bytes, e));
        free(bytes);
    }
    put_end(writer, offset, writer->offset - offset);
    featinv_status status = fi_writer_commit(writer->file);
    free_entries(writer);
    return status;
}
