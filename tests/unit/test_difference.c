/* Difference maps of picture pairs, by hand; the recorded ones are in tests/concepts. */
#include "check.h"

#include <math.h>

enum { PIXELS = 4 };

static int64_t plane[2] = {2, 2};

typedef struct result {
    float map[PIXELS];
    uint8_t mask[PIXELS];
    double maximum;
} result;

/* Pixel i of pair k differs by levels[k][i] in red; the original holds 255 where that is
 * negative. */
static featinv_status compare(result *r, const int levels[][PIXELS], int pairs,
                              featinv_normalize normalization, double threshold) {
    uint8_t originals[8 * PIXELS * 3] = {0}, altered[8 * PIXELS * 3] = {0};
    int64_t shape[4] = {pairs, 2, 2, 3};
    for (int i = 0; i < pairs * PIXELS; i++) {
        int level = levels[i / PIXELS][i % PIXELS];
        originals[3 * i] = level < 0 ? 255 : 0;
        altered[3 * i] = (uint8_t)(level < 0 ? 255 + level : level);
        originals[3 * i + 1] = altered[3 * i + 1] = 99;
    }
    featinv_tensor a = featinv_tensor_view(originals, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor b = featinv_tensor_view(altered, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor map = featinv_tensor_view(r->map, FEATINV_DTYPE_F32, 2, plane);
    featinv_tensor mask = featinv_tensor_view(r->mask, FEATINV_DTYPE_U8, 2, plane);
    return featinv_difference_map(&map, &mask, &r->maximum, &a, &b, normalization, threshold);
}

static void odd_and_even_medians(void **state) {
    (void)state;
    static const int three[3][PIXELS] = {{0, 10, -100, 200}, {0, -30, 20, 100}, {255, 20, 60, 0}};
    static const int two[2][PIXELS] = {{0, 10, 200, 50}, {100, 30, -100, 50}};
    result r;
    CHECK_OK(compare(&r, three, 3, FEATINV_NORMALIZE_MAX, 0.33));
    const double wanted[PIXELS] = {0.0, 20.0, 60.0, 100.0};
    assert_true(fabs(r.maximum - 100.0 / 255.0) < 1e-15);
    for (int i = 0; i < PIXELS; i++) {
        assert_true(fabs((double)r.map[i] - wanted[i] / 100.0) < 1e-7);
        assert_int_equal(r.mask[i], wanted[i] / 100.0 < 0.33);
    }
    CHECK_OK(compare(&r, two, 2, FEATINV_NORMALIZE_MINMAX, 0.25));
    const double even[PIXELS] = {50.0, 20.0, 150.0, 50.0};
    assert_true(fabs(r.maximum - 150.0 / 255.0) < 1e-15);
    for (int i = 0; i < PIXELS; i++) {
        assert_true(fabs((double)r.map[i] - (even[i] - 20.0) / 130.0) < 1e-7);
        assert_int_equal(r.mask[i], (even[i] - 20.0) / 130.0 < 0.25);
    }
}

static void distance_is_euclidean_over_rgb(void **state) {
    (void)state;
    uint8_t a[3] = {10, 250, 0}, b[3] = {13, 246, 12};
    int64_t shape[4] = {1, 1, 1, 3};
    featinv_tensor x = featinv_tensor_view(a, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor y = featinv_tensor_view(b, FEATINV_DTYPE_U8, 4, shape);
    double maximum = 0.0;
    CHECK_OK(featinv_difference_map(NULL, NULL, &maximum, &x, &y, FEATINV_NORMALIZE_MAX, 0.33));
    assert_true(fabs(maximum - 13.0 / 255.0) < 1e-15); /* 3, 4, 12 */
}

static void the_threshold_itself_is_affected(void **state) {
    (void)state;
    static const int levels[1][PIXELS] = {{0, 127, 128, 255}};
    result r;
    CHECK_OK(compare(&r, levels, 1, FEATINV_NORMALIZE_MAX, 1.0));
    assert_int_equal(r.mask[2], 1);
    assert_int_equal(r.mask[3], 0);
    CHECK_OK(compare(&r, levels, 1, FEATINV_NORMALIZE_MAX, 0.0));
    for (int i = 0; i < PIXELS; i++)
        assert_int_equal(r.mask[i], 0);
}

static void nothing_to_normalise(void **state) {
    (void)state;
    static const int none[2][PIXELS] = {{0}}, even[1][PIXELS] = {{7, 7, 7, 7}};
    result r;
    for (featinv_normalize n = 0; n < 2; n++) {
        CHECK_OK(compare(&r, none, 2, n, 0.0));
        assert_true(r.maximum == 0.0);
        for (int i = 0; i < PIXELS; i++)
            assert_true(r.map[i] == 0.0f && r.mask[i] == 1);
        CHECK_OK(compare(&r, even, 1, n, 0.33));
        assert_true(fabs(r.maximum - 7.0 / 255.0) < 1e-15);
        for (int i = 0; i < PIXELS; i++) {
            assert_true(r.map[i] == (n == FEATINV_NORMALIZE_MAX ? 1.0f : 0.0f));
            assert_int_equal(r.mask[i], n == FEATINV_NORMALIZE_MINMAX);
        }
    }
}

static void bad_calls_are_refused(void **state) {
    (void)state;
    static const int levels[1][PIXELS] = {{0}};
    result r;
    CHECK_FAILS(compare(&r, levels, 1, 2, 0.3), FEATINV_ERROR_ARGUMENT, "normalization is 2");
    CHECK_FAILS(compare(&r, levels, 1, 0, NAN), FEATINV_ERROR_ARGUMENT, "threshold is nan");
    CHECK_FAILS(compare(&r, levels, 1, 0, INFINITY), FEATINV_ERROR_ARGUMENT, "threshold is inf");
    CHECK_FAILS(compare(&r, levels, 0, 0, 0.3), FEATINV_ERROR_SHAPE, "(0, 2, 2, 3)");
    uint8_t bytes[2 * PIXELS * 3] = {0};
    float floats[PIXELS];
    int64_t one[4] = {1, 2, 2, 3}, two[4] = {2, 2, 2, 3}, grey[4] = {1, 2, 2, 1}, line[2] = {1, 4};
    featinv_tensor a = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 4, one);
    featinv_tensor b = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 4, two);
    featinv_tensor g = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 4, grey);
    featinv_tensor map = featinv_tensor_view(floats, FEATINV_DTYPE_F32, 2, line);
    featinv_tensor mask = featinv_tensor_view(floats, FEATINV_DTYPE_F32, 2, plane);
    CHECK_FAILS(featinv_difference_map(NULL, NULL, NULL, &a, &b, 0, 0.3), FEATINV_ERROR_SHAPE,
                "altered");
    CHECK_FAILS(featinv_difference_map(NULL, NULL, NULL, &g, &g, 0, 0.3), FEATINV_ERROR_SHAPE,
                "originals");
    CHECK_FAILS(featinv_difference_map(&map, NULL, NULL, &a, &a, 0, 0.3), FEATINV_ERROR_SHAPE,
                "map");
    CHECK_FAILS(featinv_difference_map(NULL, &mask, NULL, &a, &a, 0, 0.3), FEATINV_ERROR_SHAPE,
                "mask");
    CHECK_FAILS(featinv_difference_map(NULL, NULL, NULL, NULL, &a, 0, 0.3), FEATINV_ERROR_ARGUMENT,
                "originals");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_and_even_medians),
        cmocka_unit_test(distance_is_euclidean_over_rgb),
        cmocka_unit_test(the_threshold_itself_is_affected),
        cmocka_unit_test(nothing_to_normalise),
        cmocka_unit_test(bad_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
