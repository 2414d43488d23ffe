#include "scratch.h"

#include "exif.h"

enum { WIDTH = 19, HEIGHT = 13, SIZE = WIDTH * HEIGHT * 3 };

static void draw(uint8_t pixels[SIZE]) {
    for (int i = 0; i < SIZE; i++)
        pixels[i] = (uint8_t)(i * 7 + i / 40);
}

static void png_there_and_back(void **state) {
    (void)state;
    uint8_t pixels[SIZE], got[SIZE];
    int32_t width, height;
    draw(pixels);
    featinv_image image = {pixels, WIDTH, HEIGHT, 0};
    CHECK_OK(featinv_image_write(scratch("a.png"), &image));
    CHECK_OK(featinv_image_read(NULL, 0, &width, &height, scratch("a.png"), 0));
    assert_int_equal(width, WIDTH);
    assert_int_equal(height, HEIGHT);
    CHECK_OK(featinv_image_read(got, sizeof got, &width, &height, scratch("a.png"), 0));
    assert_memory_equal(got, pixels, SIZE);
    CHECK_FAILS(featinv_image_read(got, SIZE - 1, &width, &height, scratch("a.png"), 0),
                FEATINV_ERROR_CAPACITY, "741 bytes");
    CHECK_FAILS(featinv_image_read(got, SIZE, &width, &height, scratch("a.png"), 246),
                FEATINV_ERROR_LIMIT, "19 x 13 pixels, at most 246");
}

static void rows_may_lie_apart(void **state) {
    (void)state;
    uint8_t pixels[SIZE], got[4 * 3 * 3];
    int32_t width, height;
    draw(pixels);
    featinv_image image = {pixels + 6, 4, 3, WIDTH * 3};
    CHECK_OK(featinv_image_write(scratch("a.png"), &image));
    CHECK_OK(featinv_image_read(got, sizeof got, &width, &height, scratch("a.png"), 0));
    for (int y = 0; y < 3; y++)
        assert_memory_equal(got + 12 * y, pixels + 6 + y * WIDTH * 3, 12);
}

static void jpeg_comes_back_close(void **state) {
    (void)state;
    uint8_t pixels[SIZE], got[SIZE];
    int32_t width, height;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            pixels[3 * (y * WIDTH + x)] = (uint8_t)(10 * x + 20);
            pixels[3 * (y * WIDTH + x) + 1] = (uint8_t)(15 * y + 20);
            pixels[3 * (y * WIDTH + x) + 2] = (uint8_t)(5 * x + 5 * y + 20);
        }
    featinv_image image = {pixels, WIDTH, HEIGHT, 0};
    CHECK_OK(featinv_image_write(scratch("a.jpg"), &image));
    CHECK_OK(featinv_image_read(got, sizeof got, &width, &height, scratch("a.jpg"), 0));
    assert_int_equal(width, WIDTH);
    assert_int_equal(height, HEIGHT);
    for (int i = 0; i < SIZE; i++)
        assert_in_range(got[i] - pixels[i] + 6, 0, 12);
}

/* A 2 x 3 picture a b / c d / e f, turned as each orientation says. */
static void orientations_turn(void **state) {
    (void)state;
    static const char *const turned[9] = {"",       "abcdef", "badcfe", "fedcba", "efcdab",
                                          "acebdf", "ecafdb", "fdbeca", "bdface"};
    uint8_t in[18], out[18];
    for (int i = 0; i < 18; i++)
        in[i] = (uint8_t)("abcdef"[i / 3] + 10 * (i % 3));
    for (int orientation = 1; orientation <= 8; orientation++) {
        fi_orient(out, in, 2, 3, orientation);
        for (int i = 0; i < 18; i++)
            assert_int_equal(out[i], turned[orientation][i / 3] + 10 * (i % 3));
        assert_int_equal(fi_orientation_swaps(orientation), orientation > 4);
    }
}

