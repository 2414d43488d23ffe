/* Clusters of rows and the bases of their concepts. */
#include "fit.h"

#include "concepts.h"
#include "error.h"
#include "kmeans.h"
#include "spectral.h"
#include "subspace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct cluster {
    int64_t size, first;
    int32_t label;
} cluster;

static int larger_first(const void *a, const void *b) {
    const cluster *x = a, *y = b;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

featinv_status fi_fit_renumber(fi_fit *f, int32_t *order) {
    cluster *clusters = calloc((size_t)f->count, sizeof *clusters);
    int32_t *place = malloc((size_t)f->count * sizeof *place);
    featinv_status status = FEATINV_OK;
    if (!clusters || !place) {
        status = fi_fail_memory((size_t)f->count * sizeof *clusters);
        goto done;
    }
    for (int32_t c = 0; c < f->count; c++)
        clusters[c].label = c;
    for (int64_t i = f->kept_count - 1; i >= 0; i--) {
        clusters[f->labels[i]].size++;
        clusters[f->labels[i]].first = i;
    }
    qsort(clusters, (size_t)f->count, sizeof *clusters, larger_first);
    for (int32_t c = 0; c < f->count; c++) {
        if (clusters[c].size == 0) {
            status = fi_fail(FEATINV_ERROR_ARGUMENT,
                             "%d concepts are wanted, but the rows form only %d different groups",
                             f->count, c);
            goto done;
        }
        place[clusters[c].label] = c;
        order[c] = clusters[c].label;
    }
    for (int64_t i = 0; i < f->kept_count; i++)
        f->labels[i] = place[f->labels[i]];
done:
    free(clusters);
    free(place);
    return status;
}

/* Eigenvectors of the `count` smallest eigenvalues, rows at unit length (rows of zeros stay),
 * k-means. */
featinv_status fi_fit_cluster(fi_fit *f, int32_t count) {
    double inertia, *rows = malloc((size_t)(f->kept_count * count) * sizeof *rows);
    int32_t *order = malloc((size_t)count * sizeof *order);
    featinv_status status = FEATINV_OK;
    f->count = count;
    if (!rows || !order)
        status = fi_fail_memory((size_t)(f->kept_count * count) * sizeof *rows);
    if (!status) /* these eigenvalues are better than the first look's */
        status = fi_spectral(f->eigenvalues, rows, f->session, &f->affinity, count, f->o.seed);
    for (int64_t i = 0; i < f->kept_count && !status; i++) {
        double *row = rows + i * count, squares = 0.0;
        for (int32_t c = 0; c < count; c++)
            squares += row[c] * row[c];
        for (int32_t c = 0; c < count && squares > 0.0; c++)
            row[c] /= sqrt(squares);
    }
    if (!status)
        status = fi_kmeans(f->labels, NULL, &inertia, f->session, rows, f->kept_count, count, count,
                           f->o.restarts, f->o.seed);
    if (!status)
        status = fi_fit_renumber(f, order);
    free(rows);
    free(order);
    return status;
}

void fi_collection_free(fi_collection *c) {
    for (int32_t i = 0; c->parts && i < c->count; i++)
        free(c->parts[i]);
    free(c->parts);
    free(c->offsets);
}

featinv_status fi_collection_make(fi_collection *c, int32_t count) {
    *c = (fi_collection){.count = count};
    c->parts = calloc((size_t)count, sizeof *c->parts);
    c->offsets = calloc((size_t)count + 1, sizeof *c->offsets);
    return c->parts && c->offsets ? FEATINV_OK : fi_fail_memory((size_t)count * 16);
}

/* Labels of all given rows from those of the rows kept. */
static featinv_status spread_labels(int32_t **out, const fi_fit *f) {
    int32_t *labels = malloc((size_t)f->rows.given * sizeof *labels);
    if (!labels)
        return fi_fail_memory((size_t)f->rows.given * sizeof *labels);
    for (int64_t i = 0; i < f->rows.given; i++)
        labels[i] = -1;
    for (int64_t i = 0; i < f->kept_count; i++)
        labels[f->rows.index[f->kept[i]]] = f->labels[i];
    *out = labels;
    return FEATINV_OK;
}

featinv_status fi_fit_assemble(featinv_concepts **out, const fi_fit *f, fi_collection *c,
                               bool labelled) {
    int32_t channels = (int32_t)f->rows.channels, total = c->offsets[c->count];
    if (total > channels)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%d concepts have %d dimensions together, but there are %d channels",
                       c->count, total, channels);
    size_t size = (size_t)channels * (size_t)total * sizeof(double);
    int32_t *labels = NULL;
    double *bases = malloc(size);
    featinv_status status = bases ? FEATINV_OK : fi_fail_memory(size);
    if (!status && labelled)
        status = spread_labels(&labels, f);
    if (status) {
        free(bases);
        return status;
    }
    for (int32_t i = 0; i < c->count; i++) {
        int32_t first = c->offsets[i], p = c->offsets[i + 1] - first;
        for (int32_t row = 0; row < channels; row++)
            memcpy(bases + (int64_t)row * total + first, c->parts[i] + (int64_t)row * p,
                   (size_t)p * sizeof *bases);
    }
    int32_t *offsets = c->offsets;
    c->offsets = NULL;
    return fi_concepts_new(out, bases, offsets, c->count, channels, labels,
                           labels ? f->rows.ndim : 0, f->rows.shape);
}

/* A basis for each cluster. */
featinv_status fi_fit_clusters(featinv_concepts **out, fi_fit *f) {
    fi_collection c;
    featinv_status status = fi_collection_make(&c, f->count);
    int64_t *members = malloc((size_t)f->kept_count * sizeof *members);
    if (!status && !members)
        status = fi_fail_memory((size_t)f->kept_count * sizeof *members);
    for (int32_t i = 0; i < f->count && !status; i++) {
        int64_t size = 0;
        int32_t dimension = 0;
        for (int64_t j = 0; j < f->kept_count; j++)
            if (f->labels[j] == i)
                members[size++] = f->kept[j];
        if (atomic_load(&f->session->cancelled))
            status = fi_fail(FEATINV_ERROR_CANCELLED, "cancelled while fitting bases");
        if (!status)
            status = fi_subspace_fit(&c.parts[i], &dimension, f->session, f->rows.data,
                                     f->rows.channels, members, size, f->o.basis, f->o.dimension);
        c.offsets[i + 1] = c.offsets[i] + dimension;
    }
    if (!status)
        status = fi_fit_assemble(out, f, &c, true);
    free(members);
    fi_collection_free(&c);
    return status;
}
