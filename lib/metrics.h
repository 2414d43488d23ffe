/* Order statistics shared by the metrics. */
#ifndef FI_METRICS_H
#define FI_METRICS_H

#include "featinv.h"

/* Median of count >= 1 finite values, the mean of the two middle ones for an even count. Reorders
 * the values. */
double fi_median(double *values, size_t count);

#endif
