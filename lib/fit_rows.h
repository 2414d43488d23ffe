/* The rows of a fit: positions of feature maps, or rows as given. */
#ifndef FI_FIT_ROWS_H
#define FI_FIT_ROWS_H

#include "featinv.h"

#include <stdbool.h>

typedef struct fi_rows {
    float *data; /* (count, channels) */
    int64_t count, channels;
    int64_t given;  /* rows of the features, of which `count` were drawn */
    int64_t *index; /* (count): which of them, ascending */
    int32_t ndim;   /* of the positions: 3 (N, H, W), 1 (n) */
    int64_t shape[3];
} fi_rows;

/* features: F32 (N, C, H, W), whose positions become rows in the order image, row, column, or (n,
 * C). max_rows below the rows given: that many are drawn without replacement, each set alike
 * likely, by the seed; 0: all. unit: rows divided by their length, float64 rounded once.
 * Errors: SHAPE; LIMIT (2^31 rows); VALUE naming the first NaN or infinity, or the first row that
 * has no direction of its own: all zeros, or (for C above 1) the same value in each channel. */
featinv_status fi_rows_read(fi_rows *out, const featinv_tensor *features, int64_t max_rows,
                            uint64_t seed, bool unit);
void fi_rows_free(fi_rows *rows);

#endif
