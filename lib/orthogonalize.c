/* Greedy orthogonalisation: each step takes the concept that adds most completeness. */
#include "concepts.h"
#include "dense.h"
#include "error.h"
#include "relevance.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct greedy {
    const featinv_concepts *concepts;
    int64_t d;
    double *weight;                   /* (C), unit length */
    double *taken;                    /* (total, C): orthonormal rows of the concepts taken */
    int32_t *offsets, *order, *place; /* place: new number of each old concept, -1 */
    int32_t count, used;              /* concepts taken, and their dimensions */
} greedy;

/* rows (n, d) off the dimensions taken. */
static void project(const greedy *g, double *rows, int64_t n, double *parts) {
    memset(parts, 0, (size_t)(n * g->used) * sizeof *parts);
    fi_multiply_add(parts, g->used, 1.0, (fi_matrix){rows, g->d, false},
                    (fi_matrix){g->taken, g->d, true}, n, g->used, g->d);
    fi_multiply_add(rows, g->d, -1.0, (fi_matrix){parts, g->used, false},
                    (fi_matrix){g->taken, g->d, false}, n, g->d, g->used);
}

/* What concept `index` adds: fresh orthonormal rows (*rank, d). Dimensions of which less than
 * FI_SINGULAR_LEAST is left are made of rounding and vanish. */
static featinv_status addition(double **out, int64_t *rank, const greedy *g, int32_t index) {
    int32_t p = 0;
    double *rows = NULL, *q = NULL, *parts = NULL;
    featinv_status status = fi_concepts_rows(&rows, &p, g->concepts, index);
    size_t size = (size_t)p * (size_t)g->d * sizeof *q;
    if (!status && (!(q = malloc(size)) ||
                    !(parts = malloc((size_t)p * ((size_t)g->used + 1) * sizeof *parts))))
        status = fi_fail_memory(size);
    *rank = p;
    for (int pass = 0; pass < 2 && !status; pass++) {
        /* again for the sum, since dimensions nearly gone carry rounding of the others */
        project(g, rows, *rank, parts);
        project(g, rows, *rank, parts);
        status = fi_orthonormal(q, NULL, rank, rows, *rank, g->d, pass ? 0.0 : FI_SINGULAR_LEAST);
        memcpy(rows, q, (size_t)(*rank * g->d) * sizeof *rows);
    }
    free(q);
    free(parts);
    if (status)
        free(rows);
    *out = status ? NULL : rows;
    return status;
}

