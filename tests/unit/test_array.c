#include "scratch.h"

#include "array.h"
#include "npy.h"

static featinv_array_info info_of(const char *path, const char *member) {
    featinv_array_info info = {.struct_size = sizeof info};
    CHECK_OK(featinv_array_read(NULL, 0, &info, path, member, FEATINV_DTYPE_NONE));
    return info;
}

static void npy_there_and_back(void **state) {
    (void)state;
    float data[6] = {1, -2, 3, 4.5f, 0, 1e30f}, got[6];
    double wide[6];
    int64_t shape[2] = {2, 3};
    featinv_tensor view = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(featinv_array_write(scratch("a.npy"), &view, NULL, 1, 0));
    featinv_array_info info = info_of(scratch("a.npy"), NULL);
    assert_int_equal(info.dtype, FEATINV_DTYPE_F32);
    assert_int_equal(info.ndim, 2);
    assert_memory_equal(info.shape, shape, sizeof shape);
    CHECK_OK(featinv_array_read(got, sizeof got, NULL, scratch("a.npy"), NULL, 0));
    assert_memory_equal(got, data, sizeof data);
    CHECK_OK(
        featinv_array_read(wide, sizeof wide, NULL, scratch("a.npy"), NULL, FEATINV_DTYPE_F64));
    for (int i = 0; i < 6; i++)
        assert_true(wide[i] == (double)data[i]);
    CHECK_FAILS(
        featinv_array_read(wide, sizeof wide - 1, NULL, scratch("a.npy"), NULL, FEATINV_DTYPE_F64),
        FEATINV_ERROR_CAPACITY, "48 bytes");
    CHECK_FAILS(featinv_array_read(got, sizeof got, NULL, scratch("a.npy"), NULL, FEATINV_DTYPE_U8),
                FEATINV_ERROR_SHAPE, "float32, not uint8");
    CHECK_FAILS(featinv_array_read(got, sizeof got, NULL, scratch("a.npy"), "x", 0),
                FEATINV_ERROR_NOT_FOUND, "'x'");
    CHECK_FAILS(featinv_array_read(got, sizeof got, NULL, NULL, NULL, 0), FEATINV_ERROR_ARGUMENT,
                "NULL");
}

static void npz_there_and_back(void **state) {
    (void)state;
    uint8_t bytes[1000] = {0};
    int64_t number = -7, shape[1] = {1000}, none[2] = {0, 5};
    for (int i = 0; i < 1000; i++)
        bytes[i] = (uint8_t)(i / 10);
    const featinv_tensor arrays[3] = {
        featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 1, shape),
        featinv_tensor_view(&number, FEATINV_DTYPE_I64, 0, NULL),
        featinv_tensor_view(NULL, FEATINV_DTYPE_F32, 2, none),
    };
    const char *const names[3] = {"features", "number", "none"};
    for (int compress = 0; compress < 2; compress++) {
        const char *path = scratch(compress ? "deflated.npz" : "stored.npz");
        void *data;
        featinv_array_info info;
        CHECK_OK(featinv_array_write(path, arrays, names, 3, compress));
        CHECK_OK(fi_array_load(&data, &info, path, NULL, FEATINV_DTYPE_NONE));
        assert_memory_equal(data, bytes, sizeof bytes);
        free(data);
        CHECK_OK(fi_array_load(&data, &info, path, "number", FEATINV_DTYPE_NONE));
        assert_int_equal(*(int64_t *)data, -7);
        assert_int_equal(info.ndim, 0);
        free(data);
        CHECK_OK(fi_array_load(&data, &info, path, "none", FEATINV_DTYPE_NONE));
        assert_non_null(data);
        assert_int_equal(info.shape[1], 5);
        free(data);
        CHECK_FAILS(fi_array_load(&data, &info, path, "other", 0), FEATINV_ERROR_NOT_FOUND,
                    "'other'");
        assert_null(data);
    }
    struct stat stored, deflated;
    assert_int_equal(stat(scratch("stored.npz"), &stored), 0);
    assert_int_equal(stat(scratch("deflated.npz"), &deflated), 0);
    assert_true(deflated.st_size < stored.st_size - 500);
}

