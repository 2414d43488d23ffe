#include "check.h"

#include "convert.h"
#include "tensor.h"

#include <math.h>

static void dtypes_have_names_and_sizes(void **state) {
    (void)state;
    const struct {
        featinv_dtype dtype;
        size_t size;
        const char *name;
    } cases[] = {
        {FEATINV_DTYPE_F32, 4, "float32"},
        {FEATINV_DTYPE_F16, 2, "float16"},
        {FEATINV_DTYPE_BF16, 2, "bfloat16"},
        {FEATINV_DTYPE_F64, 8, "float64"},
        {FEATINV_DTYPE_U8, 1, "uint8"},
        {FEATINV_DTYPE_I32, 4, "int32"},
        {FEATINV_DTYPE_I64, 8, "int64"},
        {FEATINV_DTYPE_BOOL, 1, "bool"},
        {FEATINV_DTYPE_I8, 1, "int8"},
        {FEATINV_DTYPE_I16, 2, "int16"},
        {FEATINV_DTYPE_U16, 2, "uint16"},
        {FEATINV_DTYPE_U32, 4, "uint32"},
        {FEATINV_DTYPE_U64, 8, "uint64"},
        {FEATINV_DTYPE_NONE, 0, "unknown"},
        {14, 0, "unknown"},
        {-1, 0, "unknown"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(fi_dtype_size(cases[i].dtype), cases[i].size);
        assert_string_equal(fi_dtype_name(cases[i].dtype), cases[i].name);
        featinv_tensor view = featinv_tensor_view(NULL, cases[i].dtype, 0, NULL);
        assert_int_equal(fi_tensor_dtype(&view), cases[i].size ? cases[i].dtype : 0);
        view.dtype_lanes = 4;
        assert_int_equal(fi_tensor_dtype(&view), FEATINV_DTYPE_NONE);
    }
}

static void sizes_are_checked(void **state) {
    (void)state;
    const int64_t big = (int64_t)1 << 62;
    const struct {
        int64_t shape[3];
        int32_t ndim;
        int fits;
        size_t bytes;
    } cases[] = {
        {{0}, 0, 1, 4},           {{2, 3, 4}, 3, 1, 96},    {{2, 0, 4}, 3, 1, 0},
        {{-1}, 1, 0, 0},          {{-1, -1}, 2, 0, 0},      {{big, 2}, 2, 0, 0},
        {{0, big, big}, 3, 0, 0}, {{big, big, 0}, 3, 0, 0}, {{INT64_MAX}, 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes = 1;
        assert_int_equal(fi_checked_size(&bytes, cases[i].shape, cases[i].ndim, 4), cases[i].fits);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void shapes_as_text(void **state) {
    (void)state;
    char text[64], small[8];
    const int64_t shape[4] = {2, 48, 9, -1};
    assert_string_equal(fi_shape_text(text, sizeof text, shape, 4), "(2, 48, 9, -1)");
    assert_string_equal(fi_shape_text(text, sizeof text, shape, 1), "(2,)");
    assert_string_equal(fi_shape_text(text, sizeof text, shape, 0), "()");
    assert_string_equal(fi_shape_text(small, sizeof small, shape, 4), "(2, 48,");
}

static void views_are_checked(void **state) {
    (void)state;
    float data[6] = {0};
    int64_t shape[2] = {2, 3}, negative[2] = {-2, 3}, strides[2] = {1, 2};
    const int64_t any[2] = {-1, 3}, other[2] = {-1, 4};
    void *got;
    featinv_tensor view = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(fi_tensor_data(&got, &view, "maps", FEATINV_DTYPE_F32, 2, any));
    assert_ptr_equal(got, data);

    CHECK_FAILS(fi_tensor_data(&got, NULL, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_ARGUMENT, "maps: the tensor is NULL");
    CHECK_FAILS(fi_tensor_data(&got, &view, "maps", FEATINV_DTYPE_F32, 2, other),
                FEATINV_ERROR_SHAPE, "maps: shape is (2, 3), not (any, 4)");
    CHECK_FAILS(fi_tensor_data(&got, &view, "maps", FEATINV_DTYPE_F32, 1, any), FEATINV_ERROR_SHAPE,
                "maps: shape is (2, 3), not (any,)");
    CHECK_FAILS(fi_tensor_data(&got, &view, "maps", FEATINV_DTYPE_U8, 2, any), FEATINV_ERROR_SHAPE,
                "maps: dtype is float32, not uint8");

    featinv_tensor bad = view;
    bad.shape = negative;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any), FEATINV_ERROR_SHAPE,
                "negative or too large");
    bad = view;
    bad.data = NULL;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_ARGUMENT, "no data");
    bad = view;
    bad.strides = strides;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_ARGUMENT, "not C-contiguous");
    bad = view;
    bad.byte_offset = 2;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_ARGUMENT, "not aligned");
    bad = view;
    bad.device_type = 2;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_UNSUPPORTED, "device type 2");
    bad = view;
    bad.ndim = -1;
    CHECK_FAILS(fi_tensor_data(&got, &bad, "maps", FEATINV_DTYPE_F32, 2, any),
                FEATINV_ERROR_ARGUMENT, "dimensions");
}

