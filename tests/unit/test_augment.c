/* Random crops, flips, the plain resize, and the order of an epoch. tests/train compares whole
 * training pairs with torchvision and Pillow. */
#include "check.h"

#include "augment.h"
#include "shuffle.h"

#include <math.h>

static const fi_augment paper = {
    .view = {.height = 24, .width = 24, .filter = FEATINV_FILTER_BILINEAR, .crop = 1},
    .image_height = 16,
    .image_width = 16,
    .random = true,
    .scale = {0.08, 1},
    .ratio = {3.0 / 4, 4.0 / 3},
    .mirror = 0.5,
    .upset = 0.5};

static uint8_t *picture_of(int32_t width, int32_t height) {
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(bytes);
    assert_non_null(pixels);
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)((i * 2654435761u >> 7) ^ i / 5);
    return pixels;
}

/* ---------------------------------------------------------------- crops ---------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov-Smirnov against the uniform distribution on [0, 1]; 1.95 / sqrt(n) is exceeded by
 * chance once in a thousand seeds, and the seed is fixed. slack: rounding to pixels. */
static void check_uniform(const char *what, double *values, int n, double slack) {
    qsort(values, (size_t)n, sizeof *values, ascending);
    double worst = 0;
    for (int i = 0; i < n; i++)
        worst = fmax(worst,
                     fmax(fabs(values[i] - (double)i / n), fabs(values[i] - (double)(i + 1) / n)));
    if (worst > 1.95 / sqrt(n) + slack)
        fail_msg("%s: distance %.4f from uniform over %d draws", what, worst, n);
}

static void crops_are_distributed_as_stated(void **unused) {
    (void)unused;
    enum { N = 6000, SIDE = 20000 }; /* a large picture, so that rounding is small */
    static double area[N], ratio[N], x[N], y[N];
    fi_augment a = paper;
    a.scale[1] = 0.5; /* every try fits into a square, so none is rejected */
    int mirrored = 0, upset = 0, both = 0;
    for (int i = 0; i < N; i++) {
        fi_random random = fi_random_start(7, FI_STREAM_AUGMENT, (uint32_t)i);
        fi_crop c = fi_augment_draw(&a, SIDE, SIDE, &random);
        double share = (double)c.width * c.height / SIDE / SIDE;
        area[i] = (share - 0.08) / 0.42;
        ratio[i] = log((double)c.width / c.height) / log(4.0 / 3) / 2 + 0.5;
        x[i] = (double)c.x / (SIDE - c.width);
        y[i] = (double)c.y / (SIDE - c.height);
        mirrored += c.mirrored;
        upset += c.upset;
        both += c.mirrored && c.upset;
    }
    check_uniform("area", area, N, 1e-3);
    check_uniform("ratio", ratio, N, 1e-3);
    check_uniform("x", x, N, 1e-3);
    check_uniform("y", y, N, 1e-3);
    /* five standard deviations */
    assert_true(abs(mirrored - N / 2) < 5 * sqrt(N * 0.25));
    assert_true(abs(upset - N / 2) < 5 * sqrt(N * 0.25));
    assert_true(abs(both - N / 4) < 5 * sqrt(N * 0.1875));
}

static void crops_stay_inside(void **unused) {
    (void)unused;
    static const int32_t sizes[][2] = {{1, 1}, {1, 2}, {3, 2}, {500, 375}, {375, 500}, {17, 16}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int32_t width = sizes[s][0], height = sizes[s][1];
        bool whole = false, moved = false;
        for (uint32_t i = 0; i < 4000; i++) {
            fi_random random = fi_random_start(11, FI_STREAM_AUGMENT, i);
            fi_crop c = fi_augment_draw(&paper, width, height, &random);
            if (c.x < 0 || c.y < 0 || c.width < 1 || c.height < 1 || c.x + c.width > width ||
                c.y + c.height > height)
                fail_msg("%d x %d, draw %u: %d + %d, %d + %d", width, height, i, c.x, c.width, c.y,
                         c.height);
            double share = (double)c.width * c.height / width / height;
            if (width > 300 && (share < 0.078 || share > 1))
                fail_msg("%d x %d, draw %u: a share of %g", width, height, i, share);
            whole = whole || (c.width == width && c.height == height);
            moved = moved || c.x + c.width == width;
        }
        assert_true(moved); /* the last column is reached */
        assert_true(whole || width > 300);
    }
}

