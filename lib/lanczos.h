/* The largest eigenvalues of a large sparse symmetric matrix: block Lanczos with thick restarts and
 * full reorthogonalisation (Wu and Simon 2000, in blocks). */
#ifndef FI_LANCZOS_H
#define FI_LANCZOS_H

#include "session.h"
#include "sparse.h"

typedef struct fi_lanczos_problem {
    const fi_sparse *matrix;
    double sign;         /* 1, or -1 for the matrix negated */
    const double *known; /* a unit eigenvector (n) to leave out, or NULL */
    int64_t wanted, block;
    double residual; /* certified: |A y - l y| stays under it; for matrices of norm 1 */
    uint64_t seed;
    uint32_t substream; /* problems of one run draw different starts */
} fi_lanczos_problem;

/* Basis vectors that a problem needs at a time; it takes 16 bytes for each and each row. Must not
 * exceed half of the rows. */
int64_t fi_lanczos_size(int64_t wanted, int64_t block);

/* values (wanted), descending, and vectors (wanted, n), orthonormal rows. Copies of an eigenvalue
 * are found up to the block size by construction; a second search from another random start,
 * orthogonal to what was found, looks for any that were missed. *converged: 0 where the eigenvalues
 * lie too close together for the iterations allowed. Errors: MEMORY, COMPUTE, CANCELLED. */
featinv_status fi_lanczos(double *values, double *vectors, int *converged, featinv_session *session,
                          const fi_lanczos_problem *problem);

#endif
