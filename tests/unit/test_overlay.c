/* Heat maps over images: colours in order, enlarging, and the outline's place and weight. */
#include "check.h"

#include <math.h>

enum { SIDE = 64 };

static uint8_t pixels[SIDE * SIDE * 3], out[SIDE * SIDE * 3];

static featinv_status overlay(int width, int height, float *heat, int64_t h, int64_t w,
                              double opacity, double contour) {
    featinv_image image = {pixels, width, height, 0};
    int64_t shape[2] = {h, w};
    featinv_tensor view = featinv_tensor_view(heat, FEATINV_DTYPE_F32, 2, shape);
    return featinv_image_overlay(out, &image, &view, opacity, contour);
}

static int fill(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37 % 251);
    return 0;
}

static void without_heat_or_opacity_it_is_the_image(void **state) {
    (void)state;
    float cold[1] = {0.0f}, hot[1] = {1.0f};
    CHECK_OK(overlay(SIDE, SIDE, cold, 1, 1, 1.0, NAN));
    assert_memory_equal(out, pixels, sizeof out);
    CHECK_OK(overlay(SIDE, SIDE, hot, 1, 1, 0.0, NAN));
    assert_memory_equal(out, pixels, sizeof out);
    CHECK_OK(overlay(SIDE, SIDE, hot, 1, 1, 1.0, 0.5)); /* nowhere crossed */
    for (int i = 0; i < SIDE * SIDE; i++)
        assert_true(out[3 * i] == 252 && out[3 * i + 1] == 255 && out[3 * i + 2] == 164);
}

static double lightness(const uint8_t *rgb) {
    static const double share[3] = {0.2126, 0.7152, 0.0722};
    double y = 0.0;
    for (int c = 0; c < 3; c++) {
        double v = rgb[c] / 255.0;
        y += share[c] * (v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
    }
    return y > 0.008856 ? 116.0 * cbrt(y) - 16.0 : 903.3 * y;
}

/* On black, with the share of the blend taken out again: the colours themselves. */
static void colours_are_ordered_by_lightness(void **state) {
    (void)state;
    double before = -1.0;
    memset(pixels, 0, sizeof pixels);
    for (int i = 2; i <= 20; i++) {
        float heat[1] = {(float)i / 20.0f};
        uint8_t rgb[3];
        CHECK_OK(overlay(1, 1, heat, 1, 1, 1.0, NAN));
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)fmin(255.0, out[c] * 20.0 / i + 0.5);
        double now = lightness(rgb);
        if (now < before + 2.0 || now > before + 12.0)
            if (i > 2)
                fail_msg("heat %g: lightness %g after %g", (double)heat[0], now, before);
        before = now;
    }
}

static void opacity_times_heat_is_the_share(void **state) {
    (void)state;
    float heat[1] = {1.0f}, outside[1] = {7.0f};
    CHECK_OK(overlay(SIDE, 1, heat, 1, 1, 0.25, NAN));
    static const double top[3] = {252.0, 255.0, 164.0};
    for (int i = 0; i < 3 * SIDE; i++)
        assert_true(fabs(out[i] - (0.75 * pixels[i] + 0.25 * top[i % 3])) <= 0.5 + 1e-9);
    uint8_t kept[3 * SIDE];
    memcpy(kept, out, sizeof kept);
    CHECK_OK(overlay(SIDE, 1, outside, 1, 1, 0.25, NAN)); /* clipped */
    assert_memory_equal(out, kept, sizeof kept);
}

/* Two cells over eight pixels: half-pixel centres put 0, 0, 1/8, 3/8, 5/8, 7/8, 1, 1 there. */
static void enlarging_has_half_pixel_centres(void **state) {
    (void)state;
    float two[2] = {0.0f, 1.0f}, eight[8] = {0, 0, .125f, .375f, .625f, .875f, 1, 1};
    uint8_t wanted[8 * 3];
    CHECK_OK(overlay(8, 1, eight, 1, 8, 0.8, NAN));
    memcpy(wanted, out, sizeof wanted);
    CHECK_OK(overlay(8, 1, two, 1, 2, 0.8, NAN));
    assert_memory_equal(out, wanted, sizeof wanted);
    CHECK_OK(overlay(1, 8, two, 2, 1, 0.8, NAN));
    for (int i = 0; i < 8; i++) /* the same image bytes in the same order */
        assert_memory_equal(out + 3 * i, wanted + 3 * i, 3);
}

/* Heat rises to the right; the level is crossed at x = 31.5 between two columns of pixels. */
static void the_outline_lies_on_the_level(void **state) {
    (void)state;
    static float heat[SIDE * SIDE];
    memset(pixels, 0, sizeof pixels);
    for (int i = 0; i < SIDE * SIDE; i++)
        heat[i] = (float)(i % SIDE) / 63.0f;
    CHECK_OK(overlay(SIDE, SIDE, heat, SIDE, SIDE, 0.0, 0.5));
    for (int y = 2; y < SIDE - 2; y++)
        for (int x = 0; x < SIDE; x++) {
            double away = fabs(x - 31.5);
            int wanted = (int)(255.0 * fmin(1.0, fmax(0.0, 0.75 + 0.5 - away)) + 0.5);
            assert_int_equal(out[3 * (y * SIDE + x)], wanted);
        }
}