static void strides_of_one_element_do_not_matter(void **state) {
    (void)state;
    float data[3] = {1, 2, 3};
    int64_t shape[3] = {1, 3, 1}, strides[3] = {77, 1, -5};
    const int64_t any[3] = {-1, -1, -1};
    void *got;
    featinv_tensor view = featinv_tensor_view(data, FEATINV_DTYPE_F32, 3, shape);
    view.strides = strides;
    CHECK_OK(fi_tensor_data(&got, &view, "x", FEATINV_DTYPE_F32, 3, any));
    assert_ptr_equal(got, data);
}

/* The same six numbers through views with different strides come out in C order. */
static void strided_inputs_are_packed(void **state) {
    (void)state;
    float data[12];
    for (int i = 0; i < 12; i++)
        data[i] = (float)i;
    const struct {
        int64_t strides[2], first;
    } cases[] = {{{6, 2}, 0}, {{1, 4}, 0}, {{-6, 1}, 6}, {{0, -1}, 5}, {{3, 1}, 1}};
    int64_t shape[2] = {2, 3};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const void *got;
        void *owned;
        int64_t strides[2] = {cases[c].strides[0], cases[c].strides[1]};
        featinv_tensor view = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, shape);
        view.strides = strides;
        view.byte_offset = (uint64_t)cases[c].first * sizeof(float);
        CHECK_OK(fi_tensor_input(&got, &owned, &view, "x", FEATINV_DTYPE_F32, 2, shape));
        for (int64_t i = 0; i < 2; i++)
            for (int64_t j = 0; j < 3; j++) {
                float value;
                memcpy(&value, (const float *)got + 3 * i + j, sizeof value);
                assert_true(value == (float)(cases[c].first + i * strides[0] + j * strides[1]));
            }
        free(owned);
    }
}

static void misaligned_inputs_are_copied(void **state) {
    (void)state;
    union {
        float aligned;
        unsigned char bytes[3 * sizeof(float) + 1];
    } room;
    const float values[3] = {1, 2, 3};
    int64_t shape[1] = {3};
    const void *got;
    void *owned;
    memcpy(room.bytes + 1, values, sizeof values);
    featinv_tensor view = featinv_tensor_view(&room, FEATINV_DTYPE_F32, 1, shape);
    view.byte_offset = 1;
    CHECK_OK(fi_tensor_input(&got, &owned, &view, "x", FEATINV_DTYPE_F32, 1, shape));
    assert_non_null(owned);
    assert_memory_equal(got, values, sizeof values);
    free(owned);
}

static void the_first_bad_value_is_named(void **state) {
    (void)state;
    enum { COUNT = 10000 };
    float *values = calloc(COUNT, sizeof *values);
    const size_t places[] = {0, 4095, 4096, COUNT - 1};
    CHECK_OK(fi_check_finite(values, COUNT, "maps"));
    CHECK_OK(fi_check_finite(values, 0, "maps"));
    for (size_t i = 0; i < 4; i++) {
        char text[64];
        values[places[i]] = i % 2 ? -INFINITY : NAN;
        snprintf(text, sizeof text, "maps: %s at element %zu", i % 2 ? "infinity" : "NaN",
                 places[i]);
        CHECK_FAILS(fi_check_finite(values, COUNT, "maps"), FEATINV_ERROR_VALUE, text);
        values[places[i]] = 3.4e38f;
    }
    CHECK_OK(fi_check_finite(values, COUNT, "maps"));
    free(values);
}

/* ---------------------------------------------------------------- DLPack --------------------- */

typedef struct managed { /* DLManagedTensor */
    featinv_tensor tensor;
    void *context;
    void (*deleter)(struct managed *);
} managed;

static void count_release(void *owner) {
    ++*(int *)owner;
}

