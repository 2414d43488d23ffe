/* binary16: every value and every place where rounding decides. */
#include "check.h"

#include "convert.h"

#include <math.h>

static void every_half_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float value = fi_half_to_float((uint16_t)h);
        if (isnan(value))
            assert_true(isnan(fi_half_to_float(fi_float_to_half(value))));
        else
            assert_int_equal(fi_float_to_half(value), h);
    }
}

/* Between two neighbours: the middle goes to the even one, what lies off it to the nearer one. */
static void between_two_halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++)
        for (uint32_t sign = 0; sign < 0x10000; sign += 0x8000) {
            float a = fi_half_to_float((uint16_t)(h | sign));
            float b = fi_half_to_float((uint16_t)((h + 1) | sign));
            float middle = a + (b - a) / 2; /* exact in float */
            uint32_t even = h % 2 ? h + 1 : h;
            assert_int_equal(fi_float_to_half(middle), even | sign);
            assert_int_equal(fi_float_to_half(nextafterf(middle, a)), h | sign);
            assert_int_equal(fi_float_to_half(nextafterf(middle, b)), (h + 1) | sign);
        }
}

static void the_ends_of_the_range(void **state) {
    (void)state;
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {{65504.0f, 0x7bff},  {65519.996f, 0x7bff}, {65520.0f, 0x7c00},
                 {-65520.0f, 0xfc00}, {1e30f, 0x7c00},      {INFINITY, 0x7c00},
                 {0.0f, 0x0000},      {-0.0f, 0x8000},      {0x1p-24f, 0x0001},
                 {0x1p-25f, 0x0000},  {0x1.8p-25f, 0x0001}, {1e-30f, 0x0000},
                 {-1e-40f, 0x8000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(fi_float_to_half(cases[i].value), cases[i].half);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(between_two_halves),
        cmocka_unit_test(the_ends_of_the_range),
    };
    return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
