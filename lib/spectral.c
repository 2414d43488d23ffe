#include "spectral.h"

#include "error.h"
#include "lanczos.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Components up to DENSE rows are solved directly; larger ones, where the iteration fails, up to
 * DENSE_LIMIT (three matrices of 288 MB). */
enum { DENSE = 384, DENSE_LIMIT = 6000, BLOCK_EXTRA = 3, BLOCK_STEP = 8, BLOCK_LIMIT = 64 };

/* Residuals of eigenvectors, and of vectors that only stand for their eigenvalue. */
static const double FINE = 1e-10, COARSE = 1e-6;

/* ---------------------------------------------------------------- components ----------------- */

typedef struct component {
    int64_t first, size; /* members[first..first + size) */
} component;

typedef struct graph {
    featinv_session *session;
    const fi_sparse *affinity;
    double *root;      /* (n): square roots of the degrees */
    int32_t *members;  /* (n): rows grouped by component, ascending within one */
    int32_t *position; /* (n): place of a row within its component */
    component *components;
    int64_t count;
    double residual;
    uint64_t seed;
} graph;

static int32_t find_root(int32_t *parent, int32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* The smaller row becomes the parent: the root of a component is its first row. */
static void join_edges(int32_t *parent, const fi_sparse *w) {
    for (int64_t i = 0; i < w->rows; i++)
        parent[i] = (int32_t)i;
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t e = w->offsets[i]; e < w->offsets[i + 1]; e++) {
            if (!(w->values[e] > 0.0))
                continue;
            int32_t a = find_root(parent, (int32_t)i), b = find_root(parent, w->indices[e]);
            if (a < b)
                parent[b] = a;
            else
                parent[a] = b;
        }
}

static int compare_components(const void *a, const void *b) {
    const component *x = a, *y = b;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Groups the rows by component: in the order of first rows, then listed by size. */
static featinv_status find_components(graph *g) {
    int64_t n = g->affinity->rows;
    int32_t *parent = malloc((size_t)n * sizeof *parent), *id = malloc((size_t)n * sizeof *id);
    featinv_status status = FEATINV_OK;
    if (!parent || !id) {
        status = fi_fail_memory(2 * (size_t)n * sizeof *parent);
        goto done;
    }
    join_edges(parent, g->affinity);
    for (int64_t i = 0; i < n; i++) {
        int32_t root = find_root(parent, (int32_t)i);
        if (root == i)
            id[i] = (int32_t)g->count++;
        else
            id[i] = id[root];
        g->components[id[i]].size++;
    }
    for (int64_t c = 1; c < g->count; c++)
        g->components[c].first = g->components[c - 1].first + g->components[c - 1].size;
    for (int64_t c = 0; c < g->count; c++)
        parent[c] = 0; /* from here on: members placed so far */
    for (int64_t i = 0; i < n; i++) {
        g->position[i] = parent[id[i]]++;
        g->members[g->components[id[i]].first + g->position[i]] = (int32_t)i;
    }
    qsort(g->components, (size_t)g->count, sizeof *g->components, compare_components);
done:
    free(parent);
    free(id);
    return status;
}

static void close_graph(graph *g) {
    free(g->root);
    free(g->members);
    free(g->position);
    free(g->components);
}

static featinv_status open_graph(graph *g, featinv_session *session, const fi_sparse *affinity,
                                 int64_t k, double residual, uint64_t seed) {
    int64_t n = affinity->rows;
    *g = (graph){.session = session, .affinity = affinity, .residual = residual, .seed = seed};
    if (k < 1 || k > n)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%lld eigenvalues of a matrix of %lld rows",
                       (long long)k, (long long)n);
    g->root = malloc((size_t)n * sizeof *g->root);
    g->members = malloc((size_t)n * sizeof *g->members);
    g->position = malloc((size_t)n * sizeof *g->position);
    g->components = calloc((size_t)n, sizeof *g->components);
    if (!g->root || !g->members || !g->position || !g->components)
        return fi_fail_memory((size_t)n * 32);
    for (int64_t i = 0; i < n; i++) {
        double degree = 0.0;
        for (int64_t e = affinity->offsets[i]; e < affinity->offsets[i + 1]; e++)
            degree += affinity->values[e];
        g->root[i] = sqrt(degree);
    }
    return find_components(g);
}

