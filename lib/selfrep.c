#include "selfrep.h"

#include "backend.h"
#include "error.h"
#include "selfrep_column.h"
#include "vector.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rounds of solve and scan before a column counts as not converging; a few suffice. */
enum { MOST_ROUNDS = 1000 };
/* Columns of one batch where the Gram matrix is not kept, at most, and the bytes that their
 * products may take. */
enum { BATCH_MOST = 1024, BATCH_BYTES = 64 << 20 };
/* Columns solved between two looks at cancellation. */
enum { SLICE = 1024 };

struct fi_selfrep {
    featinv_session *session;
    fi_gram gram;
    fi_columns columns;
    fi_workers *workers;
    fi_scratch *scratch; /* one each */
    int32_t worker_count;
    bool made;
    int32_t *active; /* (n): columns still to do, of the batch */
    int64_t active_count;
    int64_t batch_first;
    int64_t batch;               /* columns of one */
    float *products, *residuals; /* (batch, blocks * FI_GRAM_WIDTH), (batch, d); not kept only */
};

/* One loop over columns, for the workers. */
typedef struct loop {
    fi_selfrep *selfrep;
    int64_t first; /* column or place in `active` of item 0 */
    int64_t block;
} loop;

/* ---------------------------------------------------------------- life ----------------------- */

static featinv_status allocate(fi_selfrep *s) {
    const int64_t n = s->gram.n, stride = s->gram.blocks * FI_GRAM_WIDTH;
    s->columns.all = calloc((size_t)n, sizeof *s->columns.all);
    s->active = malloc((size_t)n * sizeof *s->active);
    s->scratch = calloc((size_t)s->worker_count, sizeof *s->scratch);
    s->batch = n;
    bool ok = s->columns.all && s->active && s->scratch;
    if (ok && !s->gram.values) {
        const int64_t fit = BATCH_BYTES / (stride * (int64_t)sizeof(float));
        s->batch = fit < 1 ? 1 : fit < BATCH_MOST ? fit : BATCH_MOST;
        s->batch = s->batch < n ? s->batch : n;
        s->products = malloc((size_t)(s->batch * stride) * sizeof(float));
        s->residuals = malloc((size_t)(s->batch * s->gram.d) * sizeof(float));
        ok = s->products && s->residuals;
    }
    return ok ? FEATINV_OK : fi_fail_memory((size_t)n * sizeof *s->columns.all);
}

featinv_status fi_selfrep_create(fi_selfrep **out, featinv_session *session, const float *rows,
                                 int64_t n, int64_t d, double gamma, double tau, int64_t memory) {
    if (n < 1 || d < 1 || n > INT32_MAX || d > INT32_MAX)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%lld rows of %lld values", (long long)n,
                       (long long)d);
    if (!(gamma > 0.0) || !isfinite(gamma) || !(tau > 0.0 && tau <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "gamma is %g and tau %g: gamma must be above 0, tau in (0, 1]", gamma, tau);
    fi_selfrep *s = calloc(1, sizeof *s);
    if (!s)
        return fi_fail_memory(sizeof *s);
    s->session = session;
    s->worker_count = fi_session_backend(session)->thread_count();
    featinv_status status =
        fi_gram_create(&s->gram, session, rows, n, d, memory, fi_fixed_supported());
    if (!status)
        status = allocate(s);
    if (!status)
        status = fi_workers_create(&s->workers, s->worker_count);
    if (status) {
        fi_selfrep_destroy(s);
        return status;
    }
    s->columns.gram = &s->gram;
    s->columns.gamma = gamma;
    s->columns.tau = tau;
    *out = s;
    return FEATINV_OK;
}

void fi_selfrep_destroy(fi_selfrep *s) {
    if (!s)
        return;
    fi_workers_destroy(s->workers);
    for (int64_t j = 0; s->columns.all && j < s->gram.n; j++)
        fi_column_free(&s->columns.all[j]);
    for (int32_t i = 0; s->scratch && i < s->worker_count; i++)
        fi_scratch_free(&s->scratch[i]);
    free(s->columns.all);
    free(s->active);
    free(s->scratch);
    free(s->products);
    free(s->residuals);
    fi_gram_free(&s->gram);
    free(s);
}

/* ---------------------------------------------------------------- the workers' loops --------- */

static void gather_block(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const loop *l = context;
    const fi_selfrep *s = l->selfrep;
    for (int64_t k = first; k < last; k++)
        fi_column_gather(&s->columns, s->active[k], l->block);
}

