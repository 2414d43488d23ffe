/* featinv_concepts_fit over the fake backend: the whole path, failures of the backend at each place
 * where it is called, cancellation, options. The arithmetic against recorded arrays is in
 * tests/concepts/test_clustering.py. */
#include "check.h"

#include "noise.h"

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

enum { ROWS = 60, CHANNELS = 8 };

/* Rows in two orthogonal subspaces of 8 channels: even ones in the first three channels, odd ones
 * in the next three. */
static float *spaces(void) {
    static float rows[ROWS * CHANNELS];
    float noise[3 * ROWS];
    fi_noise(noise, 3 * ROWS, 4, 0, 0, 98);
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < 3; j++)
            rows[i * CHANNELS + i % 2 * 3 + j] = noise[3 * i + j];
    return rows;
}

static featinv_status fit(featinv_concepts **out, const featinv_fit_options *options) {
    static int64_t shape[2] = {ROWS, CHANNELS};
    featinv_tensor rows = featinv_tensor_view(spaces(), FEATINV_DTYPE_F32, 2, shape);
    return featinv_concepts_fit(out, session, &rows, options);
}

static featinv_fit_options options_of(featinv_concept_method method, int32_t count) {
    featinv_fit_options options;
    CHECK_OK(featinv_fit_options_init(&options, sizeof options));
    options.method = method;
    options.count = count;
    return options;
}

static void test_defaults(void **state) {
    (void)state;
    featinv_fit_options o;
    CHECK_OK(featinv_fit_options_init(&o, sizeof o));
    assert_int_equal(o.struct_size, sizeof o);
    assert_true(o.method == FEATINV_CONCEPTS_MCD && o.count == 0 && o.max_count == 10);
    assert_true(o.rule == FEATINV_COUNT_RATIO && o.basis == FEATINV_BASIS_ORIGIN);
    assert_true(o.gamma == 10.0 && o.tau == 1.0 && o.outlier_quantile == 0.75);
    assert_true(o.max_rows == 0 && o.memory == (int64_t)1 << 31 && o.seed == 0);
    assert_true(o.restarts == 20 && o.dimension == 0 && o.completeness == 0.5);
    assert_true(!o.orthogonalize && !o.keep_coefficients && !o.weight && !o.class_name);
    assert_true(!o.progress && !o.user_data);
    CHECK_FAILS(featinv_fit_options_init(NULL, sizeof o), FEATINV_ERROR_ARGUMENT, "struct");
}

/* With NULL options the ratio rule finds both. */
static void test_two_spaces(void **state) {
    (void)state;
    featinv_concepts *concepts;
    featinv_concepts_details info = {.struct_size = sizeof info};
    CHECK_OK(fit(&concepts, NULL));
    CHECK_OK(featinv_concepts_info(&info, concepts));
    assert_true(info.count == 2 && info.total == 6 && info.channels == CHANNELS);
    assert_true(info.label_ndim == 1 && info.label_shape[0] == ROWS);
    assert_true(info.rows == ROWS && info.rows_removed > 0 && info.rows_removed <= ROWS / 4);
    assert_true(info.eigenvalue_count == 10 && info.eigenvalues[1] == 0.0);
    assert_true(info.stationarity <= 1e-9 && info.objective > 0.0);
    int32_t even = -1;
    for (int i = 0; i < ROWS; i++)
        if (info.labels[i] >= 0) {
            even = even < 0 ? (info.labels[i] + i) % 2 : even;
            assert_int_equal((info.labels[i] + i) % 2, even);
        }
    for (int concept = 0; concept < 2; concept ++)
        for (int c = 0; c < CHANNELS; c++) { /* each basis spans the channels of its rows */
            double squares = 0.0;
            for (int j = 3 * concept; j < 3 * concept + 3; j++)
                squares += info.bases[c * 6 + j] * info.bases[c * 6 + j];
            int space = (concept + even) % 2;
            assert_true(fabs(squares - (c / 3 == space)) <= 1e-12);
        }
    assert_true(fabs(info.smallest_angle - 1.5707963267948966) <= 1e-7);
    featinv_concepts_release(concepts);
}

static void test_methods(void **state) {
    (void)state;
    for (featinv_concept_method method = FEATINV_CONCEPTS_MCD; method <= FEATINV_CONCEPTS_PCA;
         method++)
        for (int32_t count = 1; count <= 2; count++) {
            featinv_concepts *concepts;
            featinv_concepts_details info = {.struct_size = sizeof info};
            featinv_fit_options options = options_of(method, count);
            options.class_name = "boat";
            CHECK_OK(fit(&concepts, &options));
            CHECK_OK(featinv_concepts_info(&info, concepts));
            assert_true(info.count == count && info.method == method);
            assert_string_equal(info.class_name, "boat");
            assert_int_equal(isnan(info.gamma) != 0, method != FEATINV_CONCEPTS_MCD);
            assert_int_equal(info.labels == NULL, method == FEATINV_CONCEPTS_PCA);
            featinv_concepts_release(concepts);
        }
}

