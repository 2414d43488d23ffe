#include "zip.h"

#include "bytes.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

/* Names and offsets of fields are those of PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.5.3. */
enum {
    LOCAL_SIGNATURE = 0x04034b50,
    CENTRAL_SIGNATURE = 0x02014b50,
    END_SIGNATURE = 0x06054b50,
    END64_SIGNATURE = 0x06064b50,
    LOCATOR_SIGNATURE = 0x07064b50,
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    FLAGS_REFUSED = 1 | 1 << 5 | 1 << 6 | 1 << 13, /* encrypted, patched, masked */
    FLAG_DESCRIPTOR = 1 << 3
};
static const uint64_t total_limit = (uint64_t)8 << 30;
static const uint64_t directory_limit = (uint64_t)64 << 20;

static featinv_status damaged(const fi_zip *zip, const char *what) {
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: %s", zip->path, what);
}

/* ---------------------------------------------------------------- end of the directory ------- */

typedef struct directory {
    uint64_t offset, bytes, count;
} directory;

/* The record that ends every archive: searched backwards, its comment must fill the file. */
static featinv_status find_end(uint64_t *offset, uint8_t end[END_BYTES], const fi_zip *zip,
                               uint64_t file_bytes) {
    enum { MOST = END_BYTES + 0xffff };
    memset(end, 0, END_BYTES);
    *offset = 0;
    size_t size = file_bytes < MOST ? (size_t)file_bytes : MOST;
    if (size < END_BYTES)
        return damaged(zip, "too short");
    uint8_t *tail = malloc(size);
    if (!tail)
        return fi_fail_memory(size);
    featinv_status status = fi_file_read_at(zip->fd, tail, size, file_bytes - size, zip->path);
    if (!status) {
        status = damaged(zip, "has no end record; truncated?");
        for (size_t i = size - END_BYTES + 1; i-- > 0;)
            if (fi_le32(tail + i) == END_SIGNATURE &&
                fi_le16(tail + i + 20) == size - i - END_BYTES) {
                memcpy(end, tail + i, END_BYTES);
                *offset = file_bytes - size + i;
                status = FEATINV_OK;
                break;
            }
    }
    free(tail);
    return status;
}

/* Replaces the fields of the end record by those of the ZIP64 one where that exists. */
static featinv_status read_end64(directory *out, uint64_t *end_offset, const fi_zip *zip) {
    uint8_t locator[LOCATOR_BYTES], end[END64_BYTES];
    if (*end_offset < LOCATOR_BYTES + END64_BYTES)
        return FEATINV_OK;
    featinv_status status =
        fi_file_read_at(zip->fd, locator, sizeof locator, *end_offset - LOCATOR_BYTES, zip->path);
    if (status || fi_le32(locator) != LOCATOR_SIGNATURE)
        return status;
    uint64_t offset = fi_le64(locator + 8);
    if (fi_le32(locator + 4) != 0 || fi_le32(locator + 16) > 1 ||
        offset > *end_offset - LOCATOR_BYTES - END64_BYTES)
        return damaged(zip, "the ZIP64 locator is damaged");
    status = fi_file_read_at(zip->fd, end, sizeof end, offset, zip->path);
    if (status)
        return status;
    uint64_t length = fi_le64(end + 4); /* of what follows this field */
    if (fi_le32(end) != END64_SIGNATURE || fi_le32(end + 16) != 0 || fi_le32(end + 20) != 0 ||
        fi_le64(end + 24) != fi_le64(end + 32) ||
        length != *end_offset - LOCATOR_BYTES - offset - 12)
        return damaged(zip, "the ZIP64 end record is damaged");
    out->count = fi_le64(end + 32);
    out->bytes = fi_le64(end + 40);
    out->offset = fi_le64(end + 48);
    *end_offset = offset;
    return FEATINV_OK;
}

