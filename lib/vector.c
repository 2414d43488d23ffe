#include "vector.h"

#include <stdbool.h>

/* Unaligned loads and stores; the sizes are those of AVX2, which other processors split. */
typedef float floats8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ints8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef double doubles4 __attribute__((vector_size(32), aligned(8), may_alias));

#define WIDE4(p) ((doubles4){(double)(p)[0], (double)(p)[1], (double)(p)[2], (double)(p)[3]})
#define SUM4(v) (((v)[0] + (v)[1]) + ((v)[2] + (v)[3]))

FI_CLONES double fi_dot(const float *a, const float *b, int64_t d) {
    doubles4 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t i = 0;
    for (; i + 16 <= d; i += 16) {
        s0 += WIDE4(a + i) * WIDE4(b + i);
        s1 += WIDE4(a + i + 4) * WIDE4(b + i + 4);
        s2 += WIDE4(a + i + 8) * WIDE4(b + i + 8);
        s3 += WIDE4(a + i + 12) * WIDE4(b + i + 12);
    }
    doubles4 s = (s0 + s1) + (s2 + s3);
    double sum = SUM4(s);
    for (; i < d; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

FI_CLONES double fi_dot_mixed(const float *a, const double *b, int64_t d) {
    doubles4 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t i = 0;
    for (; i + 16 <= d; i += 16) {
        s0 += WIDE4(a + i) * *(const doubles4 *)(b + i);
        s1 += WIDE4(a + i + 4) * *(const doubles4 *)(b + i + 4);
        s2 += WIDE4(a + i + 8) * *(const doubles4 *)(b + i + 8);
        s3 += WIDE4(a + i + 12) * *(const doubles4 *)(b + i + 12);
    }
    doubles4 s = (s0 + s1) + (s2 + s3);
    double sum = SUM4(s);
    for (; i < d; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

FI_CLONES double fi_square_norm(const double *r, int64_t d) {
    doubles4 s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 8 <= d; i += 8) {
        const doubles4 x = *(const doubles4 *)(r + i), y = *(const doubles4 *)(r + i + 4);
        s0 += x * x;
        s1 += y * y;
    }
    doubles4 s = s0 + s1;
    double sum = SUM4(s);
    for (; i < d; i++)
        sum += r[i] * r[i];
    return sum;
}

FI_CLONES void fi_residual(double *r, const float *x, const float *const *rows, const double *c,
                           int32_t count, int64_t d) {
    int64_t i = 0;
    for (; i + 32 <= d; i += 32) {
        doubles4 s[8];
        FI_UNROLL
        for (int q = 0; q < 8; q++)
            s[q] = WIDE4(x + i + 4 * q);
        for (int32_t k = 0; k < count; k++) {
            const float *row = rows[k] + i;
            const double value = c[k];
            const doubles4 factor = {value, value, value, value};
            __builtin_prefetch(row + 64); /* more rows than the processor follows by itself */
            __builtin_prefetch(row + 80);
            FI_UNROLL
            for (int q = 0; q < 8; q++)
                s[q] -= factor * WIDE4(row + 4 * q);
        }
        FI_UNROLL
        for (int q = 0; q < 8; q++)
            *(doubles4 *)(r + i + 4 * q) = s[q];
    }
    for (; i < d; i++) {
        double sum = (double)x[i];
        for (int32_t k = 0; k < count; k++)
            sum -= c[k] * (double)rows[k][i];
        r[i] = sum;
    }
}

FI_CLONES float fi_dot_single(const float *a, const float *b, int64_t d) {
    floats8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t i = 0;
    for (; i + 32 <= d; i += 32) {
        s0 += *(const floats8 *)(a + i) * *(const floats8 *)(b + i);
        s1 += *(const floats8 *)(a + i + 8) * *(const floats8 *)(b + i + 8);
        s2 += *(const floats8 *)(a + i + 16) * *(const floats8 *)(b + i + 16);
        s3 += *(const floats8 *)(a + i + 24) * *(const floats8 *)(b + i + 24);
    }
    const floats8 s = (s0 + s1) + (s2 + s3);
    float sum = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    for (; i < d; i++)
        sum += a[i] * b[i];
    return sum;
}

FI_CLONES int32_t fi_weakest(const float *values) {
    const ints8 bits = {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX,
                        INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX};
    ints8 least = bits; /* magnitudes compare as integers do */
    for (int32_t k = 0; k < FI_WEAKEST_OF; k += 8) {
        const ints8 size = *(const ints8 *)(values + k) & bits, lower = size < least;
        least = (size & lower) | (least & ~lower);
    }
    int32_t smallest = INT32_MAX;
    for (int q = 0; q < 8; q++)
        smallest = least[q] < smallest ? least[q] : smallest;
    const ints8 wanted = {smallest, smallest, smallest, smallest,
                          smallest, smallest, smallest, smallest};
    for (int32_t k = 0; k < FI_WEAKEST_OF; k += 8) {
        const ints8 equal = (*(const ints8 *)(values + k) & bits) == wanted;
        for (int q = 0; q < 8; q++)
            if (equal[q])
                return k + q;
    }
    return 0;
}

enum { SCAN_PARTS = FI_SCAN_WIDTH / 8 };

/* All lanes of all parts lie within the limit. */
#define WITHIN(result, parts, limit)                                                               \
    do {                                                                                           \
        const floats8 high_ = {limit, limit, limit, limit, limit, limit, limit, limit};            \
        const floats8 low_ = -high_;                                                               \
        ints8 inside_ = {-1, -1, -1, -1, -1, -1, -1, -1};                                          \
        FI_UNROLL                                                                                  \
        for (int q_ = 0; q_ < SCAN_PARTS; q_++)                                                    \
            inside_ &= (ints8)((parts)[q_] <= high_) & (ints8)((parts)[q_] >= low_);               \
        int32_t all_ = -1;                                                                         \
        FI_UNROLL                                                                                  \
        for (int q_ = 0; q_ < 8; q_++)                                                             \
            all_ &= inside_[q_];                                                                   \
        result = all_ == -1;                                                                       \
    } while (0)

FI_CLONES int32_t fi_scan(float *out, const int16_t *base, const int16_t *origin, int64_t stride,
                          const fi_combination *sum, const fi_combination *next, float unit,
                          float limit) {
    floats8 s[SCAN_PARTS]; /* of 16 values each time: those at even places, those at odd ones */
    FI_UNROLL
    for (int q = 0; q < SCAN_PARTS; q += 2) {
        const ints8 pairs = *(const ints8 *)(base + 8 * q);
        s[q] = __builtin_convertvector((pairs << 16) >> 16, floats8);
        s[q + 1] = __builtin_convertvector(pairs >> 16, floats8);
    }
    for (int32_t k = 0; k < sum->count; k++) {
        const int16_t *row = origin + sum->index[k] * stride;
        const float v = sum->value[k];
        const floats8 factor = {v, v, v, v, v, v, v, v};
        if (k < next->count) {
            const int16_t *ahead = origin + next->index[k] * stride;
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead + 32);
        }
        FI_UNROLL
        for (int q = 0; q < SCAN_PARTS; q += 2) {
            const ints8 pairs = *(const ints8 *)(row + 8 * q);
            s[q] -= factor * __builtin_convertvector((pairs << 16) >> 16, floats8);
            s[q + 1] -= factor * __builtin_convertvector(pairs >> 16, floats8);
        }
    }
    const floats8 factor = {unit, unit, unit, unit, unit, unit, unit, unit};
    FI_UNROLL
    for (int q = 0; q < SCAN_PARTS; q++)
        s[q] *= factor;
    bool within;
    WITHIN(within, s, limit);
    if (within)
        return 0;
    for (int q = 0; q < SCAN_PARTS; q++)
        for (int lane = 0; lane < 8; lane++)
            out[8 * (q & ~1) + 2 * lane + (q & 1)] = s[q][lane];
    return 1;
}

FI_CLONES int32_t fi_exceeds(const float *values, float limit) {
    floats8 s[SCAN_PARTS];
    FI_UNROLL
    for (int q = 0; q < SCAN_PARTS; q++)
        s[q] = *(const floats8 *)(values + 8 * q);
    bool within;
    WITHIN(within, s, limit);
    return !within;
}