/* Where no try can fit, torchvision takes the middle of the nearest ratio. */
static void long_pictures_fall_back_to_the_middle(void **unused) {
    (void)unused;
    static const struct {
        int32_t width, height, x, y, crop_width, crop_height;
    } cases[] = {{1000, 10, 493, 0, 13, 10}, {10, 1000, 0, 493, 10, 13}, {900, 1, 449, 0, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fi_random random = fi_random_start(3, FI_STREAM_AUGMENT, (uint32_t)i);
        fi_crop c = fi_augment_draw(&paper, cases[i].width, cases[i].height, &random);
        assert_int_equal(c.x, cases[i].x);
        assert_int_equal(c.y, cases[i].y);
        assert_int_equal(c.width, cases[i].crop_width);
        assert_int_equal(c.height, cases[i].crop_height);
    }
    fi_augment narrow = paper; /* a ratio that would round to no pixel at all */
    narrow.ratio[0] = narrow.ratio[1] = 0.01;
    fi_random random = fi_random_start(3, FI_STREAM_AUGMENT, 0);
    fi_crop c = fi_augment_draw(&narrow, 4, 4, &random);
    assert_int_equal(c.width, 1);
    assert_int_equal(c.height, 4);
}

static void numbers_differ_by_seed_epoch_and_image(void **unused) {
    (void)unused;
    const struct {
        uint64_t seed, epoch;
        uint32_t image;
    } keys[] = {{1, 0, 0}, {1, 0, 1}, {1, 1, 0}, {2, 0, 0}, {1 + (UINT64_C(1) << 32), 0, 0}};
    enum { KEYS = sizeof keys / sizeof *keys };
    double first[KEYS];
    for (int i = 0; i < KEYS; i++) {
        fi_random random = fi_random_start(keys[i].seed, FI_STREAM_AUGMENT, keys[i].image);
        random.block = keys[i].epoch << 32;
        first[i] = fi_random_unit(&random);
        for (int j = 0; j < i; j++)
            if (first[i] == first[j])
                fail_msg("keys %d and %d draw the same", i, j);
    }
}

/* ---------------------------------------------------------------- pictures ------------------- */

static void make(uint8_t *image, uint8_t *view, const fi_augment *a, const featinv_image *picture,
                 uint32_t number) {
    fi_random random = fi_random_start(5, FI_STREAM_AUGMENT, number);
    CHECK_OK(fi_augment_apply(image, view, a, picture, &random));
}

/* View and image are what the public resize makes of a copy of the part; flips turn the view, and
 * the image is made from the turned one. */
static void pairs_are_resized_parts(void **unused) {
    (void)unused;
    enum { WIDTH = 71, HEIGHT = 53, VH = 20, VW = 31, IH = 27, IW = 14 };
    fi_augment a = paper;
    a.view = (fi_preprocess){.height = VH, .width = VW, .filter = FEATINV_FILTER_BICUBIC};
    a.image_height = IH;
    a.image_width = IW;
    uint8_t *pixels = picture_of(WIDTH + 2, HEIGHT);
    featinv_image picture = {pixels, WIDTH, HEIGHT, 3 * (WIDTH + 2)};
    static uint8_t image[IH * IW * 3], view[VH * VW * 3], wanted[VH * VW * 3], target[IH * IW * 3];
    static uint8_t turned[VH * VW * 3];
    int turns = 0;
    for (uint32_t n = 0; n < 40; n++) {
        make(image, view, &a, &picture, n);
        fi_random random = fi_random_start(5, FI_STREAM_AUGMENT, n);
        fi_crop c = fi_augment_draw(&a, WIDTH, HEIGHT, &random);
        featinv_image part = {pixels + 3 * (c.y * (WIDTH + 2) + c.x), c.width, c.height,
                              3 * (WIDTH + 2)};
        CHECK_OK(featinv_image_resize(wanted, VW, VH, &part, FEATINV_FILTER_BICUBIC));
        for (int y = 0; y < VH; y++)
            for (int x = 0; x < VW; x++)
                memcpy(turned + 3 * (y * VW + x),
                       wanted +
                           3 * ((c.upset ? VH - 1 - y : y) * VW + (c.mirrored ? VW - 1 - x : x)),
                       3);
        turns |= 1 << (2 * c.upset + c.mirrored);
        assert_memory_equal(view, turned, sizeof view);
        featinv_image whole = {turned, VW, VH, 0};
        CHECK_OK(featinv_image_resize(target, IW, IH, &whole, FEATINV_FILTER_BILINEAR));
        assert_memory_equal(image, target, sizeof image);
    }
    assert_int_equal(turns, 15); /* all four */
    free(pixels);
}

static void without_augmentation_the_middle(void **unused) {
    (void)unused;
    fi_augment a = paper;
    a.random = false;
    a.view.crop = 0.8;
    uint8_t *pixels = picture_of(50, 37);
    featinv_image picture = {pixels, 50, 37, 0};
    static uint8_t image[16 * 16 * 3], view[24 * 24 * 3], wanted[24 * 24 * 3], again[24 * 24 * 3];
    CHECK_OK(fi_preprocess_crop(wanted, &a.view, &picture));
    make(image, view, &a, &picture, 1);
    assert_memory_equal(view, wanted, sizeof view);
    make(image, again, &a, &picture, 2);
    assert_memory_equal(again, wanted, sizeof view);
    free(pixels);
}

static double tent(const uint8_t *in, int32_t width, int32_t height, double y, double x, int c) {
    y = fmax(y, 0);
    x = fmax(x, 0);
    int top = (int)y, left = (int)x;
    int bottom = top + 1 < height ? top + 1 : top, right = left + 1 < width ? left + 1 : left;
    double v = y - top, u = x - left;
    return (1 - v) * ((1 - u) * in[3 * (top * width + left) + c] +
                      u * in[3 * (top * width + right) + c]) +
           v * ((1 - u) * in[3 * (bottom * width + left) + c] +
                u * in[3 * (bottom * width + right) + c]);
}

static void the_plain_resize_interpolates(void **unused) {
    (void)unused;
    static const int32_t sizes[][4] = {{9, 9, 8, 8}, {9, 7, 4, 3},     {5, 6, 13, 12},
                                       {1, 1, 3, 2}, {36, 36, 32, 32}, {6, 6, 6, 6}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int32_t w = sizes[s][0], h = sizes[s][1], to_w = sizes[s][2], to_h = sizes[s][3];
        uint8_t *in = picture_of(w, h), *out = malloc((size_t)to_w * (size_t)to_h * 3);
        fi_resize_plain(out, to_w, to_h, in, w, h);
        for (int y = 0; y < to_h; y++)
            for (int x = 0; x < to_w; x++)
                for (int c = 0; c < 3; c++) {
                    double exact =
                        tent(in, w, h, (y + 0.5) * h / to_h - 0.5, (x + 0.5) * w / to_w - 0.5, c);
                    if (fabs(exact - out[3 * (y * to_w + x) + c]) > 0.5 + 1e-9)
                        fail_msg("%d x %d to %d x %d at %d, %d: %d, not %g", w, h, to_w, to_h, x, y,
                                 out[3 * (y * to_w + x) + c], exact);
                }
        free(out);
        free(in);
    }
    uint8_t halves[12] = {0, 1, 2, 1, 2, 3, 0, 1, 2, 1, 2, 3},
            middle[3]; /* .5, 1.5, 2.5: to even */
    fi_resize_plain(middle, 1, 1, halves, 2, 2);
    assert_int_equal(middle[0], 0);
    assert_int_equal(middle[1], 2);
    assert_int_equal(middle[2], 2);
}

static void the_legacy_target_is_the_plain_one(void **unused) {
    (void)unused;
    fi_augment a = paper;
    uint8_t *pixels = picture_of(90, 80);
    featinv_image picture = {pixels, 90, 80, 0};
    static uint8_t smooth[16 * 16 * 3], plain[16 * 16 * 3], wanted[16 * 16 * 3], view[24 * 24 * 3];
    make(smooth, view, &a, &picture, 4);
    a.legacy_target = true;
    make(plain, view, &a, &picture, 4);
    fi_resize_plain(wanted, 16, 16, view, 24, 24);
    assert_memory_equal(plain, wanted, sizeof plain);
    assert_memory_not_equal(plain, smooth, sizeof plain);
    free(pixels);
}

/* ---------------------------------------------------------------- order ---------------------- */

static void an_epoch_is_a_permutation(void **unused) {
    (void)unused;
    static uint8_t seen[70000];
    for (int64_t count = 1; count < 70000; count = count < 40 ? count + 1 : count * 3 + 1)
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            for (int64_t place = 0; place < count; place++) {
                int64_t image = fi_shuffle(9, epoch, count, place);
                if (image < 0 || image >= count || seen[image]++)
                    fail_msg("epoch %u of %lld: place %lld has %lld", epoch, (long long)count,
                             (long long)place, (long long)image);
            }
        }
    for (int64_t place = INT32_MAX - INT64_C(1000); place < INT32_MAX; place++)
        assert_in_range(fi_shuffle(9, UINT32_MAX, INT32_MAX, place), 0, INT32_MAX - 1);
}

