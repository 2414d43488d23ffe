/* Spectral clustering: affinity, normalised Laplacian, its smallest eigenvectors, the count of
 * clusters they suggest. */
#ifndef FI_SPECTRAL_H
#define FI_SPECTRAL_H

#include "session.h"
#include "sparse.h"

/* W = (|C| + |C|^T) / 2 with the rows of C at unit L2 length (rows of zeros stay); no diagonal.
 * Rows and columns with keep[i] = 0 are left out: W has `kept` rows. keep NULL: all. */
featinv_status fi_affinity(fi_sparse *out, const fi_sparse *coefficients, const uint8_t *keep);

/* The k smallest eigenvalues, ascending, and orthonormal eigenvectors (n, k) of
 * L = I - D^-1/2 W D^-1/2 (an isolated node: 0), repeated ones with their multiplicity.
 *
 * Connected components are told apart first: each has the eigenvalue 0, with the vector D^1/2 1, so
 * zeros are exact and their count is right. Where there are more components than k, the largest
 * ones are taken (of equals the one with the first row). */
featinv_status fi_spectral(double *values, double *vectors, featinv_session *session,
                           const fi_sparse *affinity, int64_t k, uint64_t seed);

/* The k smallest eigenvalues alone, good to 1e-6 and mostly much better: those that lie close
 * together beyond the last cluster would take long to tell apart. */
featinv_status fi_spectral_values(double *values, featinv_session *session,
                                  const fi_sparse *affinity, int64_t k, uint64_t seed);

/* The k largest eigenvalues of the same matrix, descending, as good. */
featinv_status fi_spectral_largest(double *values, featinv_session *session,
                                   const fi_sparse *affinity, int64_t k, uint64_t seed);

/* K by a rule (featinv_count_rule RATIO, GAP, LEGACY) from eigenvalues ascending; at least 2.
 * LEGACY is GAP on the smallest eigenvalues of I - L, 1 - l for the largest l of L. */
int32_t fi_spectral_count(const double *values, int32_t value_count, int32_t max_count,
                          featinv_count_rule rule);

#endif
