/* Fréchet distance of two sets of feature rows (Heusel et al. 2017; docs/numerics.md):
 *
 *     |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)
 *
 * The last trace is the nuclear norm of A B^T / sqrt((n-1)(m-1)), A and B the centred rows. It
 * comes from the singular values of that n x m matrix, or, where d is smaller, from L^T S2 L with
 * S1 = L L^T. No matrix square root, no ridge. */
#include "fid.h"

#include "error.h"
#include "session.h"
#include "tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Rows widened to float64 at a time, so that many rows do not take twice their memory again. */
enum { CHUNK = 4096 };

typedef struct side {
    float *rows;    /* (count, d) in order of arrival */
    int64_t *index; /* position in the whole set, -1: appended */
    int64_t count, capacity;
} side;

struct featinv_fid {
    int64_t dimension;
    side sides[2];
};

/* ---------------------------------------------------------------- rows ----------------------- */

featinv_status featinv_fid_create(featinv_fid **out, int64_t dimension) {
    if (!out)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the place for the accumulator is NULL");
    *out = NULL;
    if (dimension < 1 || dimension > 1 << 20)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "dimension is %lld: it must be 1 to %d",
                       (long long)dimension, 1 << 20);
    featinv_fid *fid = calloc(1, sizeof *fid);
    if (!fid)
        return fi_fail_memory(sizeof *fid);
    fid->dimension = dimension;
    *out = fid;
    return FEATINV_OK;
}

void featinv_fid_destroy(featinv_fid *fid) {
    for (int s = 0; fid && s < 2; s++) {
        free(fid->sides[s].rows);
        free(fid->sides[s].index);
    }
    free(fid);
}

static featinv_status reserve(side *s, int64_t more, int64_t dimension) {
    int64_t needed, shape[2];
    size_t bytes;
    if (__builtin_add_overflow(s->count, more, &needed) || needed > INT64_MAX / 2)
        return fi_fail_memory(SIZE_MAX);
    if (needed <= s->capacity)
        return FEATINV_OK;
    int64_t grown = needed > s->capacity * 2 ? needed : s->capacity * 2;
    shape[0] = grown;
    shape[1] = dimension;
    if (!fi_checked_size(&bytes, shape, 2, sizeof(float)))
        return fi_fail_memory(SIZE_MAX);
    float *rows = realloc(s->rows, bytes);
    if (!rows)
        return fi_fail_memory(bytes);
    s->rows = rows;
    int64_t *index = realloc(s->index, (size_t)grown * sizeof *index);
    if (!index)
        return fi_fail_memory((size_t)grown * sizeof *index);
    s->index = index;
    s->capacity = grown;
    return FEATINV_OK;
}

/* Spatial means in double, rounded once. */
static void pool(float *out, const float *maps, int64_t n, int64_t channels, int64_t positions) {
    for (int64_t r = 0; r < n * channels; r++) {
        double sum = 0.0;
        for (int64_t i = 0; i < positions; i++)
            sum += (double)maps[r * positions + i];
        out[r] = (float)(sum / (double)positions);
    }
}

static featinv_status check_update(const featinv_fid *fid, int32_t which,
                                   const featinv_tensor *rows, int64_t first_index) {
    if (!fid || !rows)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the accumulator or the rows are NULL");
    if (which != 0 && which != 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "side is %d: it must be 0 or 1", which);
    if (rows->ndim != 2 && rows->ndim != 4)
        return fi_fail(FEATINV_ERROR_SHAPE, "rows of rank %d: (n, d) or maps (n, d, H, W)",
                       rows->ndim);
    if (first_index < -1 || (rows->shape && first_index > INT64_MAX - rows->shape[0]))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "first index is %lld: it must be -1 or a position",
                       (long long)first_index);
    return FEATINV_OK;
}