/* ---------------------------------------------------------------- one component -------------- */

/* D^-1/2 W D^-1/2 of a component, and its unit eigenvector of eigenvalue 1, D^1/2 1. */
static featinv_status component_matrix(fi_sparse *a, double *known, const graph *g,
                                       const component *c) {
    const fi_sparse *w = g->affinity;
    const int32_t *members = g->members + c->first;
    int64_t entries = 0;
    for (int64_t i = 0; i < c->size; i++)
        entries += w->offsets[members[i] + 1] - w->offsets[members[i]];
    a->rows = c->size;
    a->offsets = malloc((size_t)(c->size + 1) * sizeof *a->offsets);
    a->indices = malloc((size_t)(entries + 1) * sizeof *a->indices);
    a->values = malloc((size_t)(entries + 1) * sizeof *a->values);
    if (!a->offsets || !a->indices || !a->values)
        return fi_fail_memory((size_t)entries * 12);
    int64_t used = 0;
    double total = 0.0;
    for (int64_t i = 0; i < c->size; i++) {
        int64_t row = members[i];
        a->offsets[i] = used;
        for (int64_t e = w->offsets[row]; e < w->offsets[row + 1]; e++) {
            if (!(w->values[e] > 0.0))
                continue;
            a->indices[used] = g->position[w->indices[e]];
            a->values[used++] = w->values[e] / (g->root[row] * g->root[w->indices[e]]);
        }
        known[i] = g->root[row];
        total += known[i] * known[i];
    }
    a->offsets[c->size] = used;
    for (int64_t i = 0; i < c->size && total > 0.0; i++)
        known[i] /= sqrt(total);
    return FEATINV_OK;
}

/* All eigenvalues of sign A, where the known vector's is moved out of the way to `moved`. The
 * largest `wanted` others descend in values; vectors are rows. */
static featinv_status solve_dense(double *values, double *vectors, const graph *g,
                                  const fi_sparse *a, double sign, const double *known,
                                  int64_t wanted) {
    int64_t m = a->rows;
    size_t square = (size_t)m * (size_t)m;
    double *dense = calloc(2 * square + (size_t)m, sizeof *dense);
    if (!dense)
        return fi_fail_memory((2 * square + (size_t)m) * sizeof *dense);
    double *basis = dense + square, *spectrum = basis + square;
    for (int64_t i = 0; i < m; i++)
        for (int64_t e = a->offsets[i]; e < a->offsets[i + 1]; e++)
            dense[i * m + a->indices[e]] = sign * a->values[e];
    for (int64_t i = 0; known && i < m; i++)
        for (int64_t j = 0; j < m; j++)
            dense[i * m + j] -= 3.0 * known[i] * known[j]; /* 1 becomes -2, below all others */
    const fi_backend *backend = fi_session_backend(g->session);
    int failed = backend->eigh(spectrum, basis, dense, m);
    for (int64_t k = 0; k < wanted && !failed; k++) {
        values[k] = spectrum[m - 1 - k];
        for (int64_t i = 0; vectors && i < m; i++)
            vectors[k * m + i] = basis[i * m + (m - 1 - k)];
    }
    free(dense);
    return failed ? fi_backend_fail(backend, failed, "eigenvectors of the affinity") : FEATINV_OK;
}

