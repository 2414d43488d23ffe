#include "lanczos.h"

#include "error.h"
#include "fit_random.h"
#include "noise.h"
#include "vector.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, MAX_RESTARTS = 400, SEARCH_RESTARTS = 30, MAX_ROUNDS = 64 };

/* The iteration aims below the certified bound, which is checked with a fresh product: this share
 * of it. Rounds after the first start from vectors whose own residuals stay outside of what they
 * search. */
static const double AIM = 0.1, AIM_AGAIN = 0.5;
/* What is left of a vector that lay in the span already. */
static const double VANISHED = 1e-13;
/* A missed eigenvalue need not be known well to be noticed, and the further the largest of the
 * others lies below the last one found, the less: a tenth of the distance, within these. */
static const double SEARCH_LEAST = 1e-5, SEARCH_MOST = 0.02;
/* An eigenvalue found by the search counts as missed when it is larger than the last one by
 * this. */
static const double MISSED = 1e-8;

/* The vectors are rows, (capacity, n), so that a block is one piece of memory. */
typedef struct lanczos {
    featinv_session *session;
    const fi_lanczos_problem *problem;
    int64_t n, block, capacity; /* capacity: wanted + 8 blocks */
    double *locked; /* (locked_count, n) orthonormal: everything stays orthogonal to them */
    int64_t locked_count;
    double *basis, *image;     /* (capacity, n): V and A V */
    double *projected;         /* (capacity, capacity): V A V^T */
    double *next;              /* (block, n) */
    double *product, *dots;    /* scratch: (capacity, n), (capacity, capacity) */
    double *in, *out;          /* (n, LANES): vectors side by side */
    double *ritz, *directions; /* (capacity), (capacity, capacity): of `projected` */
    int64_t size, first;       /* vectors in the basis; where the newest block starts */
    uint32_t draws;
} lanczos;

int64_t fi_lanczos_size(int64_t wanted, int64_t block) {
    return wanted + 8 * block;
}

static featinv_status gemm(const lanczos *s, double *c, const double *a, const double *b, int64_t m,
                           int64_t n, int64_t k, int32_t ta, int32_t tb) {
    const fi_backend *backend = fi_session_backend(s->session);
    int failed = backend->gemm(c, a, b, m, n, k, ta, tb);
    return failed ? fi_backend_fail(backend, failed, "eigenvectors of the affinity") : FEATINV_OK;
}

/* out = A in for LANES vectors side by side, (n, LANES). */
FI_CLONES static void multiply(double *out, const fi_sparse *a, const double *in) {
    for (int64_t i = 0; i < a->rows; i++) {
        double sum[LANES] = {0};
        for (int64_t e = a->offsets[i]; e < a->offsets[i + 1]; e++) {
            const double *from = in + (int64_t)a->indices[e] * LANES;
            double weight = a->values[e];
            for (int l = 0; l < LANES; l++)
                sum[l] += weight * from[l];
        }
        memcpy(out + i * LANES, sum, sizeof sum);
    }
}

