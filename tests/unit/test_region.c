/* From pixels of an input to cells of its map: by hand, against the real resize and crop, and
 * refused. */
#include "bundle_maker.h"

#include "preprocess.h"

#include <math.h>

static int setup(void **state) {
    (void)state;
    make_bundle(); /* input 4 x 4, map 2 x 2, crop 1 */
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_bundle();
    return 0;
}

static featinv_model *open_with(const char *edit) {
    featinv_model *model = NULL;
    put_manifest(edit);
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    return model;
}

static const char half_crop[] = "\"crop\": 1.0\1\"crop\": 0.5";

static void rectangles_by_hand(void **state) {
    (void)state;
    static const struct {
        const char *edit;
        int32_t width, height;
        double rectangle[4];
        float mask[4];
    } cases[] = {
        {NULL, 8, 8, {0, 0, 4, 4}, {1, 0, 0, 0}},
        {NULL, 8, 8, {2, 2, 6, 6}, {.25f, .25f, .25f, .25f}},
        {NULL, 8, 8, {3, 0, 8, 8}, {.25f, 1, .25f, 1}},
        {NULL, 8, 8, {-100, 5, 1e9, 7}, {0, 0, .5f, .5f}},
        {NULL, 8, 8, {1, 1, 1.5, 2}, {.03125f, 0, 0, 0}},
        {NULL, 4, 4, {0, 0, 4, 4}, {1, 1, 1, 1}},
        {NULL, 16, 8, {4, 0, 8, 8}, {1, 0, 1, 0}}, /* 8 pixels in the middle are seen */
        {NULL, 16, 8, {0, 0, 6, 4}, {.5f, 0, 0, 0}},
        {NULL, 8, 16, {0, 4, 8, 6}, {.5f, .5f, 0, 0}},
        {half_crop, 8, 8, {2, 2, 4, 4}, {1, 0, 0, 0}}, /* pixels 2 to 6 are seen */
        {half_crop, 8, 8, {0, 0, 3, 8}, {.5f, 0, .5f, 0}},
        {half_crop, 16, 8, {6, 2, 8, 8}, {1, 0, 1, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_model *model = open_with(cases[i].edit);
        float mask[4];
        int64_t shape[2] = {2, 2};
        featinv_tensor view = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, shape);
        CHECK_OK(
            featinv_region_mask(&view, model, cases[i].width, cases[i].height, cases[i].rectangle));
        for (int k = 0; k < 4; k++)
            if (fabsf(mask[k] - cases[i].mask[k]) > 1e-7f)
                fail_msg("case %zu, cell %d: %g, wanted %g", i, k, (double)mask[k],
                         (double)cases[i].mask[k]);
        featinv_model_release(model);
    }
}

/* A white rectangle through the real resize and crop: the mean over the pixels of a cell. A shift
 * of half a pixel would move a cell by 1/32; blur does not, as long as edges keep off the cells'
 * borders. */
static void rectangles_go_where_the_picture_goes(void **state) {
    (void)state;
    enum { WIDTH = 331, HEIGHT = 217, SIDE = 32 };
    static uint8_t pixels[WIDTH * HEIGHT * 3], seen[SIDE * SIDE * 3];
    static const double crops[] = {1.0, 0.875};
    static const int rectangles[][4] = {
        {90, 30, 140, 180}, {200, 50, 250, 75}, {80, 140, 260, 200}, {0, 40, 240, 160}};
    for (int turned = 0; turned < 2; turned++)
        for (size_t c = 0; c < 2; c++)
            for (size_t r = 0; r < sizeof rectangles / sizeof *rectangles; r++) {
                char edit[256];
                (void)snprintf(edit, sizeof edit,
                               "\"height\": 4, \"width\": 4, \"channels\": 3, \"mean\": [0, 0, 0], "
                               "\"std\": [1, 1, 1], \"interpolation\": \"bilinear\", \"crop\": 1.0"
                               "\1\"height\": %d, \"width\": %d, \"channels\": 3, \"mean\": "
                               "[0, 0, 0], \"std\": [1, 1, 1], \"interpolation\": \"bilinear\", "
                               "\"crop\": %g",
                               SIDE, SIDE, crops[c]);
                featinv_model *model = open_with(edit);
                int32_t width = turned ? HEIGHT : WIDTH, height = turned ? WIDTH : HEIGHT;
                const int *q = rectangles[r];
                double box[4] = {q[turned], q[1 - turned], q[2 + turned], q[3 - turned]};
                for (int i = 0; i < WIDTH * HEIGHT; i++) {
                    int x = i % width, y = i / width;
                    memset(pixels + 3 * i,
                           x >= box[0] && x < box[2] && y >= box[1] && y < box[3] ? 255 : 0, 3);
                }
                fi_preprocess p = {SIDE, SIDE, FEATINV_FILTER_BILINEAR, crops[c], {0}, {1, 1, 1}};
                featinv_image image = {pixels, width, height, 0};
                CHECK_OK(fi_preprocess_crop(seen, &p, &image));
                float mask[4];
                int64_t shape[2] = {2, 2};
                featinv_tensor view = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, shape);
                CHECK_OK(featinv_region_mask(&view, model, width, height, box));
                for (int k = 0; k < 4; k++) {
                    double sum = 0.0;
                    for (int i = 0; i < SIDE * SIDE / 4; i++) {
                        int y = k / 2 * SIDE / 2 + i / (SIDE / 2);
                        int x = k % 2 * SIDE / 2 + i % (SIDE / 2);
                        sum += seen[3 * (y * SIDE + x)];
                    }
                    if (fabs(sum / (255.0 * SIDE * SIDE / 4) - (double)mask[k]) > 0.006)
                        fail_msg("turned %d, crop %g, rectangle %zu, cell %d: %g, wanted %g",
                                 turned, crops[c], r, k, (double)mask[k],
                                 sum / (255.0 * SIDE * SIDE / 4));
                }
                featinv_model_release(model);
            }
}

