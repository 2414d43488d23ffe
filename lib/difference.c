#include "difference.h"

#include "error.h"
#include "metrics.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>

featinv_status fi_difference_check(featinv_normalize normalization, double threshold) {
    if (normalization != FEATINV_NORMALIZE_MAX && normalization != FEATINV_NORMALIZE_MINMAX)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "normalization is %d: it must be max or minmax",
                       normalization);
    if (!isfinite(threshold))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "threshold is %g: it must be a number", threshold);
    return FEATINV_OK;
}

/* Divided before the subtraction, as the reference arrays are: 51 and 50 of 255 differ by 1/255
 * only to the last bit, and a mask decides by it. */
static double distance(const uint8_t *a, const uint8_t *b) {
    double sum = 0.0;
    for (int c = 0; c < 3; c++) {
        double d = (double)a[c] / 255.0 - (double)b[c] / 255.0;
        sum += d * d;
    }
    return sqrt(sum);
}

fi_difference_range fi_difference_median(double *median, double *work, const uint8_t *originals,
                                         const uint8_t *altered, size_t pairs, size_t pixels) {
    fi_difference_range range = {INFINITY, 0.0};
    for (size_t i = 0; i < pixels; i++) {
        for (size_t k = 0; k < pairs; k++) {
            size_t at = 3 * (k * pixels + i);
            work[k] = distance(originals + at, altered + at);
        }
        median[i] = fi_median(work, pairs);
        range.low = fmin(range.low, median[i]);
        range.high = fmax(range.high, median[i]);
    }
    return range;
}

void fi_difference_finish(float *map, uint8_t *mask, const double *median, size_t pixels,
                          fi_difference_range range, featinv_normalize normalization,
                          double threshold) {
    double low = normalization == FEATINV_NORMALIZE_MINMAX ? range.low : 0.0;
    double extent = range.high - low;
    for (size_t i = 0; i < pixels; i++) {
        double value = extent > 0.0 ? (median[i] - low) / extent : 0.0;
        if (map)
            map[i] = (float)value;
        if (mask)
            mask[i] = extent > 0.0 ? value < threshold : 1;
    }
}

featinv_status featinv_difference_map(const featinv_tensor *map, const featinv_tensor *mask,
                                      double *maximum, const featinv_tensor *originals,
                                      const featinv_tensor *altered,
                                      featinv_normalize normalization, double threshold) {
    const int64_t any[4] = {-1, -1, -1, 3};
    const void *first = NULL, *second = NULL;
    void *owned[2] = {NULL}, *map_data = NULL, *mask_data = NULL;
    double *median = NULL;
    featinv_status status = fi_difference_check(normalization, threshold);
    if (!status)
        status = fi_tensor_input(&first, &owned[0], originals, "the originals", FEATINV_DTYPE_U8, 4,
                                 any);
    if (!status)
        status = fi_tensor_input(&second, &owned[1], altered, "the altered pictures",
                                 FEATINV_DTYPE_U8, 4, originals->shape);
    if (status)
        goto done;
    const int64_t *shape = originals->shape;
    if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1) {
        char text[128];
        status = fi_fail(FEATINV_ERROR_SHAPE, "pictures of shape %s hold nothing to compare",
                         fi_shape_text(text, sizeof text, shape, 4));
        goto done;
    }
    if (map)
        status = fi_tensor_data(&map_data, map, "the map", FEATINV_DTYPE_F32, 2, shape + 1);
    if (!status && mask)
        status = fi_tensor_data(&mask_data, mask, "the mask", FEATINV_DTYPE_U8, 2, shape + 1);
    if (status)
        goto done;
    size_t pairs = (size_t)shape[0], pixels = (size_t)shape[1] * (size_t)shape[2];
    int64_t values = shape[0] + shape[1] * shape[2]; /* fits: the pictures lie in memory */
    size_t bytes;
    if (!fi_checked_size(&bytes, &values, 1, sizeof *median) || !(median = malloc(bytes))) {
        status = fi_fail_memory((size_t)values * sizeof *median);
        goto done;
    }
    fi_difference_range range =
        fi_difference_median(median, median + pixels, first, second, pairs, pixels);
    fi_difference_finish(map_data, mask_data, median, pixels, range, normalization, threshold);
    if (maximum)
        *maximum = range.high;
done:
    free(median);
    free(owned[0]);
    free(owned[1]);
    return status;
}
