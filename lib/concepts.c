/* The handle: bases checked, and what follows from them alone. */
#include "concepts.h"

#include "angles.h"
#include "dense.h"
#include "error.h"
#include "options.h"
#include "tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* How far from orthonormal a basis may be, and from where on it is put right. */
static const double worst_basis = 1e-6, good_basis = 1e-12;

/* ---------------------------------------------------------------- checks --------------------- */

static featinv_status check_offsets(const int32_t *offsets, int32_t count, int32_t channels) {
    if (offsets[0] != 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "offsets: the first is %d, not 0", offsets[0]);
    for (int32_t i = 0; i < count; i++)
        if (offsets[i + 1] <= offsets[i])
            return fi_fail(
                FEATINV_ERROR_ARGUMENT,
                "offsets: %d is followed by %d: every concept has at least one dimension",
                offsets[i], offsets[i + 1]);
    if (offsets[count] > channels)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "the concepts have %d dimensions together, the features %d channels",
                       offsets[count], channels);
    if (offsets[count] > FI_MOST_DIMENSIONS)
        return fi_fail(FEATINV_ERROR_LIMIT,
                       "the concepts have %d dimensions together, not up to %d", offsets[count],
                       FI_MOST_DIMENSIONS);
    return FEATINV_OK;
}

static featinv_status check_values(const double *bases, int32_t channels, int32_t total) {
    for (int64_t i = 0; i < (int64_t)channels * total; i++)
        if (!isfinite(bases[i]))
            return fi_fail(FEATINV_ERROR_VALUE, "bases: %s at row %lld, column %lld",
                           isnan(bases[i]) ? "NaN" : "infinity", (long long)(i / total),
                           (long long)(i % total));
    return FEATINV_OK;
}

static featinv_status check_labels(const int32_t *labels, int32_t ndim, const int64_t *shape,
                                   int32_t count) {
    size_t rows;
    if (!labels)
        return FEATINV_OK;
    if (!shape || (ndim != 1 && ndim != 3))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "labels: %d dimensions, not 1 or 3", ndim);
    if (!fi_checked_size(&rows, shape, ndim, 1))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "labels: the shape is negative or too large");
    for (size_t i = 0; i < rows; i++)
        if (labels[i] < -1 || labels[i] >= count)
            return fi_fail(FEATINV_ERROR_ARGUMENT, "labels: %d at row %zu, not -1 to %d", labels[i],
                           i, count - 1);
    return FEATINV_OK;
}

/* Where inner products of the rows (p, d) are furthest from the unit matrix. */
static featinv_status deviation(double *worst, int32_t at[2], const double *rows, int32_t p,
                                int32_t d) {
    double *gram = calloc((size_t)p * (size_t)p, sizeof *gram);
    *worst = 0.0;
    if (!gram)
        return fi_fail_memory((size_t)p * (size_t)p * sizeof *gram);
    fi_multiply_add(gram, p, 1.0, (fi_matrix){rows, d, false}, (fi_matrix){rows, d, true}, p, p, d);
    for (int32_t i = 0; i < p; i++)
        for (int32_t j = 0; j <= i; j++) {
            double off = fabs(gram[i * p + j] - (i == j));
            if (!(off <= *worst)) {
                *worst = isnan(off) ? INFINITY : off;
                at[0] = j;
                at[1] = i;
            }
        }
    free(gram);
    return FEATINV_OK;
}

/* One concept of the turned bases; *polished where it had to be put right. */
static featinv_status check_basis(double *rows, int32_t p, int32_t d, int32_t index,
                                  bool *polished) {
    double worst;
    int32_t at[2] = {0, 0};
    featinv_status status = deviation(&worst, at, rows, p, d);
    if (status)
        return status;
    if (!(worst <= worst_basis))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "bases: concept %d is not orthonormal: its columns %d and %d have an inner "
                       "product off by %.3g",
                       index, at[0], at[1], worst);
    if (worst <= good_basis)
        return FEATINV_OK;
    double *copy = malloc((size_t)p * (size_t)d * sizeof *copy);
    if (!copy)
        return fi_fail_memory((size_t)p * (size_t)d * sizeof *copy);
    int64_t rank;
    memcpy(copy, rows, (size_t)p * (size_t)d * sizeof *copy);
    status = fi_orthonormal(rows, NULL, &rank, copy, p, d, 0.0);
    free(copy);
    *polished = true;
    return status;
}

/* ---------------------------------------------------------------- derivation ----------------- */

/* The two concepts that come closest to each other. inner: products of all basis vectors, so that
 * most pairs can be left out: the largest cosine is at most the block's Frobenius norm. */
