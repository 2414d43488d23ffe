/* Multi-dimensional concept discovery (Vielhaben et al. 2023): sparse subspace clustering. */
#include "fit.h"

#include "error.h"
#include "fit_outliers.h"
#include "spectral.h"

#include <stdlib.h>

featinv_status fi_fit_reach(fi_fit *f, int64_t done) {
    return fi_session_tick(f->session, &f->progress, done - f->progress.done);
}

/* Self-representation of all rows, then of those that are no outliers. */
static featinv_status represent(fi_fit *f) {
    int64_t n = f->rows.count, removed = 0;
    fi_selfrep *selfrep = NULL;
    featinv_status status = fi_selfrep_create(&selfrep, f->session, f->rows.data, n,
                                              f->rows.channels, f->o.gamma, f->o.tau, f->o.memory);
    if (!status)
        status = fi_selfrep_solve(selfrep, &f->coefficients, NULL, &f->summary, NULL, &f->progress);
    if (!status)
        status = fi_fit_reach(f, n);
    if (!status)
        status = fi_outliers(f->removed, &removed, &f->coefficients, f->o.outlier_quantile);
    if (!status && removed) {
        fi_sparse_free(&f->coefficients);
        status = fi_selfrep_solve(selfrep, &f->coefficients, NULL, &f->summary, f->removed,
                                  &f->progress);
    }
    fi_selfrep_destroy(selfrep);
    return status ? status : fi_fit_reach(f, 2 * n);
}

featinv_status fi_fit_keep(fi_fit *f) {
    f->kept_count = 0;
    for (int64_t i = 0; i < f->rows.count; i++)
        if (!f->removed[i])
            f->kept[f->kept_count++] = i;
    int32_t wanted = f->o.count ? f->o.count : 2;
    if (wanted > f->kept_count)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "%d concepts are wanted of %lld rows (%lld others were removed as outliers)",
                       wanted, (long long)f->kept_count,
                       (long long)(f->rows.count - f->kept_count));
    return FEATINV_OK;
}

/* The affinity of the rows kept, and its smallest eigenvalues. */
static featinv_status relate(fi_fit *f) {
    int64_t most = f->o.count > f->o.max_count ? f->o.count : f->o.max_count;
    uint8_t *keep = malloc((size_t)f->rows.count * sizeof *keep);
    f->eigenvalue_count = most < f->kept_count ? most : f->kept_count;
    f->eigenvalues = malloc((size_t)f->eigenvalue_count * sizeof *f->eigenvalues);
    featinv_status status = FEATINV_OK;
    if (!keep || !f->eigenvalues)
        status = fi_fail_memory((size_t)(f->rows.count + 8 * f->eigenvalue_count));
    for (int64_t i = 0; i < f->rows.count && !status; i++)
        keep[i] = !f->removed[i];
    if (!status)
        status = fi_affinity(&f->affinity, &f->coefficients, keep);
    if (!status)
        status = fi_spectral_values(f->eigenvalues, f->session, &f->affinity, f->eigenvalue_count,
                                    f->o.seed);
    free(keep);
    return status;
}

/* K as given or by a rule on the eigenvalues. */
static featinv_status choose_count(int32_t *count, const fi_fit *f) {
    int32_t values = (int32_t)f->eigenvalue_count;
    *count = f->o.count;
    if (f->o.count)
        return FEATINV_OK;
    if (f->o.rule != FEATINV_COUNT_LEGACY) {
        *count = fi_spectral_count(f->eigenvalues, values, f->o.max_count, f->o.rule);
        return FEATINV_OK;
    }
    double *largest = malloc((size_t)values * sizeof *largest);
    if (!largest)
        return fi_fail_memory((size_t)values * sizeof *largest);
    featinv_status status =
        fi_spectral_largest(largest, f->session, &f->affinity, values, f->o.seed);
    for (int32_t i = 0; i < values && !status; i++)
        largest[i] = 1.0 - largest[i];
    if (!status)
        *count = fi_spectral_count(largest, values, f->o.max_count, f->o.rule);
    free(largest);
    return status;
}

/* K grows until the weight lies in the span of the concepts to the share asked for. */
static featinv_status grow(featinv_concepts **out, fi_fit *f) {
    int32_t last = f->o.max_count < f->kept_count ? f->o.max_count : (int32_t)f->kept_count;
    double completeness = 0.0, rest;
    featinv_status status = FEATINV_OK;
    for (int32_t count = 2; count <= last && completeness < f->o.completeness; count++) {
        featinv_concepts_release(*out);
        *out = NULL;
        status = fi_fit_cluster(f, count);
        if (!status)
            status = fi_fit_clusters(out, f);
        if (!status)
            status = featinv_concepts_completeness(&completeness, &rest, *out, f->o.weight);
        if (status)
            break;
    }
    return status;
}

featinv_status fi_fit_mcd(featinv_concepts **out, fi_fit *f) {
    int64_t n = f->rows.count;
    int32_t count = 0;
    f->progress.total = 3 * n;
    featinv_status status = represent(f);
    if (!status)
        status = fi_fit_keep(f);
    if (!status)
        status = relate(f);
    if (!status)
        status = fi_fit_reach(f, 2 * n + n / 2);
    if (!status && !f->o.count && f->o.rule == FEATINV_COUNT_COMPLETENESS)
        return grow(out, f);
    if (!status)
        status = choose_count(&count, f);
    if (!status)
        status = fi_fit_cluster(f, count);
    return status ? status : fi_fit_clusters(out, f);
}
