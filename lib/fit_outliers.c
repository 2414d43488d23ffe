#include "fit_outliers.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double fi_quantile(const double *sorted, int64_t n, double quantile) {
    double position = quantile * (double)(n - 1);
    int64_t below = (int64_t)floor(position);
    if (below >= n - 1)
        return sorted[n - 1];
    double share = position - (double)below;
    double difference = sorted[below + 1] - sorted[below];
    return share < 0.5 ? sorted[below] + difference * share
                       : sorted[below + 1] - difference * (1.0 - share);
}

featinv_status fi_outliers(uint8_t *removed, int64_t *count, const fi_sparse *coefficients,
                           double quantile) {
    int64_t n = coefficients->rows;
    double *scores = malloc(2 * (size_t)n * sizeof *scores), *sorted = scores + n;
    if (!scores)
        return fi_fail_memory(2 * (size_t)n * sizeof *scores);
    for (int64_t i = 0; i < n; i++) {
        scores[i] = 0.0;
        for (int64_t e = coefficients->offsets[i]; e < coefficients->offsets[i + 1]; e++)
            scores[i] += fabs(coefficients->values[e]);
    }
    memcpy(sorted, scores, (size_t)n * sizeof *scores);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    double threshold = fi_quantile(sorted, n, quantile);
    *count = 0;
    for (int64_t i = 0; i < n; i++) {
        removed[i] = scores[i] > threshold;
        *count += removed[i];
    }
    free(scores);
    return FEATINV_OK;
}