static featinv_status find_directory(directory *out, const fi_zip *zip, uint64_t file_bytes) {
    uint8_t end[END_BYTES];
    uint64_t offset;
    featinv_status status = find_end(&offset, end, zip, file_bytes);
    if (status)
        return status;
    if (fi_le16(end + 4) != 0 || fi_le16(end + 6) != 0 || fi_le16(end + 8) != fi_le16(end + 10))
        return damaged(zip, "spans several disks");
    out->count = fi_le16(end + 10);
    out->bytes = fi_le32(end + 12);
    out->offset = fi_le32(end + 16);
    status = read_end64(out, &offset, zip);
    if (status)
        return status;
    if (out->bytes > offset || out->offset != offset - out->bytes ||
        out->count > out->bytes / CENTRAL_BYTES)
        return damaged(zip, "the directory's place or size is wrong");
    if (out->bytes > directory_limit)
        return fi_fail(FEATINV_ERROR_LIMIT, "%s: npz: a directory of %llu bytes", zip->path,
                       (unsigned long long)out->bytes);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- entries -------------------- */

/* Replaces, in the order of the format, those fields that are all ones by the ZIP64 extra field's.
 */
static bool apply_extra64(uint64_t *fields[], const bool wanted[], int count, const uint8_t *extra,
                          size_t bytes) {
    bool any = false;
    for (int i = 0; i < count; i++)
        any = any || wanted[i];
    while (any && bytes >= 4) {
        size_t length = fi_le16(extra + 2);
        if (length > bytes - 4)
            return false;
        if (fi_le16(extra) == 1) {
            const uint8_t *at = extra + 4;
            for (int i = 0; i < count; i++) {
                if (!wanted[i])
                    continue;
                if (length < 8)
                    return false;
                *fields[i] = fi_le64(at);
                at += 8;
                length -= 8;
            }
            return true;
        }
        extra += 4 + length;
        bytes -= 4 + length;
    }
    return !any;
}

/* Sizes that the deflate format can reach: at most 1032 bytes out of one (zlib's documentation). */
static bool plausible(const fi_zip_member *m) {
    if (m->method == FI_ZIP_STORED)
        return m->stored == m->size;
    return m->stored > 0 && m->size / 1032 <= m->stored;
}

/* Reads one entry of the directory at bytes; *used is its length. */
static featinv_status read_entry(fi_zip_member *m, size_t *used, const uint8_t *bytes, size_t left,
                                 const fi_zip *zip) {
    if (left < CENTRAL_BYTES || fi_le32(bytes) != CENTRAL_SIGNATURE)
        return damaged(zip, "the directory is damaged");
    size_t name = fi_le16(bytes + 28), extra = fi_le16(bytes + 30), comment = fi_le16(bytes + 32);
    *used = CENTRAL_BYTES + name + extra + comment;
    if (*used > left || name == 0 || memchr(bytes + CENTRAL_BYTES, 0, name))
        return damaged(zip, "the directory is damaged");
    m->flags = fi_le16(bytes + 8);
    m->method = fi_le16(bytes + 10);
    m->crc = fi_le32(bytes + 16);
    m->stored = fi_le32(bytes + 20);
    m->size = fi_le32(bytes + 24);
    m->header = fi_le32(bytes + 42);
    uint64_t *fields[3] = {&m->size, &m->stored, &m->header};
    bool wanted[3] = {m->size == UINT32_MAX, m->stored == UINT32_MAX, m->header == UINT32_MAX};
    if (!apply_extra64(fields, wanted, 3, bytes + CENTRAL_BYTES + name, extra) ||
        fi_le16(bytes + 34) != 0)
        return damaged(zip, "the directory is damaged");

    m->name = malloc(name + 1);
    if (!m->name)
        return fi_fail_memory(name + 1);
    memcpy(m->name, bytes + CENTRAL_BYTES, name);
    m->name[name] = 0;
    if (m->flags & FLAGS_REFUSED)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: member %s is encrypted", zip->path, m->name);
    if (m->method != FI_ZIP_STORED && m->method != FI_ZIP_DEFLATED)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: member %s: compression method %u", zip->path,
                       m->name, m->method);
    if (!plausible(m))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: member %s: its sizes contradict", zip->path,
                       m->name);
    return FEATINV_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const fi_zip_member *const *)a)->name,
                  (*(const fi_zip_member *const *)b)->name);
}

static int by_place(const void *a, const void *b) {
    uint64_t x = (*(const fi_zip_member *const *)a)->header;
    uint64_t y = (*(const fi_zip_member *const *)b)->header;
    return (x > y) - (x < y);
}

/* Names are unique, members lie one behind the other, and together they stay under the limit. */
static featinv_status check_members(fi_zip *zip, uint64_t directory_offset) {
    featinv_status status = FEATINV_OK;
    uint64_t total = 0;
    fi_zip_member **sorted = malloc((zip->count + 1) * sizeof(*sorted));
    if (!sorted)
        return fi_fail_memory(zip->count * sizeof(*sorted));
    for (size_t i = 0; i < zip->count; i++)
        sorted[i] = zip->members + i;
    qsort(sorted, zip->count, sizeof(*sorted), by_name);
    for (size_t i = 0; i < zip->count && !status; i++) {
        if (i > 0 && strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: two members are named %s", zip->path,
                             sorted[i]->name);
        if (!status && sorted[i]->size > total_limit - total)
            status = fi_fail(FEATINV_ERROR_LIMIT, "%s: npz: declares more than 8 GiB", zip->path);
        total += status ? 0 : sorted[i]->size;
    }
    qsort(sorted, zip->count, sizeof(*sorted), by_place);
    for (size_t i = 0; i < zip->count && !status; i++) {
        fi_zip_member *m = sorted[i];
        m->end = i + 1 < zip->count ? sorted[i + 1]->header : directory_offset;
        if (m->header > m->end || m->end - m->header < LOCAL_BYTES ||
            m->stored > m->end - m->header - LOCAL_BYTES)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: member %s overlaps what follows it",
                             zip->path, m->name);
    }
    free(sorted);
    return status;
}

