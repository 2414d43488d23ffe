/* Where pairs of pictures differ (paper, algorithm 1). */
#ifndef FI_DIFFERENCE_H
#define FI_DIFFERENCE_H

#include "featinv.h"

/* Of a median map, before it is normalised. */
typedef struct fi_difference_range {
    double low, high;
} fi_difference_range;

/* Per pixel the median over the pairs of the Euclidean distance over RGB in [0, 1]. median:
 * (pixels); originals, altered: (pairs, pixels, 3); work: (pairs). */
fi_difference_range fi_difference_median(double *median, double *work, const uint8_t *originals,
                                         const uint8_t *altered, size_t pairs, size_t pixels);

/* Normalises a median map and marks what lies strictly below threshold; map, mask: each may be
 * NULL. A map without any difference (minmax: of one value only) becomes zero, all of it below. */
void fi_difference_finish(float *map, uint8_t *mask, const double *median, size_t pixels,
                          fi_difference_range range, featinv_normalize normalization,
                          double threshold);

featinv_status fi_difference_check(featinv_normalize normalization, double threshold);

#endif
