#include "source.h"

#include "error.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1 << 16, CHUNK = 1 << 20 };

featinv_status fi_source_open(fi_source *source, int fd, const char *path, uint64_t offset,
                              uint64_t stored, uint64_t size, bool deflated, const uint32_t *crc) {
    memset(source, 0, sizeof *source);
    source->fd = fd;
    source->path = path;
    source->offset = offset;
    source->left = stored;
    source->size = size;
    source->checked = crc != NULL;
    source->wanted_crc = crc ? *crc : 0;
    if (!deflated)
        return stored == size ? FEATINV_OK
                              : fi_fail(FEATINV_ERROR_FORMAT, "%s: sizes contradict", path);
    source->input = malloc(WINDOW);
    if (!source->input || inflateInit2(&source->inflater, -MAX_WBITS) != Z_OK) {
        free(source->input);
        source->input = NULL;
        return fi_fail_memory(WINDOW);
    }
    source->deflated = true;
    return FEATINV_OK;
}

void fi_source_close(fi_source *source) {
    if (source->deflated)
        (void)inflateEnd(&source->inflater);
    free(source->input);
    memset(source, 0, sizeof *source);
}

static featinv_status refill(fi_source *source) {
    size_t count = source->left < WINDOW ? (size_t)source->left : WINDOW;
    featinv_status status =
        fi_file_read_at(source->fd, source->input, count, source->offset, source->path);
    if (status)
        return status;
    source->offset += count;
    source->left -= count;
    source->inflater.next_in = source->input;
    source->inflater.avail_in = (uInt)count;
    return FEATINV_OK;
}

/* Inflates up to size bytes; *done says how many, *ended that the stream is over. */
static featinv_status inflate_some(fi_source *source, uint8_t *bytes, size_t size, size_t *done,
                                   bool *ended) {
    z_stream *z = &source->inflater;
    z->next_out = bytes;
    z->avail_out = (uInt)size;
    *ended = false;
    do {
        featinv_status status = FEATINV_OK;
        if (z->avail_in == 0 && source->left > 0)
            status = refill(source);
        if (status)
            return status;
        int code = inflate(z, Z_NO_FLUSH);
        *ended = code == Z_STREAM_END;
        if (code == Z_MEM_ERROR)
            return fi_fail_memory(size);
        if (code == Z_BUF_ERROR && z->avail_in == 0 && source->left == 0)
            return fi_fail(FEATINV_ERROR_FORMAT, "%s: deflated data is truncated", source->path);
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            return fi_fail(FEATINV_ERROR_FORMAT, "%s: deflated data is damaged (%s)", source->path,
                           z->msg ? z->msg : "bad stream");
    } while (z->avail_out > 0 && !*ended);
    *done = size - z->avail_out;
    return FEATINV_OK;
}

static featinv_status read_chunk(fi_source *source, uint8_t *bytes, size_t size) {
    featinv_status status;
    if (source->deflated) {
        size_t done;
        bool ended;
        status = inflate_some(source, bytes, size, &done, &ended);
        if (!status && done < size)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: deflated data is shorter than declared",
                             source->path);
    } else {
        status = fi_file_read_at(source->fd, bytes, size, source->offset, source->path);
        source->offset += size;
        source->left -= size;
    }
    if (!status && source->checked)
        source->crc = (uint32_t)crc32(source->crc, bytes, (uInt)size);
    return status;
}

featinv_status fi_source_read(fi_source *source, void *bytes, size_t size) {
    if (size > source->size)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: ends early, %zu bytes wanted, %llu there",
                       source->path, size, (unsigned long long)source->size);
    uint8_t *at = bytes;
    while (size > 0) { /* in chunks that are still in the cache when the CRC reads them */
        size_t count = size < CHUNK ? size : CHUNK;
        featinv_status status = read_chunk(source, at, count);
        if (status)
            return status;
        at += count;
        size -= count;
        source->size -= count;
    }
    return FEATINV_OK;
}

featinv_status fi_source_finish(fi_source *source) {
    if (source->size > 0)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: %llu more bytes than the array needs",
                       source->path, (unsigned long long)source->size);
    if (source->deflated) {
        uint8_t extra;
        size_t done;
        bool ended;
        featinv_status status = inflate_some(source, &extra, 1, &done, &ended);
        if (status)
            return status;
        if (done > 0 || !ended || source->inflater.avail_in > 0 || source->left > 0)
            return fi_fail(FEATINV_ERROR_FORMAT, "%s: deflated data is longer than declared",
                           source->path);
    }
    if (source->checked && source->crc != source->wanted_crc)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: CRC is %08x, not %08x as stored", source->path,
                       (unsigned)source->crc, (unsigned)source->wanted_crc);
    return FEATINV_OK;
}
