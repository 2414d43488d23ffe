/* Schedules against the recorded ones of the published code, and the counts it refuses. */
#include "check.h"

#include "array.h"
#include "schedule.h"

#include <math.h>
#include <stdbool.h>

static void *load(const char *member, featinv_dtype dtype, int64_t *count) {
    char path[1024];
    const char *folder = getenv("FEATINV_REFERENCE");
    featinv_array_info info;
    void *data = NULL;
    (void)snprintf(path, sizeof path, "%s/featinv/ddim.npz", folder ? folder : "tests/data");
    CHECK_OK(fi_array_load(&data, &info, path, member, dtype));
    *count = info.shape[0];
    return data;
}

static void alphas_are_the_published_ones(void **state) {
    (void)state;
    float alphas[1000];
    int64_t count;
    float *recorded = load("alphas_cumprod", FEATINV_DTYPE_F32, &count);
    assert_int_equal(count, 1000);
    fi_alphas(alphas, 1000, 0.00085, 0.012, FI_BETA_SCALED_LINEAR);
    for (int i = 0; i < 1000; i++)
        if (fabsf(alphas[i] - recorded[i]) > 1e-7f * recorded[i])
            fail_msg("alpha %d is %.9g, recorded %.9g", i, (double)alphas[i], (double)recorded[i]);
    free(recorded);
}

static void check_recorded(int steps, double eta, const char *sigma_name) {
    char name[64];
    float alphas[1000];
    fi_schedule s;
    int64_t n;
    fi_alphas(alphas, 1000, 0.00085, 0.012, FI_BETA_SCALED_LINEAR);
    CHECK_OK(fi_schedule_make(&s, alphas, 1000, steps, FEATINV_SPACING_LEGACY, eta));
    (void)snprintf(name, sizeof name, "timesteps_S%d", steps);
    int64_t *t = load(name, FEATINV_DTYPE_NONE, &n);
    assert_int_equal(n, s.steps);
    (void)snprintf(name, sizeof name, "alphas_prev_S%d", steps);
    double *previous = load(name, FEATINV_DTYPE_F64, &n);
    double *sigma = load(sigma_name, FEATINV_DTYPE_F64, &n);
    for (int i = 0; i < s.steps; i++) { /* recorded in ascending time */
        int j = s.steps - 1 - i;
        assert_int_equal(t[j], s.timesteps[i]);
        assert_true(fabs(previous[j] - s.alpha_prev[i]) < 1e-7);
        assert_true(fabs(sigma[j] - s.sigma[i]) < 1e-6);
    }
    free(t);
    free(previous);
    free(sigma);
    fi_schedule_free(&s);
}

static void runs_are_the_published_ones(void **state) {
    (void)state;
    check_recorded(5, 0.0, "sigmas_eta0_S5");
    check_recorded(10, 0.0, "sigmas_eta0_S10");
    check_recorded(10, 1.0, "sigmas_eta1_S10");
    check_recorded(50, 0.0, "sigmas_eta0_S50");
}

static void legacy_spacing_refuses_what_overflows(void **state) {
    (void)state;
    int refused = 0, exact = 0;
    for (int32_t steps = 1; steps <= 1000; steps++) {
        int32_t count = 0;
        featinv_status status = featinv_timesteps(NULL, 0, &count, steps, FEATINV_SPACING_LEGACY);
        bool listed = steps == 3 || steps == 9 || steps == 27 || steps == 36 || steps == 37 ||
                      (steps >= 101 && steps <= 111) || (steps >= 251 && steps <= 333) ||
                      steps >= 501;
        assert_int_equal(status != FEATINV_OK, listed);
        refused += status != FEATINV_OK;
        exact += status == FEATINV_OK && count == steps;
    }
    assert_int_equal(refused, 599);
    assert_int_equal(exact, 15);
}

static void leading_and_trailing_fit_the_schedule(void **state) {
    (void)state;
    static const featinv_spacing spacings[] = {FEATINV_SPACING_LEADING, FEATINV_SPACING_TRAILING};
    int32_t t[999];
    for (int k = 0; k < 2; k++)
        for (int32_t steps = 1; steps <= 999; steps++) {
            int32_t count = 0;
            CHECK_OK(featinv_timesteps(t, 999, &count, steps, spacings[k]));
            assert_int_equal(count, steps);
            for (int32_t i = 1; i < steps; i++)
                assert_true(t[i] > t[i - 1]);
            assert_true(t[0] >= 0 && t[steps - 1] <= 999);
            assert_true(k == 0 || t[steps - 1] == 999);
        }
    int32_t count = 0;
    CHECK_OK(featinv_timesteps(t, 999, &count, 50, FEATINV_SPACING_LEADING));
    assert_int_equal(t[0], 1);
    assert_int_equal(t[49], 981);
}

static void bad_counts_are_refused(void **state) {
    (void)state;
    static const int32_t counts[] = {0, -1, 1000, 2000000000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char value[32];
        int32_t n;
        (void)snprintf(value, sizeof value, "%d", counts[i]);
        CHECK_FAILS(featinv_timesteps(NULL, 0, &n, counts[i], FEATINV_SPACING_LEADING),
                    FEATINV_ERROR_ARGUMENT, value);
    }
    int32_t n;
    CHECK_FAILS(featinv_timesteps(NULL, 0, &n, 5, 9), FEATINV_ERROR_ARGUMENT, "spacing is 9");
    float alphas[1000];
    fi_schedule s;
    fi_alphas(alphas, 1000, 0.00085, 0.012, FI_BETA_COSINE);
    assert_true(alphas[999] < 1e-3f && alphas[0] > 0.99f);
    CHECK_FAILS(fi_schedule_make(&s, alphas, 1000, 5, FEATINV_SPACING_LEADING, NAN),
                FEATINV_ERROR_ARGUMENT, "eta is nan");
    CHECK_FAILS(fi_schedule_make(&s, alphas, 1000, 5, FEATINV_SPACING_LEADING, 50.0),
                FEATINV_ERROR_ARGUMENT, "eta is 50");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alphas_are_the_published_ones),
        cmocka_unit_test(runs_are_the_published_ones),
        cmocka_unit_test(legacy_spacing_refuses_what_overflows),
        cmocka_unit_test(leading_and_trailing_fit_the_schedule),
        cmocka_unit_test(bad_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