static void gather_products(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const loop *l = context;
    const fi_selfrep *s = l->selfrep;
    const int64_t stride = s->gram.blocks * FI_GRAM_WIDTH;
    for (int64_t k = first; k < last; k++) {
        const int64_t j = s->active[k];
        fi_column_gather_products(&s->columns, j, s->products + (j - s->batch_first) * stride);
    }
}

static void begin_columns(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const loop *l = context;
    for (int64_t k = first; k < last; k++)
        fi_column_begin(&l->selfrep->columns, l->selfrep->active[k]);
}

/* A worker's first failure stays in its scratch; the text is set again by the caller. */
static void step_columns(void *context, int32_t worker, int64_t first, int64_t last) {
    const loop *l = context;
    fi_scratch *scratch = &l->selfrep->scratch[worker];
    for (int64_t k = first; k < last && !scratch->status; k++)
        scratch->status =
            fi_column_step(&l->selfrep->columns, scratch, l->selfrep->active[l->first + k]);
}

static void scan_block(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const loop *l = context;
    const fi_selfrep *s = l->selfrep;
    for (int64_t k = first; k < last; k++)
        fi_column_scan(&s->columns, s->active[k], s->active[k + 1 < last ? k + 1 : k], l->block);
}

static void make_residuals(void *context, int32_t worker, int64_t first, int64_t last) {
    const loop *l = context;
    const fi_selfrep *s = l->selfrep;
    for (int64_t k = first; k < last; k++)
        fi_column_residual(&s->columns, &s->scratch[worker], s->active[k],
                           s->residuals + k * s->gram.d);
}

static void scan_products(void *context, int32_t worker, int64_t first, int64_t last) {
    (void)worker;
    const loop *l = context;
    const fi_selfrep *s = l->selfrep;
    for (int64_t k = first; k < last; k++)
        fi_column_scan_products(&s->columns, s->active[k],
                                s->products + k * s->gram.blocks * FI_GRAM_WIDTH);
}

/* ---------------------------------------------------------------- a batch -------------------- */

/* Takes finished columns out of `active` and reports them. */
static featinv_status settle(fi_selfrep *s, fi_progress *progress) {
    int64_t left = 0;
    for (int64_t k = 0; k < s->active_count; k++)
        if (!s->columns.all[s->active[k]].done)
            s->active[left++] = s->active[k];
    const int64_t finished = s->active_count - left;
    s->active_count = left;
    return fi_session_tick(s->session, progress, finished);
}

static featinv_status step_all(fi_selfrep *s, fi_progress *progress) {
    for (int64_t first = 0; first < s->active_count; first += SLICE) {
        const int64_t left = s->active_count - first;
        loop context = {.selfrep = s, .first = first};
        fi_workers_run(s->workers, step_columns, &context, left < SLICE ? left : SLICE, 8);
        for (int32_t i = 0; i < s->worker_count; i++)
            if (s->scratch[i].status)
                return fi_fail(s->scratch[i].status, "out of memory for a support");
        featinv_status status = fi_session_tick(s->session, progress, 0);
        if (status)
            return status;
    }
    return settle(s, progress);
}

/* The strongest inner products of every column, and alpha. */
static featinv_status begin_batch(fi_selfrep *s, fi_progress *progress) {
    loop context = {.selfrep = s};
    featinv_status status = FEATINV_OK;
    if (s->gram.values) {
        for (; context.block < s->gram.blocks && !status; context.block++) {
            fi_workers_run(s->workers, gather_block, &context, s->active_count, 256);
            status = fi_session_tick(s->session, progress, 0);
        }
    } else {
        const int64_t rest = s->gram.n - s->batch_first;
        status = fi_gram_multiply(&s->gram, s->products, NULL, s->batch_first,
                                  rest < s->batch ? rest : s->batch);
        if (!status)
            fi_workers_run(s->workers, gather_products, &context, s->active_count, 16);
    }
    if (status)
        return status;
    fi_workers_run(s->workers, begin_columns, &context, s->active_count, 16);
    return settle(s, progress);
}

static featinv_status scan_all(fi_selfrep *s, fi_progress *progress) {
    loop context = {.selfrep = s};
    featinv_status status = FEATINV_OK;
    if (!s->gram.values) {
        fi_workers_run(s->workers, make_residuals, &context, s->active_count, 16);
        status = fi_gram_multiply(&s->gram, s->products, s->residuals, 0, s->active_count);
        if (!status)
            fi_workers_run(s->workers, scan_products, &context, s->active_count, 16);
        return status;
    }
    for (; context.block < s->gram.blocks && !status; context.block++) {
        fi_workers_run(s->workers, scan_block, &context, s->active_count, 64);
        status = fi_session_tick(s->session, progress, 0);
    }
    return status;
}