static featinv_status closest_pair(featinv_concepts_details *info, const double *frame,
                                   const double *inner) {
    const int32_t *offsets = info->offsets;
    double best = M_PI / 2.0;
    for (int32_t j = 1; j < info->count; j++)
        for (int32_t i = 0; i < j; i++) {
            int32_t p = offsets[i + 1] - offsets[i], q = offsets[j + 1] - offsets[j];
            double bound = 0.0, angle;
            for (int32_t r = offsets[i]; r < offsets[i + 1]; r++)
                for (int32_t s = offsets[j]; s < offsets[j + 1]; s++)
                    bound +=
                        inner[(int64_t)r * info->total + s] * inner[(int64_t)r * info->total + s];
            bool first = info->angle_first < 0;
            /* what rounding may hide of a better pair is 1e-13 of an angle, in either case */
            double margin = best > 0.1 ? 1e-14 : -1e-13;
            if (!first && (best < 1e-9 || sqrt(bound) < cos(best) + margin))
                continue;
            featinv_status status =
                fi_smallest_angle(&angle, frame + (int64_t)offsets[i] * info->channels, p,
                                  frame + (int64_t)offsets[j] * info->channels, q, info->channels);
            if (status)
                return status;
            if (!first && angle >= best)
                continue;
            best = angle;
            info->angle_first = i;
            info->angle_second = j;
        }
    info->smallest_angle = best;
    return FEATINV_OK;
}

static featinv_status derive_angles(featinv_concepts *concepts, const double *frame) {
    featinv_concepts_details *info = &concepts->info;
    int64_t total = info->total, d = info->channels;
    double *inner = calloc((size_t)(total * total), sizeof *inner);
    if (!inner)
        return fi_fail_memory((size_t)(total * total) * sizeof *inner);
    fi_multiply_add(inner, total, 1.0, (fi_matrix){frame, d, false}, (fi_matrix){frame, d, true},
                    total, total, d);
    featinv_status status = closest_pair(info, frame, inner);
    free(inner);
    return status;
}

/* Singular value, span and dual from one triangular factorisation. */
static featinv_status derive_dual(featinv_concepts *concepts, const double *frame) {
    featinv_concepts_details *info = &concepts->info;
    int64_t total = info->total, d = info->channels;
    size_t size = (size_t)(total * d) * sizeof(double);
    double *factor = malloc((size_t)(total * total) * sizeof *factor);
    concepts->span = malloc(size);
    featinv_status status =
        factor && concepts->span
            ? fi_orthonormal(concepts->span, factor, &concepts->rank, frame, total, d, 0.0)
            : fi_fail_memory(size);
    if (!status)
        status = fi_least_singular(&info->smallest_singular, factor, total);
    if (status)
        goto done;
    if (info->smallest_singular < FI_SINGULAR_LEAST) {
        /* without the directions that are made of rounding */
        status = fi_orthonormal(concepts->span, NULL, &concepts->rank, frame, total, d, 1e-10);
        goto done;
    }
    concepts->dual = malloc(size);
    status = concepts->dual ? fi_pseudo_inverse(concepts->dual, concepts->span, factor, total,
                                                concepts->rank, d)
                            : fi_fail_memory(size);
done:
    free(factor);
    return status;
}

static featinv_status derive(featinv_concepts *concepts) {
    featinv_concepts_details *info = &concepts->info;
    const int32_t *offsets = concepts->offsets;
    int64_t d = info->channels;
    size_t size = (size_t)info->total * (size_t)d * sizeof(double);
    bool polished = false;
    double *frame = malloc(size);
    if (!frame)
        return fi_fail_memory(size);
    fi_transpose(frame, concepts->bases, d, info->total);
    featinv_status status = FEATINV_OK;
    for (int32_t i = 0; i < info->count && !status; i++)
        status = check_basis(frame + offsets[i] * d, offsets[i + 1] - offsets[i], info->channels, i,
                             &polished);
    if (!status && polished)
        fi_transpose(concepts->bases, frame, info->total, d);
    if (!status)
        status = derive_angles(concepts, frame);
    if (!status)
        status = derive_dual(concepts, frame);
    free(frame);
    return status;
}

/* ---------------------------------------------------------------- handle --------------------- */

static void describe(featinv_concepts *concepts, int32_t count, int32_t channels,
                     int32_t label_ndim, const int64_t *label_shape) {
    concepts->info = (featinv_concepts_details){
        .struct_size = sizeof concepts->info,
        .channels = channels,
        .count = count,
        .total = concepts->offsets[count],
        .offsets = concepts->offsets,
        .bases = concepts->bases,
        .labels = concepts->labels,
        .angle_first = -1,
        .angle_second = -1,
        .method = FEATINV_CONCEPTS_GIVEN,
        .gamma = NAN,
        .tau = NAN,
        .outlier_quantile = NAN,
        .objective = NAN,
        .stationarity = NAN,
        .seconds = NAN,
    };
    if (!concepts->labels)
        return;
    concepts->info.label_ndim = label_ndim;
    memcpy(concepts->info.label_shape, label_shape, (size_t)label_ndim * sizeof *label_shape);
}

