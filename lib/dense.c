#include "dense.h"

#include "error.h"
#include "vector.h" /* FI_CLONES */

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Four doubles at any address; the compiler splits them where the processor is narrower. */
typedef double four __attribute__((vector_size(32), aligned(8), may_alias));

static int64_t least_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---------------------------------------------------------------- products ------------------- */

enum { TILE_M = 4, TILE_N = 8, BLOCK_M = 32, BLOCK_N = 64, BLOCK_K = 128 };

/* Rows first..first+rows (of the transpose, where it is one) and columns from..from+k in panels of
 * `tile` rows, row-fastest, the last panel filled up with zeros. */
static void pack(double *out, fi_matrix a, int64_t first, int64_t rows, int64_t tile, int64_t from,
                 int64_t k) {
    int64_t row = a.transposed ? 1 : a.stride, column = a.transposed ? a.stride : 1;
    for (int64_t panel = 0; panel < rows; panel += tile) {
        const double *in = a.data + (first + panel) * row + from * column;
        int64_t full = least_of(tile, rows - panel);
        for (int64_t j = 0; j < k; j++, in += column, out += tile) {
            for (int64_t i = 0; i < full; i++)
                out[i] = in[i * row];
            for (int64_t i = full; i < tile; i++)
                out[i] = 0.0;
        }
    }
}

/* sums (4, 8) = the product of two packed panels. Written out: the sums must stay in registers. */
FI_CLONES static void multiply_panels(double *sums, const double *a, const double *b, int64_t k) {
    four s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0}, s20 = {0}, s21 = {0}, s30 = {0}, s31 = {0};
    for (int64_t j = 0; j < k; j++, a += TILE_M, b += TILE_N) {
        four low = *(const four *)b, high = *(const four *)(b + 4);
        s00 += a[0] * low;
        s01 += a[0] * high;
        s10 += a[1] * low;
        s11 += a[1] * high;
        s20 += a[2] * low;
        s21 += a[2] * high;
        s30 += a[3] * low;
        s31 += a[3] * high;
    }
    const four all[8] = {s00, s01, s10, s11, s20, s21, s30, s31};
    memcpy(sums, all, sizeof all);
}

static void multiply_block(double *c, int64_t stride, double alpha, const double *a,
                           const double *b, int64_t m, int64_t n, int64_t k) {
    double sums[TILE_M * TILE_N];
    for (int64_t i = 0; i < m; i += TILE_M)
        for (int64_t j = 0; j < n; j += TILE_N) {
            multiply_panels(sums, a + i * k, b + j * k, k);
            int64_t rows = least_of(TILE_M, m - i), columns = least_of(TILE_N, n - j);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t s = 0; s < columns; s++)
                    c[(i + r) * stride + j + s] += alpha * sums[r * TILE_N + s];
        }
}

void fi_multiply_add(double *c, int64_t stride, double alpha, fi_matrix a, fi_matrix b, int64_t m,
                     int64_t n, int64_t k) {
    double packed_a[BLOCK_M * BLOCK_K], packed_b[BLOCK_N * BLOCK_K];
    fi_matrix turned = {b.data, b.stride, !b.transposed};
    for (int64_t column = 0; column < n; column += BLOCK_N) {
        int64_t columns = least_of(BLOCK_N, n - column);
        for (int64_t from = 0; from < k; from += BLOCK_K) {
            int64_t depth = least_of(BLOCK_K, k - from);
            pack(packed_b, turned, column, columns, TILE_N, from, depth);
            for (int64_t row = 0; row < m; row += BLOCK_M) {
                int64_t rows = least_of(BLOCK_M, m - row);
                pack(packed_a, a, row, rows, TILE_M, from, depth);
                multiply_block(c + row * stride + column, stride, alpha, packed_a, packed_b, rows,
                               columns, depth);
            }
        }
    }
}

