/* One column of the self-representation: its support, what the oracle found for it, and the step
 * that solves it exactly on both. */
#ifndef FI_SELFREP_COLUMN_H
#define FI_SELFREP_COLUMN_H

#include "gram.h"
#include "lasso.h"
#include "vector.h"

#include <stdbool.h>

enum { FI_FOUND_MOST = FI_WEAKEST_OF };

/* The strongest inner products that a scan met above its limit; a full list says that there may be
 * more, none stronger than `floor`. */
typedef struct fi_found {
    int32_t count;
    float floor; /* smallest magnitude of a full list, and where it stands */
    int32_t weakest;
    int32_t index[FI_FOUND_MOST];
    float value[FI_FOUND_MOST];
} fi_found;

typedef struct fi_column {
    double alpha;
    double objective, violation; /* at the solution, float64 */
    double length;               /* |c|_1 */
    double residual;             /* |r| */
    int32_t *index;              /* (support), in the order of the factor */
    double *value;
    float *single; /* value, rounded */
    int32_t support, room;
    bool begun;   /* solved at least once since alpha changed */
    bool exact;   /* needs inner products in float64 */
    bool stalled; /* a float64 solve with violators lowered nothing: they are rounding */
    bool done;
    fi_found found;
} fi_column;

/* What all columns share. */
typedef struct fi_columns {
    const fi_gram *gram;
    const uint8_t *removed; /* (n) or NULL */
    double gamma, tau;
    fi_column *all; /* (n) */
} fi_columns;

/* A worker's memory. */
typedef struct fi_scratch {
    fi_lasso lasso;
    double *residual;                       /* (d) */
    int32_t room;                           /* of what follows */
    int32_t *atoms;                         /* rows behind the lasso's atoms */
    const float **rows;                     /* where they are */
    const int16_t **entries;                /* their columns of the kept Gram matrix */
    double *coefficients, *gradient, *step; /* in the order of the support */
    featinv_status status;
} fi_scratch;

/* Room for a support. Errors: MEMORY. */
featinv_status fi_scratch_reserve(fi_scratch *scratch, int64_t d, int32_t room);
void fi_scratch_free(fi_scratch *scratch);
void fi_column_free(fi_column *column);

/* Row j of the kept Gram matrix in a block of columns, or of its products with all rows: the
 * strongest are kept, also those of the support. */
void fi_column_gather(const fi_columns *columns, int64_t j, int64_t block);
void fi_column_gather_products(const fi_columns *columns, int64_t j, const float *products);
/* Sets alpha from what was gathered and keeps the first candidates. */
void fi_column_begin(const fi_columns *columns, int64_t j);

/* The oracle over a block of the kept Gram matrix: finds rows whose |<x_i, r>| is near or above
 * alpha tau. next: the column that comes then. */
void fi_column_scan(const fi_columns *columns, int64_t j, int64_t next, int64_t block);
/* The residual at the solution, and the oracle over its float32 products with all rows. */
void fi_column_residual(const fi_columns *columns, fi_scratch *scratch, int64_t j, float *out);
void fi_column_scan_products(const fi_columns *columns, int64_t j, const float *products);

/* Decides on what was found and solves again where there is more to do. Sets `done`, or leaves
 * the column for another scan. Errors: MEMORY. */
featinv_status fi_column_step(const fi_columns *columns, fi_scratch *scratch, int64_t j);

#endif
