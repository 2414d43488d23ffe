/* Oblique decomposition of feature maps into concepts and the complement (MCD, section 3.2), and
 * what is done with the parts. Float64 inside; maps go in and out as float32. */
#include "concepts.h"
#include "dense.h"
#include "error.h"
#include "positions.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Room for one block of positions. */
typedef struct block {
    const featinv_concepts *concepts;
    int64_t channels, total;
    double *x;            /* (C, FI_POSITIONS): the features */
    double *part;         /* (C, FI_POSITIONS) */
    double *coefficients; /* (total, FI_POSITIONS) */
} block;

static featinv_status open_block(block *b, const featinv_concepts *concepts) {
    const featinv_concepts_details *info = &concepts->info;
    *b = (block){concepts, info->channels, info->total, NULL, NULL, NULL};
    size_t room = (size_t)(2 * b->channels + b->total) * FI_POSITIONS * sizeof(double);
    b->x = malloc(room);
    if (!b->x)
        return fi_fail_memory(room);
    b->part = b->x + b->channels * FI_POSITIONS;
    b->coefficients = b->part + b->channels * FI_POSITIONS;
    return FEATINV_OK;
}

static int64_t first_of(const block *b, int32_t concept) {
    return b->concepts->offsets[concept];
}

static int64_t dimension_of(const block *b, int32_t concept) {
    return first_of(b, concept + 1) - first_of(b, concept);
}

/* Coefficients first..first+n of the block's features. */
static void find_coefficients(block *b, int64_t first, int64_t n) {
    double *out = b->coefficients + first * FI_POSITIONS;
    memset(out, 0, (size_t)n * FI_POSITIONS * sizeof *out);
    fi_multiply_add(out, FI_POSITIONS, 1.0,
                    (fi_matrix){b->concepts->dual + first * b->channels, b->channels, false},
                    (fi_matrix){b->x, FI_POSITIONS, false}, n, FI_POSITIONS, b->channels);
}

/* out += scale times the sum of basis vectors first..first+n. */
static void add_vectors(double *out, const block *b, double scale, int64_t first, int64_t n) {
    fi_multiply_add(out, FI_POSITIONS, scale,
                    (fi_matrix){b->concepts->bases + first, b->total, false},
                    (fi_matrix){b->coefficients + first * FI_POSITIONS, FI_POSITIONS, false},
                    b->channels, FI_POSITIONS, n);
}

/* part = the concept's (or the complement's) part of x; its coefficients must be there. */
static void find_part(block *b, int32_t concept) {
    size_t size = (size_t)b->channels * FI_POSITIONS * sizeof *b->part;
    if (concept != FEATINV_COMPLEMENT) {
        memset(b->part, 0, size);
        add_vectors(b->part, b, 1.0, first_of(b, concept), dimension_of(b, concept));
    } else if (b->total == b->channels) {
        memset(b->part, 0, size);
    } else {
        memcpy(b->part, b->x, size);
        add_vectors(b->part, b, -1.0, 0, b->total);
    }
}

/* ---------------------------------------------------------------- decompose ------------------ */

/* Parts of one block. What rounding to float32 takes from a part is left to the complement, so that
 * the parts add up however close the concepts are. */
static void decompose_block(float *const *parts, block *b, int64_t each, int64_t first, int64_t n) {
    const int32_t count = b->concepts->info.count;
    const int64_t size = b->channels * FI_POSITIONS;
    find_coefficients(b, 0, b->total);
    for (int32_t i = 0; i < count; i++) {
        find_part(b, i);
        fi_positions_scatter(parts[i], b->part, b->channels, each, first, n);
        for (int64_t k = 0; k < size; k++)
            b->x[k] -= (double)(float)b->part[k];
    }
    if (b->total == b->channels)
        memset(b->x, 0, (size_t)size * sizeof *b->x);
    fi_positions_scatter(parts[count], b->x, b->channels, each, first, n);
}

