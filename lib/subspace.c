#include "subspace.h"

#include "dense.h"
#include "error.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Above this share of the largest eigenvalue a direction counts (lPCA-FO: Fukunaga and Olsen
 * 1971). */
static const double counted_share = 0.05;

/* Below this share of the largest squared singular value there is nothing but the rounding of
 * float32 rows, whose singular values end near 1e-7 of the largest. */
static const double rank_share = 1e-12;

typedef struct cluster {
    const fi_backend *backend;
    double *rows; /* (n, d) */
    int64_t n, d;
    double energy; /* sum of squares before any centring */
} cluster;

/* ---------------------------------------------------------------- rows ----------------------- */

static featinv_status open_cluster(cluster *out, featinv_session *session, const float *rows,
                                   int64_t d, const int64_t *members, int64_t n,
                                   featinv_basis kind) {
    size_t size = (size_t)n * (size_t)d * sizeof(double);
    *out = (cluster){fi_session_backend(session), malloc(size + 1), n, d, 0.0};
    double *mean = calloc((size_t)d, sizeof *mean);
    if (!out->rows || !mean) {
        free(mean);
        return fi_fail_memory(size);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++)
            mean[c] += out->rows[i * d + c] = (double)rows[members[i] * d + c];
    out->energy = fi_dense_dot(out->rows, out->rows, n * d);
    for (int64_t i = 0; kind == FEATINV_BASIS_CENTRED && i < n; i++)
        fi_dense_add(out->rows + i * d, -1.0 / (double)n, mean, d);
    free(mean);
    return FEATINV_OK;
}

static featinv_status multiply(const cluster *k, double *c, const double *a, const double *b,
                               int64_t m, int64_t n, int64_t depth, bool transpose_a,
                               bool transpose_b) {
    int failed = k->backend->gemm(c, a, b, m, n, depth, transpose_a, transpose_b);
    return failed ? fi_backend_fail(k->backend, failed, "basis") : FEATINV_OK;
}

/* ---------------------------------------------------------------- directions ----------------- */

/* How many directions the eigenvalues (n, ascending) call for; none where the rows differ from
 * their mean, or from zero, by rounding only. */
static int32_t choose_dimension(const double *values, int64_t n, double energy, int32_t wanted) {
    double largest = values[n - 1];
    int32_t rank = 0, counted = 0;
    for (int64_t i = n - 1; i >= 0 && largest > rank_share * energy; i--) {
        rank += values[i] > rank_share * largest;
        counted += values[i] > counted_share * largest;
    }
    int32_t p = wanted > 0 ? wanted : counted;
    return p < rank ? p : rank;
}

/* The last p of the eigenvectors (n, n, in columns), the largest eigenvalue's first, as rows (p,
 * n). */
static void leading(double *rows, const double *vectors, int64_t n, int64_t p) {
    for (int64_t i = 0; i < p; i++)
        for (int64_t j = 0; j < n; j++)
            rows[i * n + j] = vectors[j * n + n - 1 - i];
}

/* directions (p, d), orthonormal, from rows `start` (p, n) over the members: start X, which takes
 * along directions that were left out by no more than their singular values are smaller. */
static featinv_status to_features(double *directions, const cluster *k, const double *start,
                                  int64_t p) {
    int64_t rank;
    double *product = malloc((size_t)(p * k->d) * sizeof *product);
    if (!product)
        return fi_fail_memory((size_t)(p * k->d) * sizeof *product);
    featinv_status status = multiply(k, product, start, k->rows, p, k->d, k->n, false, false);
    if (!status)
        status = fi_orthonormal(directions, NULL, &rank, product, p, k->d, 0.0);
    if (!status && rank < p)
        status =
            fi_fail(FEATINV_ERROR_COMPUTE, "%lld of %lld directions of a cluster came out empty",
                    (long long)(p - rank), (long long)p);
    free(product);
    return status;
}

/* The eigenvectors of the smaller Gram matrix, as directions of feature space: those over the
 * members go there by one product; those of feature space go out and back, which is a step of
 * subspace iteration and mends what forming the squares has cost the smallest of them. */
static featinv_status find_directions(double **directions, int32_t *dimension, const cluster *k,
                                      int32_t wanted) {
    bool over_members = k->n <= k->d;
    int64_t n = over_members ? k->n : k->d;
    size_t room = (size_t)(2 * n * n + n) * sizeof(double);
    double *gram = malloc(room), *start = NULL, *members = NULL;
    if (!gram)
        return fi_fail_memory(room);
    double *vectors = gram + n * n, *values = vectors + n * n;
    featinv_status status = multiply(k, gram, k->rows, k->rows, n, n, over_members ? k->d : k->n,
                                     !over_members, over_members);
    int failed = status ? 0 : k->backend->eigh(values, vectors, gram, n);
    if (failed)
        status = fi_backend_fail(k->backend, failed, "basis");
    if (status)
        goto done;
    int64_t p = *dimension = choose_dimension(values, n, k->energy, wanted);
    if (p == 0)
        goto done;
    size_t size = (size_t)(p * (k->n + k->d + n)) * sizeof(double);
    if (!(start = malloc(size)) ||
        !(*directions = malloc((size_t)(p * k->d) * sizeof **directions))) {
        status = fi_fail_memory(size);
        goto done;
    }
    leading(start, vectors, n, p);
    members = start;
    if (!over_members) {
        members = start + p * n;
        status = multiply(k, members, start, k->rows, p, k->n, k->d, false, true);
    }
    if (!status)
        status = to_features(*directions, k, members, p);
done:
    free(start);
    free(gram);
    if (status) {
        free(*directions);
        *directions = NULL;
    }
    return status;
}

/* The entry of largest magnitude is positive, so that a basis does not depend on the
 * eigensolver. */
static void fix_signs(double *directions, int64_t p, int64_t d) {
    for (int64_t i = 0; i < p; i++) {
        double *row = directions + i * d;
        int64_t at = 0;
        for (int64_t c = 1; c < d; c++)
            if (fabs(row[c]) > fabs(row[at]))
                at = c;
        for (int64_t c = 0; row[at] < 0.0 && c < d; c++)
            if (c != at)
                row[c] = -row[c];
        row[at] = fabs(row[at]);
    }
}

featinv_status fi_subspace_fit(double **basis, int32_t *p, featinv_session *session,
                               const float *rows, int64_t d, const int64_t *members,
                               int64_t member_count, featinv_basis kind, int32_t dimension) {
    cluster k = {0};
    double *directions = NULL;
    *basis = NULL;
    *p = 0;
    if (member_count < 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "a cluster of no rows has no basis");
    featinv_status status = open_cluster(&k, session, rows, d, members, member_count, kind);
    if (!status)
        status = find_directions(&directions, p, &k, dimension);
    if (!status && *p == 0)
        status =
            fi_fail(FEATINV_ERROR_UNSUPPORTED,
                    kind == FEATINV_BASIS_CENTRED
                        ? "a cluster of %lld equal rows has no direction about its mean: the basis "
                          "through the origin has one"
                        : "a cluster of %lld rows of zeros has no direction",
                    (long long)member_count);
    if (!status) {
        fix_signs(directions, *p, d);
        *basis = malloc((size_t)(*p * d) * sizeof **basis);
        if (!*basis)
            status = fi_fail_memory((size_t)(*p * d) * sizeof **basis);
        else
            fi_transpose(*basis, directions, *p, d);
    }
    free(directions);
    free(k.rows);
    return status;
}
