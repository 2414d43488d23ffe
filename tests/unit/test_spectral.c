/* Affinity, eigenvalues of the normalised Laplacian and the count of clusters: against recorded
 * arrays and against graphs whose spectrum is known in closed form. */
#include "check.h"
#include "recorded.h"

#include "lanczos.h"
#include "session.h"
#include "spectral.h"

#include <math.h>

static featinv_session *session;

static int open_session(void **state) {
    (void)state;
    return featinv_session_create(&session, NULL, NULL);
}

static int close_session(void **state) {
    (void)state;
    featinv_session_destroy(session);
    return 0;
}

/* ---------------------------------------------------------------- graphs --------------------- */

static fi_sparse from_dense(const double *dense, int64_t n) {
    fi_sparse out = {.rows = n};
    out.offsets = calloc((size_t)n + 1, sizeof *out.offsets);
    out.indices = malloc((size_t)(n * n + 1) * sizeof *out.indices);
    out.values = malloc((size_t)(n * n + 1) * sizeof *out.values);
    assert_true(out.offsets && out.indices && out.values);
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++)
            if (dense[i * n + j] != 0.0) {
                out.indices[used] = (int32_t)j;
                out.values[used++] = dense[i * n + j];
            }
        out.offsets[i + 1] = used;
    }
    return out;
}

static fi_sparse recorded_matrix(const char *member) {
    int64_t shape[8];
    double *dense = recorded("clustering", member, FEATINV_DTYPE_F64, shape);
    fi_sparse out = from_dense(dense, shape[0]);
    free(dense);
    return out;
}

/* Several hypercubes of 2^bits nodes and a number of single nodes side by side. The eigenvalue 2 i
 * / bits of a hypercube's normalised Laplacian has multiplicity (bits over i). */
static fi_sparse hypercubes(int bits, int64_t copies, int64_t isolated) {
    int64_t size = (int64_t)1 << bits, n = copies * size + isolated;
    fi_sparse out = {.rows = n};
    out.offsets = calloc((size_t)n + 1, sizeof *out.offsets);
    out.indices = malloc((size_t)(n * bits) * sizeof *out.indices);
    out.values = malloc((size_t)(n * bits) * sizeof *out.values);
    assert_true(out.offsets && out.indices && out.values);
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t node = i % size, first = i - node;
        if (i < copies * size) {
            for (int bit = bits - 1; bit >= 0; bit--) /* neighbours below, ascending */
                if (node >> bit & 1)
                    out.indices[used++] = (int32_t)(first + (node ^ (int64_t)1 << bit));
            for (int bit = 0; bit < bits; bit++)
                if (!(node >> bit & 1))
                    out.indices[used++] = (int32_t)(first + (node ^ (int64_t)1 << bit));
        }
        for (int64_t e = out.offsets[i]; e < used; e++)
            out.values[e] = 0.25; /* any positive weight gives the same Laplacian */
        out.offsets[i + 1] = used;
    }
    return out;
}

/* ---------------------------------------------------------------- checks --------------------- */

/* Eigenvectors (n, k) are orthonormal and satisfy L v = l v to `tolerance`. */
static void check_pairs(const char *what, const fi_sparse *w, const double *values,
                        const double *vectors, int64_t k, double tolerance) {
    int64_t n = w->rows;
    double *root = calloc((size_t)n, sizeof *root);
    assert_non_null(root);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t e = w->offsets[i]; e < w->offsets[i + 1]; e++)
            root[i] += w->values[e];
        root[i] = sqrt(root[i]);
    }
    for (int64_t c = 0; c < k; c++) {
        double squares = 0.0;
        for (int64_t i = 0; i < n; i++) {
            double image = root[i] > 0.0 ? vectors[i * k + c] : 0.0;
            for (int64_t e = w->offsets[i]; e < w->offsets[i + 1]; e++)
                image -=
                    w->values[e] / (root[i] * root[w->indices[e]]) * vectors[w->indices[e] * k + c];
            squares += pow(image - values[c] * vectors[i * k + c], 2.0);
        }
        if (!(sqrt(squares) <= tolerance))
            fail_msg("%s: residual of eigenvector %d is %g", what, (int)c, sqrt(squares));
        for (int64_t b = 0; b <= c; b++) {
            double product = 0.0;
            for (int64_t i = 0; i < n; i++)
                product += vectors[i * k + b] * vectors[i * k + c];
            if (!(fabs(product - (b == c)) <= 1e-12))
                fail_msg("%s: eigenvectors %d and %d: product %.17g", what, (int)b, (int)c,
                         product);
        }
    }
    free(root);
}

