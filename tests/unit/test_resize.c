/* Parts of a resized picture are those of the whole. tests/io compares the whole with Pillow. */
#include "check.h"

#include <stdbool.h>

#include "preprocess.h"
#include "resize.h"

static uint32_t state = 1;

static uint32_t below(uint32_t limit) {
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(state >> 8) * limit >> 24);
}

static uint8_t *random_pixels(int32_t width, int32_t height) {
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(bytes);
    assert_non_null(pixels);
    for (size_t i = 0; i < bytes; i++) /* hard edges overshoot in bicubic */
        pixels[i] = (uint8_t)(below(4) ? below(256) : below(2) * 255);
    return pixels;
}

static fi_resize_side random_side(int32_t whole) {
    int64_t begin = below((uint32_t)whole);
    return (fi_resize_side){whole, begin, 1 + (int32_t)below((uint32_t)(whole - begin))};
}

/* One random part; in steps of row_bytes that leave a gap. */
static void check_part(featinv_filter filter) {
    int32_t width = 1 + (int32_t)below(60), height = 1 + (int32_t)below(60);
    int32_t to_width = below(4) ? 1 + (int32_t)below(90) : width;
    int32_t to_height = below(4) ? 1 + (int32_t)below(90) : height;
    fi_resize_side x = random_side(to_width), y = random_side(to_height);
    uint8_t *pixels = random_pixels(width + 3, height);
    uint8_t *whole = malloc((size_t)to_width * (size_t)to_height * 3);
    uint8_t *part = malloc((size_t)x.count * (size_t)y.count * 3);
    featinv_image image = {pixels, width, height, 3 * ((int64_t)width + 3)};
    CHECK_OK(featinv_image_resize(whole, to_width, to_height, &image, filter));
    CHECK_OK(fi_resize_part(part, x, y, &image, filter));
    size_t row = (size_t)x.count * 3;
    for (int32_t i = 0; i < y.count; i++)
        if (memcmp(part + (size_t)i * row,
                   whole + ((size_t)(y.begin + i) * (size_t)to_width + (size_t)x.begin) * 3, row))
            fail_msg("%d x %d to %d x %d, columns %d + %d: row %d of %d + %d differs", width,
                     height, to_width, to_height, (int)x.begin, x.count, i, (int)y.begin, y.count);
    free(part);
    free(whole);
    free(pixels);
}

static void parts_are_those_of_the_whole(void **unused) {
    (void)unused;
    for (int i = 0; i < 600; i++)
        check_part(i % 2 ? FEATINV_FILTER_BICUBIC : FEATINV_FILTER_BILINEAR);
}

/* The centre of a picture whose resized whole would not fit into memory (66 GB), against the same
 * arithmetic on the middle of the picture. Weights then differ by their last rounding. */
static void check_long(bool upright) {
    enum { SHORT = 4, LONG = 1000 * 1000, MIDDLE = 400, SIZE = 96, FACTOR = 30 };
    fi_preprocess p = {
        .height = SIZE, .width = SIZE, .filter = FEATINV_FILTER_BICUBIC, .crop = 0.8};
    int32_t width = upright ? SHORT : LONG, height = upright ? LONG : SHORT;
    uint8_t *pixels = random_pixels(width, height);
    static uint8_t got[SIZE * SIZE * 3], wanted[SIZE * SIZE * 3];
    featinv_image image = {pixels, width, height, 0};
    CHECK_OK(fi_preprocess_crop(got, &p, &image));

    size_t skip = (LONG - MIDDLE) / 2;
    featinv_image part = {pixels + skip * 3 * (upright ? SHORT : 1), upright ? SHORT : MIDDLE,
                          upright ? MIDDLE : SHORT, 3 * (int64_t)width};
    fi_resize_side along = {MIDDLE * FACTOR, (MIDDLE * FACTOR - SIZE) / 2, SIZE};
    fi_resize_side across = {SHORT * FACTOR, (SHORT * FACTOR - SIZE) / 2, SIZE};
    CHECK_OK(fi_resize_part(wanted, upright ? across : along, upright ? along : across, &part,
                            p.filter));
    int most = 0, different = 0;
    for (int i = 0; i < SIZE * SIZE * 3; i++) {
        int difference = abs(got[i] - wanted[i]);
        most = difference > most ? difference : most;
        different += difference > 0;
    }
    assert_true(most <= 1);
    assert_true(different < SIZE * SIZE * 3 / 1000);
    free(pixels);
}

static void very_long_pictures(void **unused) {
    (void)unused;
    check_long(false);
    check_long(true);
}

/* More pixels along than 32 bits count. */
static void longer_than_an_integer(void **unused) {
    (void)unused;
    enum { LONG = 1 << 25, SIZE = 288 };
    fi_preprocess p = {.height = SIZE, .width = SIZE, .filter = FEATINV_FILTER_BILINEAR, .crop = 1};
    uint8_t *pixels = malloc((size_t)LONG * 3), *out = malloc((size_t)SIZE * SIZE * 3);
    assert_non_null(pixels);
    memset(pixels, 10, (size_t)LONG / 2 * 3);
    memset(pixels + (size_t)LONG / 2 * 3, 200, (size_t)LONG / 2 * 3);
    featinv_image image = {pixels, 1, LONG, 0};
    CHECK_OK(fi_preprocess_crop(out, &p, &image));
    /* the middle of the upper pixel lies 144 rows above the edge, that of the lower one 144 below
     */
    for (int y = 0; y < SIZE; y++) {
        int wanted = (int)(10 + 190 * (y + 0.5) / SIZE + 0.5);
        assert_int_equal(out[(size_t)y * SIZE * 3], wanted);
        assert_memory_equal(out + (size_t)y * SIZE * 3, out + (size_t)y * SIZE * 3 + 3,
                            (SIZE - 1) * 3);
    }
    free(out);
    free(pixels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_those_of_the_whole),
        cmocka_unit_test(very_long_pictures),
        cmocka_unit_test(longer_than_an_integer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
