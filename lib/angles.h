/* Principal angles between subspaces (Björck and Golub 1973). */
#ifndef FI_ANGLES_H
#define FI_ANGLES_H

#include "featinv.h"

/* All angles between the row spaces of a (p, d) and b (q, d), orthonormal rows both: min(p, q) of
 * them, descending, from sine and cosine. Errors: MEMORY. */
featinv_status fi_angles(double *angles, const double *a, int64_t p, const double *b, int64_t q,
                         int64_t d);

/* The smallest alone; p + q <= d. */
featinv_status fi_smallest_angle(double *angle, const double *a, int64_t p, const double *b,
                                 int64_t q, int64_t d);

#endif
