/* The header of NumPy's .npy format, versions 1 to 3 (numpy.lib.format). */
#ifndef FI_NPY_H
#define FI_NPY_H

#include "featinv.h"

#include <stdbool.h>

typedef struct fi_npy {
    featinv_dtype dtype;
    bool fortran; /* first index fastest */
    bool swapped; /* the other endianness */
    int32_t ndim;
    int64_t shape[FEATINV_MAX_DIMS];
    size_t header_bytes, data_bytes;
} fi_npy;

enum { FI_NPY_PREFIX = 12, FI_NPY_HEADER_LIMIT = 1 << 16, FI_NPY_HEADER_MOST = 512 };

/* Whether bytes begin like an .npy file. */
bool fi_npy_magic(const uint8_t *bytes, size_t size);

/* The first bytes of a file → where the text of the header begins and where it ends.
 * Errors: FORMAT, LIMIT. */
featinv_status fi_npy_prefix(size_t *begin, size_t *end, const uint8_t bytes[FI_NPY_PREFIX],
                             const char *path);

/* Reads the text of a header: a Python dict literal of descr, fortran_order and shape. Sets all but
 * header_bytes. Errors: FORMAT, SHAPE. */
featinv_status fi_npy_parse(fi_npy *out, const char *text, size_t size, const char *path);

/* Writes a version 1 header, 64-byte aligned; returns its length, 0 when the format has no such
 * dtype (bfloat16). */
size_t fi_npy_format(char header[FI_NPY_HEADER_MOST], featinv_dtype dtype, int32_t ndim,
                     const int64_t *shape);
/* The same for a text of so many bytes, |Sn without dimensions. */
size_t fi_npy_format_text(char header[FI_NPY_HEADER_MOST], uint16_t length);

#endif
