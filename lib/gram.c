#include "gram.h"

#include "backend.h"
#include "error.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the largest entry becomes in 16 bits; the bound on products leaves room for rounding. */
#define MOST 32700.0

/* Rows that the backend multiplies at once for the kept values. */
enum { SLAB = 1024 };

double fi_gram_gamma(int64_t terms) {
    const double u = 0x1p-24, nu = (double)terms * u;
    return nu < 0.5 ? nu / (1.0 - nu) : INFINITY;
}

/* Square norm of the longest row. */
static featinv_status measure(fi_gram *gram) {
    for (int64_t i = 0; i < gram->n; i++) {
        const float *row = gram->rows + i * gram->d;
        const double square = fi_dot(row, row, gram->d);
        if (!isfinite(square))
            return fi_fail(FEATINV_ERROR_VALUE, "row %lld holds NaN or infinity", (long long)i);
        gram->largest = fmax(gram->largest, square);
    }
    gram->rounding = fi_gram_gamma(gram->d) * gram->largest;
    return FEATINV_OK;
}

static featinv_status keep(fi_gram *gram, bool integers) {
    const size_t bytes = (size_t)(gram->blocks * FI_GRAM_WIDTH * gram->n) * sizeof *gram->values;
    gram->values = malloc(bytes);
    if (!gram->values)
        return fi_fail_memory(bytes);
    gram->unit = gram->largest > 0.0 ? gram->largest / MOST : 1.0;
    featinv_status status = FEATINV_OK;
    if (integers && gram->largest > 0.0) {
        status = fi_fixed_create(&gram->fixed, gram->rows, gram->n, gram->d, sqrt(gram->largest));
        gram->rounding = gram->fixed.rounding;
    }
    gram->rounding += 0.5 * gram->unit + 0x1p-22 * gram->largest;
    return status;
}

featinv_status fi_gram_create(fi_gram *gram, featinv_session *session, const float *rows, int64_t n,
                              int64_t d, int64_t memory, bool integers) {
    *gram = (fi_gram){.backend = fi_session_backend(session), .rows = rows, .n = n, .d = d};
    gram->blocks = (n + FI_GRAM_WIDTH - 1) / FI_GRAM_WIDTH;
    featinv_status status = measure(gram);
    const int64_t row_bytes = gram->blocks * FI_GRAM_WIDTH * (int64_t)sizeof *gram->values;
    if (!status && memory / n >= row_bytes)
        status = keep(gram, integers && session->device_type == FI_DEVICE_CPU);
    if (status || gram->fixed.values)
        return status;
    const int failed = gram->backend->operand_create(&gram->operand, session->device_type,
                                                     session->device_index, rows, n, d);
    return failed ? fi_backend_fail(gram->backend, failed, "Gram matrix") : FEATINV_OK;
}

void fi_gram_free(fi_gram *gram) {
    if (gram->operand)
        gram->backend->operand_destroy(gram->operand);
    fi_fixed_free(&gram->fixed);
    free(gram->values);
    *gram = (fi_gram){0};
}

/* ---------------------------------------------------------------- kept ----------------------- */

typedef struct mirror {
    fi_gram *gram;
    int64_t block;
} mirror;

/* to (FI_GRAM_WIDTH, FI_GRAM_WIDTH) = transpose of from; both rows of FI_GRAM_WIDTH. */
static void transpose(int16_t *restrict to, const int16_t *restrict from, int64_t rows,
                      int64_t columns) {
    enum { EDGE = 16 };
    for (int64_t i0 = 0; i0 < rows; i0 += EDGE)
        for (int64_t k0 = 0; k0 < columns; k0 += EDGE)
            for (int64_t i = i0; i < rows && i < i0 + EDGE; i++)
                for (int64_t k = k0; k < columns && k < k0 + EDGE; k++)
                    to[i * FI_GRAM_WIDTH + k] = from[k * FI_GRAM_WIDTH + i];
}

/* Rows of earlier blocks in this block's columns: they stand, transposed, in this block's rows. */
static void mirror_blocks(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const mirror *m = context;
    fi_gram *g = m->gram;
    const int64_t begin = m->block * FI_GRAM_WIDTH;
    const int64_t columns = g->n - begin < FI_GRAM_WIDTH ? g->n - begin : FI_GRAM_WIDTH;
    for (int64_t other = first; other < last; other++)
        transpose(g->values + (m->block * g->n + other * FI_GRAM_WIDTH) * FI_GRAM_WIDTH,
                  fi_gram_block(g, other, begin), FI_GRAM_WIDTH, columns);
}

typedef struct stretch {
    fi_gram *gram;
    int64_t block;
} stretch;