/* All orders of four images come up alike: chi square of 23 degrees of freedom, below 49.7 for 999
 * of 1000 seeds. */
static void orders_are_equally_likely(void **unused) {
    (void)unused;
    enum { EPOCHS = 24000 };
    int counts[256] = {0}, orders = 0;
    double chi = 0;
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t code = 0;
        for (int64_t place = 0; place < 4; place++)
            code = 4 * code + fi_shuffle(1, epoch, 4, place);
        counts[code]++;
    }
    for (int i = 0; i < 256; i++)
        if (counts[i]) {
            chi += (counts[i] - 1000.0) * (counts[i] - 1000.0) / 1000;
            orders++;
        }
    assert_int_equal(orders, 24);
    if (chi > 49.7)
        fail_msg("chi square %g", chi);
}

/* Neighbours of one epoch are no neighbours in the next: of 1000 images, one pair is expected. */
static void epochs_and_seeds_are_unrelated(void **unused) {
    (void)unused;
    enum { COUNT = 1000 };
    const struct {
        uint64_t seed;
        uint32_t epoch;
    } others[] = {{1, 1}, {2, 0}, {1 + (UINT64_C(1) << 32), 0}, {1, 1u << 31}};
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        int same = 0, next = 0;
        int64_t place_of[COUNT];
        for (int64_t p = 0; p < COUNT; p++)
            place_of[fi_shuffle(others[o].seed, others[o].epoch, COUNT, p)] = p;
        for (int64_t p = 0; p + 1 < COUNT; p++) {
            int64_t here = place_of[fi_shuffle(1, 0, COUNT, p)];
            same += here == p;
            next += place_of[fi_shuffle(1, 0, COUNT, p + 1)] == here + 1;
        }
        if (same > 8 || next > 8) /* Poisson of mean 1: once in a million */
            fail_msg("case %zu: %d in place, %d pairs kept", o, same, next);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crops_are_distributed_as_stated),
        cmocka_unit_test(crops_stay_inside),
        cmocka_unit_test(long_pictures_fall_back_to_the_middle),
        cmocka_unit_test(numbers_differ_by_seed_epoch_and_image),
        cmocka_unit_test(pairs_are_resized_parts),
        cmocka_unit_test(without_augmentation_the_middle),
        cmocka_unit_test(the_plain_resize_interpolates),
        cmocka_unit_test(the_legacy_target_is_the_plain_one),
        cmocka_unit_test(an_epoch_is_a_permutation),
        cmocka_unit_test(orders_are_equally_likely),
        cmocka_unit_test(epochs_and_seeds_are_unrelated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