featinv_status featinv_fid_update(featinv_fid *fid, int32_t which, const featinv_tensor *rows,
                                  int64_t first_index) {
    featinv_status status = check_update(fid, which, rows, first_index);
    if (status)
        return status;
    const int64_t shape[4] = {-1, fid->dimension, -1, -1};
    const void *data = NULL;
    void *owned = NULL;
    status = fi_tensor_input(&data, &owned, rows, "the rows", FEATINV_DTYPE_F32, rows->ndim, shape);
    if (status)
        goto done;
    int64_t n = rows->shape[0], d = fid->dimension;
    int64_t positions = rows->ndim == 4 ? rows->shape[2] * rows->shape[3] : 1;
    if (n == 0)
        goto done;
    if (positions < 1) {
        status = fi_fail(FEATINV_ERROR_SHAPE, "the maps have no positions to pool");
        goto done;
    }
    status = fi_check_finite(data, (size_t)(n * d * positions), "the rows");
    if (status)
        goto done;
    side *s = &fid->sides[which];
    status = reserve(s, n, d);
    if (status)
        goto done;
    pool(s->rows + s->count * d, data, n, d, positions);
    for (int64_t i = 0; i < n; i++)
        s->index[s->count + i] = first_index < 0 ? -1 : first_index + i;
    s->count += n;
done:
    free(owned);
    return status;
}

featinv_status featinv_fid_merge(featinv_fid *fid, const featinv_fid *other) {
    if (!fid || !other || fid == other)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "merge needs two different accumulators");
    if (fid->dimension != other->dimension)
        return fi_fail(FEATINV_ERROR_SHAPE, "the accumulators' dimensions are %lld and %lld",
                       (long long)fid->dimension, (long long)other->dimension);
    for (int i = 0; i < 2; i++) { /* both sides, or neither */
        featinv_status status = reserve(&fid->sides[i], other->sides[i].count, fid->dimension);
        if (status)
            return status;
    }
    for (int i = 0; i < 2; i++) {
        side *to = &fid->sides[i];
        const side *from = &other->sides[i];
        if (from->count == 0)
            continue;
        memcpy(to->rows + to->count * fid->dimension, from->rows,
               (size_t)(from->count * fid->dimension) * sizeof *to->rows);
        memcpy(to->index + to->count, from->index, (size_t)from->count * sizeof *to->index);
        to->count += from->count;
    }
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- order ---------------------- */

typedef struct place {
    int64_t index, arrival;
} place;

/* Indexed rows by index, then appended ones as they came. */
static int compare_places(const void *left, const void *right) {
    const place *a = left, *b = right;
    if ((a->index < 0) != (b->index < 0))
        return a->index < 0 ? 1 : -1;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return a->arrival < b->arrival ? -1 : a->arrival > b->arrival;
}

