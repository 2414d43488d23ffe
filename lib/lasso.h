/* The lasso over a few atoms, given by inner products alone:
 *   min over c of  1/2 c^T H c - b^T c + lambda |c|_1,   H symmetric, positive semidefinite.
 * An elastic net has its ridge in H's diagonal. Solved exactly: coordinate descent finds most of
 * the support, an active-set method with a Cholesky factor the rest, and every step lowers the
 * objective. */
#ifndef FI_LASSO_H
#define FI_LASSO_H

#include "featinv.h"

typedef struct fi_lasso {
    int32_t capacity; /* atoms that there is room for */
    int32_t count;    /* atoms, set by the caller */
    int32_t stride;   /* of h and single: capacity */
    double *h;        /* (count, count), filled by the caller, both halves */
    double *b, *c;    /* (count): c is the start and becomes the solution */
    int32_t *support; /* (size): atoms in the factor's order */
    int32_t size;
    /* work */
    float *single; /* H in float32, for coordinate descent */
    float *c_single, *g_single;
    double *factor;        /* (size, size) lower, rows of `capacity` */
    double *target, *work; /* (capacity) */
    int8_t *sign,
        *place; /* (capacity): of the support's entries; of atoms: 1 in, -1 barred, 0 out */
    void *memory;
} fi_lasso;

/* Room for count atoms; what the arrays held is lost. Errors: MEMORY. */
featinv_status fi_lasso_reserve(fi_lasso *lasso, int32_t count);
void fi_lasso_free(fi_lasso *lasso); /* all zero is fine */

/* Coordinate descent in float32 from c: a good start. */
void fi_lasso_descend(fi_lasso *lasso, double lambda);

/* The optimum from c: support, c, factor. slack: how far above lambda a gradient must be to
 * count; pivot: share of an atom's square norm under which it counts as dependent on the others.
 * Returns how many atoms were found dependent. */
int32_t fi_lasso_solve(fi_lasso *lasso, double lambda, double slack, double pivot);

/* step = H_SS^-1 residual, both in the order of support. */
void fi_lasso_correct(const fi_lasso *lasso, double *step, const double *residual);

#endif