void fi_zip_close(fi_zip *zip) {
    for (size_t i = 0; i < zip->count; i++)
        free(zip->members[i].name);
    free(zip->members);
    zip->members = NULL;
    zip->count = 0;
}

featinv_status fi_zip_open(fi_zip *out, int fd, uint64_t file_bytes, const char *path) {
    directory place = {0, 0, 0};
    uint8_t *bytes = NULL;
    memset(out, 0, sizeof *out);
    out->fd = fd;
    out->path = path;
    featinv_status status = find_directory(&place, out, file_bytes);
    if (status)
        return status;

    size_t count = (size_t)place.count, left = (size_t)place.bytes;
    bytes = malloc(left + 1);
    out->members = calloc(count + 1, sizeof(*out->members));
    if (!bytes || !out->members) {
        status = fi_fail_memory(left + count * sizeof(*out->members));
        goto done;
    }
    status = fi_file_read_at(fd, bytes, left, place.offset, path);
    const uint8_t *at = bytes;
    while (!status && out->count < count) {
        size_t used = 0;
        status = read_entry(out->members + out->count++, &used, at, left, out);
        at += used;
        left -= status ? 0 : used;
    }
    if (!status && left > 0)
        status = damaged(out, "the directory holds more than its members");
    if (!status)
        status = check_members(out, place.offset);
done:
    free(bytes);
    if (status)
        fi_zip_close(out);
    return status;
}

/* ---------------------------------------------------------------- content -------------------- */

/* A local header that says something else than the directory is a trick or damage. Behind a data
 * descriptor its sizes and CRC may be zero. */
static featinv_status check_local(const fi_zip *zip, const fi_zip_member *m, const uint8_t *local,
                                  const uint8_t *name, size_t name_bytes, size_t extra_bytes) {
    uint64_t stored = fi_le32(local + 18), size = fi_le32(local + 22);
    uint64_t *fields[2] = {&size, &stored};
    bool wanted[2] = {size == UINT32_MAX, stored == UINT32_MAX};
    bool fits = fi_le32(local) == LOCAL_SIGNATURE && fi_le16(local + 8) == m->method &&
                (fi_le16(local + 6) & FLAGS_REFUSED) == 0 && strlen(m->name) == name_bytes &&
                memcmp(m->name, name, name_bytes) == 0 &&
                apply_extra64(fields, wanted, 2, name + name_bytes, extra_bytes);
    if (fits && !(fi_le16(local + 6) & FLAG_DESCRIPTOR))
        fits = stored == m->stored && size == m->size && fi_le32(local + 14) == m->crc;
    if (!fits)
        return fi_fail(FEATINV_ERROR_FORMAT,
                       "%s: npz: member %s: its header and the directory "
                       "contradict",
                       zip->path, m->name);
    return FEATINV_OK;
}

featinv_status fi_zip_source(fi_source *source, const fi_zip *zip, const fi_zip_member *member) {
    uint8_t local[LOCAL_BYTES], *rest = NULL;
    memset(source, 0, sizeof *source);
    featinv_status status =
        fi_file_read_at(zip->fd, local, sizeof local, member->header, zip->path);
    if (status)
        return status;
    size_t name = fi_le16(local + 26), extra = fi_le16(local + 28);
    uint64_t room = member->end - member->header;
    if (LOCAL_BYTES + name + extra > room || member->stored > room - LOCAL_BYTES - name - extra)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npz: member %s overlaps what follows it",
                       zip->path, member->name);
    rest = malloc(name + extra + 1);
    if (!rest)
        return fi_fail_memory(name + extra + 1);
    uint64_t offset = member->header + LOCAL_BYTES;
    status = fi_file_read_at(zip->fd, rest, name + extra, offset, zip->path);
    if (!status)
        status = check_local(zip, member, local, rest, name, extra);
    if (!status)
        status = fi_source_open(source, zip->fd, zip->path, offset + name + extra, member->stored,
                                member->size, member->method == FI_ZIP_DEFLATED, &member->crc);
    free(rest);
    return status;
}