featinv_status featinv_concepts_decompose(const featinv_tensor *parts,
                                          const featinv_concepts *concepts,
                                          const featinv_tensor *maps) {
    fi_maps m = {0};
    block b = {0};
    void *data = NULL;
    float **starts = NULL;
    featinv_status status = fi_concepts_check_dual(concepts);
    if (!status)
        status = fi_maps_open(&m, maps, concepts->info.channels);
    if (status)
        return status;
    int32_t count = concepts->info.count;
    int64_t shape[5] = {count + 1, m.images, m.channels, m.height, m.width};
    status = fi_tensor_data(&data, parts, "parts", FEATINV_DTYPE_F32, 5, shape);
    if (!status)
        status = open_block(&b, concepts);
    if (!status && !(starts = malloc(((size_t)count + 1) * sizeof *starts)))
        status = fi_fail_memory(((size_t)count + 1) * sizeof *starts);
    for (int32_t i = 0; i <= count && !status; i++)
        starts[i] = (float *)data + i * m.count * m.channels;
    for (int64_t first = 0; first < m.count && !status; first += FI_POSITIONS) {
        int64_t n = m.count - first < FI_POSITIONS ? m.count - first : FI_POSITIONS;
        fi_positions_gather(b.x, m.data, m.channels, m.each, first, n);
        decompose_block(starts, &b, m.each, first, n);
    }
    if (!status)
        status = fi_check_finite(data, (size_t)((count + 1) * m.count * m.channels), "parts");
    free(starts);
    free(b.x);
    fi_maps_close(&m);
    return status;
}

/* ---------------------------------------------------------------- attenuate ------------------ */

/* A mask of one map for all, or of one for each. */
typedef struct mask {
    const float *data; /* NULL: everywhere */
    void *owned;
    int64_t period; /* positions after which it begins again */
} mask;

static featinv_status open_mask(mask *out, const featinv_tensor *tensor, const fi_maps *m) {
    const int64_t shape[3] = {m->images, m->height, m->width};
    const int32_t ndim = tensor && tensor->ndim == 3 ? 3 : 2;
    const void *data = NULL;
    *out = (mask){NULL, NULL, ndim == 3 ? m->count : m->each};
    if (!tensor)
        return FEATINV_OK;
    featinv_status status = fi_tensor_input(&data, &out->owned, tensor, "mask", FEATINV_DTYPE_F32,
                                            ndim, shape + 3 - ndim);
    if (status)
        return status;
    out->data = data;
    for (int64_t i = 0; i < out->period && !status; i++)
        if (isnan(out->data[i]))
            status = fi_fail(FEATINV_ERROR_VALUE, "mask: NaN at element %lld", (long long)i);
        else if (!(out->data[i] >= 0.0f && out->data[i] <= 1.0f))
            status = fi_fail(FEATINV_ERROR_ARGUMENT, "mask: %g at element %lld is not in 0 to 1",
                             (double)out->data[i], (long long)i);
    if (status)
        free(out->owned);
    return status;
}

/* x -= change * mask * part, and bit for bit as it was where that is nothing. */
static void attenuate_block(block *b, double change, const mask *m, int64_t first, int64_t n) {
    double amount[FI_POSITIONS] = {0};
    for (int64_t i = 0; i < n; i++)
        amount[i] = m->data ? change * (double)m->data[(first + i) % m->period] : change;
    for (int64_t c = 0; c < b->channels; c++) {
        double *x = b->x + c * FI_POSITIONS;
        const double *part = b->part + c * FI_POSITIONS;
        for (int64_t i = 0; i < FI_POSITIONS; i++)
            x[i] = amount[i] == 0.0 ? x[i] : x[i] - amount[i] * part[i];
    }
}

static featinv_status attenuate_maps(float *out, const featinv_concepts *concepts, const fi_maps *m,
                                     int32_t index, double factor, const mask *where) {
    block b;
    size_t values = (size_t)(m->count * m->channels);
    if (factor == 1.0) {
        if (values)
            memmove(out, m->data, values * sizeof *out);
        return FEATINV_OK;
    }
    featinv_status status = open_block(&b, concepts);
    if (status)
        return status;
    for (int64_t first = 0; first < m->count; first += FI_POSITIONS) {
        int64_t n = m->count - first < FI_POSITIONS ? m->count - first : FI_POSITIONS;
        fi_positions_gather(b.x, m->data, m->channels, m->each, first, n);
        if (index == FEATINV_COMPLEMENT)
            find_coefficients(&b, 0, b.total);
        else
            find_coefficients(&b, first_of(&b, index), dimension_of(&b, index));
        find_part(&b, index);
        attenuate_block(&b, 1.0 - factor, where, first, n);
        fi_positions_scatter(out, b.x, m->channels, m->each, first, n);
    }
    free(b.x);
    return fi_check_finite(out, values, "attenuated maps");
}