static featinv_status order_rows(place **out, const side *s) {
    place *places = malloc((size_t)s->count * sizeof *places);
    if (!places)
        return fi_fail_memory((size_t)s->count * sizeof *places);
    for (int64_t i = 0; i < s->count; i++)
        places[i] = (place){s->index[i], i};
    qsort(places, (size_t)s->count, sizeof *places, compare_places);
    for (int64_t i = 1; i < s->count; i++) {
        if (places[i].index >= 0 && places[i].index == places[i - 1].index) {
            featinv_status status = fi_fail(FEATINV_ERROR_ARGUMENT, "row %lld was given twice",
                                            (long long)places[i].index);
            free(places);
            return status;
        }
    }
    *out = places;
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- moments -------------------- */

typedef struct moments {
    const side *rows;
    place *order;
    double *mean; /* (d) */
    double trace; /* of the covariance */
} moments;

/* Widened and centred rows first to first + count, in order. */
static void centred_rows(double *out, const moments *m, int64_t first, int64_t count, int64_t d) {
    for (int64_t r = 0; r < count; r++) {
        const float *row = m->rows->rows + m->order[first + r].arrival * d;
        for (int64_t j = 0; j < d; j++)
            out[r * d + j] = (double)row[j] - m->mean[j];
    }
}

static featinv_status find_moments(moments *m, const side *rows, int64_t d) {
    m->rows = rows;
    m->mean = calloc((size_t)d, sizeof *m->mean);
    if (!m->mean)
        return fi_fail_memory((size_t)d * sizeof *m->mean);
    featinv_status status = order_rows(&m->order, rows);
    if (status)
        return status;
    for (int64_t r = 0; r < rows->count; r++) {
        const float *row = rows->rows + m->order[r].arrival * d;
        for (int64_t j = 0; j < d; j++)
            m->mean[j] += (double)row[j];
    }
    for (int64_t j = 0; j < d; j++)
        m->mean[j] /= (double)rows->count;
    double sum = 0.0;
    for (int64_t r = 0; r < rows->count; r++) {
        const float *row = rows->rows + m->order[r].arrival * d;
        for (int64_t j = 0; j < d; j++) {
            double x = (double)row[j] - m->mean[j];
            sum += x * x;
        }
    }
    m->trace = sum / (double)(rows->count - 1);
    return FEATINV_OK;
}

static void free_moments(moments *m) {
    free(m->order);
    free(m->mean);
}

static double *doubles(int64_t rows, int64_t columns, featinv_status *status) {
    const int64_t shape[2] = {rows, columns};
    size_t bytes;
    double *block =
        fi_checked_size(&bytes, shape, 2, sizeof *block) ? malloc(bytes ? bytes : 1) : NULL;
    if (!block)
        *status = fi_fail_memory(bytes);
    return block;
}

static featinv_status backend_status(const fi_backend *backend, int result) {
    return result ? fi_fail((featinv_status)result, "%s", backend->error()) : FEATINV_OK;
}

/* ---------------------------------------------------------------- trace term ----------------- */

/* By the n x m product of the centred rows. */
static featinv_status trace_by_rows(double *trace, const moments m[2], int64_t d,
                                    const fi_backend *backend) {
    featinv_status status = FEATINV_OK;
    int64_t n0 = m[0].rows->count, n1 = m[1].rows->count;
    int64_t rank = n0 < n1 ? n0 : n1;
    double *a = doubles(n0, d, &status), *b = doubles(n1, d, &status);
    double *product = doubles(n0, n1, &status), *values = doubles(rank, 1, &status);
    if (status)
        goto done;
    centred_rows(a, &m[0], 0, n0, d);
    centred_rows(b, &m[1], 0, n1, d);
    status = backend_status(backend, backend->gemm(product, a, b, n0, n1, d, 0, 1));
    if (status)
        goto done;
    status = backend_status(backend, backend->singular_values(values, product, n0, n1));
    if (status)
        goto done;
    double sum = 0.0;
    for (int64_t i = 0; i < rank; i++)
        sum += values[i];
    *trace = sum / sqrt((double)(n0 - 1) * (double)(n1 - 1));
done:
    free(a);
    free(b);
    free(product);
    free(values);
    return status;
}

/* (d, d) with n - 1, summed over chunks in row order. */
static featinv_status covariance(double *out, const moments *m, int64_t d,
                                 const fi_backend *backend) {
    featinv_status status = FEATINV_OK;
    int64_t n = m->rows->count, most = n < CHUNK ? n : CHUNK;
    double *chunk = doubles(most, d, &status), *part = doubles(d, d, &status);
    if (status)
        goto done;
    memset(out, 0, (size_t)(d * d) * sizeof *out);
    for (int64_t first = 0; first < n; first += most) {
        int64_t count = n - first < most ? n - first : most;
        centred_rows(chunk, m, first, count, d);
        status = backend_status(backend, backend->gemm(part, chunk, chunk, d, d, count, 1, 0));
        if (status)
            goto done;
        for (int64_t i = 0; i < d * d; i++)
            out[i] += part[i];
    }
    for (int64_t i = 0; i < d * d; i++)
        out[i] /= (double)(n - 1);
done:
    free(chunk);
    free(part);
    return status;
}

/* factor with factor factor^T = s; where s is singular, eigenvectors scaled by the roots of their
 * eigenvalues stand in for the Cholesky factor. */
static featinv_status factorise(double *factor, const double *s, int64_t d,
                                const fi_backend *backend) {
    int32_t definite = 0;
    featinv_status status = backend_status(backend, backend->cholesky(factor, &definite, s, d));
    if (status || definite)
        return status;
    double *values = doubles(d, 1, &status);
    if (!values)
        return status;
    status = backend_status(backend, backend->eigh(values, factor, s, d));
    for (int64_t i = 0; !status && i < d; i++)
        for (int64_t j = 0; j < d; j++)
            factor[i * d + j] *= sqrt(fmax(values[j], 0.0));
    free(values);
    return status;
}

/* By the d x d matrix L^T S2 L, whose eigenvalues are those of S1 S2. */
static featinv_status trace_by_covariance(double *trace, const moments m[2], int64_t d,
                                          const fi_backend *backend) {
    featinv_status status = FEATINV_OK;
    double *s = doubles(d, d, &status), *factor = doubles(d, d, &status);
    double *work = doubles(d, d, &status), *values = doubles(d, 1, &status);
    if (status)
        goto done;
    status = covariance(s, &m[0], d, backend);
    if (!status)
        status = factorise(factor, s, d, backend);
    if (!status)
        status = covariance(s, &m[1], d, backend);
    if (!status)
        status = backend_status(backend, backend->gemm(work, s, factor, d, d, d, 0, 0));
    if (!status)
        status = backend_status(backend, backend->gemm(s, factor, work, d, d, d, 1, 0));
    if (status)
        goto done;
    for (int64_t i = 0; i < d; i++) /* rounding leaves it a little unsymmetric */
        for (int64_t j = 0; j < i; j++)
            s[i * d + j] = s[j * d + i] = 0.5 * (s[i * d + j] + s[j * d + i]);
    status = backend_status(backend, backend->eigh(values, work, s, d));
    if (status)
        goto done;
    /* No more than n - 1 eigenvalues of either side are nonzero; the rest is rounding, whose roots
     * would be some 1e-8 each. */
    int64_t rank = d;
    for (int i = 0; i < 2; i++)
        rank = m[i].rows->count - 1 < rank ? m[i].rows->count - 1 : rank;
    double sum = 0.0;
    for (int64_t i = d - rank; i < d; i++)
        sum += sqrt(fmax(values[i], 0.0));
    *trace = sum;
done:
    free(s);
    free(factor);
    free(work);
    free(values);
    return status;
}

/* ---------------------------------------------------------------- result --------------------- */

static bool rows_are_smaller(const featinv_fid *fid) {
    double product = (double)fid->sides[0].count * (double)fid->sides[1].count;
    return product <= (double)fid->dimension * (double)fid->dimension;
}

featinv_status fi_fid_compute(double *distance, const featinv_fid *fid, const fi_backend *backend,
                              fi_fid_route route) {
    int64_t d = fid->dimension;
    moments m[2] = {{0}, {0}};
    featinv_status status = FEATINV_OK;
    for (int i = 0; i < 2; i++)
        if (fid->sides[i].count < 2)
            return fi_fail(FEATINV_ERROR_ARGUMENT,
                           "side %d has %lld rows: a covariance needs at least 2", i,
                           (long long)fid->sides[i].count);
    for (int i = 0; i < 2 && !status; i++)
        status = find_moments(&m[i], &fid->sides[i], d);
    if (status)
        goto done;
    double trace = 0.0, between = 0.0;
    if (route == FI_FID_ROWS || (route == FI_FID_AUTO && rows_are_smaller(fid)))
        status = trace_by_rows(&trace, m, d, backend);
    else
        status = trace_by_covariance(&trace, m, d, backend);
    if (status)
        goto done;
    for (int64_t j = 0; j < d; j++) {
        double x = m[0].mean[j] - m[1].mean[j];
        between += x * x;
    }
    *distance = between + (m[0].trace + m[1].trace - 2.0 * trace);
done:
    free_moments(&m[0]);
    free_moments(&m[1]);
    return status;
}

featinv_status featinv_fid_result(double *distance, const featinv_fid *fid,
                                  featinv_session *session) {
    if (!distance || !fid || !session)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "distance, accumulator or session is NULL");
    featinv_status status = fi_session_begin(session, 0, NULL);
    if (status)
        return status;
    return fi_fid_compute(distance, fid, fi_session_backend(session), FI_FID_AUTO);
}