/* image = sign A x for `count` vectors. */
static void apply(const lanczos *s, double *image, const double *x, int64_t count) {
    int64_t n = s->n;
    for (int64_t first = 0; first < count; first += LANES) {
        int64_t lanes = count - first < LANES ? count - first : LANES;
        for (int64_t i = 0; i < n; i++)
            for (int64_t l = 0; l < lanes; l++)
                s->in[i * LANES + l] = x[(first + l) * n + i];
        multiply(s->out, s->problem->matrix, s->in);
        for (int64_t i = 0; i < n; i++)
            for (int64_t l = 0; l < lanes; l++)
                image[(first + l) * n + i] = s->problem->sign * s->out[i * LANES + l];
    }
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Takes the part in the span of `count` orthonormal vectors out of `x` (x_count, n). */
static featinv_status take_out(const lanczos *s, double *x, int64_t x_count, const double *vectors,
                               int64_t count) {
    if (!count || !x_count)
        return FEATINV_OK;
    featinv_status status = gemm(s, s->dots, x, vectors, x_count, count, s->n, 0, 1);
    if (!status)
        status = gemm(s, s->product, s->dots, vectors, x_count, s->n, count, 0, 0);
    for (int64_t i = 0; !status && i < x_count * s->n; i++)
        x[i] -= s->product[i];
    return status;
}

static void draw(lanczos *s, double *vector) {
    float *noise = (float *)s->out; /* (n) floats fit into (n, LANES) doubles */
    fi_noise(noise, (size_t)s->n, s->problem->seed, s->problem->substream, s->draws++,
             FI_STREAM_SPECTRAL);
    for (int64_t i = 0; i < s->n; i++)
        vector[i] = (double)noise[i];
}

static double scale_to_unit(const lanczos *s, double *vector) {
    double length = sqrt(dot(vector, vector, s->n));
    for (int64_t i = 0; length > 0.0 && i < s->n; i++)
        vector[i] /= length;
    return length;
}

/* Makes vector v of x, of unit length, orthogonal to the locked vectors, the basis and the vectors
 * before it, however small the part is that remains. */
static featinv_status separate(lanczos *s, double *x, int64_t v) {
    double *vector = x + v * s->n;
    for (int attempt = 0; attempt < 8; attempt++) {
        for (int pass = 0; pass < 5; pass++) {
            featinv_status status = take_out(s, vector, 1, s->locked, s->locked_count);
            if (!status)
                status = take_out(s, vector, 1, s->basis, s->size);
            if (!status)
                status = take_out(s, vector, 1, x, v);
            if (status)
                return status;
            double left = scale_to_unit(s, vector);
            if (left > 0.5)
                return FEATINV_OK;
            if (left < VANISHED)
                break;
        }
        draw(s, vector);
        (void)scale_to_unit(s, vector);
    }
    return fi_fail(FEATINV_ERROR_INTERNAL, "no direction is left for the eigenvectors");
}

/* Makes x (count, n) orthonormal and orthogonal to the locked vectors and the basis. A vector that
 * vanishes (an invariant subspace is complete) is replaced by a random one. */
static featinv_status orthonormalize(lanczos *s, double *x, int64_t count) {
    for (int64_t v = 0; v < count; v++)
        while (scale_to_unit(s, x + v * s->n) < VANISHED)
            draw(s, x + v * s->n);
    featinv_status status = take_out(s, x, count, s->locked, s->locked_count);
    if (!status)
        status = take_out(s, x, count, s->basis, s->size);
    for (int64_t v = 0; v < count && !status; v++) {
        double *vector = x + v * s->n;
        status = take_out(s, vector, 1, x, v);
        if (!status && scale_to_unit(s, vector) < 0.5)
            status = separate(s, x, v);
    }
    return status;
}

/* Appends a block of `count` vectors that are orthonormal to the basis; V A V^T grows with it. */
static featinv_status append(lanczos *s, const double *block, int64_t count) {
    int64_t n = s->n, cap = s->capacity;
    s->first = s->size;
    s->size += count;
    double *image = s->image + s->first * n;
    memcpy(s->basis + s->first * n, block, (size_t)(count * n) * sizeof *block);
    apply(s, image, block, count);
    featinv_status status = gemm(s, s->dots, image, s->basis, count, s->size, n, 0, 1);
    for (int64_t i = 0; !status && i < count; i++)
        for (int64_t j = 0; j < s->size; j++) {
            s->projected[(s->first + i) * cap + j] = s->dots[i * s->size + j];
            s->projected[j * cap + s->first + i] = s->dots[i * s->size + j];
        }
    return status;
}

/* Eigenvalues of V A V^T, ascending, and its eigenvectors in columns. */
static featinv_status solve_projected(lanczos *s) {
    const fi_backend *backend = fi_session_backend(s->session);
    int64_t m = s->size;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++)
            s->dots[i * m + j] =
                0.5 * (s->projected[i * s->capacity + j] + s->projected[j * s->capacity + i]);
    int failed = backend->eigh(s->ritz, s->directions, s->dots, m);
    return failed ? fi_backend_fail(backend, failed, "eigenvectors of the affinity") : FEATINV_OK;
}

