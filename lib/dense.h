/* Dense float64 linear algebra that needs no backend, so that concept files can be used anywhere.
 * Matrices are row-major; a set of vectors is stored as the rows of a matrix. */
#ifndef FI_DENSE_H
#define FI_DENSE_H

#include "featinv.h"

#include <stdbool.h>

/* A matrix as an operand: as stored, or its transpose. stride: elements between stored rows. */
typedef struct fi_matrix {
    const double *data;
    int64_t stride;
    bool transposed;
} fi_matrix;

/* c (m, n) += alpha a (m, k) b (k, n); stride of c in elements. */
void fi_multiply_add(double *c, int64_t stride, double alpha, fi_matrix a, fi_matrix b, int64_t m,
                     int64_t n, int64_t k);

double fi_dense_dot(const double *a, const double *b, int64_t n);
/* a += scale b */
void fi_dense_add(double *a, double scale, const double *b, int64_t n);
/* out (n, m) = in (m, n), turned. */
void fi_transpose(double *out, const double *in, int64_t m, int64_t n);

/* Orthonormal rows q (*rank, d) that span the rows of v (n, d), from the first on: block
 * Gram-Schmidt, each vector projected at least twice. A vector whose part off the earlier ones is
 * not longer than `least` adds none. factor (n, n), or NULL: v = factor q, where column j of factor
 * belongs to row j of q and is zero above the vector that brought it. q has room for min(n, d)
 * rows. Errors: MEMORY. */
featinv_status fi_orthonormal(double *q, double *factor, int64_t *rank, const double *v, int64_t n,
                              int64_t d, double least);

/* The pseudo-inverse (n, d), transposed, of the matrix whose columns are the vectors v = factor q
 * (fi_orthonormal): out times x are the coefficients of x, the shortest ones where v are dependent.
 * Errors: MEMORY. */
featinv_status fi_pseudo_inverse(double *out, const double *q, const double *factor, int64_t n,
                                 int64_t rank, int64_t d);

/* Smallest singular value of a lower triangular factor (n, n) by Lanczos iteration on its inverse.
 * Errors: MEMORY. */
featinv_status fi_least_singular(double *value, const double *factor, int64_t n);

/* Singular values of a (m, n), min(m, n) of them, descending: one-sided Jacobi.
 * Errors: MEMORY. */
featinv_status fi_singular_values(double *values, const double *a, int64_t m, int64_t n);

#endif