FI_CLONES double fi_dense_dot(const double *a, const double *b, int64_t n) {
    four s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        s0 += *(const four *)(a + i) * *(const four *)(b + i);
        s1 += *(const four *)(a + i + 4) * *(const four *)(b + i + 4);
        s2 += *(const four *)(a + i + 8) * *(const four *)(b + i + 8);
        s3 += *(const four *)(a + i + 12) * *(const four *)(b + i + 12);
    }
    four all = (s0 + s1) + (s2 + s3);
    double sum = (all[0] + all[1]) + (all[2] + all[3]);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

FI_CLONES void fi_dense_add(double *a, double scale, const double *b, int64_t n) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        *(four *)(a + i) += scale * *(const four *)(b + i);
    for (; i < n; i++)
        a[i] += scale * b[i];
}

void fi_transpose(double *out, const double *in, int64_t m, int64_t n) {
    enum { SIDE = 16 }; /* a block of both matrices stays in the nearest cache */
    for (int64_t i = 0; i < m; i += SIDE)
        for (int64_t j = 0; j < n; j += SIDE)
            for (int64_t r = i; r < least_of(i + SIDE, m); r++)
                for (int64_t c = j; c < least_of(j + SIDE, n); c++)
                    out[c * m + r] = in[r * n + c];
}

/* ---------------------------------------------------------------- orthonormal vectors -------- */

/* The vectors so far, and the factor that is being filled. */
typedef struct frame {
    double *q, *factor;
    int64_t n, d, rank;
} frame;

static void note(frame *f, int64_t vector, int64_t column, double value) {
    if (f->factor)
        f->factor[vector * f->n + column] += value;
}

/* Takes the parts along rows from..rank of q out of x. */
static void project(frame *f, double *x, int64_t vector, int64_t from) {
    for (int64_t j = from; j < f->rank; j++) {
        double part = fi_dense_dot(f->q + j * f->d, x, f->d);
        fi_dense_add(x, -part, f->q + j * f->d, f->d);
        note(f, vector, j, part);
    }
}

/* The same for a block of vectors x (count, d) and all rows of q; parts: room for (count, rank). */
static void project_block(frame *f, double *x, int64_t vector, int64_t count, double *parts) {
    memset(parts, 0, (size_t)(count * f->rank) * sizeof *parts);
    fi_multiply_add(parts, f->rank, 1.0, (fi_matrix){x, f->d, false}, (fi_matrix){f->q, f->d, true},
                    count, f->rank, f->d);
    fi_multiply_add(x, f->d, -1.0, (fi_matrix){parts, f->rank, false},
                    (fi_matrix){f->q, f->d, false}, count, f->d, f->rank);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < f->rank; j++)
            note(f, vector + i, j, parts[i * f->rank + j]);
}

/* One vector of the block, already off the rows before `from`: off those that the block has added,
 * too. Where that shortened it much, what was left along the earlier rows has grown beside it. */
static void add_vector(frame *f, double *x, int64_t vector, int64_t from, double least) {
    double before = sqrt(fi_dense_dot(x, x, f->d));
    project(f, x, vector, from);
    project(f, x, vector, from);
    if (sqrt(fi_dense_dot(x, x, f->d)) < 0.1 * before)
        project(f, x, vector, 0);
    double length = sqrt(fi_dense_dot(x, x, f->d));
    if (!(length > least) || f->rank == least_of(f->n, f->d))
        return;
    double *row = f->q + f->rank * f->d;
    for (int64_t i = 0; i < f->d; i++)
        row[i] = x[i] / length;
    note(f, vector, f->rank, length);
    f->rank++;
}

featinv_status fi_orthonormal(double *q, double *factor, int64_t *rank, const double *v, int64_t n,
                              int64_t d, double least) {
    enum { BLOCK = 16 };
    frame f = {q, factor, n, d, 0};
    size_t room = (size_t)(BLOCK * (d + n)) * sizeof(double);
    double *x = malloc(room ? room : 1);
    if (!x)
        return fi_fail_memory(room);
    if (factor)
        memset(factor, 0, (size_t)(n * n) * sizeof *factor);
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t count = least_of(BLOCK, n - first), from = f.rank;
        memcpy(x, v + first * d, (size_t)(count * d) * sizeof *x);
        if (from > 0) {
            project_block(&f, x, first, count, x + BLOCK * d);
            project_block(&f, x, first, count, x + BLOCK * d);
        }
        for (int64_t i = 0; i < count; i++)
            add_vector(&f, x + i * d, first + i, from, least);
    }
    *rank = f.rank;
    free(x);
    return FEATINV_OK;
}

