/* Concepts from features: options, the method, and what is noted of how they were found. */
#include "concepts.h"

#include "error.h"
#include "fit.h"
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static featinv_fit_options defaults(void) {
    return (featinv_fit_options){.struct_size = sizeof(featinv_fit_options),
                                 .method = FEATINV_CONCEPTS_MCD,
                                 .max_count = 10,
                                 .rule = FEATINV_COUNT_RATIO,
                                 .basis = FEATINV_BASIS_ORIGIN,
                                 .gamma = 10.0,
                                 .tau = 1.0,
                                 .outlier_quantile = 0.75,
                                 .memory = (int64_t)1 << 31,
                                 .restarts = 20,
                                 .completeness = 0.5};
}

featinv_status featinv_fit_options_init(featinv_fit_options *options, size_t size) {
    featinv_fit_options all = defaults();
    return fi_options_init(options, size, &all, sizeof all);
}

static void close_fit(fi_fit *f) {
    fi_rows_free(&f->rows);
    fi_sparse_free(&f->coefficients);
    free(f->removed);
    free(f->kept);
    free(f->eigenvalues);
    fi_sparse_free(&f->affinity);
    free(f->labels);
}

/* ---------------------------------------------------------------- options -------------------- */

static featinv_status check_mcd(const featinv_fit_options *o) {
    if (!(o->gamma > 0.0) || !isfinite(o->gamma))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "gamma is %g: it must be above 0", o->gamma);
    if (!(o->tau > 0.0 && o->tau <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "tau is %g: it must be above 0 and at most 1",
                       o->tau);
    if (!(o->outlier_quantile > 0.0 && o->outlier_quantile <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "outlier_quantile is %g: it must be above 0 and at most 1",
                       o->outlier_quantile);
    if (o->memory < 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "memory is %lld bytes", (long long)o->memory);
    if (o->rule < FEATINV_COUNT_RATIO || o->rule > FEATINV_COUNT_LEGACY)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "rule %d does not exist", o->rule);
    if (o->count == 0 && o->max_count < 2)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "max_count is %d: a rule chooses at least 2",
                       o->max_count);
    if (!o->count && o->rule == FEATINV_COUNT_COMPLETENESS && !o->weight)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "choosing the count by completeness needs a weight");
    if (!o->count && o->rule == FEATINV_COUNT_COMPLETENESS &&
        !(o->completeness > 0.0 && o->completeness <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "completeness is %g: it must be above 0 and at most 1", o->completeness);
    return FEATINV_OK;
}

static featinv_status check_options(const featinv_fit_options *o) {
    if (o->method < FEATINV_CONCEPTS_MCD || o->method > FEATINV_CONCEPTS_PCA)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "method %d does not exist", o->method);
    if (o->count < 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "count is %d: it must be 1 or more, or 0 for a rule",
                       o->count);
    if (o->count == 0 && o->method != FEATINV_CONCEPTS_MCD)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "count is 0: kmeans and pca have no rule for it, give one");
    if (o->basis != FEATINV_BASIS_ORIGIN && o->basis != FEATINV_BASIS_CENTRED)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "basis %d does not exist", o->basis);
    if (o->max_rows < 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "max_rows is %lld", (long long)o->max_rows);
    if (o->restarts < 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "restarts is %d: at least 1", o->restarts);
    if (o->dimension < 0 || (o->method != FEATINV_CONCEPTS_MCD && o->dimension > 1))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "dimension is %d: %s", o->dimension,
                       o->dimension < 0 ? "it must be 1 or more, or 0"
                                        : "concepts of kmeans and pca have one");
    if (o->orthogonalize && !o->weight)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "orthogonalisation needs a weight");
    return o->method == FEATINV_CONCEPTS_MCD ? check_mcd(o) : FEATINV_OK;
}

/* What depends on the features, too. */
static featinv_status check_sizes(const fi_fit *f) {
    const featinv_fit_options *o = &f->o;
    int64_t channels = f->rows.channels;
    if (o->count > f->rows.count)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "count is %d, but there are %lld rows", o->count,
                       (long long)f->rows.count);
    if (o->dimension > channels)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "dimension is %d, but there are %lld channels",
                       o->dimension, (long long)channels);
    if (o->method == FEATINV_CONCEPTS_MCD && f->rows.count < 2)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "one row cannot be represented by others");
    double squares = 0.0;
    for (int64_t c = 0; o->weight && c < channels; c++) {
        if (!isfinite(o->weight[c]))
            return fi_fail(FEATINV_ERROR_VALUE, "weight of channel %lld is %g", (long long)c,
                           o->weight[c]);
        squares += fabs(o->weight[c]);
    }
    if (o->weight && !(squares > 0.0))
        return fi_fail(FEATINV_ERROR_VALUE, "the weight is all zeros");
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- result --------------------- */

