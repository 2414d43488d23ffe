#include "gram.h"

#include "backend.h"
#include "error.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double fi_gram_gamma(int64_t terms) {
    const double u = 0x1p-24, nu = (double)terms * u;
    return nu < 0.5 ? nu / (1.0 - nu) : INFINITY;
}

featinv_status fi_gram_create(fi_gram *gram, featinv_session *session, const float *rows, int64_t n,
                              int64_t d, int64_t memory) {
    *gram = (fi_gram){.backend = fi_session_backend(session), .rows = rows, .n = n, .d = d};
    gram->blocks = (n + FI_GRAM_WIDTH - 1) / FI_GRAM_WIDTH;
    for (int64_t i = 0; i < n; i++)
        gram->largest = fmax(gram->largest, fi_dot(rows + i * d, rows + i * d, d));
    gram->rounding = fi_gram_gamma(d) * gram->largest;
    int failed = gram->backend->operand_create(&gram->operand, session->device_type,
                                               session->device_index, rows, n, d);
    if (failed)
        return fi_backend_fail(gram->backend, failed, "Gram matrix");
    const int64_t row_bytes = gram->blocks * FI_GRAM_WIDTH * (int64_t)sizeof(float);
    if (memory / n < row_bytes)
        return FEATINV_OK;
    gram->values = malloc((size_t)(n * row_bytes));
    return gram->values ? FEATINV_OK : fi_fail_memory((size_t)(n * row_bytes));
}

void fi_gram_free(fi_gram *gram) {
    if (gram->operand)
        gram->backend->operand_destroy(gram->operand);
    free(gram->values);
    *gram = (fi_gram){0};
}

/* ---------------------------------------------------------------- kept ----------------------- */

typedef struct mirror {
    fi_gram *gram;
    int64_t block;
} mirror;

/* to (FI_GRAM_WIDTH, FI_GRAM_WIDTH) = transpose of from; both rows of FI_GRAM_WIDTH. */
static void transpose(float *restrict to, const float *restrict from, int64_t rows,
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

/* Entries from the diagonal block down by one product, those above by symmetry. */
static featinv_status make_block(fi_gram *g, fi_workers *workers, int64_t block) {
    const int64_t begin = block * FI_GRAM_WIDTH;
    const int64_t columns = g->n - begin < FI_GRAM_WIDTH ? g->n - begin : FI_GRAM_WIDTH;
    float *out = g->values + (block * g->n + begin) * FI_GRAM_WIDTH;
    if (columns < FI_GRAM_WIDTH)
        memset(g->values + block * g->n * FI_GRAM_WIDTH, 0,
               (size_t)(g->n * FI_GRAM_WIDTH) * sizeof(float));
    const int failed = g->backend->operand_multiply(g->operand, out, FI_GRAM_WIDTH, NULL, begin,
                                                    g->n - begin, begin, columns);
    if (failed)
        return fi_backend_fail(g->backend, failed, "Gram matrix");
    for (int64_t i = 0; i < columns; i++)
        for (int64_t k = i + 1; k < columns; k++)
            out[i * FI_GRAM_WIDTH + k] = out[k * FI_GRAM_WIDTH + i];
    mirror context = {g, block};
    fi_workers_run(workers, mirror_blocks, &context, block, 4);
    return FEATINV_OK;
}

featinv_status fi_gram_make(fi_gram *gram, featinv_session *session, fi_workers *workers,
                            fi_progress *progress) {
    featinv_status status = FEATINV_OK;
    for (int64_t block = 0; block < gram->blocks && !status; block++) {
        status = make_block(gram, workers, block);
        if (!status)
            status = fi_session_tick(session, progress, 0);
    }
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
