/* Self-representation against recorded optima and against the conditions themselves, written
 * plainly. Runs over the fake backend here and over libtorch in tests/concepts. */
#include "check.h"

#include "gram.h"
#include "lasso.h"
#include "selfrep.h"
#include "workers.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { KEPT = 1 << 30 };

/* ---------------------------------------------------------------- helpers -------------------- */

static void *load(const char *member, featinv_dtype dtype, int64_t *shape) {
    char path[1024];
    const char *folder = getenv("FEATINV_REFERENCE");
    (void)snprintf(path, sizeof path, "%s/mcd/selfrep.npz", folder ? folder : "tests/data");
    featinv_array_info info = {.struct_size = sizeof info};
    CHECK_OK(featinv_array_read(NULL, 0, &info, path, member, dtype));
    size_t count = 1;
    for (int32_t i = 0; i < info.ndim; i++)
        count *= (size_t)info.shape[i];
    const size_t bytes = count * (dtype == FEATINV_DTYPE_F64 ? 8 : 4);
    void *data = malloc(bytes);
    assert_non_null(data);
    CHECK_OK(featinv_array_read(data, bytes, &info, path, member, dtype));
    if (shape)
        memcpy(shape, info.shape, sizeof info.shape);
    return data;
}

/* "%s_%s", for a moment. */
static const char *name(const char *prefix, const char *member) {
    static char text[96];
    (void)snprintf(text, sizeof text, "%s_%s", prefix, member);
    return text;
}

static featinv_session *open_session(int32_t threads) {
    featinv_session_options options;
    CHECK_OK(featinv_session_options_init(&options, sizeof options));
    options.threads = threads;
    options.device = "cpu";
    featinv_session *session = NULL;
    CHECK_OK(featinv_session_create(&session, NULL, &options));
    return session;
}

typedef struct problem {
    const float *rows;
    int64_t n, d;
    double gamma, tau;
} problem;

typedef struct solution {
    double *c, *alpha; /* (n, n), (n) */
    fi_selfrep_summary summary;
} solution;

static void spread(solution *s, fi_sparse *sparse) {
    const int64_t n = sparse->rows;
    memset(s->c, 0, (size_t)(n * n) * sizeof *s->c);
    for (int64_t j = 0; j < n; j++)
        for (int64_t k = sparse->offsets[j]; k < sparse->offsets[j + 1]; k++) {
            assert_in_range(sparse->indices[k], 0, n - 1);
            if (k > sparse->offsets[j])
                assert_true(sparse->indices[k] > sparse->indices[k - 1]);
            assert_int_not_equal(sparse->indices[k], j);
            s->c[j * n + sparse->indices[k]] = sparse->values[k];
        }
    fi_sparse_free(sparse);
}

static solution new_solution(int64_t n) {
    solution s = {.c = malloc((size_t)(n * n) * sizeof(double)),
                  .alpha = malloc((size_t)n * sizeof(double))};
    assert_true(s.c && s.alpha);
    return s;
}

static void free_solution(solution *s) {
    free(s->c);
    free(s->alpha);
}

static void solve_again(solution *s, fi_selfrep *selfrep, const uint8_t *removed, int64_t n) {
    fi_sparse sparse = {0};
    fi_progress progress = {.total = n};
    CHECK_OK(fi_selfrep_solve(selfrep, &sparse, s->alpha, &s->summary, removed, &progress));
    assert_int_equal(progress.done, n);
    assert_int_equal(sparse.rows, n);
    spread(s, &sparse);
}

static solution solve(const problem *p, int64_t memory, int32_t threads) {
    featinv_session *session = open_session(threads);
    fi_selfrep *selfrep = NULL;
    CHECK_OK(fi_selfrep_create(&selfrep, session, p->rows, p->n, p->d, p->gamma, p->tau, memory));
    solution s = new_solution(p->n);
    solve_again(&s, selfrep, NULL, p->n);
    fi_selfrep_destroy(selfrep);
    featinv_session_destroy(session);
    return s;
}