static void names_of_an_archive(void **state) {
    (void)state;
    char **names;
    int64_t count;
    CHECK_OK(fi_array_names(&names, &count, scratch("stored.npz")));
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "features");
    assert_string_equal(names[1], "number");
    assert_string_equal(names[2], "none");
    assert_null(names[3]);
    free(names);
    CHECK_FAILS(fi_array_names(&names, &count, scratch("a.npy")), FEATINV_ERROR_FORMAT, "npz");
    CHECK_FAILS(fi_array_names(&names, &count, scratch("-")), FEATINV_ERROR_NOT_FOUND, "no such");
}

static void writing_refuses(void **state) {
    (void)state;
    float data[1] = {0};
    int64_t shape[1] = {1};
    const featinv_tensor two[2] = {featinv_tensor_view(data, FEATINV_DTYPE_F32, 1, shape),
                                   featinv_tensor_view(data, FEATINV_DTYPE_F32, 1, shape)};
    featinv_tensor brain = featinv_tensor_view(data, FEATINV_DTYPE_BF16, 1, shape);
    featinv_tensor unknown = featinv_tensor_view(data, 99, 1, shape);
    const char *const twice[2] = {"x", "x"}, *const nameless[2] = {"x", NULL};
    int before = scratch_entries(0);
    CHECK_FAILS(featinv_array_write(NULL, two, NULL, 1, 0), FEATINV_ERROR_ARGUMENT, "no path");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), NULL, NULL, 1, 0), FEATINV_ERROR_ARGUMENT,
                "no arrays");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), two, NULL, -1, 0), FEATINV_ERROR_ARGUMENT,
                "");
    CHECK_FAILS(featinv_array_write(scratch("x.npy"), two, NULL, 2, 0), FEATINV_ERROR_ARGUMENT,
                "not 2");
    CHECK_FAILS(featinv_array_write(scratch("x.bin"), two, NULL, 1, 0), FEATINV_ERROR_ARGUMENT,
                "x.bin");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), two, twice, 2, 0), FEATINV_ERROR_ARGUMENT,
                "named x");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), two, nameless, 2, 0), FEATINV_ERROR_ARGUMENT,
                "array 1");
    CHECK_FAILS(featinv_array_write(scratch("x.npy"), &brain, NULL, 1, 0), FEATINV_ERROR_ARGUMENT,
                "bfloat16");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), &brain, NULL, 1, 1), FEATINV_ERROR_ARGUMENT,
                "bfloat16");
    CHECK_FAILS(featinv_array_write(scratch("x.npz"), &unknown, NULL, 1, 1), FEATINV_ERROR_ARGUMENT,
                "dtype");
    assert_int_equal(scratch_entries(0), before);
}

static void headers_are_aligned(void **state) {
    (void)state;
    char header[FI_NPY_HEADER_MOST];
    const int64_t most = INT64_MAX;
    const int64_t shape[8] = {most, most, most, most, most, most, most, most};
    for (int32_t ndim = 0; ndim <= 8; ndim++) {
        size_t begin, end, size = fi_npy_format(header, FEATINV_DTYPE_F32, ndim, shape);
        assert_int_equal(size % 64, 0);
        assert_int_equal(header[size - 1], '\n');
        CHECK_OK(fi_npy_prefix(&begin, &end, (uint8_t *)header, "x"));
        assert_int_equal(end, size);
    }
    assert_int_equal(fi_npy_format(header, FEATINV_DTYPE_F32, 9, shape), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_there_and_back),  cmocka_unit_test(npz_there_and_back),
        cmocka_unit_test(names_of_an_archive), cmocka_unit_test(writing_refuses),
        cmocka_unit_test(headers_are_aligned),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
