/* The statistics of an evaluation. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- means ---------------------- */

typedef struct means {
    evaluate_column columns[3];
    int64_t images;
} means;

static double weight_of(const uint32_t *weights, int64_t i) {
    return weights ? (double)weights[i] : 1.0;
}

/* Of the images where it is known; NaN where it is nowhere. */
static double mean_of(evaluate_column column, int64_t images, const uint32_t *weights) {
    double sum = 0.0, count = 0.0;
    for (int64_t i = 0; i < images; i++) {
        double value = column.values[i * column.stride];
        if (isnan(value))
            continue;
        sum += weight_of(weights, i) * value;
        count += weight_of(weights, i);
    }
    return count > 0.0 ? sum / count : NAN;
}

static double mean(const void *data, const uint32_t *weights) {
    const means *m = data;
    return mean_of(m->columns[0], m->images, weights);
}

static double ratio(const void *data, const uint32_t *weights) {
    const means *m = data;
    double below = mean_of(m->columns[1], m->images, weights);
    return below > 0.0 ? mean_of(m->columns[0], m->images, weights) / below : NAN;
}

static double share(const void *data, const uint32_t *weights) {
    const means *m = data;
    double value = mean_of(m->columns[0], m->images, weights);
    double floor = mean_of(m->columns[1], m->images, weights);
    double ceiling = mean_of(m->columns[2], m->images, weights);
    return ceiling > floor ? (value - floor) / (ceiling - floor) : NAN;
}

static int interval(evaluate_figure *out, const evaluate_resamples *r, const means *m,
                    int32_t columns, evaluate_statistic statistic) {
    *out = (evaluate_figure){NAN, NAN, NAN, NAN};
    for (int32_t i = 0; i < columns; i++)
        if (!m->columns[i].values)
            return CLI_DONE;
    return evaluate_interval(out, r, r->count, statistic, m);
}

int evaluate_mean(evaluate_figure *out, const evaluate_resamples *r, evaluate_column column) {
    means m = {{column}, r->images};
    return interval(out, r, &m, 1, mean);
}

int evaluate_ratio(evaluate_figure *out, const evaluate_resamples *r, evaluate_column above,
                   evaluate_column below) {
    means m = {{above, below}, r->images};
    return interval(out, r, &m, 2, ratio);
}

int evaluate_share(evaluate_figure *out, const evaluate_resamples *r, evaluate_column values,
                   evaluate_column floor, evaluate_column ceiling) {
    means m = {{values, floor, ceiling}, r->images};
    return interval(out, r, &m, 3, share);
}

/* ---------------------------------------------------------------- median --------------------- */

typedef struct valued {
    double value;
    int64_t image;
} valued;

typedef struct sorted {
    valued *all;
    int64_t count;
} sorted;

static int compare_values(const void *left, const void *right) {
    const valued *a = left, *b = right;
    if (a->value < b->value || a->value > b->value)
        return a->value < b->value ? -1 : 1;
    return a->image < b->image ? -1 : a->image > b->image;
}

/* Of an even number the mean of the two in the middle. */
static double median(const void *data, const uint32_t *weights) {
    const sorted *s = data;
    uint64_t total = 0, before = 0;
    for (int64_t i = 0; i < s->count; i++)
        total += weights ? weights[s->all[i].image] : 1;
    double lower = NAN;
    for (int64_t i = 0; i < s->count && total; i++) {
        before += weights ? weights[s->all[i].image] : 1;
        if (isnan(lower) && 2 * before >= total)
            lower = s->all[i].value;
        if (2 * before > total)
            return 0.5 * (lower + s->all[i].value);
    }
    return NAN;
}

int evaluate_median(evaluate_figure *out, const evaluate_resamples *r, const double *values,
                    int64_t each) {
    sorted s = {.count = 0};
    *out = (evaluate_figure){NAN, NAN, NAN, NAN};
    if (!values)
        return CLI_DONE;
    s.all = malloc((size_t)r->images * (size_t)each * sizeof *s.all + 1);
    if (!s.all)
        return cli_fail_memory();
    for (int64_t i = 0; i < r->images * each; i++)
        if (!isnan(values[i]))
            s.all[s.count++] = (valued){values[i], i / each};
    qsort(s.all, (size_t)s.count, sizeof *s.all, compare_values);
    int code = evaluate_interval(out, r, r->count, median, &s);
    free(s.all);
    return code;
}