featinv_status fi_concepts_new(featinv_concepts **out, double *bases, int32_t *offsets,
                               int32_t count, int32_t channels, int32_t *labels, int32_t label_ndim,
                               const int64_t *label_shape) {
    featinv_concepts *concepts = calloc(1, sizeof *concepts);
    *out = NULL;
    if (!concepts) {
        free(bases);
        free(offsets);
        free(labels);
        return fi_fail_memory(sizeof *concepts);
    }
    atomic_init(&concepts->references, 1);
    concepts->bases = bases;
    concepts->offsets = offsets;
    concepts->labels = labels;
    featinv_status status =
        count < 1 || channels < 1
            ? fi_fail(FEATINV_ERROR_ARGUMENT, "%d concepts of %d channels: at least one is wanted",
                      count, channels)
            : check_offsets(offsets, count, channels);
    if (!status)
        status = check_labels(labels, label_ndim, label_shape, count);
    if (!status)
        status = check_values(bases, channels, offsets[count]);
    if (!status) {
        describe(concepts, count, channels, label_ndim, label_shape);
        status = derive(concepts);
    }
    if (status) {
        featinv_concepts_release(concepts);
        return status;
    }
    *out = concepts;
    return FEATINV_OK;
}

featinv_concepts *featinv_concepts_retain(featinv_concepts *concepts) {
    if (concepts)
        atomic_fetch_add(&concepts->references, 1);
    return concepts;
}

void featinv_concepts_release(featinv_concepts *concepts) {
    if (!concepts || atomic_fetch_sub(&concepts->references, 1) != 1)
        return;
    free(concepts->offsets);
    free(concepts->labels);
    free(concepts->bases);
    free(concepts->eigenvalues);
    free(concepts->class_name);
    fi_sparse_free(&concepts->coefficients);
    free(concepts->span);
    free(concepts->dual);
    free(concepts);
}

featinv_status featinv_concepts_info(featinv_concepts_details *info,
                                     const featinv_concepts *concepts) {
    if (!concepts)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no concepts");
    featinv_concepts_details all = concepts->info;
    return fi_options_init(info, info ? info->struct_size : 0, &all, sizeof all);
}

featinv_status featinv_concepts_coefficients(const int64_t **offsets, const int32_t **indices,
                                             const double **values, int64_t *rows,
                                             const featinv_concepts *concepts) {
    if (!concepts)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no concepts");
    const fi_sparse *kept = &concepts->coefficients;
    if (!kept->offsets)
        return fi_fail(FEATINV_ERROR_NOT_FOUND,
                       "these concepts hold no coefficients: the fit was not "
                       "asked to keep them");
    if (offsets)
        *offsets = kept->offsets;
    if (indices)
        *indices = kept->indices;
    if (values)
        *values = kept->values;
    if (rows)
        *rows = kept->rows;
    return FEATINV_OK;
}

featinv_status fi_concepts_rows(double **out, int32_t *dimension, const featinv_concepts *concepts,
                                int32_t index) {
    const featinv_concepts_details *info = &concepts->info;
    int32_t first = info->offsets[index], p = info->offsets[index + 1] - first;
    size_t size = (size_t)p * (size_t)info->channels * sizeof **out;
    *out = malloc(size);
    if (!*out)
        return fi_fail_memory(size);
    for (int64_t c = 0; c < info->channels; c++)
        for (int64_t i = 0; i < p; i++)
            (*out)[i * info->channels + c] = info->bases[c * info->total + first + i];
    *dimension = p;
    return FEATINV_OK;
}

featinv_status fi_concepts_check_index(const featinv_concepts *concepts, int32_t index) {
    if (!concepts)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no concepts");
    if (index == FEATINV_COMPLEMENT || (index >= 0 && index < concepts->info.count))
        return FEATINV_OK;
    return fi_fail(FEATINV_ERROR_ARGUMENT,
                   "concept is %d: there are 0 to %d and the complement (%d)", index,
                   concepts->info.count - 1, FEATINV_COMPLEMENT);
}

featinv_status fi_concepts_check_dual(const featinv_concepts *concepts) {
    if (!concepts)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no concepts");
    if (concepts->dual)
        return FEATINV_OK;
    const featinv_concepts_details *info = &concepts->info;
    return fi_fail(
        FEATINV_ERROR_UNSUPPORTED,
        "concepts %d and %d overlap (angle %.3g): the smallest singular value of all bases is "
        "%.3g, under %g",
        info->angle_first, info->angle_second, info->smallest_angle, info->smallest_singular,
        FI_SINGULAR_LEAST);
}

