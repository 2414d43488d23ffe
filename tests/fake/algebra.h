/* Textbook dense linear algebra, row-major, for the fake backend: what the core's unit tests
 * need of the table's arithmetic, at small sizes. Memory failures end the test program. */
#ifndef FAKE_ALGEBRA_H
#define FAKE_ALGEBRA_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *algebra_memory(int64_t count, size_t size) {
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    if (!memory)
        abort();
    return memory;
}

static int algebra_gemm(double *c, const double *a, const double *b, int64_t m, int64_t n,
                        int64_t k, int32_t transpose_a, int32_t transpose_b) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++)
            c[i * n + j] = 0.0;
        for (int64_t l = 0; l < k; l++) {
            const double left = transpose_a ? a[l * m + i] : a[i * k + l];
            for (int64_t j = 0; j < n; j++)
                c[i * n + j] += left * (transpose_b ? b[j * k + l] : b[l * n + j]);
        }
    }
    return 0;
}

/* Householder reduction of the symmetric q (n, n) to diagonal and off-diagonal (off[i] between i
 * - 1 and i); q becomes the orthogonal matrix of the reduction: a = q T q^T. */
static void algebra_tridiagonal(double *q, double *diagonal, double *off, int64_t n) {
    double *a = algebra_memory(n * n, sizeof *a), *v = algebra_memory(n, sizeof *v);
    double *p = algebra_memory(n, sizeof *p);
    memcpy(a, q, (size_t)(n * n) * sizeof *a);
    memset(q, 0, (size_t)(n * n) * sizeof *q);
    for (int64_t i = 0; i < n; i++)
        q[i * n + i] = 1.0;
    for (int64_t k = 0; k + 2 < n; k++) {
        double norm = 0.0, length = 0.0, inner = 0.0;
        for (int64_t i = k + 1; i < n; i++)
            norm = hypot(norm, a[i * n + k]);
        if (norm == 0.0)
            continue;
        memset(v, 0, (size_t)n * sizeof *v);
        for (int64_t i = k + 1; i < n; i++)
            v[i] = a[i * n + k];
        v[k + 1] += copysign(norm, v[k + 1]);
        for (int64_t i = k + 1; i < n; i++)
            length += v[i] * v[i];
        for (int64_t i = 0; i < n; i++) {
            p[i] = 0.0;
            for (int64_t j = k + 1; j < n; j++)
                p[i] += 2.0 / length * a[i * n + j] * v[j];
            inner += p[i] * v[i] / length;
        }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                a[i * n + j] -= v[i] * (p[j] - inner * v[j]) + (p[i] - inner * v[i]) * v[j];
        for (int64_t i = 0; i < n; i++) {
            double sum = 0.0;
            for (int64_t j = k + 1; j < n; j++)
                sum += q[i * n + j] * v[j];
            for (int64_t j = k + 1; j < n; j++)
                q[i * n + j] -= 2.0 / length * sum * v[j];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        diagonal[i] = a[i * n + i];
        off[i] = i ? a[i * n + i - 1] : 0.0;
    }
    free(a);
    free(v);
    free(p);
}

/* One implicit QL sweep of the unreduced block l..m of a tridiagonal matrix, rotating columns of
 * q. */
static void algebra_sweep(double *q, double *d, double *e, int64_t l, int64_t m, int64_t n) {
    double g = (d[l + 1] - d[l]) / (2.0 * e[l]), r = hypot(g, 1.0);
    double s = 1.0, c = 1.0, p = 0.0;
    g = d[m] - d[l] + e[l] / (g + copysign(r, g));
    int64_t i = m - 1;
    for (; i >= l; i--) {
        double f = s * e[i], b = c * e[i];
        e[i + 1] = r = hypot(f, g);
        if (r == 0.0) {
            d[i + 1] -= p;
            e[m] = 0.0;
            break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2.0 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        for (int64_t k = 0; k < n; k++) {
            const double x = q[k * n + i + 1], y = q[k * n + i];
            q[k * n + i + 1] = s * y + c * x;
            q[k * n + i] = c * y - s * x;
        }
    }
    if (r == 0.0 && i >= l)
        return;
    d[l] -= p;
    e[l] = g;
    e[m] = 0.0;
}

/* Values ascending, eigenvectors in the columns of vectors (NULL: not wanted). Reads the lower
 * half as the upper one: a is symmetric. */
static int algebra_eigh(double *values, double *vectors, const double *matrix, int64_t n) {
    double *q = algebra_memory(n * n, sizeof *q), *d = algebra_memory(n, sizeof *d);
    double *e = algebra_memory(n + 1, sizeof *e);
    memcpy(q, matrix, (size_t)(n * n) * sizeof *q);
    algebra_tridiagonal(q, d, e, n);
    for (int64_t i = 1; i < n; i++)
        e[i - 1] = e[i];
    e[n > 0 ? n - 1 : 0] = 0.0;
    for (int64_t l = 0; l < n; l++)
        for (int round = 0; round < 200; round++) {
            int64_t m = l;
            while (m + 1 < n && fabs(e[m]) > 1.1e-16 * (fabs(d[m]) + fabs(d[m + 1])))
                m++;
            if (m == l)
                break;
            algebra_sweep(q, d, e, l, m, n);
        }
    for (int64_t i = 0; i < n; i++) {
        int64_t rank = 0;
        for (int64_t j = 0; j < n; j++)
            rank += d[j] < d[i] || (d[j] == d[i] && j < i);
        values[rank] = d[i];
        for (int64_t k = 0; vectors && k < n; k++)
            vectors[k * n + rank] = q[k * n + i];
    }
    free(q);
    free(d);
    free(e);
    return 0;
}

/* Rotates rows p and q of w (., n) so that they are orthogonal; returns the cosine that they
 * had. */
static double algebra_rotate(double *p, double *q, int64_t n) {
    double a = 0.0, b = 0.0, g = 0.0;
    for (int64_t i = 0; i < n; i++) {
        a += p[i] * p[i];
        b += q[i] * q[i];
        g += p[i] * q[i];
    }
    const double cosine = fabs(g) / sqrt(a * b);
    if (g == 0.0 || !(cosine > 1e-17))
        return 0.0;
    const double zeta = (b - a) / (2.0 * g);
    const double t = copysign(1.0, zeta) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
    const double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
    for (int64_t i = 0; i < n; i++) {
        const double x = p[i], y = q[i];
        p[i] = c * x - s * y;
        q[i] = s * x + c * y;
    }
    return cosine;
}

static int algebra_descending(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a < b) - (a > b);
}

/* min(m, n) values, descending: one-sided Jacobi on the shorter side. */
static int algebra_singular_values(double *values, const double *a, int64_t m, int64_t n) {
    const int64_t rows = m < n ? m : n, columns = m < n ? n : m;
    double *w = algebra_memory(m * n, sizeof *w);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            w[i * columns + j] = m < n ? a[i * n + j] : a[j * n + i];
    double largest = 1.0;
    for (int sweep = 0; sweep < 60 && largest > 1e-15; sweep++) {
        largest = 0.0;
        for (int64_t p = 0; p < rows; p++)
            for (int64_t q = p + 1; q < rows; q++)
                largest = fmax(largest, algebra_rotate(w + p * columns, w + q * columns, columns));
    }
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < columns; j++)
            sum += w[i * columns + j] * w[i * columns + j];
        values[i] = sqrt(sum);
    }
    qsort(values, (size_t)rows, sizeof *values, algebra_descending);
    free(w);
    return 0;
}

static int algebra_cholesky(double *factor, int32_t *ok, const double *a, int64_t n) {
    *ok = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = j <= i ? a[i * n + j] : 0.0;
            for (int64_t k = 0; k < j && j <= i; k++)
                sum -= factor[i * n + k] * factor[j * n + k];
            if (i == j && !(sum > 0.0))
                return 0;
            factor[i * n + j] = i == j ? sqrt(sum) : sum / (j < i ? factor[j * n + j] : 1.0);
        }
    *ok = 1;
    return 0;
}

#endif