static void dlpack_there_and_back(void **state) {
    (void)state;
    float data[6] = {0};
    int64_t shape[2] = {2, 3};
    int released = 0;
    void *exported;
    featinv_tensor view = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, shape), back;
    CHECK_OK(featinv_tensor_to_dlpack(&exported, &view, &released, count_release));
    shape[0] = shape[1] = 99; /* the export keeps its own */
    CHECK_OK(featinv_tensor_from_dlpack(&back, exported));
    assert_ptr_equal(back.data, data);
    assert_int_equal(back.ndim, 2);
    assert_int_equal(back.shape[0], 2);
    assert_int_equal(back.shape[1], 3);
    assert_int_equal(back.strides[0], 3);
    assert_int_equal(back.strides[1], 1);
    assert_int_equal(fi_tensor_dtype(&back), FEATINV_DTYPE_F32);
    assert_int_equal(released, 0);
    ((managed *)exported)->deleter(exported);
    assert_int_equal(released, 1);
}

static void dlpack_refuses(void **state) {
    (void)state;
    float data[2] = {0};
    int64_t shape[1] = {2}, negative[1] = {-2};
    void *exported;
    featinv_tensor out;
    managed foreign = {featinv_tensor_view(data, FEATINV_DTYPE_F32, 1, shape), NULL, NULL};
    CHECK_OK(featinv_tensor_from_dlpack(&out, &foreign));
    CHECK_FAILS(featinv_tensor_from_dlpack(&out, NULL), FEATINV_ERROR_ARGUMENT, "NULL");
    foreign.tensor.dtype_code = 5; /* complex */
    CHECK_FAILS(featinv_tensor_from_dlpack(&out, &foreign), FEATINV_ERROR_UNSUPPORTED, "code 5");
    foreign.tensor.dtype_code = 2;
    foreign.tensor.device_type = 10; /* ROCm */
    CHECK_FAILS(featinv_tensor_from_dlpack(&out, &foreign), FEATINV_ERROR_UNSUPPORTED, "type 10");
    foreign.tensor.device_type = 3; /* pinned: host memory */
    CHECK_OK(featinv_tensor_from_dlpack(&out, &foreign));
    assert_int_equal(out.device_type, 1);
    foreign.tensor.shape = NULL;
    CHECK_FAILS(featinv_tensor_from_dlpack(&out, &foreign), FEATINV_ERROR_ARGUMENT, "shape");
    foreign.tensor.shape = negative;
    CHECK_FAILS(featinv_tensor_to_dlpack(&exported, &foreign.tensor, NULL, NULL),
                FEATINV_ERROR_SHAPE, "negative");
    CHECK_FAILS(featinv_tensor_to_dlpack(&exported, NULL, NULL, NULL), FEATINV_ERROR_ARGUMENT,
                "NULL");
}

static void bytes_are_swapped(void **state) {
    (void)state;
    uint16_t two[3] = {0x0102, 0xff00, 0x8001};
    uint64_t eight[1] = {0x0102030405060708u};
    uint8_t one[2] = {1, 2};
    fi_swap_bytes(two, 2, 3);
    assert_int_equal(two[0], 0x0201);
    assert_int_equal(two[2], 0x0180);
    fi_swap_bytes(eight, 8, 1);
    assert_true(eight[0] == 0x0807060504030201u);
    fi_swap_bytes(one, 1, 2);
    assert_int_equal(one[0], 1);
}

static void halves_become_floats(void **state) {
    (void)state;
    const struct {
        uint16_t half;
        float value;
    } cases[] = {{0x0000, 0.0f},     {0x0001, 0x1p-24f}, {0x03ff, 1023 * 0x1p-24f},
                 {0x0400, 0x1p-14f}, {0x3c00, 1.0f},     {0xc000, -2.0f},
                 {0x7bff, 65504.0f}, {0xfc00, -INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(fi_half_to_float(cases[i].half) == cases[i].value);
    assert_true(signbit(fi_half_to_float(0x8000)));
    assert_true(isnan(fi_half_to_float(0x7e00)));
    assert_true(fi_bfloat_to_float(0xc049) == -3.140625f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(shapes_as_text),
        cmocka_unit_test(views_are_checked),
        cmocka_unit_test(strides_of_one_element_do_not_matter),
        cmocka_unit_test(strided_inputs_are_packed),
        cmocka_unit_test(misaligned_inputs_are_copied),
        cmocka_unit_test(the_first_bad_value_is_named),
        cmocka_unit_test(dlpack_there_and_back),
        cmocka_unit_test(dlpack_refuses),
        cmocka_unit_test(bytes_are_swapped),
        cmocka_unit_test(halves_become_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