/* ---------------------------------------------------------------- from elsewhere ------------- */

/* The bases as float64, a copy. */
static featinv_status copy_bases(double **out, const featinv_tensor *bases) {
    const int64_t shape[2] = {-1, -1};
    const void *data = NULL;
    void *owned = NULL;
    featinv_dtype dtype = bases && fi_tensor_dtype(bases) == FEATINV_DTYPE_F32 ? FEATINV_DTYPE_F32
                                                                               : FEATINV_DTYPE_F64;
    featinv_status status = fi_tensor_input(&data, &owned, bases, "bases", dtype, 2, shape);
    if (status)
        return status;
    size_t count = (size_t)(bases->shape[0] * bases->shape[1]);
    *out = malloc(count * sizeof **out + 1);
    if (!*out)
        status = fi_fail_memory(count * sizeof **out);
    else if (dtype == FEATINV_DTYPE_F64)
        memcpy(*out, data, count * sizeof **out);
    else
        for (size_t i = 0; i < count; i++)
            (*out)[i] = (double)((const float *)data)[i];
    free(owned);
    return status;
}

/* Each concept's columns made orthonormal, from the first one on, whatever their lengths. */
static featinv_status orthonormalize(double *bases, const int32_t *offsets, int32_t count,
                                     int32_t channels) {
    int64_t d = channels, total = offsets[count];
    size_t size = (size_t)(d * total) * sizeof(double);
    double *frame = malloc(2 * size);
    if (!frame)
        return fi_fail_memory(2 * size);
    double *q = frame + d * total;
    featinv_status status = FEATINV_OK;
    fi_transpose(frame, bases, d, total);
    for (int64_t i = 0; i < total; i++) {
        double largest = 0.0; /* scaled first, so that squares neither overflow nor vanish */
        for (int64_t c = 0; c < d; c++)
            largest = fmax(largest, fabs(frame[i * d + c]));
        for (int64_t c = 0; c < d && largest > 0.0; c++)
            frame[i * d + c] /= largest;
        double length = sqrt(fi_dense_dot(frame + i * d, frame + i * d, d));
        for (int64_t c = 0; c < d && length > 0.0; c++)
            frame[i * d + c] /= length;
    }
    for (int32_t i = 0; i < count && !status; i++) {
        int64_t first = offsets[i], p = offsets[i + 1] - first, rank = 0;
        status = fi_orthonormal(q + first * d, NULL, &rank, frame + first * d, p, d, 1e-6);
        if (!status && rank < p)
            status = fi_fail(FEATINV_ERROR_ARGUMENT,
                             "bases: the %lld columns of concept %d are dependent: they span %lld "
                             "dimensions",
                             (long long)p, i, (long long)rank);
    }
    if (!status)
        fi_transpose(bases, q, total, d);
    free(frame);
    return status;
}

static featinv_status check_columns(const featinv_tensor *bases, const int32_t *offsets,
                                    int32_t count) {
    if (bases->shape[0] < 1 || bases->shape[0] > INT32_MAX || bases->shape[1] < 1 ||
        bases->shape[1] > INT32_MAX)
        return fi_fail(FEATINV_ERROR_SHAPE, "bases: %lld channels and %lld columns",
                       (long long)bases->shape[0], (long long)bases->shape[1]);
    featinv_status status = check_offsets(offsets, count, (int32_t)bases->shape[0]);
    if (!status && offsets[count] != bases->shape[1])
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "offsets: the last is %d, bases has %lld columns",
                         offsets[count], (long long)bases->shape[1]);
    return status;
}

featinv_status featinv_concepts_create(featinv_concepts **out, const featinv_tensor *bases,
                                       const int32_t *offsets, int32_t count,
                                       int32_t orthonormalize_columns) {
    double *values = NULL;
    int32_t *copy = NULL;
    if (!out || !offsets || count < 1 || count > FI_MOST_DIMENSIONS)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%d concepts%s: 1 to %d are wanted", count,
                       out && offsets ? "" : " and a NULL pointer", FI_MOST_DIMENSIONS);
    *out = NULL;
    featinv_status status = copy_bases(&values, bases);
    if (!status)
        status = check_columns(bases, offsets, count);
    if (!status)
        status = check_values(values, (int32_t)bases->shape[0], (int32_t)bases->shape[1]);
    if (!status && orthonormalize_columns)
        status = orthonormalize(values, offsets, count, (int32_t)bases->shape[0]);
    size_t size = ((size_t)count + 1) * sizeof *copy;
    if (!status && !(copy = malloc(size)))
        status = fi_fail_memory(size);
    if (status) {
        free(values);
        return status;
    }
    memcpy(copy, offsets, size);
    return fi_concepts_new(out, values, copy, count, (int32_t)bases->shape[0], NULL, 0, NULL);
}
