#include "scratch.h"

#include "file.h"
#include "safetensors_writer.h"

static fi_safetensors_entry entry(char *key, featinv_dtype dtype, int32_t ndim, int64_t a,
                                  int64_t b) {
    return (fi_safetensors_entry){.key = key, .dtype = dtype, .ndim = ndim, .shape = {a, b}};
}

static char *read_all(const char *path, size_t *size) {
    uint8_t *bytes = NULL;
    CHECK_OK(fi_file_read(&bytes, size, path, 1 << 20));
    return (char *)bytes;
}

/* What is written in pieces of any size is what the reader finds. */
static void round_trip(void **state) {
    (void)state;
    const float first[6] = {1, -2, 3.5f, 0, 1e30f, -0.0f};
    const uint16_t second[3] = {1, 2, 3};
    const double third = 0.1;
    fi_safetensors_entry entries[] = {entry("b.weight", FEATINV_DTYPE_F32, 2, 2, 3),
                                      entry("a", FEATINV_DTYPE_F16, 1, 3, 0),
                                      entry("none", FEATINV_DTYPE_F32, 2, 0, 5),
                                      entry("scalar \"é\"", FEATINV_DTYPE_F64, 0, 0, 0)};
    json_t *metadata = json_pack("{s:s, s:s}", "step", "12", "name", "a \"b\"");
    for (size_t piece = 1; piece < 40; piece += 3) {
        fi_safetensors_writer *writer;
        fi_safetensors header;
        char sha256[FI_HASH_TEXT], again[FI_HASH_TEXT];
        uint64_t bytes = 0;
        uint8_t data[24 + 6 + 8];
        memcpy(data, first, 24);
        memcpy(data + 24, second, 6);
        memcpy(data + 30, &third, 8);
        const char *path = scratch("w.safetensors");
        CHECK_OK(fi_safetensors_writer_open(&writer, path, entries, 4, metadata));
        for (size_t at = 0; at < sizeof data; at += piece)
            fi_safetensors_writer_write(writer, data + at,
                                        sizeof data - at < piece ? sizeof data - at : piece);
        CHECK_OK(fi_safetensors_writer_commit(sha256, &bytes, writer));
        CHECK_OK(fi_hash_file(again, path));
        assert_string_equal(sha256, again);

        CHECK_OK(fi_safetensors_open(&header, path));
        assert_int_equal(header.file_bytes, bytes);
        assert_int_equal(header.header_bytes % 8, 0);
        assert_int_equal(header.count, 4);
        for (int i = 0; i < 4; i++) {
            assert_string_equal(header.entries[i].key, entries[i].key);
            assert_int_equal(header.entries[i].dtype, entries[i].dtype);
            assert_int_equal(header.entries[i].ndim, entries[i].ndim);
            for (int32_t k = 0; k < entries[i].ndim; k++)
                assert_int_equal(header.entries[i].shape[k], entries[i].shape[k]);
        }
        json_t *found = json_loads(header.metadata, 0, NULL);
        assert_true(json_equal(found, metadata));
        json_decref(found);
        size_t size;
        char *file = read_all(path, &size);
        assert_memory_equal(file + header.header_bytes, data, sizeof data);
        free(file);
        fi_safetensors_close(&header);
    }
    json_decref(metadata);
    assert_int_equal(scratch_entries(1), 1);
}

static void no_tensors_and_no_metadata(void **state) {
    (void)state;
    fi_safetensors_writer *writer;
    fi_safetensors header;
    CHECK_OK(fi_safetensors_writer_open(&writer, scratch("w"), NULL, 0, NULL));
    CHECK_OK(fi_safetensors_writer_commit(NULL, NULL, writer));
    CHECK_OK(fi_safetensors_open(&header, scratch("w")));
    assert_int_equal(header.count, 0);
    assert_null(header.metadata);
    fi_safetensors_close(&header);
    (void)scratch_entries(1);
}