featinv_status featinv_concepts_attenuate(const featinv_tensor *out,
                                          const featinv_concepts *concepts,
                                          const featinv_tensor *maps, int32_t concept_index,
                                          double factor, const featinv_tensor *mask_tensor) {
    fi_maps m = {0};
    mask where = {0};
    void *data = NULL;
    featinv_status status = fi_concepts_check_dual(concepts);
    if (!status)
        status = fi_concepts_check_index(concepts, concept_index);
    if (!status && !isfinite(factor))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "factor is %g: it must be finite", factor);
    if (!status)
        status = fi_maps_open(&m, maps, concepts->info.channels);
    if (status)
        return status;
    int64_t shape[4] = {m.images, m.channels, m.height, m.width};
    status = fi_tensor_data(&data, out, "attenuated maps", FEATINV_DTYPE_F32, 4, shape);
    if (!status)
        status = open_mask(&where, mask_tensor, &m);
    if (!status) {
        status = attenuate_maps(data, concepts, &m, concept_index, factor, &where);
        free(where.owned);
    }
    fi_maps_close(&m);
    return status;
}

/* ---------------------------------------------------------------- activation ----------------- */

/* lengths (n) of the block's rows first..first+rows. */
static void find_lengths(double *lengths, const double *rows, int64_t count, int64_t n) {
    double sums[FI_POSITIONS] = {0};
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < FI_POSITIONS; i++)
            sums[i] += rows[r * FI_POSITIONS + i] * rows[r * FI_POSITIONS + i];
    for (int64_t i = 0; i < n; i++)
        lengths[i] = sqrt(sums[i]);
}

/* Lengths of all parts of one block, (K + 1, positions), and of the features. A concept's basis is
 * orthonormal, so that its part is as long as its coefficients. */
static void measure_block(double *lengths, double *norms, block *b, int64_t positions,
                          int64_t first, int64_t n) {
    int32_t count = b->concepts->info.count;
    find_lengths(norms + first, b->x, b->channels, n);
    find_coefficients(b, 0, b->total);
    for (int32_t i = 0; i < count; i++)
        find_lengths(lengths + i * positions + first,
                     b->coefficients + first_of(b, i) * FI_POSITIONS, dimension_of(b, i), n);
    find_part(b, FEATINV_COMPLEMENT);
    find_lengths(lengths + count * positions + first, b->part, b->channels, n);
}

/* Turns norms into what the lengths are divided by. */
static void find_units(double *norms, const fi_maps *m, featinv_activation normalization) {
    for (int64_t image = 0; image < m->images; image++) {
        double *own = norms + image * m->each, largest = 0.0;
        for (int64_t i = 0; i < m->each; i++)
            largest = fmax(largest, own[i]);
        for (int64_t i = 0; i < m->each; i++)
            if (normalization == FEATINV_ACTIVATION_RAW)
                own[i] = 1.0;
            else if (normalization == FEATINV_ACTIVATION_IMAGE)
                own[i] = largest;
    }
}

featinv_status featinv_concepts_activation(const featinv_tensor *activation,
                                           const featinv_concepts *concepts,
                                           const featinv_tensor *maps,
                                           featinv_activation normalization) {
    fi_maps m = {0};
    block b = {0};
    void *data = NULL;
    double *lengths = NULL;
    featinv_status status = fi_concepts_check_dual(concepts);
    if (!status &&
        (normalization < FEATINV_ACTIVATION_IMAGE || normalization > FEATINV_ACTIVATION_RAW))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "normalization is %d: it must be 0, 1 or 2",
                         normalization);
    if (!status)
        status = fi_maps_open(&m, maps, concepts->info.channels);
    if (status)
        return status;
    int64_t planes = concepts->info.count + 1;
    int64_t shape[4] = {planes, m.images, m.height, m.width};
    size_t room = (size_t)((planes + 1) * m.count) * sizeof *lengths;
    status = fi_tensor_data(&data, activation, "activation", FEATINV_DTYPE_F32, 4, shape);
    if (!status)
        status = open_block(&b, concepts);
    if (!status && !(lengths = malloc(room + 1)))
        status = fi_fail_memory(room);
    if (status)
        goto done;
    double *norms = lengths + planes * m.count;
    for (int64_t first = 0; first < m.count; first += FI_POSITIONS) {
        int64_t n = m.count - first < FI_POSITIONS ? m.count - first : FI_POSITIONS;
        fi_positions_gather(b.x, m.data, m.channels, m.each, first, n);
        measure_block(lengths, norms, &b, m.count, first, n);
    }
    find_units(norms, &m, normalization);
    for (int64_t i = 0; i < planes * m.count; i++) {
        double unit = norms[i % m.count]; /* zero where there is nothing to divide */
        ((float *)data)[i] = unit > 0.0 ? (float)(lengths[i] / unit) : 0.0f;
    }
done:
    free(lengths);
    free(b.x);
    fi_maps_close(&m);
    return status;
}