/* The `wanted` largest eigenvalues of sign A, descending, without the known vector's. */
static featinv_status solve_component(double *values, double *vectors, const graph *g,
                                      const fi_sparse *a, double sign, const double *known,
                                      int64_t wanted, uint32_t substream) {
    int64_t block = (wanted + BLOCK_EXTRA + BLOCK_STEP - 1) / BLOCK_STEP * BLOCK_STEP;
    block = block < BLOCK_LIMIT ? block : BLOCK_LIMIT;
    if (a->rows <= DENSE || 2 * fi_lanczos_size(wanted, block) > a->rows)
        return solve_dense(values, vectors, g, a, sign, known, wanted);
    fi_lanczos_problem problem = {.matrix = a,
                                  .sign = sign,
                                  .known = known,
                                  .wanted = wanted,
                                  .block = block,
                                  .residual = g->residual,
                                  .seed = g->seed,
                                  .substream = substream};
    int converged = 0;
    featinv_status status = fi_lanczos(values, vectors, &converged, g->session, &problem);
    if (status || converged)
        return status;
    if (a->rows <= DENSE_LIMIT)
        return solve_dense(values, vectors, g, a, sign, known, wanted);
    return fi_fail(FEATINV_ERROR_COMPUTE,
                   "the eigenvalues of the affinity of %lld rows lie too close together",
                   (long long)a->rows);
}

/* ---------------------------------------------------------------- smallest ------------------- */

typedef struct pair {
    double value;
    int64_t component;    /* in the list of components */
    const double *vector; /* over the component's members */
} pair;

static int compare_pairs(const void *a, const void *b) {
    const pair *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    if (x->component != y->component)
        return x->component < y->component ? -1 : 1;
    return x->vector < y->vector ? -1 : x->vector > y->vector;
}

/* Columns 0 to count-1: the zero eigenvalues of the first `count` components. */
static void write_zeros(double *values, double *vectors, const graph *g, int64_t count, int64_t k) {
    for (int64_t c = 0; c < count; c++) {
        const component *at = g->components + c;
        double total = 0.0;
        for (int64_t i = 0; i < at->size; i++)
            total += g->root[g->members[at->first + i]] * g->root[g->members[at->first + i]];
        values[c] = 0.0;
        for (int64_t i = 0; i < at->size; i++) {
            int64_t row = g->members[at->first + i];
            vectors[row * k + c] = at->size == 1 ? 1.0 : g->root[row] / sqrt(total);
        }
    }
}

/* Candidates of one component: its smallest eigenvalues above the first, at most `wanted`. */
static featinv_status add_pairs(pair *pairs, int64_t *count, double *vectors, double *values,
                                const graph *g, int64_t index, int64_t wanted) {
    const component *c = g->components + index;
    fi_sparse a = {0};
    double *known = malloc((size_t)c->size * sizeof *known);
    featinv_status status =
        known ? component_matrix(&a, known, g, c) : fi_fail_memory((size_t)c->size * sizeof *known);
    if (!status)
        status = solve_component(values, vectors, g, &a, 1.0, known, wanted, (uint32_t)index);
    for (int64_t i = 0; i < wanted && !status; i++)
        pairs[(*count)++] = (pair){1.0 - values[i], index, vectors + i * c->size};
    free(known);
    fi_sparse_free(&a);
    return status;
}

/* Columns `first` to k-1 from the components' further eigenvalues. */
static featinv_status write_others(double *values, double *vectors, const graph *g, int64_t first,
                                   int64_t k) {
    int64_t need = k - first, room = 0, total = 0, count = 0;
    for (int64_t c = 0; c < g->count; c++) {
        int64_t wanted = g->components[c].size - 1 < need ? g->components[c].size - 1 : need;
        room += wanted * g->components[c].size;
        total += wanted;
    }
    pair *pairs = malloc((size_t)total * sizeof *pairs);
    double *store = malloc((size_t)(room + need) * sizeof *store);
    featinv_status status = FEATINV_OK;
    if (!pairs || !store)
        status = fi_fail_memory((size_t)(room + need) * sizeof *store);
    double *next = store ? store + need : NULL;
    for (int64_t c = 0; c < g->count && !status; c++) {
        int64_t size = g->components[c].size, wanted = size - 1 < need ? size - 1 : need;
        if (wanted)
            status = add_pairs(pairs, &count, next, store, g, c, wanted);
        next += wanted * size;
    }
    if (!status)
        qsort(pairs, (size_t)count, sizeof *pairs, compare_pairs);
    for (int64_t i = 0; i < need && !status; i++) {
        const component *c = g->components + pairs[i].component;
        values[first + i] = pairs[i].value;
        for (int64_t j = 0; j < c->size; j++)
            vectors[g->members[c->first + j] * k + first + i] = pairs[i].vector[j];
    }
    free(pairs);
    free(store);
    return status;
}