static void bad_rectangles_are_refused(void **state) {
    (void)state;
    static const struct {
        double rectangle[4];
        const char *part;
    } cases[] = {
        {{0, 0, 4, 8},
         "0,0,4,8 lies outside of what the backbone sees of the image: x 4 to 12, y "
         "0 to 8"},
        {{12, 0, 20, 8}, "12,0,20,8 lies outside"},
        {{5, 8, 6, 9}, "5,8,6,9 lies outside"},
        {{5, 5, 5, 6}, "5,5,5,6 is empty"},
        {{6, 5, 5, 6}, "6,5,5,6 is empty"},
        {{NAN, 5, 6, 6}, "nan,5,6,6 is empty"},
        {{0, 0, INFINITY, 6}, "0,0,inf,6 is empty"},
    };
    float values[4];
    int64_t shape[2] = {2, 2}, wrong[2] = {2, 3};
    featinv_model *model = open_with(NULL);
    featinv_tensor mask = featinv_tensor_view(values, FEATINV_DTYPE_F32, 2, shape);
    featinv_tensor other = featinv_tensor_view(values, FEATINV_DTYPE_F32, 2, wrong);
    const double good[4] = {4, 0, 8, 8};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_FAILS(featinv_region_mask(&mask, model, 16, 8, cases[i].rectangle),
                    FEATINV_ERROR_ARGUMENT, cases[i].part);
    CHECK_FAILS(featinv_region_mask(&mask, model, 0, 8, good), FEATINV_ERROR_ARGUMENT, "0 x 8");
    CHECK_FAILS(featinv_region_mask(&mask, model, 16, 8, NULL), FEATINV_ERROR_ARGUMENT,
                "rectangle");
    CHECK_FAILS(featinv_region_mask(&mask, NULL, 16, 8, good), FEATINV_ERROR_ARGUMENT, "model");
    CHECK_FAILS(featinv_region_mask(&other, model, 16, 8, good), FEATINV_ERROR_SHAPE, "mask");
    featinv_model_release(model);
}