/* Every place where the backend can fail: a status, a text, nothing leaked. */
static void test_failing_backend(void **state) {
    (void)state;
    static const struct {
        const char *function;
        featinv_concept_method method;
    } cases[] = {{"eigh", FEATINV_CONCEPTS_MCD},
                 {"operand_create", FEATINV_CONCEPTS_MCD},
                 {"operand_multiply", FEATINV_CONCEPTS_MCD},
                 {"gemm", FEATINV_CONCEPTS_MCD},
                 {"eigh", FEATINV_CONCEPTS_PCA}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        featinv_concepts *concepts = (featinv_concepts *)&session;
        featinv_fit_options options = options_of(cases[c].method, 2);
        options.memory = 1; /* else the Gram matrix may do without the backend */
        setenv("FAKE_FAIL", cases[c].function, 1);
        featinv_status status = fit(&concepts, &options);
        unsetenv("FAKE_FAIL");
        if (status != FEATINV_ERROR_COMPUTE || !strstr(featinv_last_error(), cases[c].function))
            fail_msg("%s: %d %s", cases[c].function, status, featinv_last_error());
        assert_null(concepts);
    }
}

typedef struct watch {
    int64_t calls, stop_at, last, total;
} watch;

static int32_t watch_progress(void *user_data, int64_t done, int64_t total) {
    watch *w = user_data;
    assert_true(done >= w->last && done <= total);
    w->last = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

/* Stopped at each progress call in turn, until one fit runs to its end. */
static void test_cancel_everywhere(void **state) {
    (void)state;
    featinv_status status = FEATINV_ERROR_CANCELLED;
    int64_t stops = 0;
    for (int64_t at = 1; status && at < 1000; at++) {
        featinv_concepts *concepts = NULL;
        watch w = {.stop_at = at};
        featinv_fit_options options = options_of(FEATINV_CONCEPTS_MCD, 2);
        options.progress = watch_progress;
        options.user_data = &w;
        status = fit(&concepts, &options);
        if (status) {
            CHECK_FAILS(status, FEATINV_ERROR_CANCELLED, "cancelled after");
            assert_null(concepts);
            stops++;
        } else {
            assert_true(w.last == w.total && w.total == 3 * ROWS);
        }
        featinv_concepts_release(concepts);
    }
    assert_int_equal(status, FEATINV_OK);
    assert_true(stops >= 3);
}

static void test_refused(void **state) {
    (void)state;
    featinv_concepts *concepts;
    int64_t shape[2] = {ROWS, CHANNELS};
    featinv_tensor rows = featinv_tensor_view(spaces(), FEATINV_DTYPE_F32, 2, shape);
    featinv_fit_options options = options_of(FEATINV_CONCEPTS_MCD, 2);
    CHECK_FAILS(featinv_concepts_fit(NULL, session, &rows, NULL), FEATINV_ERROR_ARGUMENT,
                "no place");
    CHECK_FAILS(featinv_concepts_fit(&concepts, NULL, &rows, NULL), FEATINV_ERROR_ARGUMENT,
                "no session");
    CHECK_FAILS(featinv_concepts_fit(&concepts, session, NULL, NULL), FEATINV_ERROR_ARGUMENT,
                "no features");
    options.struct_size = 3;
    CHECK_FAILS(fit(&concepts, &options), FEATINV_ERROR_ARGUMENT, "struct_size");
}

/* An older caller's shorter options: what it does not know keeps its default. */
static void test_short_options(void **state) {
    (void)state;
    featinv_concepts *concepts;
    featinv_concepts_details info = {.struct_size = sizeof info};
    featinv_fit_options options = options_of(FEATINV_CONCEPTS_MCD, 2);
    options.struct_size = offsetof(featinv_fit_options, gamma);
    options.gamma = -1.0; /* beyond the caller's struct */
    CHECK_OK(fit(&concepts, &options));
    CHECK_OK(featinv_concepts_info(&info, concepts));
    assert_true(info.gamma == 10.0);
    featinv_concepts_release(concepts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_two_spaces),
        cmocka_unit_test(test_methods),           cmocka_unit_test(test_failing_backend),
        cmocka_unit_test(test_cancel_everywhere), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_short_options),
    };
    return cmocka_run_group_tests_name("concepts_fit", tests, open_session, close_session);
}
