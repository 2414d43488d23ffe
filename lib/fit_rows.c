#include "fit_rows.h"

#include "error.h"
#include "fit_random.h"
#include "tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What the rows are read from. */
typedef struct source {
    const float *data;
    int64_t channels, positions; /* of one image; rows as given: 1 */
    int64_t width;
    bool maps;
} source;

static featinv_status open_source(source *from, fi_rows *out, void **owned,
                                  const featinv_tensor *features) {
    const int64_t any[4] = {-1, -1, -1, -1};
    if (!features)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no features given");
    if (features->ndim != 4 && features->ndim != 2)
        return fi_fail(FEATINV_ERROR_SHAPE,
                       "features have %d dimensions: maps (N, C, H, W) or rows (n, C) are wanted",
                       features->ndim);
    const void *data;
    featinv_status status =
        fi_tensor_input(&data, owned, features, "features", FEATINV_DTYPE_F32, features->ndim, any);
    if (status)
        return status;
    const int64_t *shape = features->shape;
    *from = (source){data, shape[1], 1, 1, features->ndim == 4};
    if (from->maps) {
        from->positions = shape[2] * shape[3];
        from->width = shape[3];
    }
    if (shape[0] == 0 || shape[1] == 0 || from->positions == 0)
        return fi_fail(FEATINV_ERROR_SHAPE, "features are empty");
    if (shape[0] > INT32_MAX / from->positions || shape[1] > INT32_MAX)
        return fi_fail(FEATINV_ERROR_LIMIT, "%lld maps of %lld positions: at most 2^31 rows",
                       (long long)shape[0], (long long)from->positions);
    out->given = shape[0] * from->positions;
    out->channels = shape[1];
    out->ndim = from->maps ? 3 : 1;
    out->shape[0] = shape[0];
    out->shape[1] = from->maps ? shape[2] : 0;
    out->shape[2] = from->maps ? shape[3] : 0;
    return fi_check_finite(data, (size_t)(out->given * out->channels), "features");
}

static const char *row_name(char *text, size_t size, const source *from, int64_t row) {
    int64_t at = row % from->positions;
    if (from->maps)
        (void)snprintf(text, size, "image %lld, row %lld, column %lld of the features",
                       (long long)(row / from->positions), (long long)(at / from->width),
                       (long long)(at % from->width));
    else
        (void)snprintf(text, size, "row %lld of the features", (long long)row);
    return text;
}

/* Reads one row into `out`, or with NULL only checks it. */
static featinv_status read_row(float *out, const source *from, int64_t row, bool unit) {
    const int64_t step = from->positions;
    const float *x = from->data + row / step * from->channels * step + row % step;
    double squares = 0.0;
    bool constant = from->channels > 1;
    for (int64_t c = 0; c < from->channels; c++) {
        squares += (double)x[c * step] * (double)x[c * step];
        constant &= x[c * step] == x[0];
    }
    char name[120];
    if (squares == 0.0)
        return fi_fail(FEATINV_ERROR_VALUE, "%s: all zeros, which have no direction",
                       row_name(name, sizeof name, from, row));
    if (constant)
        return fi_fail(FEATINV_ERROR_VALUE, "%s: the same value, %g, in each of %lld channels",
                       row_name(name, sizeof name, from, row), (double)x[0],
                       (long long)from->channels);
    double length = unit ? sqrt(squares) : 1.0;
    for (int64_t c = 0; out && c < from->channels; c++)
        out[c] = (float)((double)x[c * step] / length);
    return FEATINV_OK;
}

/* Selection sampling (Knuth, volume 2, algorithm S): ascending, each subset alike likely. */
static void draw_rows(fi_rows *rows, uint64_t seed) {
    fi_random random = fi_random_start(seed, FI_STREAM_SUBSAMPLE, 0);
    int64_t taken = 0;
    for (int64_t i = 0; i < rows->given && taken < rows->count; i++) {
        int64_t left = rows->given - i, wanted = rows->count - taken;
        if (wanted == left || (int64_t)fi_random_below(&random, (uint64_t)left) < wanted)
            rows->index[taken++] = i;
    }
}

featinv_status fi_rows_read(fi_rows *out, const featinv_tensor *features, int64_t max_rows,
                            uint64_t seed, bool unit) {
    source from = {0};
    void *owned = NULL;
    *out = (fi_rows){0};
    featinv_status status = open_source(&from, out, &owned, features);
    if (!status) {
        out->count = max_rows > 0 && max_rows < out->given ? max_rows : out->given;
        size_t size = (size_t)(out->count * out->channels) * sizeof *out->data;
        out->data = malloc(size);
        out->index = malloc((size_t)out->count * sizeof *out->index);
        if (!out->data || !out->index)
            status = fi_fail_memory(size + (size_t)out->count * sizeof *out->index);
    }
    if (!status)
        draw_rows(out, seed);
    for (int64_t row = 0, taken = 0; row < out->given && !status; row++) {
        bool used = taken < out->count && out->index[taken] == row;
        status = read_row(used ? out->data + taken * out->channels : NULL, &from, row, unit);
        taken += used;
    }
    free(owned);
    if (status)
        fi_rows_free(out);
    return status;
}

void fi_rows_free(fi_rows *rows) {
    free(rows->data);
    free(rows->index);
    *rows = (fi_rows){0};
}