static void what_cannot_be_written(void **state) {
    (void)state;
    fi_safetensors_writer *writer;
    fi_safetensors_entry twice[] = {entry("a", FEATINV_DTYPE_F32, 1, 1, 0),
                                    entry("a", FEATINV_DTYPE_F32, 1, 1, 0)};
    CHECK_FAILS(fi_safetensors_writer_open(&writer, scratch("w"), twice, 2, NULL),
                FEATINV_ERROR_INTERNAL, "a cannot be stored");
    fi_safetensors_entry odd[] = {entry("a", FEATINV_DTYPE_NONE, 1, 1, 0),
                                  entry("a", FEATINV_DTYPE_F32, 1, -1, 0),
                                  entry("a", FEATINV_DTYPE_F32, 2, INT64_MAX, 8)};
    for (int i = 0; i < 3; i++)
        CHECK_FAILS(fi_safetensors_writer_open(&writer, scratch("w"), &odd[i], 1, NULL),
                    FEATINV_ERROR_INTERNAL, "a cannot be stored");
    fi_safetensors_entry one = entry("a", FEATINV_DTYPE_U8, 1, 4, 0);
    CHECK_FAILS(fi_safetensors_writer_open(&writer, scratch("none/w"), &one, 1, NULL),
                FEATINV_ERROR_WRITE, "none/w");
    for (size_t size = 3; size < 6; size += 2) {
        CHECK_OK(fi_safetensors_writer_open(&writer, scratch("w"), &one, 1, NULL));
        fi_safetensors_writer_write(writer, "abcdef", size);
        CHECK_FAILS(fi_safetensors_writer_commit(NULL, NULL, writer), FEATINV_ERROR_INTERNAL,
                    "bytes");
    }
    CHECK_OK(fi_safetensors_writer_open(&writer, scratch("w"), &one, 1, NULL));
    CHECK_FAILS(fi_safetensors_writer_seal(writer), FEATINV_ERROR_INTERNAL, "seal");
    fi_safetensors_writer_abort(writer);
    fi_safetensors_writer_abort(NULL);
    assert_int_equal(scratch_entries(1), 0);
}

static featinv_status check_seal(const char *path) {
    fi_safetensors header;
    uint64_t size;
    int fd;
    CHECK_OK(fi_safetensors_open(&header, path));
    CHECK_OK(fi_file_open(&fd, &size, path));
    featinv_status status = fi_safetensors_check_seal(&header, fd, path);
    fi_file_close(fd);
    fi_safetensors_close(&header);
    return status;
}

/* Whichever bit changes, header, data or seal, it is seen. */
static void a_seal_guards_every_byte(void **state) {
    (void)state;
    fi_safetensors_writer *writer;
    fi_safetensors_entry entries[] = {entry("a", FEATINV_DTYPE_U8, 1, 4, 0),
                                      entry("sha256", FEATINV_DTYPE_U8, 1, 64, 0)};
    const char *path = scratch("sealed");
    CHECK_OK(fi_safetensors_writer_open(&writer, path, entries, 2, NULL));
    CHECK_FAILS(fi_safetensors_writer_seal(writer), FEATINV_ERROR_INTERNAL, "seal");
    fi_safetensors_writer_write(writer, "abcd", 4);
    CHECK_OK(fi_safetensors_writer_seal(writer));
    CHECK_OK(fi_safetensors_writer_commit(NULL, NULL, writer));
    CHECK_OK(check_seal(path));
    size_t size;
    int seen = 0;
    char *file = read_all(path, &size);
    for (size_t i = 0; i < size; i++) {
        file[i] ^= 4;
        const char *other = scratch_file("other", file, size);
        fi_safetensors header;
        if (!fi_safetensors_open(&header, other)) { /* many flips damage the header itself */
            fi_safetensors_close(&header);
            assert_int_not_equal(check_seal(other), FEATINV_OK);
            seen++;
        }
        file[i] ^= 4;
    }
    assert_true(seen >= 68);
    free(file);
    CHECK_OK(fi_safetensors_writer_open(&writer, path, entries, 1, NULL));
    fi_safetensors_writer_write(writer, "abcd", 4);
    CHECK_OK(fi_safetensors_writer_commit(NULL, NULL, writer));
    assert_int_equal(check_seal(path), FEATINV_ERROR_FORMAT);
    (void)scratch_entries(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(no_tensors_and_no_metadata),
        cmocka_unit_test(what_cannot_be_written),
        cmocka_unit_test(a_seal_guards_every_byte),
    };
    return cmocka_run_group_tests_name("safetensors_writer", tests, scratch_make, scratch_remove);
}
