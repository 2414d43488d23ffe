/* k-means: optimal clusterings of small sets by enumeration, clusters that are far apart,
 * duplicates, empty clusters, the same bits for a seed; and the random numbers of a fit. */
#include "check.h"

#include "fit_outliers.h"
#include "fit_random.h"
#include "kmeans.h"
#include "noise.h"

#include <float.h>
#include <math.h>

/* Cost of labels against the means of their rows. */
static double cost_of(const int32_t *labels, const double *rows, int64_t n, int64_t d, int32_t k) {
    double cost = 0.0;
    for (int32_t c = 0; c < k; c++)
        for (int64_t j = 0; j < d; j++) {
            double sum = 0.0, squares = 0.0, size = 0.0;
            for (int64_t i = 0; i < n; i++)
                if (labels[i] == c) {
                    sum += rows[i * d + j];
                    size += 1.0;
                }
            for (int64_t i = 0; i < n; i++)
                if (labels[i] == c)
                    squares += pow(rows[i * d + j] - sum / size, 2.0);
            cost += squares;
        }
    return cost;
}

static void noise_rows(double *rows, int64_t count, uint64_t seed) {
    float values[4096];
    assert_true(count <= 4096);
    fi_noise(values, (size_t)count, seed, 0, 0, 99);
    for (int64_t i = 0; i < count; i++)
        rows[i] = (double)values[i];
}

/* All k^n labellings of 9 rows in 3 clusters: the best of 20 starts is the best there is. */
static void test_optimal(void **state) {
    (void)state;
    enum { N = 9, D = 2, K = 3 };
    for (uint64_t seed = 0; seed < 8; seed++) {
        double rows[N * D], best = DBL_MAX, inertia, centres[K * D];
        int32_t labels[N];
        noise_rows(rows, N * D, seed);
        for (int code = 0; code < 19683; code++) { /* 3^9 */
            for (int i = 0, rest = code; i < N; i++, rest /= K)
                labels[i] = rest % K;
            best = fmin(best, cost_of(labels, rows, N, D, K));
        }
        CHECK_OK(fi_kmeans(labels, centres, &inertia, NULL, rows, N, D, K, 20, seed));
        if (!(fabs(inertia - best) <= 1e-12 * best))
            fail_msg("seed %d: cost %.17g, optimum %.17g", (int)seed, inertia, best);
        assert_true(fabs(inertia - cost_of(labels, rows, N, D, K)) <= 1e-12 * best);
        for (int c = 0; c < K; c++)
            for (int j = 0; j < D; j++) {
                double sum = 0.0, size = 0.0;
                for (int i = 0; i < N; i++)
                    if (labels[i] == c) {
                        sum += rows[i * D + j];
                        size += 1.0;
                    }
                assert_true(fabs(centres[c * D + j] - sum / size) <= 1e-14);
            }
    }
}

/* More clusters than fit into one group of lanes, each around its own corner. */
static void test_separated(void **state) {
    (void)state;
    enum { N = 400, D = 5 };
    static double rows[N * D];
    for (int32_t k = 1; k <= 20; k++) {
        int32_t labels[N];
        double inertia;
        noise_rows(rows, N * D, 1);
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < D; j++)
                rows[i * D + j] *= 0.01;
            rows[i * D + i % k % D] += 10.0 * (1 + i % k / D);
        }
        CHECK_OK(fi_kmeans(labels, NULL, &inertia, NULL, rows, N, D, k, 5, 2));
        for (int i = 0; i < N; i++)
            for (int j = 0; j < i; j++)
                if ((labels[i] == labels[j]) != (i % k == j % k))
                    fail_msg("%d clusters: rows %d and %d", k, i, j);
    }
}

static void test_no_cluster_is_empty(void **state) {
    (void)state;
    enum { N = 60, D = 3 };
    static double rows[N * D];
    for (int32_t k = 1; k <= N; k += k < 8 ? 1 : 13)
        for (uint64_t seed = 0; seed < 4; seed++) {
            int32_t labels[N], sizes[N] = {0};
            double inertia;
            noise_rows(rows, N * D, seed);
            CHECK_OK(fi_kmeans(labels, NULL, &inertia, NULL, rows, N, D, k, 1, seed));
            for (int i = 0; i < N; i++) {
                assert_in_range(labels[i], 0, k - 1);
                sizes[labels[i]]++;
            }
            for (int32_t c = 0; c < k; c++)
                if (sizes[c] == 0)
                    fail_msg("%d clusters: number %d is empty", k, c);
        }
}

/* Three different rows in 4 to 12 clusters: cost 0, and no row is torn from its copies more than
 * must be. */
static void test_duplicates(void **state) {
    (void)state;
    double rows[12 * 2], inertia;
    int32_t labels[12];
    for (int i = 0; i < 12; i++) {
        rows[2 * i] = (double)(i % 3);
        rows[2 * i + 1] = (double)(i % 3 == 1);
    }
    for (int32_t k = 3; k <= 12; k++) {
        CHECK_OK(fi_kmeans(labels, NULL, &inertia, NULL, rows, 12, 2, k, 3, 0));
        assert_true(inertia == 0.0);
        for (int i = 0; i < 12; i++)
            for (int j = 0; j < i; j++)
                if (labels[i] == labels[j])
                    assert_int_equal(i % 3, j % 3);
    }
}