/* y (n, d) = inverse of the lower triangle l (n, n) times y. */
static void solve_lower(double *y, const double *l, int64_t n, int64_t d) {
    enum { BLOCK = 32 };
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t count = least_of(BLOCK, n - first);
        fi_multiply_add(y + first * d, d, -1.0, (fi_matrix){l + first * n, n, false},
                        (fi_matrix){y, d, false}, count, d, first);
        for (int64_t i = first; i < first + count; i++) {
            for (int64_t j = first; j < i; j++)
                fi_dense_add(y + i * d, -l[i * n + j], y + j * d, d);
            for (int64_t c = 0; c < d; c++)
                y[i * d + c] /= l[i * n + i];
        }
    }
}

/* With v = factor q and the transposed factor = l p (p orthonormal rows again): p^T l^-1 q. */
featinv_status fi_pseudo_inverse(double *out, const double *q, const double *factor, int64_t n,
                                 int64_t rank, int64_t d) {
    size_t room = (size_t)(rank * (2 * n + rank + d)) * sizeof(double);
    double *turned = malloc(room ? room : 1);
    if (!turned)
        return fi_fail_memory(room);
    double *p = turned + rank * n, *l = p + rank * n, *y = l + rank * rank;
    for (int64_t j = 0; j < rank; j++)
        for (int64_t i = 0; i < n; i++)
            turned[j * n + i] = factor[i * n + j];
    int64_t found = 0;
    featinv_status status = fi_orthonormal(p, l, &found, turned, rank, n, 0.0);
    if (!status && found < rank)
        status = fi_fail(FEATINV_ERROR_INTERNAL, "a factor of rank %lld has rank %lld",
                         (long long)rank, (long long)found);
    if (!status) {
        memcpy(y, q, (size_t)(rank * d) * sizeof *y);
        solve_lower(y, l, rank, d);
        memset(out, 0, (size_t)(n * d) * sizeof *out);
        fi_multiply_add(out, d, 1.0, (fi_matrix){p, n, true}, (fi_matrix){y, d, false}, n, d, rank);
    }
    free(turned);
    return status;
}

/* ---------------------------------------------------------------- singular values ------------ */

/* x = (l l^T)^-1 x */
static void apply_inverse(double *x, const double *l, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = (x[i] - fi_dense_dot(l + i * n, x, i)) / l[i * n + i];
    for (int64_t i = n - 1; i >= 0; i--) {
        x[i] /= l[i * n + i];
        fi_dense_add(x, -x[i], l + i * n, i);
    }
}

/* Largest eigenvalue of a symmetric tridiagonal matrix by bisection with Sturm counts. */
static double largest_eigenvalue(const double *diagonal, const double *beside, int64_t n) {
    double low = diagonal[0], high = diagonal[0];
    for (int64_t i = 0; i < n; i++) {
        double reach = (i ? fabs(beside[i - 1]) : 0.0) + (i + 1 < n ? fabs(beside[i]) : 0.0);
        low = fmax(low, diagonal[i]);
        high = fmax(high, diagonal[i] + reach);
    }
    for (int step = 0; step < 80 && high - low > 1e-16 * high; step++) {
        double middle = 0.5 * (low + high), pivot = diagonal[0] - middle;
        bool above = pivot > 0.0;
        for (int64_t i = 1; i < n && !above; i++) {
            double denominator = pivot < 0.0 ? pivot : -1e-300;
            pivot = diagonal[i] - middle - beside[i - 1] * beside[i - 1] / denominator;
            above = pivot > 0.0;
        }
        *(above ? &low : &high) = middle;
    }
    return high;
}