/* Shrinks the basis to its `keep` best vectors, largest eigenvalue first. */
static featinv_status shrink(lanczos *s, int64_t keep) {
    int64_t m = s->size, n = s->n;
    for (int64_t k = 0; k < keep; k++) /* rows: the chosen eigenvectors */
        for (int64_t i = 0; i < m; i++)
            s->dots[k * m + i] = s->directions[i * m + (m - 1 - k)];
    featinv_status status = gemm(s, s->product, s->dots, s->basis, keep, n, m, 0, 0);
    if (status)
        return status;
    memcpy(s->basis, s->product, (size_t)(keep * n) * sizeof *s->basis);
    status = gemm(s, s->product, s->dots, s->image, keep, n, m, 0, 0);
    if (status)
        return status;
    memcpy(s->image, s->product, (size_t)(keep * n) * sizeof *s->image);
    for (int64_t i = 0; i < keep; i++)
        for (int64_t j = 0; j < keep; j++)
            s->projected[i * s->capacity + j] = i == j ? s->ritz[m - 1 - i] : 0.0;
    s->size = keep;
    return status;
}

/* |image - value vector|, the largest of the first `count` pairs of the basis. */
static double largest_residual(const lanczos *s, const double *image, int64_t count) {
    double largest = 0.0;
    for (int64_t k = 0; k < count; k++) {
        const double *y = s->basis + k * s->n, *ay = image + k * s->n;
        double value = s->projected[k * s->capacity + k], sum = 0.0;
        for (int64_t i = 0; i < s->n; i++) {
            double r = ay[i] - value * y[i];
            sum += r * r;
        }
        largest = fmax(largest, sqrt(sum));
    }
    return largest;
}

/* The part of A times the newest block that the basis does not hold. */
static featinv_status residual_block(lanczos *s) {
    int64_t count = s->size - s->first;
    memcpy(s->next, s->image + s->first * s->n, (size_t)(count * s->n) * sizeof *s->next);
    featinv_status status = take_out(s, s->next, count, s->locked, s->locked_count);
    if (!status)
        status = take_out(s, s->next, count, s->basis, s->size);
    return status ? status : orthonormalize(s, s->next, count);
}

/* Residual to which the search has to come, with the best value so far and the last one found,
 * whose own value is not known better than to its residual. */
static double search_aim(const lanczos *s, double value, double last) {
    double least = fmax(SEARCH_LEAST, fmin(1e3 * s->problem->residual, SEARCH_MOST));
    return fmin(SEARCH_MOST, fmax(least, 0.1 * (last - value)));
}

/* Iterates until the `wanted` first pairs are good to `aim` (0: as a search beside the value `last`
 * needs); the basis then starts with them. `next` holds the first `given` vectors to begin with,
 * the others are drawn. */
static featinv_status iterate(lanczos *s, int64_t wanted, int64_t given, double aim, double last,
                              int restarts, bool *converged) {
    int64_t block = s->block, keep = wanted + 2 * block;
    *converged = false;
    for (int64_t v = given; v < block; v++)
        draw(s, s->next + v * s->n);
    featinv_status status = orthonormalize(s, s->next, block);
    if (!status)
        status = append(s, s->next, block);
    for (int restart = 0; restart < restarts && !status;) {
        if (atomic_load(&s->session->cancelled))
            return fi_fail(FEATINV_ERROR_CANCELLED, "cancelled while clustering");
        status = residual_block(s);
        if (!status && s->size + block > s->capacity) {
            status = solve_projected(s);
            if (!status)
                status = shrink(s, keep);
            double enough = aim > 0.0 ? aim : search_aim(s, s->projected[0], last);
            *converged = !status && largest_residual(s, s->image, wanted) <= enough;
            if (status || *converged)
                break;
            restart++;
        }
        if (!status)
            status = append(s, s->next, block);
    }
    return status;
}

/* Looks for an eigenvalue that the `found` first vectors of the basis missed. 1 in *missed: the
 * basis then holds one vector more, close to the one missed. */
