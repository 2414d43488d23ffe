/* Square sparse matrices in compressed rows, float64. */
#ifndef FI_SPARSE_H
#define FI_SPARSE_H

#include "featinv.h"

typedef struct fi_sparse {
    int64_t rows;
    int64_t *offsets; /* (rows + 1) */
    int32_t *indices; /* ascending within a row */
    double *values;
} fi_sparse;

void fi_sparse_free(fi_sparse *matrix); /* the arrays, not the struct; all zero is fine */

#endif
