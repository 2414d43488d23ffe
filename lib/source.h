/* A stretch of a file, plain or deflated, read once from front to back. */
#ifndef FI_SOURCE_H
#define FI_SOURCE_H

#include "featinv.h"

#include <stdbool.h>
#include <zlib.h>

typedef struct fi_source {
    const char *path; /* borrowed, for error texts */
    int fd;           /* borrowed */
    uint64_t offset;  /* of the next byte in the file */
    uint64_t left;    /* bytes in the file not yet read */
    uint64_t size;    /* bytes of content not yet read */
    bool deflated;    /* raw deflate, as zip holds it */
    bool checked;     /* content has a CRC */
    uint32_t crc, wanted_crc;
    z_stream inflater;
    uint8_t *input; /* window of the deflated bytes */
} fi_source;

/* stored: bytes in the file; size: bytes of content; crc: of the content, NULL for none. */
featinv_status fi_source_open(fi_source *source, int fd, const char *path, uint64_t offset,
                              uint64_t stored, uint64_t size, bool deflated, const uint32_t *crc);
/* Reads exactly size bytes; FORMAT when there are fewer. */
featinv_status fi_source_read(fi_source *source, void *bytes, size_t size);
/* Checks that all was read, that the deflated stream ends there, and the CRC. */
featinv_status fi_source_finish(fi_source *source);
void fi_source_close(fi_source *source);

#endif