/* Whole rows of a block into 16 bits. */
FI_CLONES static void shorten(int16_t *out, const float *values, int64_t rows, float factor) {
    for (int64_t i = 0; i < rows; i++, out += FI_GRAM_WIDTH, values += FI_GRAM_WIDTH)
        for (int k = 0; k < FI_GRAM_WIDTH; k++) {
            const float value = values[k] * factor;
            out[k] = (int16_t)(value + (value < 0.0f ? -0.5f : 0.5f));
        }
}

/* Stretches of FI_FIXED_ROWS rows from the diagonal block down. */
static void multiply_stretch(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const stretch *m = context;
    fi_gram *g = m->gram;
    const float factor = (float)(1.0 / (g->fixed.scale * g->fixed.scale * g->unit));
    for (int64_t k = first; k < last; k++) {
        float products[FI_FIXED_ROWS * FI_FIXED_COLUMNS];
        const int64_t row = m->block * FI_GRAM_WIDTH + k * FI_FIXED_ROWS;
        const int64_t rows = g->n - row < FI_FIXED_ROWS ? g->n - row : FI_FIXED_ROWS;
        fi_fixed_multiply(products, &g->fixed, row);
        shorten(g->values + (m->block * g->n + row) * FI_GRAM_WIDTH, products, rows, factor);
    }
}

/* The same by the backend. */
static featinv_status multiply_slabs(fi_gram *g, int64_t block, int64_t columns) {
    const int64_t begin = block * FI_GRAM_WIDTH;
    const float factor = (float)(1.0 / g->unit);
    float *slab = calloc((size_t)SLAB * FI_GRAM_WIDTH, sizeof *slab);
    if (!slab)
        return fi_fail_memory(sizeof(float) * SLAB * FI_GRAM_WIDTH);
    int failed = 0;
    for (int64_t row = begin; row < g->n && !failed; row += SLAB) {
        const int64_t rows = g->n - row < SLAB ? g->n - row : SLAB;
        failed = g->backend->operand_multiply(g->operand, slab, FI_GRAM_WIDTH, NULL, row, rows,
                                              begin, columns);
        shorten(g->values + (block * g->n + row) * FI_GRAM_WIDTH, slab, rows, factor);
    }
    free(slab);
    if (failed)
        return fi_backend_fail(g->backend, failed, "Gram matrix");
    int16_t *out = g->values + (block * g->n + begin) * FI_GRAM_WIDTH;
    for (int64_t i = 0; i < columns; i++)
        for (int64_t k = i + 1; k < columns; k++)
            out[i * FI_GRAM_WIDTH + k] = out[k * FI_GRAM_WIDTH + i];
    return FEATINV_OK;
}

/* Entries from the diagonal block down by one product, those above by symmetry. */
static featinv_status make_block(fi_gram *g, fi_workers *workers, int64_t block) {
    const int64_t begin = block * FI_GRAM_WIDTH;
    const int64_t columns = g->n - begin < FI_GRAM_WIDTH ? g->n - begin : FI_GRAM_WIDTH;
    if (columns < FI_GRAM_WIDTH)
        memset(g->values + block * g->n * FI_GRAM_WIDTH, 0,
               (size_t)(g->n * FI_GRAM_WIDTH) * sizeof *g->values);
    featinv_status status = FEATINV_OK;
    if (g->fixed.values) {
        stretch context = {g, block};
        fi_fixed_pack(&g->fixed, begin, columns);
        fi_workers_run(workers, multiply_stretch, &context,
                       (g->n - begin + FI_FIXED_ROWS - 1) / FI_FIXED_ROWS, 1);
    } else {
        status = multiply_slabs(g, block, columns);
    }
    mirror context = {g, block};
    fi_workers_run(workers, mirror_blocks, &context, block, 4);
    return status;
}

featinv_status fi_gram_make(fi_gram *gram, featinv_session *session, fi_workers *workers,
                            fi_progress *progress) {
    featinv_status status = FEATINV_OK;
    for (int64_t block = 0; block < gram->blocks && !status; block++) {
        status = make_block(gram, workers, block);
        if (!status)
            status = fi_session_tick(session, progress, 0);
    }
    if (!status)
        fi_fixed_free(&gram->fixed);
    return status;
}

/* ---------------------------------------------------------------- made again ----------------- */

featinv_status fi_gram_multiply(const fi_gram *gram, float *out, const float *a, int64_t first,
                                int64_t m) {
    const int64_t stride = gram->blocks * FI_GRAM_WIDTH;
    const int failed =
        gram->backend->operand_multiply(gram->operand, out, stride, a, first, m, 0, gram->n);
    if (failed)
        return fi_backend_fail(gram->backend, failed, "Gram matrix");
    for (int64_t i = 0; i < m; i++)
        memset(out + i * stride + gram->n, 0, (size_t)(stride - gram->n) * sizeof(float));
    return FEATINV_OK;
}
