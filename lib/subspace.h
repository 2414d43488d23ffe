/* Orthonormal bases of subspaces of feature space, float64, and what is computed from them alone.
 * A basis of dimension p is stored as (C, p) row-major with a row stride, as in concept files. */
#ifndef FI_SUBSPACE_H
#define FI_SUBSPACE_H

#include "session.h"

/* Principal directions of the rows `members` of rows (n, d) float32: through the origin (right
 * singular vectors) or of the centred rows. dimension 0: lPCA-FO, the count of squared singular
 * values (centred: eigenvalues of the covariance) above .05 of the largest; never more than the
 * rank. basis: fresh (d, *p) row-major. */
featinv_status fi_subspace_fit(double **basis, int32_t *p, featinv_session *session,
                               const float *rows, int64_t d, const int64_t *members,
                               int64_t member_count, featinv_basis kind, int32_t dimension);

#endif
