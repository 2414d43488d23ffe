/* Percentiles of maps among the training maps, and the statistics that a bundle may hold. */
#include "bundle_maker.h"

#include "scope.h"

#include <math.h>

enum { P = MAP_H * MAP_W, MAP = MAP_C * P };

static float mean[MAP_C], directions[MAP_C * 2], norms[FI_SCOPE_STEPS], residuals[FI_SCOPE_STEPS];
static int64_t direction_shape[2], table_shape[1];

/* Good statistics: one direction along the first channel, norms 0 to 100, residuals 0 to 10. */
static int setup(void **state) {
    (void)state;
    make_bundle();
    memset(directions, 0, sizeof directions);
    mean[0] = 1.0f;
    mean[1] = -2.0f;
    mean[2] = 0.5f;
    directions[0] = 1.0f;
    direction_shape[0] = MAP_C;
    direction_shape[1] = 1;
    table_shape[0] = FI_SCOPE_STEPS;
    for (int i = 0; i < FI_SCOPE_STEPS; i++) {
        norms[i] = (float)i;
        residuals[i] = 0.1f * (float)i;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_bundle();
    return 0;
}

/* Writes features.npz with those of the arrays whose bit is set: mean, directions, norms,
 * residuals. */
static void put_features(int which) {
    int64_t channels[1] = {MAP_C};
    const featinv_tensor all[4] = {
        featinv_tensor_view(mean, FEATINV_DTYPE_F32, 1, channels),
        featinv_tensor_view(directions, FEATINV_DTYPE_F32, 2, direction_shape),
        featinv_tensor_view(norms, FEATINV_DTYPE_F32, 1, table_shape),
        featinv_tensor_view(residuals, FEATINV_DTYPE_F32, 1, table_shape)};
    static const char *const all_names[4] = {"mean", "directions", "norms", "residuals"};
    featinv_tensor arrays[4];
    const char *names[4];
    int32_t count = 0;
    for (int i = 0; i < 4; i++)
        if (which & 1 << i) {
            names[count] = all_names[i];
            arrays[count++] = all[i];
        }
    CHECK_OK(featinv_array_write(in_bundle("features.npz"), arrays, names, count, 0));
    put_manifest(NULL);
}

static void percentiles_are_interpolated(void **state) {
    (void)state;
    float table[FI_SCOPE_STEPS];
    for (int i = 0; i < FI_SCOPE_STEPS; i++)
        table[i] = i < 10 ? 0.0f : 2.0f * (float)i;
    static const struct {
        double value, wanted;
    } cases[] = {
        {-1.0, 0.0}, {0.0, 4.5},     {10.0, 9.5},  {20.0, 10.0}, {23.0, 11.5},
        {199, 99.5}, {200.0, 100.0}, {1e9, 100.0}, {19.0, 9.95},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = fi_scope_percentile(table, cases[i].value);
        if (fabs(got - cases[i].wanted) > 1e-12)
            fail_msg("%g: %g, wanted %g", cases[i].value, got, cases[i].wanted);
    }
}

static void maps_are_placed(void **state) {
    (void)state;
    featinv_model *model = NULL;
    put_features(15);
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    float maps[2 * MAP] = {0};
    for (int p = 0; p < P; p++) {
        maps[p] = (float)(30 * p); /* lengths 0, 30, 60, 90: mean 45 */
        maps[MAP + p] = 7.0f;      /* off mean and direction: (5, .5) at each position */
        maps[MAP + P + p] = 3.0f;
        maps[MAP + 2 * P + p] = 1.0f;
    }
    int64_t shape[4] = {2, MAP_C, MAP_H, MAP_W};
    featinv_tensor view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape);
    double norm[2], residual[2];
    CHECK_OK(featinv_features_scope(norm, residual, model, &view));
    assert_true(fabs(norm[0] - 45.0) < 1e-4);
    assert_true(fabs(norm[1] - sqrt(59.0)) < 1e-4);
    assert_true(fabs(residual[0] - 10.0 * sqrt(4.25)) < 1e-4); /* the mean's other channels */
    assert_true(fabs(residual[1] - 10.0 * sqrt(25.25)) < 1e-4);
    double alone[2];
    CHECK_OK(featinv_features_scope(alone, NULL, model, &view));
    assert_memory_equal(alone, norm, sizeof norm);
    CHECK_OK(featinv_features_scope(NULL, alone, model, &view));
    assert_memory_equal(alone, residual, sizeof residual);
    for (int i = 0; i < MAP; i++)
        maps[i] *= 1e6f;
    CHECK_OK(featinv_features_scope(norm, residual, model, &view));
    assert_true(norm[0] == 100.0 && residual[0] < 100.0); /* far along the direction only */

    maps[5] = NAN;
    CHECK_FAILS(featinv_features_scope(norm, NULL, model, &view), FEATINV_ERROR_VALUE, "NaN");
    shape[1] = 2;
    CHECK_FAILS(featinv_features_scope(norm, NULL, model, &view), FEATINV_ERROR_SHAPE, "maps");
    CHECK_FAILS(featinv_features_scope(norm, NULL, NULL, &view), FEATINV_ERROR_ARGUMENT, "model");
    featinv_model_release(model);
}

static void a_bundle_may_hold_the_mean_alone(void **state) {
    (void)state;
    featinv_model *model = NULL;
    put_features(1);
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    float maps[MAP] = {0};
    int64_t shape[4] = {1, MAP_C, MAP_H, MAP_W};
    featinv_tensor view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape);
    double norm = -1.0;
    CHECK_FAILS(featinv_features_scope(&norm, NULL, model, &view), FEATINV_ERROR_UNSUPPORTED,
                "no statistics");
    assert_true(norm == -1.0);
    featinv_model_release(model);
}

static void refused(const char *part) {
    featinv_model *model = NULL;
    put_features(15);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, part);
    assert_null(model);
}

static void bad_statistics_are_refused(void **state) {
    (void)state;
    featinv_model *model = NULL;
    for (int which = 3; which < 15; which += 2) { /* the mean with some of the others */
        put_features(which);
        CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE,
                    "belong together");
    }
    norms[50] = 40.0f;
    refused("norms must ascend");
    norms[50] = NAN;
    refused("norms must ascend");
    norms[50] = 50.0f;
    residuals[100] = INFINITY;
    refused("residuals must ascend");
    residuals[100] = 10.0f;
    residuals[0] = -1.0f;
    refused("residuals must ascend");
    residuals[0] = 0.0f;
    directions[1] = 0.1f;
    refused("directions 0 and 0 are not orthonormal");
    directions[1] = NAN;
    refused("NaN");
    directions[1] = 0.0f;
    direction_shape[1] = 2; /* (1, 0), (0, 0), (0, 0) */
    refused("directions 1 and 1 are not orthonormal");
    direction_shape[0] = 2;
    refused("directions must be (3, 1 to 3)");
    direction_shape[0] = MAP_C;
    direction_shape[1] = 0;
    refused("directions must be (3, 1 to 3)");
    direction_shape[1] = 1;
    table_shape[0] = 100;
    refused("norms must hold 101");
    table_shape[0] = FI_SCOPE_STEPS;
    mean[1] = NAN;
    refused("mean: NaN at element 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_interpolated),
        cmocka_unit_test_setup_teardown(maps_are_placed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bundle_may_hold_the_mean_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_statistics_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