static double inner(const float *a, const double *b, int64_t d) {
    double sum = 0.0;
    for (int64_t i = 0; i < d; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Residual, alpha of row j by its definition, objective, largest violation over all rows. */
static double conditions(const problem *p, const solution *s, const uint8_t *removed, int64_t j,
                         double *objective) {
    double *r = malloc((size_t)p->d * sizeof *r), largest = 0.0, worst = 0.0;
    const double *c = s->c + j * p->n;
    assert_non_null(r);
    for (int64_t t = 0; t < p->d; t++)
        r[t] = (double)p->rows[j * p->d + t];
    for (int64_t i = 0; i < p->n; i++)
        if (i != j && !(removed && removed[i]))
            largest = fmax(largest, fabs(inner(p->rows + i * p->d, r, p->d)));
    const double alpha = largest / (p->tau * p->gamma);
    assert_true(fabs(alpha - s->alpha[j]) <= 1e-14 * (1.0 + alpha));
    *objective = 0.0;
    for (int64_t i = 0; i < p->n; i++) {
        for (int64_t t = 0; c[i] != 0.0 && t < p->d; t++)
            r[t] -= c[i] * (double)p->rows[i * p->d + t];
        *objective += p->tau * fabs(c[i]) + 0.5 * (1.0 - p->tau) * c[i] * c[i];
    }
    for (int64_t t = 0; alpha > 0.0 && t < p->d; t++)
        *objective += r[t] * r[t] / (2.0 * alpha);
    for (int64_t i = 0; alpha > 0.0 && i < p->n; i++) {
        if (i == j || (removed && removed[i])) {
            assert_true(c[i] == 0.0);
            continue;
        }
        const double g = inner(p->rows + i * p->d, r, p->d) / alpha;
        worst = fmax(worst, fabs(c[i]) > 1e-10
                                ? fabs(g - (1.0 - p->tau) * c[i] - copysign(p->tau, c[i]))
                                : fabs(g) - p->tau);
    }
    free(r);
    return worst;
}

/* Every row obeys the conditions, and the certificate says by how much. */
static void check_conditions(const problem *p, const solution *s, const uint8_t *removed,
                             const char *what) {
    double worst = 0.0, total = 0.0, objective = 0.0;
    for (int64_t j = 0; j < p->n; j++) {
        if (removed && removed[j]) {
            for (int64_t i = 0; i < p->n; i++)
                assert_true(s->c[j * p->n + i] == 0.0);
            continue;
        }
        worst = fmax(worst, conditions(p, s, removed, j, &objective));
        total += objective;
    }
    if (!(worst <= 1e-9) || !(worst <= s->summary.stationarity + 1e-11))
        fail_msg("%s: stationarity %g, certified %g", what, worst, s->summary.stationarity);
    if (!(fabs(total - s->summary.objective) <= 1e-12 * total))
        fail_msg("%s: objective %.17g, reported %.17g", what, total, s->summary.objective);
}

static double largest_difference(const double *a, const double *b, int64_t count) {
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

/* Unit rows of `rank` random directions (0: all) from a fixed generator. */
static float *random_rows(int64_t n, int64_t d, int64_t rank, uint32_t seed) {
    float *rows = malloc((size_t)(n * d) * sizeof *rows);
    double *basis = malloc((size_t)((rank + 1) * d) * sizeof *basis);
    assert_true(rows && basis);
    uint32_t state = seed * 2654435761u + 1u;
#define NEXT() ((state = state * 1664525u + 1013904223u) / 4294967296.0 - 0.5)
    for (int64_t i = 0; i < rank * d; i++)
        basis[i] = NEXT();
    for (int64_t i = 0; i < n; i++) {
        double square = 0.0, *row = malloc((size_t)d * sizeof *row);
        assert_non_null(row);
        for (int64_t t = 0; t < d; t++)
            row[t] = rank ? 0.0 : NEXT();
        for (int64_t k = 0; k < rank; k++) {
            const double weight = NEXT();
            for (int64_t t = 0; t < d; t++)
                row[t] += weight * basis[k * d + t];
        }
        for (int64_t t = 0; t < d; t++)
            square += row[t] * row[t];
        for (int64_t t = 0; t < d; t++)
            rows[i * d + t] = (float)(row[t] / sqrt(square));
        free(row);
    }
#undef NEXT
    free(basis);
    return rows;
}

/* ---------------------------------------------------------------- recorded optima ------------ */

typedef struct record {
    const char *set, *prefix;
    double gamma, tau;
    bool official; /* the published solver reached the optimum there */
} record;

static const record RECORDS[] = {
    {"big", "big_g10_t100", 10.0, 1.0, true},     {"big", "big_g10_t90", 10.0, 0.9, true},
    {"big", "big_g50_t100", 50.0, 1.0, true},     {"big", "big_g50_t90", 50.0, 0.9, true},
    {"small", "small_g10_t100", 10.0, 1.0, true}, {"small", "small_g10_t90", 10.0, 0.9, true},
    {"small", "small_g50_t100", 50.0, 1.0, true}, {"small", "small_g50_t90", 50.0, 0.9, false},
};

static void compare_exact(const problem *p, const solution *s, const record *r) {
    double *exact = load(name(r->prefix, "C_exact"), FEATINV_DTYPE_F64, NULL);
    double *alpha = load(name(r->prefix, "alpha"), FEATINV_DTYPE_F64, NULL);
    double *objective = load(name(r->prefix, "obj_exact"), FEATINV_DTYPE_F64, NULL);
    assert_true(largest_difference(s->alpha, alpha, p->n) <= 1e-15);
    const double apart = largest_difference(s->c, exact, p->n * p->n);
    if (!(apart <= 1e-8))
        fail_msg("%s: coefficients %g apart", r->prefix, apart);
    for (int64_t j = 0; j < p->n; j++) {
        double own = 0.0;
        (void)conditions(p, s, NULL, j, &own);
        if (!(fabs(own - objective[j]) <= 1e-12 * objective[j]))
            fail_msg("%s: row %d: objective %.17g, not %.17g", r->prefix, (int)j, own,
                     objective[j]);
    }
    free(exact);
    free(alpha);
    free(objective);
}

/* The public implementation's solutions: float64, and float32 within its recorded distance. */
static void compare_official(const problem *p, const solution *s, const record *r) {
    if (r->official) {
        double *c = load(name(r->prefix, "C_official"), FEATINV_DTYPE_F64, NULL);
        const double apart = largest_difference(s->c, c, p->n * p->n);
        if (!(apart <= 1e-8))
            fail_msg("%s: %g from the published solution", r->prefix, apart);
        free(c);
    }
    if (r->tau < 1.0)
        return;
    double *c = load(name(r->prefix, "C_official_f32"), FEATINV_DTYPE_F64, NULL);
    const double limit = strcmp(r->set, "small") == 0 ? 9e-4 : 2e-4;
    const double apart = largest_difference(s->c, c, p->n * p->n);
    if (!(apart <= limit))
        fail_msg("%s: %g from the published float32 solution", r->prefix, apart);
    for (int64_t i = 0; i < p->n * p->n; i++)
        if (fabs(s->c[i]) >= 1e-3 || fabs(c[i]) >= 1e-3)
            assert_true(s->c[i] != 0.0 && c[i] != 0.0);
    free(c);
}

static void test_recorded(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof RECORDS / sizeof *RECORDS; i++) {
        const record *r = &RECORDS[i];
        int64_t shape[FEATINV_MAX_DIMS];
        float *rows = load(name(r->set, "X"), FEATINV_DTYPE_F32, shape);
        const problem p = {rows, shape[0], shape[1], r->gamma, r->tau};
        for (int kept = 0; kept < 2; kept++) {
            solution s = solve(&p, kept ? KEPT : 0, 1);
            check_conditions(&p, &s, NULL, r->prefix);
            compare_exact(&p, &s, r);
            compare_official(&p, &s, r);
            free_solution(&s);
        }
        free(rows);
    }
}

/* alpha = 1 / gamma for every row, as the public implementation has it as an option: the restricted
 * solver over all other rows. */
static void test_fixed_alpha(void **state) {
    (void)state;
    int64_t shape[FEATINV_MAX_DIMS];
    float *rows = load("small_X", FEATINV_DTYPE_F32, shape);
    double *exact = load("small_fixed10_t100_C_exact", FEATINV_DTYPE_F64, NULL);
    const int64_t n = shape[0], d = shape[1];
    double *wide = malloc((size_t)(n * d) * sizeof *wide);
    assert_non_null(wide);
    for (int64_t i = 0; i < n * d; i++)
        wide[i] = (double)rows[i];
    fi_lasso lasso = {0};
    CHECK_OK(fi_lasso_reserve(&lasso, (int32_t)n - 1));
    for (int64_t j = 0; j < n; j++)
        for (int descend = 0; descend < 2; descend++) {
            lasso.count = (int32_t)n - 1;
            for (int64_t a = 0; a + 1 < n; a++) {
                const float *atom = rows + (a + (a >= j)) * d;
                lasso.c[a] = 0.0;
                lasso.b[a] = inner(atom, wide + j * d, d);
                for (int64_t k = 0; k + 1 < n; k++)
                    lasso.h[a * lasso.stride + k] = inner(atom, wide + (k + (k >= j)) * d, d);
            }
            if (descend)
                fi_lasso_descend(&lasso, 0.1);
            assert_int_equal(fi_lasso_solve(&lasso, 0.1, 1e-13, 1e-13), 0);
            for (int64_t a = 0; a + 1 < n; a++)
                assert_true(fabs(lasso.c[a] - exact[j * n + a + (a >= j)]) <= 1e-11);
        }
    fi_lasso_free(&lasso);
    free(wide);
    free(rows);
    free(exact);
}

/* ---------------------------------------------------------------- the same, otherwise -------- */

static void test_gram_paths(void **state) {
    (void)state;
    static const int64_t N[] = {2, 63, 257, 700};
    for (size_t i = 0; i < sizeof N / sizeof *N; i++) {
        float *rows = random_rows(N[i], 19, 0, (uint32_t)i);
        const problem p = {rows, N[i], 19, 20.0, 1.0};
        solution kept = solve(&p, KEPT, 1), made = solve(&p, 0, 1);
        check_conditions(&p, &kept, NULL, "kept");
        check_conditions(&p, &made, NULL, "made again");
        assert_memory_equal(kept.alpha, made.alpha, (size_t)p.n * sizeof(double));
        assert_true(largest_difference(kept.c, made.c, p.n * p.n) <= 1e-9);
        free_solution(&kept);
        free_solution(&made);
        free(rows);
    }
}

static void test_threads(void **state) {
    (void)state;
    float *rows = random_rows(600, 24, 0, 5);
    const problem p = {rows, 600, 24, 30.0, 0.95};
    for (int kept = 0; kept < 2; kept++) {
        solution one = solve(&p, kept ? KEPT : 0, 1);
        for (int32_t threads = 2; threads < 4; threads++) {
            solution more = solve(&p, kept ? KEPT : 0, threads);
            assert_memory_equal(one.c, more.c, (size_t)(p.n * p.n) * sizeof(double));
            assert_memory_equal(one.alpha, more.alpha, (size_t)p.n * sizeof(double));
            assert_true(one.summary.objective == more.summary.objective);
            free_solution(&more);
        }
        free_solution(&one);
    }
    free(rows);
}

/* A second call without some rows is a first call on the others. */
static void test_removed(void **state) {
    (void)state;
    enum { N = 320, D = 24 };
    float *rows = random_rows(N, D, 0, 9), left[N * D];
    int64_t kept[N], count = 0;
    uint8_t removed[N];
    for (int64_t i = 0; i < N; i++) {
        removed[i] = i % 4 == 1 || (i > 40 && i < 80);
        if (!removed[i]) {
            memcpy(left + count * D, rows + i * D, D * sizeof *rows);
            kept[count++] = i;
        }
    }
    const problem whole = {rows, N, D, 15.0, 1.0}, part = {left, count, D, 15.0, 1.0};
    solution cold = solve(&part, KEPT, 1);
    for (int path = 0; path < 2; path++) {
        featinv_session *session = open_session(1);
        fi_selfrep *selfrep = NULL;
        CHECK_OK(fi_selfrep_create(&selfrep, session, rows, N, D, whole.gamma, whole.tau,
                                   path ? KEPT : 0));
        solution s = new_solution(N), first = new_solution(N);
        solve_again(&first, selfrep, NULL, N);
        check_conditions(&whole, &first, NULL, "first");
        solve_again(&s, selfrep, removed, N);
        check_conditions(&whole, &s, removed, "without removed rows");
        for (int64_t a = 0; a < count; a++)
            for (int64_t b = 0; b < count; b++)
                assert_true(fabs(s.c[kept[a] * N + kept[b]] - cold.c[a * count + b]) <= 1e-9);
        solve_again(&s, selfrep, NULL, N); /* and back */
        assert_true(largest_difference(s.c, first.c, (int64_t)N * N) <= 1e-9);
        free_solution(&s);
        free_solution(&first);
        fi_selfrep_destroy(selfrep);
        featinv_session_destroy(session);
    }
    free_solution(&cold);
    free(rows);
}

/* ---------------------------------------------------------------- awkward rows --------------- */

/* Copies of a few rows; `noise`: how far the copies are apart. */
static float *copies(int64_t n, int64_t d, int64_t distinct, float noise) {
    float *rows = random_rows(n, d, 0, 21);
    for (int64_t i = distinct; i < n; i++)
        for (int64_t t = 0; t < d; t++)
            rows[i * d + t] = rows[i % distinct * d + t] + noise * rows[i * d + t];
    return rows;
}

static void check_rows(float *rows, int64_t n, int64_t d, const char *what) {
    static const double GAMMA[] = {1.5, 10.0, 400.0}, TAU[] = {1.0, 0.9, 0.5};
    for (int g = 0; g < 3; g++)
        for (int t = 0; t < 3; t++)
            for (int kept = 0; kept < 2; kept++) {
                const problem p = {rows, n, d, GAMMA[g], TAU[t]};
                char text[128];
                (void)snprintf(text, sizeof text, "%s, gamma %g, tau %g, %s", what, GAMMA[g],
                               TAU[t], kept ? "kept" : "made again");
                solution s = solve(&p, kept ? KEPT : 0, 1);
                check_conditions(&p, &s, NULL, text);
                free_solution(&s);
            }
    free(rows);
}

static void test_awkward_rows(void **state) {
    (void)state;
    check_rows(copies(60, 12, 20, 0.0f), 60, 12, "three of each");
    check_rows(copies(200, 6, 2, 0.0f), 200, 6, "a hundred of each");
    check_rows(copies(90, 12, 30, 3e-7f), 90, 12, "copies but for rounding");
    check_rows(copies(90, 12, 30, 1e-4f), 90, 12, "nearly copies");
    check_rows(random_rows(80, 16, 3, 2), 80, 16, "rank 3 of 16");
    check_rows(random_rows(40, 1, 0, 3), 40, 1, "width 1");
    check_rows(random_rows(2, 5, 0, 4), 2, 5, "two rows");
    check_rows(random_rows(100, 40, 0, 6), 100, 40, "wide");
    float *constant = random_rows(30, 9, 0, 7);
    for (int64_t t = 0; t < 5 * 9; t++)
        constant[t] = 1.0f / 3.0f; /* unit length */
    check_rows(constant, 30, 9, "constant rows");
}

static void test_alone(void **state) {
    (void)state;
    float rows[4 * 4] = {1.0f, 0, 0, 0, 0, 1.0f, 0, 0, 0, 0, 1.0f, 0, 0, 0, 0, 1.0f};
    for (int64_t n = 1; n <= 4; n += 3) { /* one row; rows without anything in common */
        const problem p = {rows, n, 4, 10.0, 1.0};
        for (int kept = 0; kept < 2; kept++) {
            solution s = solve(&p, kept ? KEPT : 0, 1);
            for (int64_t i = 0; i < n * n; i++)
                assert_true(s.c[i] == 0.0);
            for (int64_t i = 0; i < n; i++)
                assert_true(s.alpha[i] == 0.0);
            assert_true(s.summary.stationarity == 0.0 && s.summary.objective == 0.0);
            free_solution(&s);
        }
    }
}

/* ---------------------------------------------------------------- stopping and failing ------- */

static int32_t stop_after(void *user_data, int64_t done, int64_t total) {
    (void)done, (void)total;
    return (*(int *)user_data)-- <= 0;
}

/* Stopped wherever it looks, and solved afterwards as if nothing had been. */
static void test_cancel(void **state) {
    (void)state;
    float *rows = random_rows(160, 16, 0, 11);
    const problem p = {rows, 160, 16, 20.0, 1.0};
    for (int kept = 0; kept < 2; kept++) {
        solution whole = solve(&p, kept ? KEPT : 0, 1);
        int stopped = 0;
        for (int after = 0;; after++) {
            featinv_session *session = open_session(1);
            fi_selfrep *selfrep = NULL;
            CHECK_OK(fi_selfrep_create(&selfrep, session, rows, p.n, p.d, p.gamma, p.tau,
                                       kept ? KEPT : 0));
            int count = after;
            fi_sparse sparse = {0};
            fi_progress progress = {.call = stop_after, .user_data = &count, .total = p.n};
            const featinv_status status =
                fi_selfrep_solve(selfrep, &sparse, NULL, NULL, NULL, &progress);
            const bool finished = status == FEATINV_OK;
            if (!finished) {
                assert_int_equal(status, FEATINV_ERROR_CANCELLED);
                assert_null(sparse.offsets);
                stopped++;
                solution s = new_solution(p.n);
                solve_again(&s, selfrep, NULL, p.n);
                assert_true(largest_difference(s.c, whole.c, p.n * p.n) <= 1e-9);
                free_solution(&s);
            }
            fi_sparse_free(&sparse);
            fi_selfrep_destroy(selfrep);
            featinv_session_destroy(session);
            if (finished)
                break;
        }
        assert_true(stopped >= 4);
        free_solution(&whole);
    }
    free(rows);
}

static void test_arguments(void **state) {
    (void)state;
    static const struct {
        int64_t n, d;
        double gamma, tau;
        const char *part;
    } CASES[] = {
        {0, 4, 10.0, 1.0, "0 rows"},    {4, 0, 10.0, 1.0, "rows of 0"},
        {4, 4, 0.0, 1.0, "gamma is 0"}, {4, 4, -1.0, 1.0, "gamma is -1"},
        {4, 4, NAN, 1.0, "gamma is"},   {4, 4, INFINITY, 1.0, "gamma is inf"},
        {4, 4, 10.0, 0.0, "tau 0"},     {4, 4, 10.0, 1.5, "tau 1.5"},
        {4, 4, 10.0, NAN, "tau"},
    };
    float rows[16] = {1.0f};
    featinv_session *session = open_session(1);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fi_selfrep *selfrep = NULL;
        CHECK_FAILS(fi_selfrep_create(&selfrep, session, rows, CASES[i].n, CASES[i].d,
                                      CASES[i].gamma, CASES[i].tau, KEPT),
                    FEATINV_ERROR_ARGUMENT, CASES[i].part);
        assert_null(selfrep);
    }
    fi_selfrep_destroy(NULL);
    featinv_session_destroy(session);
}

/* The fake backend fails on request; libtorch does not. */
static void test_backend_failure(void **state) {
    (void)state;
    char info[256];
    CHECK_OK(featinv_backend_info(info, sizeof info));
    if (!strstr(info, "fake"))
        skip();
    static const char *const CALLS[] = {"operand_create", "operand_multiply"};
    float *rows = random_rows(20, 5, 0, 1);
    for (int i = 0; i < 2; i++)
        for (int kept = 0; kept < 2; kept++) {
            if (kept && fi_fixed_supported())
                continue; /* the backend makes nothing then */
            featinv_session *session = open_session(1);
            fi_selfrep *selfrep = NULL;
            fi_sparse sparse = {0};
            fi_progress progress = {.total = 20};
            (void)setenv("FAKE_FAIL", CALLS[i], 1);
            featinv_status status =
                fi_selfrep_create(&selfrep, session, rows, 20, 5, 10.0, 1.0, kept ? KEPT : 0);
            if (!status)
                status = fi_selfrep_solve(selfrep, &sparse, NULL, NULL, NULL, &progress);
            (void)unsetenv("FAKE_FAIL");
            assert_int_equal(status, FEATINV_ERROR_COMPUTE);
            assert_non_null(strstr(featinv_last_error(), CALLS[i]));
            fi_selfrep_destroy(selfrep);
            featinv_session_destroy(session);
        }
    free(rows);
}

/* ---------------------------------------------------------------- workers -------------------- */

static void count_items(void *context, int32_t worker, int64_t first, int64_t last) {
    atomic_int *seen = context;
    assert_in_range(worker, 0, 3);
    for (int64_t i = first; i < last; i++)
        (void)atomic_fetch_add(&seen[i], 1);
}

/* Every item once, whatever the chunks, over many loops. */
static void test_workers(void **state) {
    (void)state;
    enum { ITEMS = 100 };
    for (int32_t count = 1; count <= 4; count++) {
        fi_workers *workers = NULL;
        CHECK_OK(fi_workers_create(&workers, count));
        for (int64_t total = 0; total <= ITEMS; total += 10)
            for (int64_t chunk = 1; chunk < 40; chunk += 6) {
                atomic_int seen[ITEMS] = {0};
                fi_workers_run(workers, count_items, seen, total, chunk);
                for (int64_t i = 0; i < ITEMS; i++)
                    assert_int_equal(atomic_load(&seen[i]), i < total);
            }
        fi_workers_destroy(workers);
    }
    fi_workers_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers),         cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_fixed_alpha),     cmocka_unit_test(test_gram_paths),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_removed),
        cmocka_unit_test(test_awkward_rows),    cmocka_unit_test(test_alone),
        cmocka_unit_test(test_cancel),          cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_backend_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
