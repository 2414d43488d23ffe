/* The header of a safetensors file, checked as hostile input. */
#ifndef FI_SAFETENSORS_H
#define FI_SAFETENSORS_H

#include "featinv.h"

typedef struct fi_safetensors_entry {
    char *key;
    featinv_dtype dtype;
    int32_t ndim;
    int64_t shape[FEATINV_MAX_DIMS];
    uint64_t begin, end; /* file offsets of the data, from the start of the file */
} fi_safetensors_entry;

typedef struct fi_safetensors {
    fi_safetensors_entry *entries; /* sorted by begin; they tile the data without gap or overlap */
    int64_t count;
    uint64_t header_bytes; /* length of prefix and header: where data begins */
    uint64_t file_bytes;
    char *metadata; /* "__metadata__" as JSON text, an object of strings; NULL without one */
} fi_safetensors;

/* Reads and checks the header of a file that is file_bytes long: header at most 100 MB, offsets
 * inside the file, shape times dtype equal to the extent, no overlap, no gap, no duplicate key.
 * Errors: NOT_FOUND, READ, FORMAT, MEMORY. */
featinv_status fi_safetensors_open(fi_safetensors *out, const char *path);
void fi_safetensors_close(fi_safetensors *header);

/* The format's name of a dtype ("F32"), NULL for one that it lacks. */
const char *fi_safetensors_dtype_name(featinv_dtype dtype);

#endif