/* Lanczos with every new vector made orthogonal to all earlier ones, twice. */
static double largest_inverse(double *rows, double *diagonal, double *beside, int64_t steps,
                              const double *l, int64_t n) {
    double value = 0.0;
    for (int64_t i = 0; i < n; i++) /* any start that leans on no direction */
        rows[i] = 1.0 + 0.5 * cos(1.0 + 2.399963 * (double)i);
    double length = sqrt(fi_dense_dot(rows, rows, n));
    for (int64_t k = 0; k < steps; k++) {
        double *row = rows + k * n, *next = row + n;
        for (int64_t i = 0; i < n; i++)
            row[i] /= length;
        memcpy(next, row, (size_t)n * sizeof *next);
        apply_inverse(next, l, n);
        diagonal[k] = fi_dense_dot(row, next, n);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = k; j >= 0; j--)
                fi_dense_add(next, -fi_dense_dot(rows + j * n, next, n), rows + j * n, n);
        length = beside[k] = sqrt(fi_dense_dot(next, next, n));
        bool ends = k + 1 == steps || length <= 1e-14 * diagonal[k];
        if (!ends && k % 8 != 7)
            continue;
        double better = largest_eigenvalue(diagonal, beside, k + 1);
        if (ends || better - value <= 1e-14 * better)
            return fmax(better, value);
        value = better;
    }
    return value;
}

featinv_status fi_least_singular(double *value, const double *factor, int64_t n) {
    const int64_t steps = least_of(n, 300); /* all there are, or far more than it takes */
    *value = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(factor[i * n + i]) > 1e-75)) /* squares of the inverse must not overflow */
            return FEATINV_OK;
    size_t room = (size_t)((steps + 1) * (n + 2)) * sizeof(double);
    double *rows = malloc(room);
    if (!rows)
        return fi_fail_memory(room);
    double *diagonal = rows + (steps + 1) * n, *beside = diagonal + steps + 1;
    *value = 1.0 / sqrt(largest_inverse(rows, diagonal, beside, steps, factor, n));
    free(rows);
    return FEATINV_OK;
}

/* Makes rows i and j of a orthogonal by a rotation; false where they are. */
static bool rotate(double *x, double *y, int64_t n) {
    double a = fi_dense_dot(x, x, n), b = fi_dense_dot(y, y, n), c = fi_dense_dot(x, y, n);
    if (!(fabs(c) > 1e-15 * sqrt(a) * sqrt(b)) || c == 0.0)
        return false;
    double zeta = (b - a) / (2.0 * c);
    double t = copysign(1.0, zeta) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
    double cosine = 1.0 / sqrt(1.0 + t * t), sine = t * cosine;
    for (int64_t i = 0; i < n; i++) {
        double u = x[i], w = y[i];
        x[i] = cosine * u - sine * w;
        y[i] = sine * u + cosine * w;
    }
    return true;
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Lengths of the rows of a (n, n) once they are orthogonal. */
static void jacobi(double *values, double *a, int64_t n) {
    bool turned = true;
    for (int sweep = 0; sweep < 60 && turned; sweep++) {
        turned = false;
        for (int64_t i = 0; i + 1 < n; i++)
            for (int64_t j = i + 1; j < n; j++)
                turned |= rotate(a + i * n, a + j * n, n);
    }
    for (int64_t i = 0; i < n; i++)
        values[i] = sqrt(fi_dense_dot(a + i * n, a + i * n, n));
    qsort(values, (size_t)n, sizeof *values, descending);
}

featinv_status fi_singular_values(double *values, const double *a, int64_t m, int64_t n) {
    int64_t few = least_of(m, n), many = m + n - few, rank = 0;
    size_t room = (size_t)(2 * few * many + 2 * few * few) * sizeof(double);
    double *rows = malloc(room ? room : 1);
    if (!rows)
        return fi_fail_memory(room);
    double *q = rows + few * many, *factor = q + few * many, *turned = factor + few * few;
    if (m <= n)
        memcpy(rows, a, (size_t)(m * n) * sizeof *rows);
    else
        fi_transpose(rows, a, m, n);
    featinv_status status = fi_orthonormal(q, factor, &rank, rows, few, many, 0.0);
    if (!status) {
        fi_transpose(turned, factor, few, few); /* its rows are the closer to orthogonal */
        jacobi(values, turned, few);
    }
    free(rows);
    return status;
}
