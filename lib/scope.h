/* How usual a map is beside the training maps: the statistics in a bundle's features.npz. */
#ifndef FI_SCOPE_H
#define FI_SCOPE_H

#include "featinv.h"

#include <stdbool.h>

enum {
    FI_SCOPE_STEPS = 101,     /* percentiles 0, 1, ..., 100 */
    FI_SCOPE_DIRECTIONS = 256 /* at most: opening a bundle checks them against each other */
};

typedef struct fi_scope {
    int64_t count;            /* of the directions; 0: no statistics */
    float *directions;        /* (C, count), orthonormal columns */
    float *norms, *residuals; /* (101) percentiles over training maps, ascending */
} fi_scope;

/* Reads what path holds of `directions`, `norms` and `residuals`: all three, or none of them, which
 * leaves *out zero. Errors: BUNDLE for some of them, other shapes, or values that cannot be. */
featinv_status fi_scope_open(fi_scope *out, const char *path, int64_t channels);
void fi_scope_close(fi_scope *scope);

/* Where value lies among ascending percentiles, interpolated: 0 below the first, 100 above the
 * last, the middle of a stretch of equal ones. */
double fi_scope_percentile(const float table[FI_SCOPE_STEPS], double value);

#endif