/* The coefficients between all given rows: those not drawn and the removed ones are empty. */
static featinv_status keep_coefficients(featinv_concepts *concepts, const fi_fit *f) {
    const fi_sparse *from = &f->coefficients;
    fi_sparse *to = &concepts->coefficients;
    int64_t entries = from->offsets[from->rows];
    to->rows = f->rows.given;
    to->offsets = calloc((size_t)to->rows + 1, sizeof *to->offsets);
    to->indices = malloc(((size_t)entries + 1) * sizeof *to->indices);
    to->values = malloc(((size_t)entries + 1) * sizeof *to->values);
    if (!to->offsets || !to->indices || !to->values) {
        fi_sparse_free(to);
        return fi_fail_memory((size_t)to->rows * 8 + (size_t)entries * 12);
    }
    memcpy(to->values, from->values, (size_t)entries * sizeof *to->values);
    for (int64_t e = 0; e < entries; e++)
        to->indices[e] = (int32_t)f->rows.index[from->indices[e]];
    for (int64_t i = 0; i < from->rows; i++)
        to->offsets[f->rows.index[i] + 1] = from->offsets[i + 1] - from->offsets[i];
    for (int64_t i = 0; i < to->rows; i++)
        to->offsets[i + 1] += to->offsets[i];
    return FEATINV_OK;
}

/* How the concepts were found. The eigenvalues move from the fit to them. */
static featinv_status note(featinv_concepts *concepts, fi_fit *f) {
    featinv_concepts_details *info = &concepts->info;
    bool mcd = f->o.method == FEATINV_CONCEPTS_MCD;
    info->method = f->o.method;
    info->basis = f->o.basis;
    info->seed = f->o.seed;
    info->rows = f->rows.count;
    info->rows_removed = f->rows.count - f->kept_count;
    info->gamma = mcd ? f->o.gamma : (double)NAN;
    info->tau = mcd ? f->o.tau : (double)NAN;
    info->outlier_quantile = mcd ? f->o.outlier_quantile : (double)NAN;
    info->objective = mcd ? f->summary.objective : (double)NAN;
    info->stationarity = mcd ? f->summary.stationarity : (double)NAN;
    if (f->o.class_name) {
        concepts->class_name = strdup(f->o.class_name);
        if (!concepts->class_name)
            return fi_fail_memory(strlen(f->o.class_name));
        info->class_name = concepts->class_name;
    }
    if (!mcd)
        return FEATINV_OK;
    concepts->eigenvalues = f->eigenvalues;
    f->eigenvalues = NULL;
    info->eigenvalues = concepts->eigenvalues;
    info->eigenvalue_count = (int32_t)f->eigenvalue_count;
    return f->o.keep_coefficients ? keep_coefficients(concepts, f) : FEATINV_OK;
}

static featinv_status orthogonalize(featinv_concepts **concepts, const double *weight) {
    featinv_concepts *orthogonal = NULL;
    featinv_status status = featinv_concepts_orthogonalize(&orthogonal, NULL, *concepts, weight);
    if (!status) {
        featinv_concepts_release(*concepts);
        *concepts = orthogonal;
    }
    return status;
}

static double seconds_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static featinv_status run(featinv_concepts **out, fi_fit *f) {
    size_t n = (size_t)f->rows.count;
    f->removed = calloc(n, sizeof *f->removed);
    f->kept = malloc(n * sizeof *f->kept);
    f->labels = malloc(n * sizeof *f->labels);
    if (!f->removed || !f->kept || !f->labels)
        return fi_fail_memory(n * 13);
    featinv_status status = f->o.method == FEATINV_CONCEPTS_MCD      ? fi_fit_mcd(out, f)
                            : f->o.method == FEATINV_CONCEPTS_KMEANS ? fi_fit_kmeans(out, f)
                                                                     : fi_fit_pca(out, f);
    if (!status && f->o.orthogonalize)
        status = orthogonalize(out, f->o.weight);
    return status ? status : note(*out, f);
}

featinv_status featinv_concepts_fit(featinv_concepts **out, featinv_session *session,
                                    const featinv_tensor *features,
                                    const featinv_fit_options *options) {
    double start = seconds_now();
    fi_fit f = {.o = defaults(), .session = session};
    featinv_concepts *found = NULL;
    if (!out)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the concepts");
    *out = NULL;
    featinv_status status = fi_options_read(&f.o, sizeof f.o, options);
    if (!status)
        status = check_options(&f.o);
    if (!status)
        status = fi_session_begin(session, 0, NULL);
    if (!status) /* principal directions are of the rows as they are, as published */
        status = fi_rows_read(&f.rows, features, f.o.max_rows, f.o.seed,
                              f.o.method != FEATINV_CONCEPTS_PCA);
    if (!status)
        status = check_sizes(&f);
    f.progress = (fi_progress){.call = f.o.progress, .user_data = f.o.user_data};
    if (!status)
        status = run(&found, &f);
    if (!status)
        status = fi_fit_reach(&f, f.progress.total);
    if (!status)
        found->info.seconds = seconds_now() - start;
    else
        featinv_concepts_release(found);
    if (!status)
        *out = found;
    close_fit(&f);
    return status;
}