static void check_values(const char *what, const double *values, const double *expected, int64_t k,
                         double tolerance) {
    for (int64_t i = 0; i < k; i++)
        if (!(fabs(values[i] - expected[i]) <= tolerance))
            fail_msg("%s: eigenvalue %d is %.17g, not %.17g", what, (int)i, values[i], expected[i]);
}

/* ---------------------------------------------------------------- recorded ------------------- */

static void test_affinity_recorded(void **state) {
    (void)state;
    static const char *const prefixes[] = {"g10", "g50"};
    for (size_t p = 0; p < 2; p++) {
        char member[64];
        (void)snprintf(member, sizeof member, "%s_C2_official", prefixes[p]);
        fi_sparse c = recorded_matrix(member), w;
        (void)snprintf(member, sizeof member, "%s_affinity", prefixes[p]);
        double *expected = recorded("clustering", member, FEATINV_DTYPE_F64, NULL);
        CHECK_OK(fi_affinity(&w, &c, NULL));
        assert_int_equal(w.rows, c.rows);
        for (int64_t i = 0; i < w.rows; i++)
            for (int64_t j = 0, e = w.offsets[i]; j < w.rows; j++) {
                double value = e < w.offsets[i + 1] && w.indices[e] == j ? w.values[e++] : 0.0;
                if (!(fabs(value - expected[i * w.rows + j]) <= 1e-15))
                    fail_msg("%s (%d, %d): %.17g, not %.17g", prefixes[p], (int)i, (int)j, value,
                             expected[i * w.rows + j]);
            }
        free(expected);
        fi_sparse_free(&c);
        fi_sparse_free(&w);
    }
}

/* Left-out rows: as the affinity of the matrix without them, when the rest does not refer to
 * them. */
static void test_affinity_keep(void **state) {
    (void)state;
    const double all[25] = {0, 3, 0, 4, 0, -1, 0, 0, 0, 0, 9, 9, 0,
                            9, 9, 0, 0, 0, 0,  0, 0, 2, 0, 0, 0};
    const uint8_t keep[5] = {1, 1, 0, 1, 1};
    /* kept: rows (0, .6, .8, 0), (1, 0, 0, 0), zeros, (0, 1, 0, 0) */
    const double expected[16] = {0, .8, .4, 0, .8, 0, 0, .5, .4, 0, 0, 0, 0, .5, 0, 0};
    fi_sparse c = from_dense(all, 5), w;
    CHECK_OK(fi_affinity(&w, &c, keep));
    assert_int_equal(w.rows, 4);
    assert_int_equal(w.offsets[4], 6);
    for (int64_t i = 0; i < 4; i++)
        for (int64_t e = w.offsets[i]; e < w.offsets[i + 1]; e++)
            assert_true(fabs(w.values[e] - expected[i * 4 + w.indices[e]]) <= 1e-16);
    fi_sparse_free(&c);
    fi_sparse_free(&w);
}

