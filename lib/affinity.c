/* The symmetric affinity of rows from the coefficients by which they represent each other. */
#include "spectral.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>

static featinv_status make(fi_sparse *matrix, int64_t rows, int64_t entries) {
    matrix->rows = rows;
    matrix->offsets = calloc((size_t)rows + 1, sizeof *matrix->offsets);
    matrix->indices = malloc(((size_t)entries + 1) * sizeof *matrix->indices);
    matrix->values = malloc(((size_t)entries + 1) * sizeof *matrix->values);
    if (matrix->offsets && matrix->indices && matrix->values)
        return FEATINV_OK;
    fi_sparse_free(matrix);
    return fi_fail_memory((size_t)rows * 8 + (size_t)entries * 12);
}

/* |C| with rows at unit length, of the kept rows and columns; place: new index of a row, or -1. */
static featinv_status half(fi_sparse *out, const fi_sparse *c, const int32_t *place, int64_t kept) {
    featinv_status status = make(out, kept, c->offsets[c->rows]);
    if (status)
        return status;
    int64_t used = 0;
    for (int64_t i = 0; i < c->rows; i++) {
        if (place[i] < 0)
            continue;
        double squares = 0.0;
        for (int64_t e = c->offsets[i]; e < c->offsets[i + 1]; e++)
            squares += c->values[e] * c->values[e];
        double length = squares > 0.0 ? sqrt(squares) : 1.0;
        for (int64_t e = c->offsets[i]; e < c->offsets[i + 1]; e++) {
            double value = fabs(c->values[e]) / length;
            if (place[c->indices[e]] < 0 || c->indices[e] == i || !(value > 0.0))
                continue;
            out->indices[used] = place[c->indices[e]];
            out->values[used++] = value;
        }
        out->offsets[place[i] + 1] = used;
    }
    return FEATINV_OK;
}

static featinv_status transpose(fi_sparse *out, const fi_sparse *a) {
    featinv_status status = make(out, a->rows, a->offsets[a->rows]);
    int64_t *next = malloc(((size_t)a->rows + 1) * sizeof *next);
    if (!status && !next)
        status = fi_fail_memory((size_t)a->rows * sizeof *next);
    if (!status) {
        for (int64_t e = 0; e < a->offsets[a->rows]; e++)
            out->offsets[a->indices[e] + 1]++;
        for (int64_t i = 0; i < a->rows; i++) {
            out->offsets[i + 1] += out->offsets[i];
            next[i] = out->offsets[i];
        }
        for (int64_t i = 0; i < a->rows; i++)
            for (int64_t e = a->offsets[i]; e < a->offsets[i + 1]; e++) {
                int64_t to = next[a->indices[e]]++;
                out->indices[to] = (int32_t)i;
                out->values[to] = a->values[e];
            }
    }
    free(next);
    return status;
}

/* (a + b) / 2; both have ascending indices within a row, and so has the result. */
static featinv_status average(fi_sparse *out, const fi_sparse *a, const fi_sparse *b) {
    featinv_status status = make(out, a->rows, a->offsets[a->rows] + b->offsets[b->rows]);
    int64_t used = 0;
    for (int64_t i = 0; i < a->rows && !status; i++) {
        int64_t x = a->offsets[i], y = b->offsets[i];
        while (x < a->offsets[i + 1] || y < b->offsets[i + 1]) {
            int32_t from_a = x < a->offsets[i + 1] ? a->indices[x] : INT32_MAX;
            int32_t from_b = y < b->offsets[i + 1] ? b->indices[y] : INT32_MAX;
            double sum = 0.0;
            if (from_a <= from_b)
                sum += a->values[x++];
            if (from_b <= from_a)
                sum += b->values[y++];
            out->indices[used] = from_a < from_b ? from_a : from_b;
            out->values[used++] = 0.5 * sum;
        }
        out->offsets[i + 1] = used;
    }
    return status;
}

featinv_status fi_affinity(fi_sparse *out, const fi_sparse *coefficients, const uint8_t *keep) {
    fi_sparse part = {0}, transposed = {0};
    int64_t n = coefficients->rows, kept = 0;
    *out = (fi_sparse){0};
    int32_t *place = malloc(((size_t)n + 1) * sizeof *place);
    if (!place)
        return fi_fail_memory((size_t)n * sizeof *place);
    for (int64_t i = 0; i < n; i++)
        place[i] = !keep || keep[i] ? (int32_t)kept++ : -1;
    featinv_status status = half(&part, coefficients, place, kept);
    if (!status)
        status = transpose(&transposed, &part);
    if (!status)
        status = average(out, &part, &transposed);
    if (status)
        fi_sparse_free(out);
    free(place);
    fi_sparse_free(&part);
    fi_sparse_free(&transposed);
    return status;
}
