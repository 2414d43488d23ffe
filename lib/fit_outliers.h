/* Outliers of a self-representation: rows that need many others (Soltanolkotabi and Candes
 * 2012). */
#ifndef FI_FIT_OUTLIERS_H
#define FI_FIT_OUTLIERS_H

#include "sparse.h"

/* Flags (rows) of those whose coefficients' L1 norm lies strictly above the quantile, interpolated
 * linearly between the two closest scores, and their count. Errors: MEMORY. */
featinv_status fi_outliers(uint8_t *removed, int64_t *count, const fi_sparse *coefficients,
                           double quantile);

/* Quantile of n values, ascending; as NumPy's default. */
double fi_quantile(const double *sorted, int64_t n, double quantile);

#endif