static void test_recorded_spectra(void **state) {
    (void)state;
    static const struct {
        const char *affinity, *values;
    } cases[] = {{"g10_affinity", "g10_laplacian_eig_all"},
                 {"g50_affinity", "g50_laplacian_eig_all"},
                 {"disc_affinity", "disc_eig"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        fi_sparse w = recorded_matrix(cases[c].affinity);
        double *expected = recorded("clustering", cases[c].values, FEATINV_DTYPE_F64, NULL);
        double *values = malloc((size_t)w.rows * sizeof *values);
        double *vectors = malloc((size_t)(w.rows * w.rows) * sizeof *vectors);
        assert_true(values && vectors);
        CHECK_OK(fi_spectral(values, vectors, session, &w, w.rows, 0));
        check_values(cases[c].affinity, values, expected, w.rows, 1e-10);
        check_pairs(cases[c].affinity, &w, values, vectors, w.rows, 1e-10);
        CHECK_OK(fi_spectral_largest(values, session, &w, 10, 0));
        for (int64_t i = 0; i < 10; i++)
            if (!(fabs(values[i] - expected[w.rows - 1 - i]) <= 1e-10))
                fail_msg("%s: %d-th largest: %.17g", cases[c].affinity, (int)i, values[i]);
        free(expected);
        free(values);
        free(vectors);
        fi_sparse_free(&w);
    }
}

/* E E^T of the recorded embedding (225, k), free of signs and of rotations within equal
 * eigenvalues. */
static void test_recorded_projectors(void **state) {
    (void)state;
    for (int gamma = 10; gamma <= 50; gamma += 40)
        for (int64_t k = 3; k <= 5; k++) {
            char member[64];
            (void)snprintf(member, sizeof member, "g%d_affinity", gamma);
            fi_sparse w = recorded_matrix(member);
            (void)snprintf(member, sizeof member, "g%d_k%d_embedding", gamma, (int)k);
            double *wanted = recorded("clustering", member, FEATINV_DTYPE_F64, NULL);
            double values[5], vectors[225 * 5];
            CHECK_OK(fi_spectral(values, vectors, session, &w, k, 0));
            for (int64_t i = 0; i < 225; i++)
                for (int64_t j = 0; j < 225; j++) {
                    double sum = 0.0, expected = 0.0;
                    for (int64_t c = 0; c < k; c++) {
                        sum += vectors[i * k + c] * vectors[j * k + c];
                        expected += wanted[i * k + c] * wanted[j * k + c];
                    }
                    if (!(fabs(sum - expected) <= 1e-6))
                        fail_msg("%s (%d, %d): %.9g", member, (int)i, (int)j, sum);
                }
            free(wanted);
            fi_sparse_free(&w);
        }
}

/* Noise-free subspaces: K components, so the first K eigenvalues are exactly 0 and each vector
 * lives on one component. */
static void test_disconnected(void **state) {
    (void)state;
    fi_sparse w = recorded_matrix("disc_affinity");
    int32_t *component = recorded("clustering", "disc_component", FEATINV_DTYPE_NONE, NULL);
    int64_t *count = recorded("clustering", "disc_n_components", FEATINV_DTYPE_NONE, NULL),
            k = *count;
    double values[32], *vectors = malloc((size_t)(w.rows * k) * sizeof *vectors);
    assert_true(vectors && k + 1 <= 32);
    CHECK_OK(fi_spectral(values, vectors, session, &w, k, 0));
    for (int64_t c = 0; c < k; c++)
        assert_true(values[c] == 0.0);
    for (int64_t i = 0; i < w.rows; i++)
        for (int64_t j = 0; j < i; j++) {
            int same = 1;
            for (int64_t c = 0; c < k; c++)
                same &= (vectors[i * k + c] > 0.0) == (vectors[j * k + c] > 0.0);
            assert_int_equal(same, component[i] == component[j]);
        }
    double *more = malloc((size_t)(w.rows * (k + 1)) * sizeof *more);
    assert_non_null(more);
    CHECK_OK(fi_spectral(values, more, session, &w, k + 1, 0));
    assert_true(values[k - 1] == 0.0 && values[k] > 0.01);
    free(vectors);
    free(more);
    free(component);
    free(count);
    fi_sparse_free(&w);
}

/* A node without edges: L_ii = 0, as recorded. Eigenpairs are checked against the recorded
 * matrix. */
static void test_isolated(void **state) {
    (void)state;
    fi_sparse w = recorded_matrix("iso_affinity");
    double *laplacian = recorded("clustering", "iso_laplacian", FEATINV_DTYPE_F64, NULL);
    double values[40], vectors[40 * 40];
    CHECK_OK(fi_spectral(values, vectors, session, &w, 40, 0));
    int zeros = 0;
    for (int64_t c = 0; c < 40; c++) {
        zeros += values[c] == 0.0;
        for (int64_t i = 0; i < 40; i++) {
            double image = 0.0;
            for (int64_t j = 0; j < 40; j++)
                image += laplacian[i * 40 + j] * vectors[j * 40 + c];
            assert_true(fabs(image - values[c] * vectors[i * 40 + c]) <= 1e-13);
        }
    }
    assert_true(zeros >= 2);
    check_pairs("iso", &w, values, vectors, 40, 1e-13);
    free(laplacian);
    fi_sparse_free(&w);
}

/* ---------------------------------------------------------------- closed forms ---------------- */

static void check_hypercubes(int bits, int64_t copies, int64_t isolated, int64_t k) {
    char what[80];
    (void)snprintf(what, sizeof what, "%d hypercubes of %d bits, %d single nodes", (int)copies,
                   bits, (int)isolated);
    fi_sparse w = hypercubes(bits, copies, isolated);
    double *values = malloc((size_t)k * sizeof *values);
    double *expected = malloc((size_t)k * sizeof *expected);
    double *vectors = malloc((size_t)(w.rows * k) * sizeof *vectors);
    double *again = malloc((size_t)(w.rows * k) * sizeof *again);
    assert_true(values && expected && vectors && again);
    int64_t at = 0;
    for (int64_t level = 0, over = 1; at < k; over = over * (bits - level) / (level + 1), level++)
        for (int64_t i = 0; i < copies * over + (level == 0 ? isolated : 0) && at < k; i++)
            expected[at++] = 2.0 * (double)level / bits;
    CHECK_OK(fi_spectral(values, vectors, session, &w, k, 7));
    check_values(what, values, expected, k, 1e-13);
    check_pairs(what, &w, values, vectors, k, 1e-10);
    CHECK_OK(fi_spectral(values, again, session, &w, k, 7));
    assert_memory_equal(vectors, again, (size_t)(w.rows * k) * sizeof *vectors);
    CHECK_OK(fi_spectral_values(values, session, &w, k, 7));
    check_values(what, values, expected, k, 1e-6);
    CHECK_OK(fi_spectral_largest(values, session, &w, 5, 7)); /* bipartite: 2, then 2 - 2 / bits */
    double top[5];
    for (int64_t i = 0; i < 5; i++)
        top[i] = i < copies ? 2.0 : 2.0 - 2.0 / bits;
    check_values(what, values, top, 5, 1e-12);
    free(values);
    free(expected);
    free(vectors);
    free(again);
    fi_sparse_free(&w);
}

static void test_hypercubes(void **state) {
    (void)state;
    check_hypercubes(4, 1, 0, 16); /* direct, complete */
    check_hypercubes(5, 3, 2, 22); /* direct, several components, isolated nodes */
    check_hypercubes(9, 1, 0, 9);  /* iterated; 8 of the 9 copies */
    check_hypercubes(9, 1, 1, 14); /* into the copies of the next */
    check_hypercubes(9, 2, 0, 9);  /* two large components with equal spectra */
}

/* With blocks smaller than the multiplicity, only the search from a second start finds all
 * copies. */
static void test_small_blocks(void **state) {
    (void)state;
    fi_sparse w = hypercubes(9, 1, 0);
    for (int64_t e = 0; e < w.offsets[w.rows]; e++)
        w.values[e] = 1.0 / 9.0; /* D^-1/2 W D^-1/2 */
    enum { WANTED = 9 };
    double values[WANTED], expected[WANTED], *vectors = malloc(WANTED * 512 * sizeof *vectors);
    assert_non_null(vectors);
    for (int i = 0; i < WANTED; i++)
        expected[i] = i == 0 ? 1.0 : 7.0 / 9.0;
    for (int64_t block = 1; block <= 4; block++) {
        fi_lanczos_problem problem = {.matrix = &w,
                                      .sign = 1.0,
                                      .wanted = WANTED,
                                      .block = block,
                                      .residual = 1e-10,
                                      .seed = 3};
        int converged = 0;
        CHECK_OK(fi_lanczos(values, vectors, &converged, session, &problem));
        assert_int_equal(converged, 1);
        check_values("small blocks", values, expected, WANTED, 1e-13);
    }
    free(vectors);
    fi_sparse_free(&w);
}

/* A torus of A by B nodes: pairs and fours of equal eigenvalues, 1 - (cos(2 pi i / A) + cos(2 pi j
 * / B)) / 2, close together. */
static void test_torus(void **state) {
    (void)state;
    enum { A = 20, B = 27, N = A * B, K = 10 };
    static double dense[N * N], vectors[N * K];
    double values[K], expected[N];
    for (int i = 0; i < A; i++)
        for (int j = 0; j < B; j++) {
            int node = i * B + j, right = i * B + (j + 1) % B, below = (i + 1) % A * B + j;
            dense[node * N + right] = dense[right * N + node] = 2.0;
            dense[node * N + below] = dense[below * N + node] = 2.0;
            double a = sin(3.14159265358979323846 * i / A), b = sin(3.14159265358979323846 * j / B);
            double value = a * a + b * b;
            int at = node; /* insertion into ascending order */
            for (; at > 0 && expected[at - 1] > value; at--)
                expected[at] = expected[at - 1];
            expected[at] = value;
        }
    fi_sparse w = from_dense(dense, N);
    CHECK_OK(fi_spectral(values, vectors, session, &w, K, 0));
    check_values("torus", values, expected, K, 1e-13);
    check_pairs("torus", &w, values, vectors, K, 1e-10);
    fi_sparse_free(&w);
}

/* ---------------------------------------------------------------- count, errors --------------- */

static void test_count_recorded(void **state) {
    (void)state;
    int64_t *table = recorded("clustering", "gap_table", FEATINV_DTYPE_NONE, NULL);
    for (int row = 0; row < 5; row++) {
        char member[32];
        int64_t shape[8], planted = table[row * 4];
        (void)snprintf(member, sizeof member, "gap_K%d_eig", (int)planted);
        double *all = recorded("clustering", member, FEATINV_DTYPE_F64, shape), legacy[10];
        for (int i = 0; i < 10; i++)
            legacy[i] = 1.0 - all[shape[0] - 1 - i];
        assert_int_equal(fi_spectral_count(all, 10, 10, FEATINV_COUNT_GAP), table[row * 4 + 3]);
        assert_int_equal(fi_spectral_count(all, 10, 10, FEATINV_COUNT_RATIO), planted);
        assert_int_equal(fi_spectral_count(legacy, 10, 10, FEATINV_COUNT_LEGACY),
                         table[row * 4 + 1]);
        free(all);
    }
    free(table);
    for (int gamma = 10; gamma <= 50; gamma += 40) {
        static const struct {
            const char *suffix;
            featinv_count_rule rule;
        } rules[] = {{"corrected", FEATINV_COUNT_GAP},
                     {"ratio", FEATINV_COUNT_RATIO},
                     {"official", FEATINV_COUNT_LEGACY}};
        char member[64];
        (void)snprintf(member, sizeof member, "g%d_laplacian_eig_all", gamma);
        double *all = recorded("clustering", member, FEATINV_DTYPE_F64, NULL), legacy[10];
        for (int i = 0; i < 10; i++)
            legacy[i] = 1.0 - all[224 - i];
        for (size_t r = 0; r < 3; r++) {
            (void)snprintf(member, sizeof member, "g%d_gap_k_%s", gamma, rules[r].suffix);
            int64_t *expected = recorded("clustering", member, FEATINV_DTYPE_NONE, NULL);
            int32_t count = fi_spectral_count(rules[r].rule == FEATINV_COUNT_LEGACY ? legacy : all,
                                              10, 10, rules[r].rule);
            if (count != *expected)
                fail_msg("%s: %d, not %d", member, count, (int)*expected);
            free(expected);
        }
        free(all);
    }
}

static void test_count_edges(void **state) {
    (void)state;
    const double values[6] = {0, 0, 0, .1, .9, 1};
    static const struct {
        int32_t value_count, max_count, expected;
        featinv_count_rule rule;
    } cases[] = {{6, 6, 3, FEATINV_COUNT_RATIO}, {6, 6, 4, FEATINV_COUNT_GAP},
                 {6, 4, 3, FEATINV_COUNT_GAP},   {4, 10, 3, FEATINV_COUNT_GAP},
                 {3, 10, 2, FEATINV_COUNT_GAP},  {2, 10, 2, FEATINV_COUNT_RATIO},
                 {6, 2, 2, FEATINV_COUNT_RATIO}, {1, 2, 2, FEATINV_COUNT_GAP}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_int_equal(
            fi_spectral_count(values, cases[c].value_count, cases[c].max_count, cases[c].rule),
            cases[c].expected);
}

static void test_errors(void **state) {
    (void)state;
    fi_sparse w = hypercubes(9, 1, 0);
    double values[8], *vectors = malloc(512 * 8 * sizeof *vectors);
    assert_non_null(vectors);
    CHECK_FAILS(fi_spectral(values, vectors, session, &w, 0, 0), FEATINV_ERROR_ARGUMENT,
                "0 eigenvalues");
    CHECK_FAILS(fi_spectral(values, vectors, session, &w, 513, 0), FEATINV_ERROR_ARGUMENT,
                "513 eigenvalues of a matrix of 512 rows");
    featinv_session_cancel(session);
    CHECK_FAILS(fi_spectral(values, vectors, session, &w, 8, 0), FEATINV_ERROR_CANCELLED,
                "cancelled");
    CHECK_OK(fi_session_begin(session, 0, NULL));
    setenv("FAKE_FAIL", "eigh", 1);
    CHECK_FAILS(fi_spectral(values, vectors, session, &w, 8, 0), FEATINV_ERROR_COMPUTE, "eigh");
    setenv("FAKE_FAIL", "gemm", 1);
    CHECK_FAILS(fi_spectral(values, vectors, session, &w, 8, 0), FEATINV_ERROR_COMPUTE, "gemm");
    unsetenv("FAKE_FAIL");
    free(vectors);
    fi_sparse_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_affinity_recorded),
        cmocka_unit_test(test_affinity_keep),
        cmocka_unit_test(test_recorded_spectra),
        cmocka_unit_test(test_recorded_projectors),
        cmocka_unit_test(test_disconnected),
        cmocka_unit_test(test_isolated),
        cmocka_unit_test(test_hypercubes),
        cmocka_unit_test(test_small_blocks),
        cmocka_unit_test(test_torus),
        cmocka_unit_test(test_count_recorded),
        cmocka_unit_test(test_count_edges),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("spectral", tests, open_session, close_session);
}