static featinv_status solve_batch(fi_selfrep *s, int64_t *passes, fi_progress *progress) {
    featinv_status status = begin_batch(s, progress);
    for (int64_t round = 1; !status && s->active_count; round++) {
        if (round > MOST_ROUNDS)
            return fi_fail(FEATINV_ERROR_COMPUTE,
                           "row %d is not solved after %d rounds: are its values finite?",
                           (int)s->active[0], MOST_ROUNDS);
        *passes = round > *passes ? round : *passes;
        status = step_all(s, progress);
        if (!status && s->active_count)
            status = scan_all(s, progress);
    }
    return status;
}

/* ---------------------------------------------------------------- the whole ------------------ */

typedef struct entry {
    int32_t index;
    double value;
} entry;

static int by_index(const void *a, const void *b) {
    const int32_t left = ((const entry *)a)->index, right = ((const entry *)b)->index;
    return (left > right) - (left < right);
}

static featinv_status collect(const fi_selfrep *s, fi_sparse *out) {
    const int64_t n = s->gram.n;
    int64_t total = 0, largest = 0;
    for (int64_t j = 0; j < n; j++) {
        total += s->columns.all[j].support;
        largest = s->columns.all[j].support > largest ? s->columns.all[j].support : largest;
    }
    *out = (fi_sparse){.rows = n};
    out->offsets = malloc(((size_t)n + 1) * sizeof *out->offsets);
    out->indices = malloc(((size_t)total + 1) * sizeof *out->indices);
    out->values = malloc(((size_t)total + 1) * sizeof *out->values);
    entry *sorted = malloc(((size_t)largest + 1) * sizeof *sorted);
    const bool ok = out->offsets && out->indices && out->values && sorted;
    int64_t place = 0;
    for (int64_t j = 0; ok && j < n; j++) {
        const fi_column *column = &s->columns.all[j];
        out->offsets[j] = place;
        for (int32_t k = 0; k < column->support; k++)
            sorted[k] = (entry){column->index[k], column->value[k]};
        qsort(sorted, (size_t)column->support, sizeof *sorted, by_index);
        for (int32_t k = 0; k < column->support; k++, place++) {
            out->indices[place] = sorted[k].index;
            out->values[place] = sorted[k].value;
        }
    }
    if (ok)
        out->offsets[n] = place;
    else
        fi_sparse_free(out);
    free(sorted);
    return ok ? FEATINV_OK : fi_fail_memory((size_t)total * sizeof(double));
}

static void summarise(const fi_selfrep *s, double *alpha, fi_selfrep_summary *summary) {
    for (int64_t j = 0; j < s->gram.n; j++) {
        const fi_column *column = &s->columns.all[j];
        if (alpha)
            alpha[j] = column->alpha;
        summary->objective += column->objective;
        summary->stationarity = fmax(summary->stationarity, column->violation);
    }
}

/* Columns first .. of one batch that are not removed; removed ones come out empty. */
static featinv_status list_batch(fi_selfrep *s, int64_t first, fi_progress *progress) {
    const int64_t n = s->gram.n, last = first + s->batch < n ? first + s->batch : n;
    s->batch_first = first;
    s->active_count = 0;
    for (int64_t j = first; j < last; j++) {
        fi_column *column = &s->columns.all[j];
        column->found.count = 0;
        if (!s->columns.removed || !s->columns.removed[j]) {
            s->active[s->active_count++] = (int32_t)j;
            continue;
        }
        column->support = 0;
        column->alpha = column->objective = column->violation = 0.0;
    }
    return fi_session_tick(s->session, progress, last - first - s->active_count);
}

featinv_status fi_selfrep_solve(fi_selfrep *s, fi_sparse *out, double *alpha,
                                fi_selfrep_summary *summary, const uint8_t *removed,
                                fi_progress *progress) {
    featinv_status status = FEATINV_OK;
    fi_selfrep_summary all = {0};
    s->columns.removed = removed;
    for (int32_t i = 0; i < s->worker_count && !status; i++) {
        s->scratch[i].status = FEATINV_OK;
        status = fi_scratch_reserve(&s->scratch[i], s->gram.d, 4 * FI_FOUND_MOST);
    }
    if (!status && s->gram.values && !s->made) {
        status = fi_gram_make(&s->gram, s->session, s->workers, progress);
        s->made = !status;
    }
    for (int64_t first = 0; first < s->gram.n && !status; first += s->batch) {
        status = list_batch(s, first, progress);
        if (!status)
            status = solve_batch(s, &all.passes, progress);
    }
    if (!status)
        status = collect(s, out);
    if (!status)
        summarise(s, alpha, &all);
    if (!status && summary)
        *summary = all;
    s->columns.removed = NULL;
    return status;
}
