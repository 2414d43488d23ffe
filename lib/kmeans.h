/* k-means with k-means++ starts, seeded by the library's own generator. */
#ifndef FI_KMEANS_H
#define FI_KMEANS_H

#include "session.h"

/* rows (n, d) → labels (n), centres (k, d) or NULL, cost (sum of squared distances). No cluster is
 * empty unless fewer than k rows differ. session: looked at for cancellation, or NULL.
 * Errors: ARGUMENT (k above n), MEMORY, CANCELLED. */
featinv_status fi_kmeans(int32_t *labels, double *centres, double *inertia,
                         const featinv_session *session, const double *rows, int64_t n, int64_t d,
                         int32_t k, int32_t restarts, uint64_t seed);

#endif