static featinv_status smallest(double *values, double *vectors, featinv_session *session,
                               const fi_sparse *affinity, int64_t k, double residual,
                               uint64_t seed) {
    graph g;
    featinv_status status = open_graph(&g, session, affinity, k, residual, seed);
    if (!status) {
        int64_t zeros = g.count < k ? g.count : k;
        memset(vectors, 0, (size_t)(affinity->rows * k) * sizeof *vectors);
        write_zeros(values, vectors, &g, zeros, k);
        if (zeros < k)
            status = write_others(values, vectors, &g, zeros, k);
    }
    close_graph(&g);
    return status;
}

featinv_status fi_spectral(double *values, double *vectors, featinv_session *session,
                           const fi_sparse *affinity, int64_t k, uint64_t seed) {
    return smallest(values, vectors, session, affinity, k, FINE, seed);
}

featinv_status fi_spectral_values(double *values, featinv_session *session,
                                  const fi_sparse *affinity, int64_t k, uint64_t seed) {
    size_t size = (size_t)affinity->rows * (size_t)(k > 0 ? k : 1) * sizeof(double);
    double *vectors = malloc(size);
    featinv_status status = vectors ? smallest(values, vectors, session, affinity, k, COARSE, seed)
                                    : fi_fail_memory(size);
    free(vectors);
    return status;
}

/* ---------------------------------------------------------------- largest -------------------- */

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* The largest eigenvalues of L are 1 + the largest of -A; an isolated node's is 0, as L_ii = 0. */
featinv_status fi_spectral_largest(double *values, featinv_session *session,
                                   const fi_sparse *affinity, int64_t k, uint64_t seed) {
    graph g;
    double *all = NULL, *vectors = NULL, *known = NULL;
    featinv_status status = open_graph(&g, session, affinity, k, COARSE, seed);
    int64_t room = 0, count = 0, largest = status ? 0 : g.components[0].size;
    for (int64_t c = 0; c < (status ? 0 : g.count); c++)
        room += g.components[c].size < k ? g.components[c].size : k;
    if (!status) {
        all = malloc((size_t)room * sizeof *all);
        vectors = malloc((size_t)((k < largest ? k : largest) * largest) * sizeof *vectors);
        known = malloc((size_t)largest * sizeof *known);
        if (!all || !vectors || !known)
            status = fi_fail_memory((size_t)(k * largest + room) * sizeof *all);
    }
    for (int64_t c = 0; c < g.count && !status; c++) {
        fi_sparse a = {0};
        int64_t size = g.components[c].size, wanted = size < k ? size : k;
        status = component_matrix(&a, known, &g, g.components + c);
        if (!status)
            status = solve_component(all + count, vectors, &g, &a, -1.0, NULL, wanted, (uint32_t)c);
        for (int64_t i = 0; i < wanted && !status; i++)
            all[count + i] = size == 1 ? 0.0 : 1.0 + all[count + i];
        count += wanted;
        fi_sparse_free(&a);
    }
    if (!status) {
        qsort(all, (size_t)count, sizeof *all, descending);
        memcpy(values, all, (size_t)k * sizeof *values);
    }
    free(all);
    free(vectors);
    free(known);
    close_graph(&g);
    return status;
}

/* ---------------------------------------------------------------- count ---------------------- */

int32_t fi_spectral_count(const double *values, int32_t value_count, int32_t max_count,
                          featinv_count_rule rule) {
    int32_t last = (max_count < value_count ? max_count : value_count) - 1, best = 2;
    double highest = -1.0;
    for (int32_t k = 2; k <= last; k++) { /* values[k] is l[k + 1] */
        double score = rule == FEATINV_COUNT_RATIO ? values[k] / fmax(values[k - 1], 1e-12)
                                                   : values[k] - values[k - 1];
        if (score > highest) {
            highest = score;
            best = k;
        }
    }
    return best;
}