/* A disc's outline on black: the light adds up to its length times 1.5 pixels; the line scales. */
static void the_outline_has_its_width(void **state) {
    (void)state;
    static const struct {
        int side;
        double radius, width;
    } cases[] = {{64, 20.0, 1.5}, {64, 7.3, 1.5}, {512, 150.0, 3.0}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int side = cases[k].side;
        size_t count = (size_t)side * (size_t)side;
        float *heat = malloc(count * sizeof *heat);
        uint8_t *black = calloc(count, 3);
        double middle = (side - 1) / 2.0, sum = 0.0;
        for (size_t i = 0; i < count; i++) {
            double r =
                hypot((double)(i % (size_t)side) - middle, (double)(i / (size_t)side) - middle);
            heat[i] = (float)(1.0 - r / side);
        }
        featinv_image image = {black, side, side, 0};
        int64_t shape[2] = {side, side};
        featinv_tensor view = featinv_tensor_view(heat, FEATINV_DTYPE_F32, 2, shape);
        CHECK_OK(featinv_image_overlay(black, &image, &view, 0.0, 1.0 - cases[k].radius / side));
        for (size_t i = 0; i < count; i++)
            sum += black[3 * i] / 255.0;
        double wanted = 2.0 * 3.14159265358979 * cases[k].radius * cases[k].width;
        if (fabs(sum - wanted) > 0.03 * wanted)
            fail_msg("radius %g: %g, wanted %g", cases[k].radius, sum, wanted);
        free(heat);
        free(black);
    }
}

/* Two hot corners of a cell across from each other: joined where the middle is hot, else apart. */
static void saddles_follow_the_middle(void **state) {
    (void)state;
    float apart[4] = {1.0f, 0.0f, 0.0f, 1.0f};
    memset(pixels, 0, sizeof pixels);
    CHECK_OK(overlay(2, 2, apart, 2, 2, 0.0, 0.9)); /* close around the hot corners */
    assert_true(out[0] > 200 && out[9] > 200 && out[3] < 150 && out[6] < 150);
    CHECK_OK(overlay(2, 2, apart, 2, 2, 0.0, 0.1));
    assert_true(out[0] < 150 && out[9] < 150 && out[3] > 200 && out[6] > 200);
}

static void the_image_s_rows_may_be_padded(void **state) {
    (void)state;
    float heat[4] = {0.0f, 1.0f, 0.5f, 0.2f};
    uint8_t wanted[10 * 8 * 3], padded[8 * 41];
    CHECK_OK(overlay(10, 8, heat, 2, 2, 0.5, 0.4));
    memcpy(wanted, out, sizeof wanted);
    for (int y = 0; y < 8; y++)
        memcpy(padded + 41 * y, pixels + 30 * y, 30);
    featinv_image image = {padded, 10, 8, 41};
    int64_t shape[2] = {2, 2};
    featinv_tensor view = featinv_tensor_view(heat, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(featinv_image_overlay(out, &image, &view, 0.5, 0.4));
    assert_memory_equal(out, wanted, sizeof wanted);
}

static void bad_calls_are_refused(void **state) {
    (void)state;
    float heat[4] = {0};
    CHECK_FAILS(overlay(2, 2, heat, 2, 2, 1.5, NAN), FEATINV_ERROR_ARGUMENT, "opacity is 1.5");
    CHECK_FAILS(overlay(2, 2, heat, 2, 2, NAN, NAN), FEATINV_ERROR_ARGUMENT, "opacity is nan");
    CHECK_FAILS(overlay(2, 2, heat, 2, 2, 0.5, INFINITY), FEATINV_ERROR_ARGUMENT, "contour is inf");
    CHECK_FAILS(overlay(2, 2, heat, 0, 2, 0.5, NAN), FEATINV_ERROR_SHAPE, "(0, 2)");
    CHECK_FAILS(overlay(0, 2, heat, 2, 2, 0.5, NAN), FEATINV_ERROR_ARGUMENT, "0 x 2");
    heat[2] = NAN;
    CHECK_FAILS(overlay(2, 2, heat, 2, 2, 0.5, NAN), FEATINV_ERROR_VALUE, "heat: NaN at element 2");
    featinv_image image = {pixels, 2, 2, 0};
    CHECK_FAILS(featinv_image_overlay(NULL, &image, NULL, 0.5, NAN), FEATINV_ERROR_ARGUMENT,
                "memory");
    CHECK_FAILS(featinv_image_overlay(out, &image, NULL, 0.5, NAN), FEATINV_ERROR_ARGUMENT, "heat");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_heat_or_opacity_it_is_the_image, fill),
        cmocka_unit_test_setup(colours_are_ordered_by_lightness, fill),
        cmocka_unit_test_setup(opacity_times_heat_is_the_share, fill),
        cmocka_unit_test_setup(enlarging_has_half_pixel_centres, fill),
        cmocka_unit_test_setup(the_outline_lies_on_the_level, fill),
        cmocka_unit_test_setup(the_outline_has_its_width, fill),
        cmocka_unit_test_setup(saddles_follow_the_middle, fill),
        cmocka_unit_test_setup(the_image_s_rows_may_be_padded, fill),
        cmocka_unit_test_setup(bad_calls_are_refused, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
