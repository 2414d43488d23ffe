/* Concepts by k-means and by principal directions: the simple alternatives that people compare
 * with. */
#include "fit.h"

#include "error.h"
#include "kmeans.h"
#include "subspace.h"

#include <math.h>
#include <stdlib.h>

/* Each concept is the direction of a centre. */
static featinv_status centre_directions(fi_collection *c, const double *centres,
                                        const int32_t *order, int64_t d) {
    for (int32_t i = 0; i < c->count; i++) {
        const double *centre = centres + order[i] * d;
        double squares = 0.0;
        for (int64_t j = 0; j < d; j++)
            squares += centre[j] * centre[j];
        if (!(squares > 1e-24))
            return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                           "the centre of cluster %d is zero: it has no direction", i);
        c->parts[i] = malloc((size_t)d * sizeof **c->parts);
        if (!c->parts[i])
            return fi_fail_memory((size_t)d * sizeof **c->parts);
        for (int64_t j = 0; j < d; j++)
            c->parts[i][j] = centre[j] / sqrt(squares);
        c->offsets[i + 1] = i + 1;
    }
    return FEATINV_OK;
}

featinv_status fi_fit_kmeans(featinv_concepts **out, fi_fit *f) {
    int64_t n = f->rows.count, d = f->rows.channels;
    int32_t *order = malloc((size_t)f->o.count * sizeof *order);
    double inertia, *rows = malloc((size_t)(n * d) * sizeof *rows);
    double *centres = malloc((size_t)(f->o.count * d) * sizeof *centres);
    fi_collection c;
    featinv_status status = fi_collection_make(&c, f->o.count);
    f->count = f->o.count;
    f->progress.total = n;
    if (!status && (!order || !rows || !centres))
        status = fi_fail_memory((size_t)(n * d) * sizeof *rows);
    for (int64_t i = 0; i < n * d && !status; i++)
        rows[i] = (double)f->rows.data[i];
    if (!status)
        status = fi_fit_keep(f);
    if (!status)
        status = fi_kmeans(f->labels, centres, &inertia, f->session, rows, n, d, f->count,
                           f->o.restarts, f->o.seed);
    if (!status)
        status = fi_fit_renumber(f, order);
    if (!status)
        status = centre_directions(&c, centres, order, d);
    if (!status)
        status = fi_fit_assemble(out, f, &c, true);
    free(order);
    free(rows);
    free(centres);
    fi_collection_free(&c);
    return status;
}

/* The first `count` principal directions, one concept each; rows have no label. */
featinv_status fi_fit_pca(featinv_concepts **out, fi_fit *f) {
    int64_t d = f->rows.channels;
    double *basis = NULL;
    int32_t found = 0;
    fi_collection c;
    f->progress.total = f->rows.count;
    if (f->o.count > d)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%d concepts have %d dimensions together, but there are %lld channels",
                       f->o.count, f->o.count, (long long)d);
    featinv_status status = fi_collection_make(&c, f->o.count);
    if (!status)
        status = fi_fit_keep(f);
    if (!status)
        status = fi_subspace_fit(&basis, &found, f->session, f->rows.data, d, f->kept,
                                 f->kept_count, f->o.basis, f->o.count);
    if (!status && found < f->o.count)
        status = fi_fail(FEATINV_ERROR_ARGUMENT,
                         "%d concepts are wanted, but the rows have only %d principal directions",
                         f->o.count, found);
    for (int32_t i = 0; i < f->o.count && !status; i++) {
        c.parts[i] = malloc((size_t)d * sizeof **c.parts);
        if (!c.parts[i])
            status = fi_fail_memory((size_t)d * sizeof **c.parts);
        for (int64_t j = 0; j < d && !status; j++)
            c.parts[i][j] = basis[j * found + i];
        c.offsets[i + 1] = i + 1;
    }
    if (!status)
        status = fi_fit_assemble(out, f, &c, false);
    free(basis);
    fi_collection_free(&c);
    return status;
}
