/* Concepts for the unit tests: from recorded bases, from angles, from random numbers. */
#ifndef CONCEPT_MAKER_H
#define CONCEPT_MAKER_H

#include "recorded.h"

#include "concepts.h"

#include <math.h>

enum { MAKER_MOST = 16 };

static uint64_t maker_state = 88172645463325252u;

/* Uniform in -1 to 1, the same numbers in every run. */
static inline double maker_random(void) {
    maker_state ^= maker_state << 13;
    maker_state ^= maker_state >> 7;
    maker_state ^= maker_state << 17;
    return (double)(maker_state >> 11) / 4503599627370496.0 - 1.0;
}

static inline featinv_status make_concepts(featinv_concepts **out, double *bases, int64_t channels,
                                           const int32_t *offsets, int32_t count,
                                           int32_t orthonormalize) {
    int64_t shape[2] = {channels, offsets[count]};
    featinv_tensor view = featinv_tensor_view(bases, FEATINV_DTYPE_F64, 2, shape);
    return featinv_concepts_create(out, &view, offsets, count, orthonormalize);
}

/* The recorded bases NAME_0, NAME_1, ... (p, C), rows orthonormal, as concepts. */
static inline featinv_concepts *recorded_concepts(const char *file, const char *name,
                                                  int32_t count) {
    int32_t offsets[MAKER_MOST + 1] = {0};
    double *rows[MAKER_MOST];
    int64_t shape[8], channels = 0;
    for (int32_t i = 0; i < count; i++) {
        char member[64];
        (void)snprintf(member, sizeof member, "%s_%d", name, i);
        rows[i] = recorded(file, member, FEATINV_DTYPE_F64, shape);
        channels = shape[1];
        offsets[i + 1] = offsets[i] + (int32_t)shape[0];
    }
    double *bases = malloc((size_t)(channels * offsets[count]) * sizeof *bases);
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < offsets[i + 1] - offsets[i]; r++)
            for (int64_t c = 0; c < channels; c++)
                bases[c * offsets[count] + offsets[i] + r] = rows[i][r * channels + c];
        free(rows[i]);
    }
    featinv_concepts *concepts = NULL;
    CHECK_OK(make_concepts(&concepts, bases, channels, offsets, count, 0));
    free(bases);
    return concepts;
}

/* count concepts of those dimensions with random bases. */
static inline featinv_concepts *random_concepts(int64_t channels, const int32_t *dimensions,
                                                int32_t count) {
    int32_t offsets[MAKER_MOST + 1] = {0};
    for (int32_t i = 0; i < count; i++)
        offsets[i + 1] = offsets[i] + dimensions[i];
    size_t size = (size_t)(channels * offsets[count]);
    double *bases = malloc(size * sizeof *bases);
    for (size_t i = 0; i < size; i++)
        bases[i] = maker_random();
    featinv_concepts *concepts = NULL;
    CHECK_OK(make_concepts(&concepts, bases, channels, offsets, count, 1));
    free(bases);
    return concepts;
}

static inline featinv_concepts_details details_of(const featinv_concepts *concepts) {
    featinv_concepts_details info = {.struct_size = sizeof info};
    CHECK_OK(featinv_concepts_info(&info, concepts));
    return info;
}

/* Largest |a - b|; NaN counts as infinite. */
static inline double furthest(const double *a, const double *b, int64_t n) {
    double worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double off = fabs(a[i] - b[i]);
        worst = off <= worst ? worst : isnan(off) ? INFINITY : off;
    }
    return worst;
}

#define CHECK_BELOW(value, most)                                                                   \
    do {                                                                                           \
        double check_value_ = (value);                                                             \
        if (!(check_value_ <= (most)))                                                             \
            fail_msg("%s is %.3g, more than %.3g", #value, check_value_, (double)(most));          \
    } while (0)

#endif
