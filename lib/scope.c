#include "scope.h"

#include "array.h"
#include "error.h"
#include "model.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- reading -------------------- */

static const char *const members[] = {"directions", "norms", "residuals"};

static featinv_status present(int *found, const char *path) {
    char **names = NULL;
    int64_t count = 0;
    featinv_status status = fi_array_names(&names, &count, path);
    *found = 0;
    for (int64_t i = 0; !status && i < count; i++)
        for (int k = 0; k < 3; k++)
            *found += strcmp(names[i], members[k]) == 0;
    free(names);
    return status;
}

static featinv_status read_table(float **out, const char *path, const char *name) {
    featinv_array_info info;
    void *data = NULL;
    featinv_status status = fi_array_load(&data, &info, path, name, FEATINV_DTYPE_F32);
    float *table = *out = data;
    if (status)
        return status;
    if (info.ndim != 1 || info.shape[0] != FI_SCOPE_STEPS)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s must hold %d percentiles", path, name,
                       FI_SCOPE_STEPS);
    bool good = isfinite(table[FI_SCOPE_STEPS - 1]) && table[0] >= 0.0f;
    for (int i = 0; good && i + 1 < FI_SCOPE_STEPS; i++)
        good = table[i] <= table[i + 1]; /* false for NaN */
    return good ? FEATINV_OK
                : fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s must ascend from 0 or above", path, name);
}

/* Columns that are not orthonormal would make a residual of something else. */
static featinv_status read_directions(fi_scope *s, const char *path, int64_t channels) {
    featinv_array_info info;
    void *data = NULL;
    featinv_status status = fi_array_load(&data, &info, path, members[0], FEATINV_DTYPE_F32);
    s->directions = data;
    if (status)
        return status;
    int64_t most = channels < FI_SCOPE_DIRECTIONS ? channels : FI_SCOPE_DIRECTIONS;
    if (info.ndim != 2 || info.shape[0] != channels || info.shape[1] < 1 || info.shape[1] > most)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: directions must be (%lld, 1 to %lld)", path,
                       (long long)channels, (long long)most);
    s->count = info.shape[1];
    size_t p = (size_t)s->count;
    status = fi_check_finite(s->directions, (size_t)channels * p, "directions");
    if (status)
        return fi_fail_prefix(FEATINV_ERROR_BUNDLE, "%s", path);
    for (size_t i = 0; i < p; i++)
        for (size_t j = i; j < p; j++) {
            double sum = 0.0;
            for (size_t c = 0; c < (size_t)channels; c++)
                sum += (double)s->directions[c * p + i] * (double)s->directions[c * p + j];
            if (fabs(sum - (i == j ? 1.0 : 0.0)) > 1e-3)
                return fi_fail(FEATINV_ERROR_BUNDLE,
                               "%s: directions %zu and %zu are not orthonormal (%g)", path, i, j,
                               sum);
        }
    return FEATINV_OK;
}

featinv_status fi_scope_open(fi_scope *out, const char *path, int64_t channels) {
    int found = 0;
    *out = (fi_scope){0};
    featinv_status status = present(&found, path);
    if (status || !found)
        return status;
    if (found < 3)
        return fi_fail(FEATINV_ERROR_BUNDLE,
                       "%s: directions, norms and residuals belong together, %d of them are there",
                       path, found);
    status = read_directions(out, path, channels);
    if (!status)
        status = read_table(&out->norms, path, members[1]);
    if (!status)
        status = read_table(&out->residuals, path, members[2]);
    return status;
}

void fi_scope_close(fi_scope *scope) {
    free(scope->directions);
    free(scope->norms);
    free(scope->residuals);
    *scope = (fi_scope){0};
}

/* ---------------------------------------------------------------- percentiles ---------------- */

double fi_scope_percentile(const float table[FI_SCOPE_STEPS], double value) {
    int below = 0, upto = 0; /* entries under value, and not above it */
    for (int i = 0; i < FI_SCOPE_STEPS; i++) {
        below += (double)table[i] < value;
        upto += (double)table[i] <= value;
    }
    if (upto > below)
        return 0.5 * (below + upto - 1);
    if (below == 0)
        return 0.0;
    if (below == FI_SCOPE_STEPS)
        return FI_SCOPE_STEPS - 1;
    double low = (double)table[below - 1], high = (double)table[below];
    return below - 1 + (value - low) / (high - low);
}

/* Mean over the positions of the length of map (C, positions). sums: (positions). */
static double mean_norm(double *sums, const float *map, size_t channels, size_t positions) {
    memset(sums, 0, positions * sizeof *sums);
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < positions; i++) {
            double v = (double)map[c * positions + i];
            sums[i] += v * v;
        }
    double total = 0.0;
    for (size_t i = 0; i < positions; i++)
        total += sqrt(sums[i]);
    return total / (double)positions;
}

/* Mean over the positions of the length of x - mean off the directions. x: work (C); coefficients:
 * work (count). */
static double mean_residual(double *x, double *coefficients, const fi_scope *s, const float *mean,
                            const float *map, size_t channels, size_t positions) {
    size_t p = (size_t)s->count;
    double total = 0.0;
    for (size_t i = 0; i < positions; i++) {
        memset(coefficients, 0, p * sizeof *coefficients);
        for (size_t c = 0; c < channels; c++) {
            x[c] = (double)map[c * positions + i] - (double)mean[c];
            for (size_t k = 0; k < p; k++)
                coefficients[k] += (double)s->directions[c * p + k] * x[c];
        }
        double squares = 0.0;
        for (size_t c = 0; c < channels; c++) {
            double left = x[c];
            for (size_t k = 0; k < p; k++)
                left -= (double)s->directions[c * p + k] * coefficients[k];
            squares += left * left;
        }
        total += sqrt(squares);
    }
    return total / (double)positions;
}

featinv_status featinv_features_scope(double *norm_percentile, double *residual_percentile,
                                      const featinv_model *model, const featinv_tensor *maps) {
    if (!model)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no model");
    const fi_bundle *b = model->bundle;
    const fi_scope *s = &model->scope;
    if (!s->count)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%s: features.npz holds no statistics of the training maps", b->path);
    const int64_t shape[4] = {-1, b->map[0], b->map[1], b->map[2]};
    const void *data = NULL;
    void *owned = NULL;
    double *work = NULL;
    featinv_status status =
        fi_tensor_input(&data, &owned, maps, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (status)
        return status;
    size_t count = (size_t)maps->shape[0], channels = (size_t)b->map[0];
    size_t positions = (size_t)b->map[1] * (size_t)b->map[2], size = channels * positions;
    status = fi_check_finite(data, count * size, "maps");
    size_t doubles = positions + channels + (size_t)s->count;
    if (!status && !(work = malloc(doubles * sizeof *work)))
        status = fi_fail_memory(doubles * sizeof *work);
    for (size_t n = 0; !status && n < count; n++) {
        const float *map = (const float *)data + n * size;
        if (norm_percentile)
            norm_percentile[n] =
                fi_scope_percentile(s->norms, mean_norm(work, map, channels, positions));
        if (residual_percentile)
            residual_percentile[n] = fi_scope_percentile(
                s->residuals, mean_residual(work + positions, work + positions + channels, s,
                                            model->feature_mean, map, channels, positions));
    }
    free(work);
    free(owned);
    return status;
}
