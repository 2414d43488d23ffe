/* Bootstrap over images: the same seeded resamples for every figure. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

int evaluate_resamples_make(evaluate_resamples *out, int64_t images, int32_t count, uint64_t seed) {
    /* resamples of one image are that image: they say nothing */
    *out = (evaluate_resamples){.count = images > 1 ? count : 0, .images = images};
    if (!out->count)
        return CLI_DONE;
    out->weights = calloc((size_t)count, (size_t)images * sizeof *out->weights);
    if (!out->weights)
        return cli_fail_memory();
    uint64_t state = seed;
    for (int32_t r = 0; r < count; r++)
        for (int64_t i = 0; i < images; i++) {
            double share = (double)(next(&state) >> 11) * 0x1p-53; /* in [0, 1) */
            out->weights[(int64_t)r * images + (int64_t)(share * (double)images)]++;
        }
    return CLI_DONE;
}

void evaluate_resamples_free(evaluate_resamples *resamples) {
    free(resamples->weights);
    *resamples = (evaluate_resamples){0};
}

static int compare_numbers(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Percentile of sorted values, linear between neighbours. */
static double percentile(const double *sorted, int32_t count, double share) {
    double at = share * (double)(count - 1);
    int32_t below = (int32_t)floor(at), above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

int evaluate_interval(evaluate_figure *out, const evaluate_resamples *resamples, int32_t count,
                      evaluate_statistic statistic, const void *data) {
    *out = (evaluate_figure){statistic(data, NULL), NAN, NAN, NAN};
    if (isnan(out->value) || count < 1 || resamples->images < 2)
        return CLI_DONE;
    double *values = malloc((size_t)count * sizeof *values);
    int32_t known = 0;
    if (!values)
        return cli_fail_memory();
    for (int32_t r = 0; r < count; r++) {
        values[known] = statistic(data, resamples->weights + (int64_t)r * resamples->images);
        known += !isnan(values[known]); /* NaN: none of the images that are left has a value */
    }
    if (known) {
        double sum = 0.0;
        for (int32_t i = 0; i < known; i++)
            sum += values[i];
        out->mean = sum / (double)known;
        qsort(values, (size_t)known, sizeof *values, compare_numbers);
        out->low = percentile(values, known, 0.025);
        out->high = percentile(values, known, 0.975);
    }
    free(values);
    return CLI_DONE;
}
