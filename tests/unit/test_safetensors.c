#include "scratch.h"

#include "safetensors.h"

/* A file with that header and so many bytes of data; length 0: the header's own. */
static const char *file_of(const char *header, uint64_t length, size_t data) {
    static char bytes[1 << 16];
    size_t size = strlen(header);
    uint64_t declared = length ? length : size;
    assert_true(8 + size + data <= sizeof bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(declared >> 8 * i & 0xff);
    memcpy(bytes + 8, header, size);
    memset(bytes + 8 + size, 7, data);
    return scratch_file("a.safetensors", bytes, 8 + size + data);
}

#define F32(name, shape, begin, end)                                                               \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]" \
    "}"

static void entries_come_in_the_order_of_their_data(void **state) {
    (void)state;
    fi_safetensors header;
    const char *text = "{\"__metadata__\":{\"format\":\"pt\"}," F32(
        "b", "2,3", 6, 30) ","
                           "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6]}," F32(
                               "none", "0,3", 30, 30) "," F32("scalar", "", 30, 34) "}   ";
    CHECK_OK(fi_safetensors_open(&header, file_of(text, 0, 34)));
    assert_int_equal(header.count, 4);
    assert_int_equal(header.header_bytes, 8 + strlen(text));
    assert_int_equal(header.file_bytes, 8 + strlen(text) + 34);
    assert_string_equal(header.entries[0].key, "a");
    assert_int_equal(header.entries[0].dtype, FEATINV_DTYPE_BF16);
    assert_string_equal(header.entries[1].key, "b");
    assert_int_equal(header.entries[1].ndim, 2);
    assert_int_equal(header.entries[1].shape[1], 3);
    assert_int_equal(header.entries[1].begin, header.header_bytes + 6);
    assert_int_equal(header.entries[1].end, header.header_bytes + 30);
    assert_string_equal(header.entries[2].key, "none");
    assert_string_equal(header.entries[3].key, "scalar");
    assert_int_equal(header.entries[3].ndim, 0);
    fi_safetensors_close(&header);
    assert_int_equal(header.count, 0);
}

static void a_file_without_tensors(void **state) {
    (void)state;
    fi_safetensors header;
    CHECK_OK(fi_safetensors_open(&header, file_of("{}", 0, 0)));
    assert_int_equal(header.count, 0);
    fi_safetensors_close(&header);
}

static void every_dtype(void **state) {
    (void)state;
    static const struct {
        const char *name;
        featinv_dtype dtype;
        int size;
    } cases[] = {
        {"F64", FEATINV_DTYPE_F64, 8},   {"F32", FEATINV_DTYPE_F32, 4},
        {"F16", FEATINV_DTYPE_F16, 2},   {"BF16", FEATINV_DTYPE_BF16, 2},
        {"I64", FEATINV_DTYPE_I64, 8},   {"I32", FEATINV_DTYPE_I32, 4},
        {"I16", FEATINV_DTYPE_I16, 2},   {"I8", FEATINV_DTYPE_I8, 1},
        {"U64", FEATINV_DTYPE_U64, 8},   {"U32", FEATINV_DTYPE_U32, 4},
        {"U16", FEATINV_DTYPE_U16, 2},   {"U8", FEATINV_DTYPE_U8, 1},
        {"BOOL", FEATINV_DTYPE_BOOL, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fi_safetensors header;
        char text[200];
        snprintf(text, sizeof text,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}", cases[i].name,
                 3 * cases[i].size);
        CHECK_OK(fi_safetensors_open(&header, file_of(text, 0, (size_t)(3 * cases[i].size))));
        assert_int_equal(header.entries[0].dtype, cases[i].dtype);
        fi_safetensors_close(&header);
    }
}

static void refuses_hostile_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        uint64_t length;
        size_t data;
        const char *text;
    } cases[] = {
        {"", 0, 0, "too short"},
        {"{", 0, 1, "header of 1 bytes"},
        {"{}", 3, 0, "header of 3 bytes"},
        {"{}", 100000001, 0, "header of 100000001 bytes"},
        {"{}", UINT64_MAX, 0, "header of 18446744073709551615 bytes"},
        {"[]", 0, 0, "not an object"},
        {"{]", 0, 0, "safetensors header"},
        {"{}x", 0, 0, "safetensors header"},
        {"{\"a\":[[[[[]]]]]}", 0, 0, "nested too deep"},
        {"{\"a\":1}", 0, 0, "'a': is not described"},
        {"{\"__metadata__\":{\"a\":1}}", 0, 0, "something else than strings"},
        {"{\"__metadata__\":\"x\"}", 0, 0, "not an object"},
        {"{" F32("a", "1", 0, 4) "," F32("a", "1", 4, 8) "}", 0, 8, "duplicate"},
        {"{" F32("a", "2", 0, 8) "," F32("b", "1", 4, 8) "}", 0, 8, "'b': overlaps"},
        {"{" F32("a", "1", 0, 4) "," F32("b", "1", 0, 4) "}", 0, 4, "'b': overlaps"},
        {"{" F32("a", "1", 0, 4) "," F32("b", "1", 8, 12) "}", 0, 12, "'b': a gap"},
        {"{" F32("a", "1", 4, 8) "}", 0, 8, "'a': a gap"},
        {"{" F32("a", "1", 0, 4) "}", 0, 5, "1 bytes belong to no tensor"},
        {"{}", 0, 5, "5 bytes belong to no tensor"},
        {"{" F32("a", "1", 0, 4) "}", 0, 3, "outside the file"},
        {"{" F32("a", "1", 4, 0) "}", 0, 4, "outside the file"},
        {"{" F32("a", "1", -4, 0) "}", 0, 4, "outside the file"},
        {"{" F32("a", "2", 0, 4) "}", 0, 4, "do not give the size"},
        {"{" F32("a", "4611686018427387904,4", 0, 4) "}", 0, 4, "do not give the size"},
        {"{" F32("a", "-1,-1", 0, 4) "}", 0, 4, "not made of counts"},
        {"{" F32("a", "1.0", 0, 4) "}", 0, 4, "not made of counts"},
        {"{" F32("a", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 0, 4, "too many dimensions"},
        {"{" F32("a", "99999999999999999999", 0, 4) "}", 0, 4, "safetensors header"},
        {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 0, 1, "'F8_E4M3'"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "dtype ''"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 0, 4, "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 0, 4, "no data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]}}", 0, 4, "no data_offsets"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fi_safetensors header;
        CHECK_FAILS(
            fi_safetensors_open(&header, file_of(cases[i].header, cases[i].length, cases[i].data)),
            FEATINV_ERROR_FORMAT, cases[i].text);
        assert_null(header.entries);
    }
}

static void refuses_headers_that_cost_too_much_memory(void **state) {
    (void)state;
    enum { VALUES = 5 * 1000 * 1000 };
    fi_safetensors header;
    char *bytes = malloc(8 + 5 + 2 * VALUES + 2);
    memcpy(bytes + 8, "{\"a\":[", 6);
    for (int i = 0; i < VALUES; i++)
        memcpy(bytes + 14 + 2 * i, "0,", 2);
    uint64_t size = 6 + 2 * VALUES - 1 + 2;
    memcpy(bytes + 8 + size - 2, "]}", 2);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(size >> 8 * i & 0xff);
    const char *path = scratch_file("big.safetensors", bytes, 8 + size);
    free(bytes);
    CHECK_FAILS(fi_safetensors_open(&header, path), FEATINV_ERROR_FORMAT, "4999999 values");
    CHECK_FAILS(fi_safetensors_open(&header, scratch("none")), FEATINV_ERROR_NOT_FOUND, "none");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_come_in_the_order_of_their_data),
        cmocka_unit_test(a_file_without_tensors),
        cmocka_unit_test(every_dtype),
        cmocka_unit_test(refuses_hostile_headers),
        cmocka_unit_test(refuses_headers_that_cost_too_much_memory),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