/* Takes the best of the concepts that are left; *found is false when none adds a dimension. */
static featinv_status take(greedy *g, bool *found) {
    double *best = NULL, best_gain = -1.0;
    int64_t best_rank = 0;
    int32_t index = -1;
    for (int32_t i = 0; i < g->concepts->info.count; i++) {
        double *rows, gain = 0.0;
        int64_t rank;
        if (g->place[i] >= 0)
            continue;
        featinv_status status = addition(&rows, &rank, g, i);
        if (status) {
            free(best);
            return status;
        }
        for (int64_t r = 0; r < rank; r++) {
            double part = fi_dense_dot(rows + r * g->d, g->weight, g->d);
            gain += part * part;
        }
        if (rank > 0 && gain > best_gain) {
            free(best);
            best = rows;
            best_gain = gain;
            best_rank = rank;
            index = i;
        } else {
            free(rows);
        }
    }
    *found = index >= 0;
    if (*found) {
        memcpy(g->taken + g->used * g->d, best, (size_t)(best_rank * g->d) * sizeof *best);
        g->used += (int32_t)best_rank;
        g->place[index] = g->count;
        g->order[g->count++] = index;
        g->offsets[g->count] = g->used;
    }
    free(best);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- the new set ---------------- */

static featinv_status copy_block(void *out, const void *from, size_t bytes) {
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return fi_fail_memory(bytes);
    memcpy(copy, from, bytes);
    memcpy(out, &copy, sizeof copy);
    return FEATINV_OK;
}

static featinv_status copy_coefficients(fi_sparse *out, const fi_sparse *from) {
    if (!from->offsets)
        return FEATINV_OK;
    size_t rows = (size_t)from->rows, entries = (size_t)from->offsets[rows];
    out->rows = from->rows;
    featinv_status status =
        copy_block(&out->offsets, from->offsets, (rows + 1) * sizeof *from->offsets);
    if (!status)
        status = copy_block(&out->indices, from->indices, entries * sizeof *from->indices);
    if (!status)
        status = copy_block(&out->values, from->values, entries * sizeof *from->values);
    return status;
}

/* How the concepts were found stays as it was. */
static featinv_status copy_fit(featinv_concepts *out, const featinv_concepts *from) {
    const featinv_concepts_details *old = &from->info;
    featinv_concepts_details *info = &out->info;
    info->method = old->method;
    info->basis = old->basis;
    info->gamma = old->gamma;
    info->tau = old->tau;
    info->outlier_quantile = old->outlier_quantile;
    info->seed = old->seed;
    info->rows = old->rows;
    info->rows_removed = old->rows_removed;
    info->objective = old->objective;
    info->stationarity = old->stationarity;
    info->seconds = old->seconds;
    featinv_status status = copy_coefficients(&out->coefficients, &from->coefficients);
    if (!status && from->eigenvalues) {
        status = copy_block(&out->eigenvalues, from->eigenvalues,
                            (size_t)old->eigenvalue_count * sizeof *from->eigenvalues);
        info->eigenvalues = out->eigenvalues;
        info->eigenvalue_count = status ? 0 : old->eigenvalue_count;
    }
    if (!status && from->class_name) {
        status = copy_block(&out->class_name, from->class_name, strlen(from->class_name) + 1);
        info->class_name = out->class_name;
    }
    return status;
}

/* Labels under the new numbers; rows of a concept that vanished belong to none. */
static featinv_status new_labels(int32_t **out, const greedy *g) {
    const featinv_concepts_details *info = &g->concepts->info;
    size_t rows = 1;
    *out = NULL;
    if (!info->labels)
        return FEATINV_OK;
    for (int32_t i = 0; i < info->label_ndim; i++)
        rows *= (size_t)info->label_shape[i];
    int32_t *labels = malloc(rows * sizeof *labels + 1);
    if (!labels)
        return fi_fail_memory(rows * sizeof *labels);
    for (size_t i = 0; i < rows; i++)
        labels[i] = info->labels[i] < 0 ? -1 : g->place[info->labels[i]];
    *out = labels;
    return FEATINV_OK;
}

static featinv_status finish(featinv_concepts **out, greedy *g) {
    const featinv_concepts_details *info = &g->concepts->info;
    int32_t *labels = NULL;
    featinv_status status = new_labels(&labels, g);
    size_t size = (size_t)g->used * (size_t)g->d * sizeof(double);
    double *bases = status ? NULL : malloc(size);
    if (status || !bases) {
        free(labels);
        return status ? status : fi_fail_memory(size);
    }
    fi_transpose(bases, g->taken, g->used, g->d);
    int32_t *offsets = g->offsets;
    g->offsets = NULL;
    status = fi_concepts_new(out, bases, offsets, g->count, info->channels, labels,
                             info->label_ndim, info->label_shape);
    if (!status)
        status = copy_fit(*out, g->concepts);
    if (status) {
        featinv_concepts_release(*out);
        *out = NULL;
    }
    return status;
}

static featinv_status open_greedy(greedy *g, const featinv_concepts *concepts,
                                  const double *weight) {
    const featinv_concepts_details *info = &concepts->info;
    size_t d = (size_t)info->channels, count = (size_t)info->count;
    *g = (greedy){.concepts = concepts, .d = info->channels};
    g->weight = malloc(d * sizeof *g->weight);
    g->taken = malloc((size_t)info->total * d * sizeof *g->taken);
    g->offsets = calloc(count + 1, sizeof *g->offsets);
    g->order = malloc(count * sizeof *g->order);
    g->place = malloc(count * sizeof *g->place);
    if (!g->weight || !g->taken || !g->offsets || !g->order || !g->place)
        return fi_fail_memory((size_t)info->total * d * sizeof *g->taken);
    for (size_t i = 0; i < count; i++)
        g->order[i] = g->place[i] = -1;
    return fi_unit_weight(g->weight, weight, info->channels);
}

featinv_status featinv_concepts_orthogonalize(featinv_concepts **out, int32_t *order,
                                              const featinv_concepts *concepts,
                                              const double *weight) {
    if (!out || !concepts || !weight)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s",
                       !out        ? "place for the concepts"
                       : !concepts ? "concepts"
                                   : "weight");
    greedy g;
    bool found = true;
    *out = NULL;
    featinv_status status = open_greedy(&g, concepts, weight);
    while (!status && found && g.count < concepts->info.count)
        status = take(&g, &found);
    if (!status)
        status = finish(out, &g);
    if (!status && order)
        memcpy(order, g.order, (size_t)concepts->info.count * sizeof *order);
    free(g.weight);
    free(g.taken);
    free(g.offsets);
    free(g.order);
    free(g.place);
    return status;
}
