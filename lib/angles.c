#include "angles.h"

#include "concepts.h"
#include "dense.h"
#include "error.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- principal angles ----------- */

/* parts (q, p) = b a^T and rest (q, d) = b - parts a: the cosines and the sines of the angles
 * between b and the row space of a are their singular values. */
static void split(double *parts, double *rest, const double *a, int64_t p, const double *b,
                  int64_t q, int64_t d) {
    memset(parts, 0, (size_t)(q * p) * sizeof *parts);
    fi_multiply_add(parts, p, 1.0, (fi_matrix){b, d, false}, (fi_matrix){a, d, true}, q, p, d);
    memcpy(rest, b, (size_t)(q * d) * sizeof *rest);
    fi_multiply_add(rest, d, -1.0, (fi_matrix){parts, p, false}, (fi_matrix){a, d, false}, q, d, p);
}

/* The q angles between rows b and the row space of a, descending; those that a has no dimension for
 * are right. */
static featinv_status angles_to(double *angles, const double *a, int64_t p, const double *b,
                                int64_t q, int64_t d) {
    size_t room = (size_t)(q * (p + d) + 2 * (p + q + d)) * sizeof(double);
    double *parts = malloc(room);
    if (!parts)
        return fi_fail_memory(room);
    double *rest = parts + q * p, *cosines = rest + q * d, *sines = cosines + p + q;
    split(parts, rest, a, p, b, q, d);
    featinv_status status = fi_singular_values(cosines, parts, q, p);
    if (!status)
        status = fi_singular_values(sines, rest, q, d);
    for (int64_t i = 0; i < q && !status; i++) {
        double sine = i < d ? sines[i] : 0.0, cosine = q - 1 - i < p ? cosines[q - 1 - i] : 0.0;
        angles[i] = atan2(sine, cosine);
    }
    free(parts);
    return status;
}

featinv_status fi_angles(double *angles, const double *a, int64_t p, const double *b, int64_t q,
                         int64_t d) {
    return p >= q ? angles_to(angles, a, p, b, q, d) : angles_to(angles, b, q, a, p, d);
}

/* For unit vectors side by side the smallest singular value is 2^1/2 sin(angle / 2), of sound
 * digits both near zero and near a right angle. */
featinv_status fi_smallest_angle(double *angle, const double *a, int64_t p, const double *b,
                                 int64_t q, int64_t d) {
    int64_t n = p + q, rank;
    size_t room = (size_t)(2 * n * d + n * n) * sizeof(double);
    double *both = malloc(room), least = 0.0;
    if (!both)
        return fi_fail_memory(room);
    double *basis = both + n * d, *factor = basis + n * d;
    memcpy(both, a, (size_t)(p * d) * sizeof *both);
    memcpy(both + p * d, b, (size_t)(q * d) * sizeof *both);
    featinv_status status = fi_orthonormal(basis, factor, &rank, both, n, d, 0.0);
    if (!status)
        status = fi_least_singular(&least, factor, n);
    *angle = 2.0 * asin(fmin(1.0, least / M_SQRT2));
    free(both);
    return status;
}

/* ---------------------------------------------------------------- similarity ----------------- */

/* A concept's basis, or the span whose complement is meant. */
typedef struct side {
    double *rows; /* owned */
    int64_t dimension;
    bool complement;
} side;

static featinv_status open_side(side *out, const featinv_concepts *concepts, int32_t index) {
    int32_t dimension = 0;
    *out = (side){.complement = index == FEATINV_COMPLEMENT};
    if (!out->complement) {
        featinv_status status = fi_concepts_rows(&out->rows, &dimension, concepts, index);
        out->dimension = dimension;
        return status;
    }
    size_t size = (size_t)(concepts->rank * concepts->info.channels) * sizeof *out->rows;
    out->rows = malloc(size);
    if (!out->rows)
        return fi_fail_memory(size);
    memcpy(out->rows, concepts->span, size);
    out->dimension = concepts->rank;
    return FEATINV_OK;
}

/* Angles with the complement of b's rows: sine and cosine change places. Of the angles of all of
 * a's dimensions the smallest are taken, as many as the complement has. */
static featinv_status complement_angles(double *angles, const side *a, const side *b, int64_t d) {
    int64_t q = a->dimension, count = q < d - b->dimension ? q : d - b->dimension;
    double *all = malloc((size_t)q * sizeof *all);
    if (!all)
        return fi_fail_memory((size_t)q * sizeof *all);
    featinv_status status = angles_to(all, b->rows, b->dimension, a->rows, q, d);
    for (int64_t i = 0; i < count && !status; i++)
        angles[i] = M_PI / 2.0 - all[count - 1 - i];
    free(all);
    return status;
}

/* Between two complements: the same angles as between the spans, but for how many of them are
 * zero. */
static featinv_status both_complements(double *angles, const side *a, const side *b, int64_t d) {
    int64_t few = a->dimension < b->dimension ? a->dimension : b->dimension;
    int64_t many = a->dimension + b->dimension - few, count = d - many;
    double *all = malloc((size_t)few * sizeof *all);
    if (!all)
        return fi_fail_memory((size_t)few * sizeof *all);
    featinv_status status = fi_angles(all, a->rows, a->dimension, b->rows, b->dimension, d);
    for (int64_t i = 0; i < count && !status; i++)
        angles[i] = i < few ? all[i] : 0.0;
    free(all);
    return status;
}

/* The angles, descending, into room for d of them. */
static featinv_status side_angles(double *angles, int64_t *count, const side *a, const side *b,
                                  int64_t d) {
    int64_t p = a->complement ? d - a->dimension : a->dimension;
    int64_t q = b->complement ? d - b->dimension : b->dimension;
    *count = p < q ? p : q;
    if (a->complement && b->complement)
        return both_complements(angles, a, b, d);
    if (a->complement)
        return complement_angles(angles, b, a, d);
    if (b->complement)
        return complement_angles(angles, a, b, d);
    return fi_angles(angles, a->rows, p, b->rows, q, d);
}

featinv_status featinv_concepts_similarity(double *distance, double *angles, int32_t capacity,
                                           int32_t *angle_count, const featinv_concepts *a,
                                           int32_t index_a, const featinv_concepts *b,
                                           int32_t index_b) {
    featinv_status status = fi_concepts_check_index(a, index_a);
    if (!status)
        status = fi_concepts_check_index(b, index_b);
    if (!status && a->info.channels != b->info.channels)
        status = fi_fail(FEATINV_ERROR_SHAPE, "concepts of %d and of %d channels", a->info.channels,
                         b->info.channels);
    if (!status && (capacity < 0 || (capacity > 0 && !angles)))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "no room for %d angles", capacity);
    if (status)
        return status;
    int64_t d = a->info.channels, count = 0;
    side left = {0}, right = {0};
    double *all = malloc((size_t)d * sizeof *all), sum = 0.0;
    status = all ? open_side(&left, a, index_a) : fi_fail_memory((size_t)d * sizeof *all);
    if (!status)
        status = open_side(&right, b, index_b);
    if (!status)
        status = side_angles(all, &count, &left, &right, d);
    for (int64_t i = 0; i < count && !status; i++) {
        sum += all[i] * all[i];
        if (i < capacity)
            angles[i] = all[i];
    }
    if (!status && distance)
        *distance = sqrt(sum);
    if (!status && angle_count)
        *angle_count = (int32_t)count;
    free(left.rows);
    free(right.rows);
    free(all);
    return status;
}
