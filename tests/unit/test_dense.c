/* The core's own dense linear algebra against textbook loops and known answers. */
#include "concept_maker.h"

#include "dense.h"

static double *random_values(int64_t n) {
    double *values = malloc((size_t)n * sizeof *values + 1);
    for (int64_t i = 0; i < n; i++)
        values[i] = maker_random();
    return values;
}

static void products(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {4, 8, 128},  {5, 9, 129},
                                       {33, 65, 130}, {70, 3, 257}, {3, 200, 1}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int turned = 0; turned < 4; turned++) {
            int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            double *a = random_values(m * k), *b = random_values(k * n), *c = random_values(m * n);
            double *want = malloc((size_t)(m * n) * sizeof *want);
            fi_matrix left = {a, turned & 1 ? m : k, turned & 1};
            fi_matrix right = {b, turned & 2 ? k : n, (turned & 2) != 0};
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = 0.0;
                    for (int64_t l = 0; l < k; l++)
                        sum += (turned & 1 ? a[l * m + i] : a[i * k + l]) *
                               (turned & 2 ? b[j * k + l] : b[l * n + j]);
                    want[i * n + j] = c[i * n + j] - 0.5 * sum;
                }
            fi_multiply_add(c, n, -0.5, left, right, m, n, k);
            CHECK_BELOW(furthest(c, want, m * n), 1e-13);
            free(a);
            free(b);
            free(c);
            free(want);
        }
}

/* Rank r vectors: frame orthonormal, factor exact, the pseudo-inverse obeys Moore and Penrose. */
static void pseudo_inverses(void **state) {
    (void)state;
    static const int64_t cases[][3] = {{1, 1, 1},  {5, 5, 5},    {5, 9, 5},   {40, 70, 40},
                                       {7, 30, 3}, {40, 41, 17}, {50, 64, 50}};
    for (size_t s = 0; s < sizeof cases / sizeof *cases; s++) {
        int64_t n = cases[s][0], d = cases[s][1], rank = cases[s][2], found;
        double *mix = random_values(n * rank), *base = random_values(rank * d);
        double *v = calloc((size_t)(n * d), sizeof *v), *again = calloc((size_t)(n * d), sizeof *v);
        double *q = malloc((size_t)(n * d) * sizeof *q), *factor = malloc((size_t)(n * n) * 8);
        double *inverse = malloc((size_t)(n * d) * sizeof *inverse);
        double *product = calloc((size_t)(n * n), sizeof *product);
        fi_multiply_add(v, d, 1.0, (fi_matrix){mix, rank, false}, (fi_matrix){base, d, false}, n, d,
                        rank);
        CHECK_OK(fi_orthonormal(q, factor, &found, v, n, d, 1e-9));
        assert_int_equal(found, rank);
        for (int64_t i = 0; i < rank; i++)
            for (int64_t j = 0; j <= i; j++)
                CHECK_BELOW(fabs(fi_dense_dot(q + i * d, q + j * d, d) - (i == j)), 1e-14);
        fi_multiply_add(again, d, 1.0, (fi_matrix){factor, n, false}, (fi_matrix){q, d, false}, n,
                        d, rank);
        CHECK_BELOW(furthest(again, v, n * d), 1e-8); /* what was left out is under 1e-9 */
        /* V V+ V = V with V = v^T, and V V+ symmetric follows from the span */
        CHECK_OK(fi_pseudo_inverse(inverse, q, factor, n, rank, d));
        fi_multiply_add(product, n, 1.0, (fi_matrix){v, d, false}, (fi_matrix){inverse, d, true}, n,
                        n, d);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < i; j++)
                CHECK_BELOW(fabs(product[i * n + j] - product[j * n + i]), 1e-9);
        memset(again, 0, (size_t)(n * d) * sizeof *again);
        fi_multiply_add(again, d, 1.0, (fi_matrix){product, n, true}, (fi_matrix){v, d, false}, n,
                        d, n);
        CHECK_BELOW(furthest(again, v, n * d), 1e-8);
        free(mix);
        free(base);
        free(v);
        free(again);
        free(q);
        free(factor);
        free(inverse);
        free(product);
    }
}

/* Singular values of a product of random rotations and a known diagonal. */
static void singular_values(void **state) {
    (void)state;
    enum { N = 30, D = 47 };
    double known[N], got[D], least, *u = random_values(N * N), *w = random_values(N * D);
    double *left = malloc(N * N * sizeof *left), *right = malloc(N * D * sizeof *right);
    double a[N * D] = {0}, turned[N * D], q[N * D], factor[N * N];
    int64_t rank;
    CHECK_OK(fi_orthonormal(left, NULL, &rank, u, N, N, 0.0));
    CHECK_OK(fi_orthonormal(right, NULL, &rank, w, N, D, 0.0));
    for (int i = 0; i < N; i++) {
        known[i] = i == N - 1 ? 1e-9 : 2.0 - (double)(i / 3) / 10.0; /* with repeated ones */
        for (int c = 0; c < D; c++)
            right[i * D + c] *= known[i];
    }
    fi_multiply_add(a, D, 1.0, (fi_matrix){left, N, true}, (fi_matrix){right, D, false}, N, D, N);
    CHECK_OK(fi_singular_values(got, a, N, D));
    CHECK_BELOW(furthest(got, known, N), 1e-14);
    fi_transpose(turned, a, N, D);
    CHECK_OK(fi_singular_values(got, turned, D, N));
    CHECK_BELOW(furthest(got, known, N), 1e-14);
    CHECK_OK(fi_orthonormal(q, factor, &rank, a, N, D, 0.0));
    CHECK_OK(fi_least_singular(&least, factor, N));
    CHECK_BELOW(fabs(least - 1e-9), 1e-15);
    free(u);
    free(w);
    free(left);
    free(right);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(pseudo_inverses),
        cmocka_unit_test(singular_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