/* A soft mask of a rectangle with whole edges is that rectangle, floats and bytes alike. */
static void pixel_masks_agree_with_rectangles(void **state) {
    (void)state;
    enum { WIDTH = 23, HEIGHT = 17 };
    static float floats[WIDTH * HEIGHT];
    static uint8_t bytes[WIDTH * HEIGHT];
    int64_t pixel_shape[2] = {HEIGHT, WIDTH}, shape[2] = {2, 2};
    featinv_model *model = open_with(half_crop);
    for (int x0 = 0; x0 < 14; x0 += 3)
        for (int y0 = 0; y0 < 10; y0 += 2) {
            const double box[4] = {x0, y0, x0 + 9, y0 + 7};
            for (int i = 0; i < WIDTH * HEIGHT; i++) {
                int x = i % WIDTH, y = i / WIDTH;
                bool in = x >= x0 && x < x0 + 9 && y >= y0 && y < y0 + 7;
                floats[i] = in ? 0.5f : 0.0f;
                bytes[i] = in ? 255 : 0;
            }
            float wanted[4], soft[4], hard[4];
            featinv_tensor w = featinv_tensor_view(wanted, FEATINV_DTYPE_F32, 2, shape);
            featinv_tensor s = featinv_tensor_view(soft, FEATINV_DTYPE_F32, 2, shape);
            featinv_tensor h = featinv_tensor_view(hard, FEATINV_DTYPE_F32, 2, shape);
            featinv_tensor f = featinv_tensor_view(floats, FEATINV_DTYPE_F32, 2, pixel_shape);
            featinv_tensor b = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 2, pixel_shape);
            CHECK_OK(featinv_region_mask(&w, model, WIDTH, HEIGHT, box));
            CHECK_OK(featinv_pixel_mask(&s, model, &f));
            CHECK_OK(featinv_pixel_mask(&h, model, &b));
            for (int k = 0; k < 4; k++) {
                assert_true(fabsf(hard[k] - wanted[k]) < 1e-6f);
                assert_true(fabsf(2.0f * soft[k] - wanted[k]) < 1e-6f);
            }
        }
    featinv_model_release(model);
}

static void pixel_masks_end_at_one(void **state) {
    (void)state;
    enum { WIDTH = 31, HEIGHT = 50 };
    static uint8_t bytes[WIDTH * HEIGHT];
    int64_t pixel_shape[2] = {HEIGHT, WIDTH}, shape[2] = {2, 2};
    float mask[4];
    featinv_model *model = open_with(NULL);
    featinv_tensor m = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, shape);
    featinv_tensor b = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 2, pixel_shape);
    memset(bytes, 255, sizeof bytes);
    CHECK_OK(featinv_pixel_mask(&m, model, &b));
    for (int k = 0; k < 4; k++) /* exactly: compose then copies */
        assert_true(mask[k] == 1.0f);
    featinv_model_release(model);
}

static void bad_pixel_masks_are_refused(void **state) {
    (void)state;
    float values[16] = {0}, out[4];
    int64_t shape[2] = {2, 2}, four[2] = {4, 4}, none[2] = {0, 4};
    featinv_model *model = open_with(NULL);
    featinv_tensor mask = featinv_tensor_view(out, FEATINV_DTYPE_F32, 2, shape);
    featinv_tensor pixels = featinv_tensor_view(values, FEATINV_DTYPE_F32, 2, four);
    featinv_tensor empty = featinv_tensor_view(values, FEATINV_DTYPE_F32, 2, none);
    featinv_tensor wide = featinv_tensor_view(values, FEATINV_DTYPE_F64, 2, shape);
    CHECK_FAILS(featinv_pixel_mask(&mask, model, NULL), FEATINV_ERROR_ARGUMENT, "pixel mask");
    CHECK_FAILS(featinv_pixel_mask(&mask, model, &empty), FEATINV_ERROR_ARGUMENT, "4 x 0");
    CHECK_FAILS(featinv_pixel_mask(&mask, model, &wide), FEATINV_ERROR_SHAPE, "float64");
    values[6] = 1.25f;
    CHECK_FAILS(featinv_pixel_mask(&mask, model, &pixels), FEATINV_ERROR_ARGUMENT,
                "1.25 at pixel 6");
    values[6] = NAN;
    CHECK_FAILS(featinv_pixel_mask(&mask, model, &pixels), FEATINV_ERROR_VALUE, "NaN");
    featinv_model_release(model);
}

static void a_bundle_without_backbone_has_no_pixels(void **state) {
    (void)state;
    assert_int_equal(unlink(in_bundle("backbone.ts")), 0);
    assert_int_equal(unlink(in_bundle("head.ts")), 0);
    featinv_model *model = open_with("\"backbone\": {\1\"other\": {");
    float out[4];
    int64_t shape[2] = {2, 2};
    featinv_tensor mask = featinv_tensor_view(out, FEATINV_DTYPE_F32, 2, shape);
    const double box[4] = {0, 0, 1, 1};
    CHECK_FAILS(featinv_region_mask(&mask, model, 4, 4, box), FEATINV_ERROR_UNSUPPORTED,
                "no backbone");
    featinv_model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rectangles_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(rectangles_go_where_the_picture_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_rectangles_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(pixel_masks_agree_with_rectangles, setup, teardown),
        cmocka_unit_test_setup_teardown(pixel_masks_end_at_one, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_pixel_masks_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bundle_without_backbone_has_no_pixels, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
