/* The Gram matrix of rows: made in column blocks and kept in 16 bits where it fits, else made again
 * in float32 by the backend. */
#ifndef FI_GRAM_H
#define FI_GRAM_H

#include "fixed.h"
#include "session.h"
#include "workers.h"

enum { FI_GRAM_WIDTH = FI_FIXED_COLUMNS }; /* columns of a block; a multiple of FI_SCAN_WIDTH */

typedef struct fi_gram {
    const fi_backend *backend;
    fi_operand *operand;
    fi_fixed fixed;    /* where its products make the kept values, until they are made */
    const float *rows; /* (n, d), borrowed */
    int64_t n, d;
    int64_t blocks;  /* of FI_GRAM_WIDTH columns; the last one is padded with zeros */
    int16_t *values; /* (blocks, n, FI_GRAM_WIDTH) in units of `unit`, or NULL: not kept */
    double unit;
    double largest;  /* square norm of the longest row */
    double rounding; /* bound on |entry - exact inner product|, whatever the order of its sum */
} fi_gram;

/* memory: bytes for values; they are kept when they fit. integers: on a CPU, kept values come from
 * exact products in fixed point, not from the backend. Errors: VALUE, MEMORY, COMPUTE. */
featinv_status fi_gram_create(fi_gram *gram, featinv_session *session, const float *rows, int64_t n,
                              int64_t d, int64_t memory, bool integers);
/* Makes the kept values. progress is only asked whether to stop. Errors: COMPUTE, CANCELLED. */
featinv_status fi_gram_make(fi_gram *gram, featinv_session *session, fi_workers *workers,
                            fi_progress *progress);
/* out (m, blocks * FI_GRAM_WIDTH) = a (m, d) times all rows transposed; a NULL: rows from
 * `first`. */
featinv_status fi_gram_multiply(const fi_gram *gram, float *out, const float *a, int64_t first,
                                int64_t m);
void fi_gram_free(fi_gram *gram); /* all zero is fine */

/* Entries of row i in a block of columns. */
static inline const int16_t *fi_gram_block(const fi_gram *gram, int64_t block, int64_t i) {
    return gram->values + (block * gram->n + i) * FI_GRAM_WIDTH;
}

/* Bound on the relative rounding of a sum of `terms` products in float32 (Higham, gamma_n). */
double fi_gram_gamma(int64_t terms);

#endif
