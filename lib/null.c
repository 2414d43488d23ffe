#include "null.h"

#include "error.h"
#include "noise.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t first_stream = 1; /* of the noise; 0 is sampling's */

/* The smaller one of a subspace and its complement has the basis. */
static size_t rows_for(size_t dimension, size_t channels) {
    return 2 * dimension <= channels ? dimension : channels - dimension;
}

featinv_status fi_null_open(fi_null *null, size_t channels, size_t positions, size_t dimension) {
    /* fewer rows may serve more dimensions: half of the channels is the most */
    size_t rows = 2 * dimension <= channels ? dimension : (channels + 1) / 2;
    const int64_t basis[2] = {(int64_t)rows, (int64_t)channels};
    const int64_t part[2] = {(int64_t)channels + 1, (int64_t)positions};
    size_t basis_bytes, part_bytes;
    *null = (fi_null){.channels = channels, .positions = positions};
    if (!fi_checked_size(&basis_bytes, basis, 2, sizeof(double)) ||
        !fi_checked_size(&part_bytes, part, 2, sizeof(double)))
        return fi_fail(FEATINV_ERROR_LIMIT, "maps of %zu channels and %zu positions are too large",
                       channels, positions);
    null->basis = malloc(basis_bytes + 1);
    null->part = malloc(part_bytes + 1);
    null->values = malloc(channels * sizeof *null->values + 1);
    if (!null->basis || !null->part || !null->values)
        return fi_fail_memory(basis_bytes + part_bytes);
    null->sums = null->part + channels * positions;
    return FEATINV_OK;
}

void fi_null_close(fi_null *null) {
    free(null->basis);
    free(null->part);
    free(null->values);
    *null = (fi_null){0};
}

static double dot(const double *a, const double *b, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Modified Gram-Schmidt, twice, so that rounding leaves nothing of the earlier rows. */
static void orthonormalize(fi_null *n) {
    for (size_t i = 0; i < n->rows; i++) {
        double *row = n->basis + i * n->channels;
        for (size_t j = 0; j < 2 * i; j++) {
            const double *other = n->basis + j % i * n->channels;
            double along = dot(row, other, n->channels);
            for (size_t c = 0; c < n->channels; c++)
                row[c] -= along * other[c];
        }
        double length = sqrt(dot(row, row, n->channels));
        for (size_t c = 0; c < n->channels; c++)
            row[c] /= length;
    }
}

void fi_null_draw(fi_null *null, size_t dimension, uint64_t seed, uint32_t draw,
                  int32_t concept_index) {
    null->rows = rows_for(dimension, null->channels);
    null->complement = 2 * dimension > null->channels;
    for (size_t i = 0; i < null->rows; i++) {
        fi_noise(null->values, null->channels, seed, draw, (uint32_t)concept_index,
                 first_stream + (uint32_t)i);
        for (size_t c = 0; c < null->channels; c++)
            null->basis[i * null->channels + c] = (double)null->values[c];
    }
    orthonormalize(null);
}

/* The map's part in the subspace. */
static void project(fi_null *n, const float *map) {
    size_t p = n->positions, size = n->channels * p;
    memset(n->part, 0, size * sizeof *n->part);
    for (size_t i = 0; i < n->rows; i++) {
        const double *row = n->basis + i * n->channels;
        memset(n->sums, 0, p * sizeof *n->sums);
        for (size_t c = 0; c < n->channels; c++)
            for (size_t k = 0; k < p; k++)
                n->sums[k] += row[c] * (double)map[c * p + k];
        for (size_t c = 0; c < n->channels; c++)
            for (size_t k = 0; k < p; k++)
                n->part[c * p + k] += row[c] * n->sums[k];
    }
    for (size_t i = 0; n->complement && i < size; i++)
        n->part[i] = (double)map[i] - n->part[i];
}

void fi_null_map(float *out, fi_null *null, const float *map, const float *changed, bool up) {
    size_t size = null->channels * null->positions;
    double energy = 0.0;
    for (size_t i = 0; i < size; i++) {
        double d = (double)changed[i] - (double)map[i];
        energy += d * d;
    }
    project(null, map);
    double squares = dot(null->part, null->part, size);
    double scale = squares > 0.0 ? sqrt(energy / squares) : 0.0;
    for (size_t i = 0; i < size; i++)
        out[i] = (float)((double)map[i] + (up ? scale : -scale) * null->part[i]);
}
