/* Completeness and relevance of concepts (MCD, sections 3.3 and 3.4). */
#include "relevance.h"

#include "concepts.h"
#include "dense.h"
#include "error.h"
#include "head.h"
#include "positions.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- completeness --------------- */

featinv_status fi_unit_weight(double *out, const double *weight, int64_t channels) {
    double largest = 0.0;
    for (int64_t c = 0; c < channels; c++) {
        if (!isfinite(weight[c]))
            return fi_fail(FEATINV_ERROR_VALUE, "weight: %s at channel %lld",
                           isnan(weight[c]) ? "NaN" : "infinity", (long long)c);
        largest = fmax(largest, fabs(weight[c]));
    }
    if (largest == 0.0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "weight: all %lld channels are zero",
                       (long long)channels);
    for (int64_t c = 0; c < channels; c++)
        out[c] = weight[c] / largest;
    double length = sqrt(fi_dense_dot(out, out, channels));
    for (int64_t c = 0; c < channels; c++)
        out[c] /= length;
    return FEATINV_OK;
}

void fi_completeness(double *completeness, double *rest, double *room, const double *rows,
                     int64_t rank, int64_t channels, const double *unit) {
    double inside = 0.0;
    memcpy(room, unit, (size_t)channels * sizeof *room);
    for (int64_t i = 0; i < rank; i++) {
        double part = fi_dense_dot(rows + i * channels, unit, channels);
        fi_dense_add(room, -part, rows + i * channels, channels);
        inside += part * part;
    }
    *completeness = sqrt(inside);
    *rest = rank == channels ? 0.0 : sqrt(fi_dense_dot(room, room, channels));
}

featinv_status featinv_concepts_completeness(double *completeness, double *rest,
                                             const featinv_concepts *concepts,
                                             const double *weight) {
    if (!concepts || !weight)
        return fi_fail(FEATINV_ERROR_ARGUMENT, concepts ? "no weight" : "no concepts");
    int64_t d = concepts->info.channels;
    double inside = 0.0, outside = 0.0, *unit = malloc((size_t)(2 * d) * sizeof *unit);
    if (!unit)
        return fi_fail_memory((size_t)(2 * d) * sizeof *unit);
    featinv_status status = fi_unit_weight(unit, weight, d);
    if (!status)
        fi_completeness(&inside, &outside, unit + d, concepts->span, concepts->rank, d, unit);
    free(unit);
    if (!status && completeness)
        *completeness = inside;
    if (!status && rest)
        *rest = outside;
    return status;
}

/* ---------------------------------------------------------------- relevance ------------------ */

featinv_status fi_global_relevance(double *out, const featinv_concepts *concepts,
                                   const double *weight) {
    const featinv_concepts_details *info = &concepts->info;
    int64_t d = info->channels, total = info->total;
    double *unit = malloc((size_t)(d + total) * sizeof *unit);
    if (!unit)
        return fi_fail_memory((size_t)(d + total) * sizeof *unit);
    double *coefficients = unit + d;
    featinv_status status = fi_unit_weight(unit, weight, d);
    for (int64_t i = 0; i < total && !status; i++)
        coefficients[i] = fi_dense_dot(concepts->dual + i * d, unit, d);
    for (int32_t k = 0; k < info->count && !status; k++) {
        const double *own = coefficients + info->offsets[k];
        out[k] = sqrt(fi_dense_dot(own, own, info->offsets[k + 1] - info->offsets[k]));
    }
    for (int64_t c = 0; c < d && !status; c++)
        unit[c] -= fi_dense_dot(info->bases + c * total, coefficients, total);
    if (!status)
        out[info->count] = total == d ? 0.0 : sqrt(fi_dense_dot(unit, unit, d));
    free(unit);
    return status;
}

/* rows (K + 1, C): row k times a feature is the weight times the feature's part in concept k. The
 * weight times all other parts is what the complement's row is left with. */
static featinv_status find_rows(double *rows, const featinv_concepts *concepts,
                                const double *weight) {
    const featinv_concepts_details *info = &concepts->info;
    int64_t d = info->channels, total = info->total;
    double *rest = rows + info->count * d, *parts = calloc((size_t)total, sizeof *parts);
    if (!parts)
        return fi_fail_memory((size_t)total * sizeof *parts);
    memset(rows, 0, (size_t)((info->count + 1) * d) * sizeof *rows);
    memcpy(rest, weight, (size_t)d * sizeof *rest);
    for (int64_t c = 0; c < d; c++)
        fi_dense_add(parts, weight[c], info->bases + c * total, total);
    for (int32_t k = 0; k < info->count; k++) {
        for (int32_t i = info->offsets[k]; i < info->offsets[k + 1]; i++)
            fi_dense_add(rows + k * d, parts[i], concepts->dual + i * d, d);
        fi_dense_add(rest, -1.0, rows + k * d, d);
    }
    if (total == d)
        memset(rest, 0, (size_t)d * sizeof *rest);
    free(parts);
    return FEATINV_OK;
}

/* One over the head's spread, for every image. */
static featinv_status find_scales(double *scales, const fi_head *head, const fi_maps *m) {
    double *mean = malloc((size_t)m->channels * sizeof *mean);
    if (!mean)
        return fi_fail_memory((size_t)m->channels * sizeof *mean);
    for (int64_t n = 0; n < m->images; n++) {
        for (int64_t c = 0; c < m->channels; c++) {
            const float *plane = m->data + (n * m->channels + c) * m->each;
            double sum = 0.0;
            for (int64_t i = 0; i < m->each; i++)
                sum += (double)plane[i];
            mean[c] = sum / (double)m->each;
        }
        double spread = fi_head_spread(head, mean);
        scales[n] = spread > 0.0 ? 1.0 / spread : 0.0; /* a constant map has no parts to share */
    }
    free(mean);
    return FEATINV_OK;
}