/* ---------------------------------------------------------------- Fréchet distance ----------- */

enum { MOST_DIMENSION = 256, RESAMPLES = 100 };

typedef struct frechet {
    const float *sides[2]; /* originals, pictures */
    int64_t images, dimension;
    featinv_session *session;
    float *rows;           /* (images, dimension): of one side of a resample */
    featinv_status status; /* that ended it */
} frechet;

int32_t evaluate_frechet_resamples(int32_t bootstrap, int64_t dimension) {
    if (dimension > MOST_DIMENSION)
        return 0;
    return bootstrap < RESAMPLES ? bootstrap : RESAMPLES;
}

static bool is_known(const frechet *f, int64_t i) {
    return !isnan(f->sides[0][i * f->dimension]) && !isnan(f->sides[1][i * f->dimension]);
}

/* Rows of a side in the order of the images, each as often as it weighs. */
static int64_t gather(const frechet *f, const float *side, const uint32_t *weights) {
    const size_t size = (size_t)f->dimension;
    int64_t count = 0;
    for (int64_t i = 0; i < f->images; i++)
        for (uint32_t k = weights ? weights[i] : 1; k > 0 && is_known(f, i); k--)
            memcpy(f->rows + (size_t)count++ * size, side + (size_t)i * size, size * sizeof *side);
    return count;
}

static double distance(const void *data, const uint32_t *weights) {
    frechet *f = (frechet *)(uintptr_t)data; /* keeps its status */
    featinv_fid *fid = NULL;
    double value = NAN;
    int64_t count = 0;
    featinv_status status = featinv_fid_create(&fid, f->dimension);
    for (int32_t s = 0; s < 2 && !status; s++) {
        count = gather(f, f->sides[s], weights);
        int64_t shape[2] = {count, f->dimension};
        featinv_tensor view = featinv_tensor_view(f->rows, FEATINV_DTYPE_F32, 2, shape);
        if (count > 1)
            status = featinv_fid_update(fid, s, &view, -1);
    }
    if (!status && count > 1)
        status = featinv_fid_result(&value, fid, f->session);
    featinv_fid_destroy(fid);
    if (status)
        f->status = status;
    return status ? NAN : value;
}

/* A resample repeats images, so its distance is too large by what fewer images make it: the
 * percentiles are moved by the mean excess. */
static void move_back(evaluate_figure *figure) {
    double excess = figure->mean - figure->value;
    figure->low = fmax(figure->low - excess, 0.0);
    figure->high = figure->high - excess;
}

int evaluate_frechet(evaluate_figure *out, const evaluate_resamples *r, const cli_values *values,
                     const float *originals, const float *pictures, int64_t dimension) {
    frechet f = {{originals, pictures}, r->images, dimension, NULL, NULL, FEATINV_OK};
    const int32_t count = evaluate_frechet_resamples(r->count, dimension);
    featinv_session_options o;
    *out = (evaluate_figure){NAN, NAN, NAN, NAN};
    if (!originals || !pictures)
        return CLI_DONE;
    f.rows = malloc((size_t)r->images * (size_t)dimension * sizeof *f.rows + 1);
    int code = f.rows ? CLI_DONE : cli_fail_memory();
    if (!code) {
        f.status = featinv_session_options_init(&o, sizeof o);
        o.device = "cpu"; /* float64 linear algebra */
        o.threads = values->threads;
        if (!f.status)
            f.status = featinv_session_create(&f.session, NULL, &o);
        if (!f.status)
            code = evaluate_interval(out, r, count, distance, &f);
        if (!code && !f.status && !isnan(out->low))
            move_back(out);
        if (!code && f.status)
            code = cli_fail_status(f.status, NULL);
    }
    featinv_session_destroy(f.session);
    free(f.rows);
    return code;
}