static void test_seed(void **state) {
    (void)state;
    enum { N = 300, D = 4, K = 7 };
    static double rows[N * D];
    noise_rows(rows, N * D, 0);
    int32_t a[N], b[N];
    double first, second, lowest = DBL_MAX, highest = 0.0, centres_a[K * D], centres_b[K * D];
    CHECK_OK(fi_kmeans(a, centres_a, &first, NULL, rows, N, D, K, 3, 11));
    CHECK_OK(fi_kmeans(b, centres_b, &second, NULL, rows, N, D, K, 3, 11));
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(centres_a, centres_b, sizeof centres_a);
    assert_true(first == second);
    for (uint64_t seed = 0; seed < 10; seed++) { /* other seeds start elsewhere */
        CHECK_OK(fi_kmeans(a, NULL, &first, NULL, rows, N, D, K, 1, seed));
        lowest = fmin(lowest, first);
        highest = fmax(highest, first);
    }
    assert_true(lowest < highest);
    CHECK_OK(fi_kmeans(a, NULL, &first, NULL, rows, N, D, K, 10, 0));
    CHECK_OK(fi_kmeans(a, NULL, &second, NULL, rows, N, D, K, 1, 0));
    assert_true(first <= second); /* more starts are no worse */
}

static void test_refused(void **state) {
    (void)state;
    double rows[4] = {0, 1, 2, 3}, inertia;
    int32_t labels[4];
    static const struct {
        int64_t n, d;
        int32_t k, restarts;
    } cases[] = {{4, 1, 5, 1}, {4, 1, 0, 1}, {4, 0, 2, 1}, {4, 1, 2, 0}, {0, 1, 1, 1}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        CHECK_FAILS(fi_kmeans(labels, NULL, &inertia, NULL, rows, cases[c].n, cases[c].d,
                              cases[c].k, cases[c].restarts, 0),
                    FEATINV_ERROR_ARGUMENT, "k-means of");
    featinv_session *session;
    CHECK_OK(featinv_session_create(&session, NULL, NULL));
    featinv_session_cancel(session);
    CHECK_FAILS(fi_kmeans(labels, NULL, &inertia, session, rows, 4, 1, 2, 1, 0),
                FEATINV_ERROR_CANCELLED, "cancelled");
    featinv_session_destroy(session);
}

/* ---------------------------------------------------------------- random, quantile ------------ */

static void test_random(void **state) {
    (void)state;
    fi_random a = fi_random_start(5, 1, 0), b = fi_random_start(5, 1, 1),
              c = fi_random_start(5, 1, 0);
    int64_t counts[7] = {0};
    double sum = 0.0;
    int different = 0;
    for (int i = 0; i < 70000; i++) {
        uint64_t value = fi_random_below(&a, 7);
        assert_in_range(value, 0, 6);
        counts[value]++;
        different += fi_random_below(&b, 7) != value;
        assert_int_equal(fi_random_below(&c, 7), value);
        double unit = fi_random_unit(&a);
        assert_true(unit >= 0.0 && unit < 1.0);
        (void)fi_random_unit(&b);
        assert_true(fi_random_unit(&c) == unit);
        sum += unit;
    }
    for (int i = 0; i < 7; i++) /* standard deviation 93 */
        assert_in_range(counts[i], 10000 - 465, 10000 + 465);
    assert_in_range(different, 60000 - 465, 60000 + 465);
    assert_true(fabs(sum / 70000 - 0.5) < 0.0055); /* five standard deviations */
    assert_int_equal(fi_random_below(&a, 1), 0);
}

/* NumPy's default: numpy.quantile([1, 2, 4, 8], q). */
static void test_quantile(void **state) {
    (void)state;
    const double sorted[4] = {1, 2, 4, 8};
    static const double cases[][2] = {{0, 1},    {0.1, 1.3}, {0.25, 1.75}, {0.5, 3},
                                      {0.75, 5}, {0.9, 6.8}, {1, 8}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_true(fabs(fi_quantile(sorted, 4, cases[c][0]) - cases[c][1]) <= 1e-15 * 8);
    assert_true(fi_quantile(sorted, 1, 0.3) == 1.0);
}

/* Strictly above: a row at the threshold stays. */
static void test_outliers(void **state) {
    (void)state;
    int64_t offsets[6] = {0, 2, 2, 3, 4, 6}, removed_count;
    int32_t indices[6] = {1, 2, 0, 0, 0, 1};
    double values[6] = {-2, 2, 3, -3, 1, -1}; /* scores 4, 0, 3, 3, 2 */
    fi_sparse c = {.rows = 5, .offsets = offsets, .indices = indices, .values = values};
    static const struct {
        double quantile;
        int64_t count;
        uint8_t removed[5];
    } cases[] = {{1.0, 0, {0, 0, 0, 0, 0}},
                 {0.75, 1, {1, 0, 0, 0, 0}},
                 {0.5, 1, {1, 0, 0, 0, 0}},
                 {0.49, 3, {1, 0, 1, 1, 0}},
                 {0.01, 4, {1, 0, 1, 1, 1}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint8_t removed[5];
        CHECK_OK(fi_outliers(removed, &removed_count, &c, cases[k].quantile));
        assert_int_equal(removed_count, cases[k].count);
        assert_memory_equal(removed, cases[k].removed, 5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optimal),
        cmocka_unit_test(test_separated),
        cmocka_unit_test(test_no_cluster_is_empty),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_outliers),
    };
    return cmocka_run_group_tests_name("k-means", tests, NULL, NULL);
}