/* Shares of one block of positions: to the map, and their mean over positions to sums. */
static void share_block(double *sums, float *map, const double *shares, const double *scales,
                        const fi_maps *m, int64_t planes, int64_t first, int64_t n) {
    for (int64_t k = 0; k < planes; k++)
        for (int64_t i = 0; i < n; i++) {
            int64_t image = (first + i) / m->each;
            double share = shares[k * FI_POSITIONS + i] * scales[image];
            sums[image * planes + k] += share / (double)m->each;
            if (map)
                map[k * m->count + first + i] = (float)share;
        }
}

/* local (N, K + 1) and map (K + 1, N, H, W); either may be NULL. */
static featinv_status find_local(float *local, float *map, const featinv_concepts *concepts,
                                 const fi_head *head, const fi_maps *m) {
    int64_t planes = concepts->info.count + 1, d = m->channels;
    size_t room = (size_t)(planes * (d + FI_POSITIONS + m->images) + d * FI_POSITIONS + m->images) *
                  sizeof(double);
    double *rows = calloc(1, room);
    if (!rows)
        return fi_fail_memory(room);
    double *shares = rows + planes * d, *sums = shares + planes * FI_POSITIONS;
    double *x = sums + planes * m->images, *scales = x + d * FI_POSITIONS;
    featinv_status status = find_rows(rows, concepts, head->weight);
    if (!status)
        status = find_scales(scales, head, m);
    for (int64_t first = 0; first < m->count && !status; first += FI_POSITIONS) {
        int64_t n = m->count - first < FI_POSITIONS ? m->count - first : FI_POSITIONS;
        fi_positions_gather(x, m->data, d, m->each, first, n);
        memset(shares, 0, (size_t)(planes * FI_POSITIONS) * sizeof *shares);
        fi_multiply_add(shares, FI_POSITIONS, 1.0, (fi_matrix){rows, d, false},
                        (fi_matrix){x, FI_POSITIONS, false}, planes, FI_POSITIONS, d);
        share_block(sums, map, shares, scales, m, planes, first, n);
    }
    for (int64_t i = 0; local && i < m->images * planes && !status; i++)
        local[i] = (float)sums[i];
    free(rows);
    return status;
}

/* Maps and the places for their shares. */
static featinv_status open_local(fi_maps *m, void **local, void **map,
                                 const featinv_tensor *local_relevance,
                                 const featinv_tensor *local_map, const featinv_concepts *concepts,
                                 const featinv_tensor *maps) {
    featinv_status status = fi_maps_open(m, maps, concepts->info.channels);
    if (status)
        return status;
    int64_t planes = concepts->info.count + 1, shape[2] = {m->images, planes};
    int64_t map_shape[4] = {planes, m->images, m->height, m->width};
    if (m->each == 0)
        status = fi_fail(FEATINV_ERROR_SHAPE, "maps: %lld by %lld positions", (long long)m->height,
                         (long long)m->width);
    if (!status && local_relevance)
        status =
            fi_tensor_data(local, local_relevance, "local relevance", FEATINV_DTYPE_F32, 2, shape);
    if (!status && local_map)
        status = fi_tensor_data(map, local_map, "local map", FEATINV_DTYPE_F32, 4, map_shape);
    if (status)
        fi_maps_close(m);
    return status;
}

/* Begins the call and reads the head. */
static featinv_status begin(fi_head *head, featinv_session *session, int32_t class_index) {
    fi_net *net = NULL;
    featinv_status status = fi_session_begin(session, FI_PART(FI_PROGRAM_HEAD), &net);
    return status ? status : fi_head_open(head, session, class_index);
}

featinv_status featinv_class_weight(double *weight, featinv_session *session, int32_t class_index) {
    fi_head head = {0};
    featinv_status status = weight ? begin(&head, session, class_index)
                                   : fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the weight");
    if (!status)
        memcpy(weight, head.weight, (size_t)head.channels * sizeof *weight);
    fi_head_close(&head);
    return status;
}

featinv_status featinv_concepts_relevance(double *global_relevance,
                                          const featinv_tensor *local_relevance,
                                          const featinv_tensor *local_map, featinv_session *session,
                                          const featinv_concepts *concepts,
                                          const featinv_tensor *maps, int32_t class_index) {
    fi_head head = {0};
    fi_maps m = {0};
    void *local = NULL, *map = NULL;
    featinv_status status = fi_concepts_check_dual(concepts);
    if (!status)
        status = begin(&head, session, class_index);
    if (!status && head.channels != concepts->info.channels)
        status =
            fi_fail(FEATINV_ERROR_SHAPE, "concepts of %d channels, the bundle's maps have %lld",
                    concepts->info.channels, (long long)head.channels);
    if (!status && (local_relevance || local_map))
        status = open_local(&m, &local, &map, local_relevance, local_map, concepts, maps);
    if (!status && global_relevance)
        status = fi_global_relevance(global_relevance, concepts, head.weight);
    if (!status && (local_relevance || local_map))
        status = find_local(local, map, concepts, &head, &m);
    fi_maps_close(&m);
    fi_head_close(&head);
    return status;
}
