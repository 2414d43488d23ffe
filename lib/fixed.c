#include "fixed.h"

#include "error.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tile of the result stays in registers: TILE_ROWS x TILE_COLUMNS. DEPTH values of a row are
 * summed in integers; as many of the right factor's panel stay in the nearest cache. */
enum { TILE_ROWS = 6, TILE_COLUMNS = 16, DEPTH = 512 };
_Static_assert(FI_FIXED_ROWS % TILE_ROWS == 0 && FI_FIXED_COLUMNS % TILE_COLUMNS == 0,
               "whole tiles");

/* sqrt(2^31): no sum of products of two stretches that are shorter leaves 32 bits, nor does any
 * part of it (Cauchy and Schwarz). */
#define LONGEST 46340.0

bool fi_fixed_supported(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* ---------------------------------------------------------------- rounding ------------------- */

/* The finest at which every value fits into 16 bits and every stretch's sum into 32. */
static double scale_of(const float *rows, int64_t n, int64_t d) {
    float largest = 0.0f;
    double longest = 0.0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t from = 0; from < d; from += DEPTH) {
            const float *part = rows + i * d + from;
            const int64_t count = d - from < DEPTH ? d - from : DEPTH;
            longest = fmax(longest, fi_dot(part, part, count));
            for (int64_t k = 0; k < count; k++)
                largest = fabsf(part[k]) > largest ? fabsf(part[k]) : largest;
        }
    const double room = LONGEST - 1.0 - 0.5 * sqrt(DEPTH); /* rounding lengthens */
    return fmin(room / sqrt(longest), 32767.0 / (double)largest);
}

/* One row; returns the length of what rounding changed. */
static double round_row(int16_t *out, const float *row, int64_t d, double scale) {
    double square = 0.0;
    for (int64_t k = 0; k < d; k++) {
        const double wide = (double)row[k] * scale, whole = nearbyint(wide);
        out[k] = (int16_t)whole;
        square += (whole - wide) * (whole - wide);
    }
    return sqrt(square) / scale;
}

featinv_status fi_fixed_create(fi_fixed *out, const float *rows, int64_t n, int64_t d,
                               double longest) {
    const int64_t width = d + (d & 1), all = n + FI_FIXED_ROWS;
    *out = (fi_fixed){.n = n, .width = width};
    out->values = calloc((size_t)(all * width), sizeof *out->values);
    out->packed = malloc((size_t)(FI_FIXED_COLUMNS * width) * sizeof *out->packed);
    if (!out->values || !out->packed) {
        fi_fixed_free(out);
        return fi_fail_memory((size_t)(all * width) * sizeof *out->values);
    }
    out->scale = scale_of(rows, n, d);
    double moved = 0.0;
    for (int64_t i = 0; i < n; i++)
        moved = fmax(moved, round_row(out->values + i * width, rows + i * d, d, out->scale));
    /* and the stretches' sum in float32 */
    const double terms = (double)(width / DEPTH + 2);
    out->rounding = moved * (2.0 * longest + moved) + 0x1p-23 * terms * longest * longest;
    return FEATINV_OK;
}

void fi_fixed_free(fi_fixed *fixed) {
    free(fixed->values);
    free(fixed->packed);
    *fixed = (fi_fixed){0};
}

/* ---------------------------------------------------------------- products ------------------- */

void fi_fixed_pack(fi_fixed *fixed, int64_t first, int64_t count) {
    const int64_t width = fixed->width;
    for (int64_t from = 0; from < width; from += DEPTH) {
        const int64_t depth = width - from < DEPTH ? width - from : DEPTH;
        int16_t *panel = fixed->packed + from * FI_FIXED_COLUMNS;
        for (int64_t j = 0; j < FI_FIXED_COLUMNS; j++) {
            int16_t *to = panel + (j / TILE_COLUMNS * depth * TILE_COLUMNS) + j % TILE_COLUMNS * 2;
            /* behind the last row there are zeros */
            const int64_t row = j < count ? first + j : fixed->n;
            const int16_t *values = fixed->values + row * width + from;
            for (int64_t k = 0; k < depth; k += 2, to += 2 * TILE_COLUMNS)
                memcpy(to, values + k, 2 * sizeof *to);
        }
    }
}

#if defined(__x86_64__)
typedef int16_t shorts16 __attribute__((vector_size(32)));
typedef int32_t ints8 __attribute__((vector_size(32)));
typedef int16_t loose_shorts __attribute__((vector_size(32), aligned(2), may_alias));
typedef float loose_floats __attribute__((vector_size(32), aligned(4), may_alias));

/* out += TILE_ROWS rows times a panel; pairs: of values of a row. */
__attribute__((target("avx2"))) static void
multiply_tile(float *out, const int16_t *rows, int64_t width, const int16_t *panel, int64_t pairs) {
    ints8 s[TILE_ROWS][2] = {0};
    for (int64_t k = 0; k < pairs; k++) {
        const shorts16 low = (shorts16) * (const loose_shorts *)(panel + 32 * k);
        const shorts16 high = (shorts16) * (const loose_shorts *)(panel + 32 * k + 16);
        FI_UNROLL
        for (int i = 0; i < TILE_ROWS; i++) {
            int32_t p;
            memcpy(&p, rows + i * width + 2 * k, sizeof p);
            const shorts16 pair = (shorts16)(ints8){p, p, p, p, p, p, p, p};
            s[i][0] += (ints8)__builtin_ia32_pmaddwd256(pair, low);
            s[i][1] += (ints8)__builtin_ia32_pmaddwd256(pair, high);
        }
    }
    FI_UNROLL
    for (int i = 0; i < TILE_ROWS; i++)
        for (int half = 0; half < 2; half++)
            *(loose_floats *)(out + i * FI_FIXED_COLUMNS + 8 * half) +=
                __builtin_convertvector(s[i][half], loose_floats);
}
#else
static void multiply_tile(float *out, const int16_t *rows, int64_t width, const int16_t *panel,
                          int64_t pairs) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int j = 0; j < TILE_COLUMNS; j++) {
            int32_t sum = 0;
            for (int64_t k = 0; k < pairs; k++)
                sum += rows[i * width + 2 * k] * panel[(k * TILE_COLUMNS + j) * 2] +
                       rows[i * width + 2 * k + 1] * panel[(k * TILE_COLUMNS + j) * 2 + 1];
            out[i * FI_FIXED_COLUMNS + j] += (float)sum;
        }
}
#endif

void fi_fixed_multiply(float *out, const fi_fixed *fixed, int64_t first) {
    const int64_t width = fixed->width;
    memset(out, 0, sizeof(float) * FI_FIXED_ROWS * FI_FIXED_COLUMNS);
    for (int64_t from = 0; from < width; from += DEPTH) {
        const int64_t depth = width - from < DEPTH ? width - from : DEPTH;
        const int16_t *panels = fixed->packed + from * FI_FIXED_COLUMNS;
        for (int64_t i = 0; i < FI_FIXED_ROWS; i += TILE_ROWS)
            for (int64_t j = 0; j < FI_FIXED_COLUMNS; j += TILE_COLUMNS)
                multiply_tile(out + i * FI_FIXED_COLUMNS + j,
                              fixed->values + (first + i) * width + from, width, panels + j * depth,
                              depth / 2);
    }
}