static featinv_status search(lanczos *s, int64_t found, bool *missed) {
    int64_t n = s->n, locked = s->locked_count;
    double last = s->projected[(found - 1) * s->capacity + found - 1];
    memcpy(s->locked + locked * n, s->basis, (size_t)(found * n) * sizeof *s->basis);
    s->locked_count += found;
    s->size = 0;
    bool converged;
    featinv_status status = iterate(s, 1, 0, 0.0, last, SEARCH_RESTARTS, &converged);
    s->locked_count = locked;
    if (status)
        return status;
    *missed = s->projected[0] > last + MISSED + s->problem->residual;
    memcpy(s->next, s->basis, (size_t)n * sizeof *s->next);
    s->size = 0;
    return append(s, s->locked + locked * n, found);
}

static featinv_status make(lanczos *s) {
    int64_t n = s->n, cap = s->capacity;
    int64_t known = s->problem->known ? 1 : 0;
    size_t vectors = (size_t)(3 * cap + s->block + known + s->problem->wanted + 2 * LANES);
    size_t bytes = (vectors * (size_t)n + 3 * (size_t)(cap * cap) + (size_t)cap) * sizeof(double);
    double *memory = calloc(1, bytes);
    if (!memory)
        return fi_fail_memory(bytes);
    s->basis = memory;
    s->image = s->basis + cap * n;
    s->product = s->image + cap * n;
    s->next = s->product + cap * n;
    s->in = s->next + s->block * n;
    s->out = s->in + LANES * n;
    s->locked = s->out + LANES * n;
    s->projected = s->locked + (known + s->problem->wanted) * n;
    s->dots = s->projected + cap * cap;
    s->directions = s->dots + cap * cap;
    s->ritz = s->directions + cap * cap;
    if (known)
        memcpy(s->locked, s->problem->known, (size_t)n * sizeof *s->locked);
    s->locked_count = known;
    return FEATINV_OK;
}

/* Rounds of iteration and search until nothing more is found. */
static featinv_status find(lanczos *s, int *converged) {
    int64_t wanted = s->problem->wanted;
    double aim = s->problem->residual;
    bool done = false, missed = true;
    featinv_status status = FEATINV_OK;
    for (int round = 0; round < MAX_ROUNDS && missed && !status; round++) {
        if (round > 0) { /* the vector found joins the basis, its residual starts the search */
            status = append(s, s->next, 1);
            memcpy(s->next, s->image + wanted * s->n, (size_t)s->n * sizeof *s->next);
        }
        if (!status)
            status = iterate(s, wanted, round > 0, aim * (round > 0 ? AIM_AGAIN : AIM), 0.0,
                             MAX_RESTARTS, &done);
        if (status || !done)
            break;
        status = search(s, wanted, &missed);
    }
    *converged = done && !missed;
    return status;
}

/* Values, vectors and the certificate: residuals from fresh products. */
static featinv_status finish(lanczos *s, double *values, double *vectors) {
    int64_t wanted = s->problem->wanted;
    apply(s, s->image, s->basis, wanted);
    double residual = largest_residual(s, s->image, wanted);
    if (!(residual <= s->problem->residual))
        return fi_fail(FEATINV_ERROR_COMPUTE,
                       "eigenvectors of the affinity: residual %.1e is above %.0e", residual,
                       s->problem->residual);
    for (int64_t k = 0; k < wanted; k++)
        values[k] = s->projected[k * s->capacity + k];
    memcpy(vectors, s->basis, (size_t)(wanted * s->n) * sizeof *vectors);
    return FEATINV_OK;
}

featinv_status fi_lanczos(double *values, double *vectors, int *converged, featinv_session *session,
                          const fi_lanczos_problem *problem) {
    lanczos s = {.session = session,
                 .problem = problem,
                 .n = problem->matrix->rows,
                 .block = problem->block,
                 .capacity = fi_lanczos_size(problem->wanted, problem->block)};
    featinv_status status = make(&s);
    if (!status)
        status = find(&s, converged);
    if (!status && *converged)
        status = finish(&s, values, vectors);
    free(s.basis);
    return status;
}
