/* Sparse self-representation: each unit row as a sparse combination of the others (MCD;
 * Elhamifar and Vidal 2013; solved with the oracle-guided active set of You, Li, Robinson and
 * Vidal 2016).
 *
 * For row x_j with dictionary X without x_j:
 *   min over c of  tau |c|_1 + (1 - tau)/2 |c|_2^2 + |x_j - c X|_2^2 / (2 alpha_j),   c_j = 0,
 *   alpha_j = max over i != j of |<x_i, x_j>| / (tau gamma).
 *  */
#ifndef FI_SELFREP_H
#define FI_SELFREP_H

#include "session.h"
#include "sparse.h"

typedef struct fi_selfrep fi_selfrep;

typedef struct fi_selfrep_summary {
    double objective; /* sum over rows, float64 */
    double
        stationarity; /* largest violation of the conditions over all rows and columns, float64 */
    int64_t passes;   /* rounds of the active set */
} fi_selfrep_summary;

/* rows: (n, d) float32, unit length, borrowed until destroy. memory: bytes for the Gram matrix,
 * which is kept when it fits and made again in column blocks when it does not. */
featinv_status fi_selfrep_create(fi_selfrep **out, featinv_session *session, const float *rows,
                                 int64_t n, int64_t d, double gamma, double tau, int64_t memory);

/* Solves for all rows but the removed ones (n flags, or NULL), which are in no dictionary and
 * come out empty. A second call starts from the first one's solution and Gram matrix. alpha: n
 * values or NULL. progress->done counts rows. Errors: MEMORY, CANCELLED, COMPUTE. */
featinv_status fi_selfrep_solve(fi_selfrep *selfrep, fi_sparse *out, double *alpha,
                                fi_selfrep_summary *summary, const uint8_t *removed,
                                fi_progress *progress);
void fi_selfrep_destroy(fi_selfrep *selfrep);

#endif