static void exif_blocks(void **state) {
    (void)state;
#define HEAD "II*\0\x08\0\0\0\x01\0"
#define CASE(bytes, orientation)                                                                   \
    { (const uint8_t *)(bytes), sizeof(bytes) - 1, orientation }
    static const struct {
        const uint8_t *bytes;
        size_t size;
        int orientation;
    } cases[] = {
        CASE(HEAD "\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
        CASE("Exif\0\0" HEAD "\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
        CASE("Exif\0\0Exif\0\0" HEAD "\x12\x01\x03\0\x01\0\0\0\x08\0\0\0", 8),
        CASE("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0", 3),
        CASE(HEAD "\x12\x01\x04\0\x01\0\0\0\x02\0\0\0", 2),
        CASE(HEAD "\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 0), /* no such orientation */
        CASE(HEAD "\x12\x01\x02\0\x01\0\0\0\x06\0\0\0", 0), /* text */
        CASE(HEAD "\x12\x01\x03\0\x01\0\0\0\x06\0\0", 0),   /* cut */
        CASE("II*\0\xff\xff\xff\xff\x01\0", 0),
        CASE("II*\0\x07\0\0\0\x01", 0),
        CASE("Exif\0\0", 0),
        CASE("", 0),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *exact = malloc(cases[i].size + 1); /* so that a sanitizer sees the end */
        uint8_t *block = exact + 1;
        memcpy(block, cases[i].bytes, cases[i].size);
        if (fi_exif_orientation(block, cases[i].size) != cases[i].orientation)
            fail_msg("case %zu", i);
        free(exact);
    }
    static const char xmp[] = "<a tiff:Orientation=\"6\"/>", end[] = "tiff:Orientation=\"";
    assert_int_equal(fi_xmp_orientation((const uint8_t *)xmp, sizeof xmp - 1), 6);
    assert_int_equal(fi_xmp_orientation((const uint8_t *)end, sizeof end - 1), 0);
}

static void reading_refuses(void **state) {
    (void)state;
    int32_t width, height;
    uint8_t pixels[12];
    CHECK_FAILS(featinv_image_read(NULL, 0, &width, &height, scratch_file("e.png", "", 0), 0),
                FEATINV_ERROR_FORMAT, "e.png: is empty");
    CHECK_FAILS(featinv_image_read(NULL, 0, &width, &height, scratch_file("t.png", "GIF89a", 6), 0),
                FEATINV_ERROR_FORMAT, "t.png: is neither PNG nor JPEG");
    CHECK_FAILS(featinv_image_read(NULL, 0, &width, &height, scratch("no.png"), 0),
                FEATINV_ERROR_NOT_FOUND, "no.png");
    CHECK_FAILS(featinv_image_read(pixels, 12, &width, &height, NULL, 0), FEATINV_ERROR_ARGUMENT,
                "NULL");
    CHECK_FAILS(featinv_image_read(pixels, 12, NULL, &height, scratch("no.png"), 0),
                FEATINV_ERROR_ARGUMENT, "NULL");
    CHECK_FAILS(featinv_image_read(pixels, 12, &width, &height, scratch("no.png"), -1),
                FEATINV_ERROR_ARGUMENT, "-1");
}

static void writing_refuses(void **state) {
    (void)state;
    uint8_t pixels[12] = {0};
    featinv_image image = {pixels, 2, 2, 0}, wide = {pixels, 70000, 1, 0};
    int before = scratch_entries(0);
    CHECK_FAILS(featinv_image_write(scratch("a.bmp"), &image), FEATINV_ERROR_ARGUMENT, "a.bmp");
    CHECK_FAILS(featinv_image_write(NULL, &image), FEATINV_ERROR_ARGUMENT, "NULL");
    CHECK_FAILS(featinv_image_write(scratch("b.png"), NULL), FEATINV_ERROR_ARGUMENT, "no pixels");
    CHECK_FAILS(featinv_image_write(scratch("b.jpg"), &wide), FEATINV_ERROR_ARGUMENT, "a side");
    CHECK_FAILS(featinv_image_write(scratch("no/b.png"), &image), FEATINV_ERROR_WRITE, "no/b.png");
    assert_int_equal(scratch_entries(0), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_there_and_back),    cmocka_unit_test(rows_may_lie_apart),
        cmocka_unit_test(jpeg_comes_back_close), cmocka_unit_test(orientations_turn),
        cmocka_unit_test(exif_blocks),           cmocka_unit_test(reading_refuses),
        cmocka_unit_test(writing_refuses),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
