#include "scratch.h"

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static void reads_whole_files(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t size;
    CHECK_OK(fi_file_read(&bytes, &size, scratch_file("a", "hello", 5), 5));
    assert_int_equal(size, 5);
    assert_string_equal((char *)bytes, "hello"); /* the zero byte behind it */
    free(bytes);
    CHECK_OK(fi_file_read(&bytes, &size, scratch_file("a", "", 0), 0));
    assert_int_equal(size, 0);
    assert_int_equal(bytes[0], 0);
    free(bytes);
}

static void refuses_what_is_no_file(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(mkfifo(scratch("fifo"), 0600), 0);
    const struct {
        const char *path;
        featinv_status status;
        const char *text;
    } cases[] = {
        {scratch("none"), FEATINV_ERROR_NOT_FOUND, "none: no such file"},
        {scratch_folder, FEATINV_ERROR_READ, "is a directory"},
        {scratch("fifo"), FEATINV_ERROR_READ, "is not a regular file"},
        {"/dev/zero", FEATINV_ERROR_READ, "is not a regular file"},
        {scratch_file("long", "123456", 6), FEATINV_ERROR_LIMIT, "6 bytes, at most 5"},
        {NULL, FEATINV_ERROR_ARGUMENT, "NULL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_FAILS(fi_file_read(&bytes, &size, cases[i].path, 5), cases[i].status, cases[i].text);
        assert_null(bytes);
    }
}

static void reads_pieces(void **state) {
    (void)state;
    int fd;
    uint64_t size;
    char piece[4] = {0};
    const char *path = scratch_file("a", "0123456789", 10);
    CHECK_OK(fi_file_open(&fd, &size, path));
    assert_int_equal(size, 10);
    CHECK_OK(fi_file_read_at(fd, piece, 3, 4, path));
    assert_string_equal(piece, "456");
    CHECK_FAILS(fi_file_read_at(fd, piece, 3, 8, path), FEATINV_ERROR_FORMAT, "ends early");
    fi_file_close(fd);
    fi_file_close(-1);
}

static void check_content(const char *path, const char *content) {
    uint8_t *bytes;
    size_t size;
    CHECK_OK(fi_file_read(&bytes, &size, path, 1000));
    assert_string_equal((char *)bytes, content);
    free(bytes);
}

static void writes_appear_whole(void **state) {
    (void)state;
    (void)scratch_entries(1);
    fi_writer *writer;
    const char *path = scratch_file("a", "old", 3);
    CHECK_OK(fi_writer_open(&writer, path));
    fi_writer_write(writer, "hello world", 11);
    fi_writer_patch(writer, 6, "W", 1);
    assert_int_equal(fputs("!", fi_writer_stream(writer)), 1);
    check_content(path, "old");
    assert_int_equal(scratch_entries(0), 2);
    CHECK_OK(fi_writer_commit(writer));
    check_content(path, "hello World!");
    assert_int_equal(scratch_entries(0), 1);
}

static void an_aborted_write_leaves_nothing(void **state) {
    (void)state;
    (void)scratch_entries(1);
    fi_writer *writer;
    CHECK_OK(fi_writer_open(&writer, scratch("a")));
    fi_writer_write(writer, "hello", 5);
    fi_writer_abort(writer);
    fi_writer_abort(NULL);
    assert_int_equal(scratch_entries(0), 0);
}

static void files_get_the_usual_permissions(void **state) {
    (void)state;
    struct stat info;
    mode_t mask = umask(027);
    CHECK_OK(fi_file_write(scratch("a"), "x", 1));
    (void)umask(mask);
    assert_int_equal(stat(scratch("a"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void refuses_places_to_write(void **state) {
    (void)state;
    (void)scratch_entries(1);
    fi_writer *writer;
    CHECK_FAILS(fi_writer_open(&writer, scratch("none/a")), FEATINV_ERROR_WRITE, "none/a");
    CHECK_FAILS(fi_writer_open(&writer, scratch_folder), FEATINV_ERROR_WRITE, "directory");
    CHECK_FAILS(fi_writer_open(&writer, "/dev/null"), FEATINV_ERROR_WRITE, "not a regular file");
    CHECK_FAILS(fi_writer_open(&writer, ""), FEATINV_ERROR_ARGUMENT, "empty");
    assert_int_equal(scratch_entries(0), 0);
}

/* A limit on file sizes stands for the full disk. */
static void a_full_disk_is_reported_by_commit(void **state) {
    (void)state;
    (void)scratch_entries(1);
    static const char block[9000];
    struct rlimit before, small;
    fi_writer *writer;
    const char *path = scratch_file("a", "old", 3);
    CHECK_OK(fi_writer_open(&writer, path));
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 20000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 5; i++)
        fi_writer_write(writer, block, sizeof block);
    featinv_status status = fi_writer_commit(writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_FAILS(status, FEATINV_ERROR_WRITE, path);
    check_content(path, "old");
    assert_int_equal(scratch_entries(0), 1);
}

static void suffixes(void **state) {
    (void)state;
    assert_true(fi_path_has_suffix("a.png", ".png"));
    assert_true(fi_path_has_suffix("x/a.PNG", ".png"));
    assert_false(fi_path_has_suffix(".png", ".png"));
    assert_false(fi_path_has_suffix("x/.png", ".png"));
    assert_false(fi_path_has_suffix("a.pngx", ".png"));
    assert_false(fi_path_has_suffix("", ".png"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_whole_files),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(reads_pieces),
        cmocka_unit_test(writes_appear_whole),
        cmocka_unit_test(an_aborted_write_leaves_nothing),
        cmocka_unit_test(files_get_the_usual_permissions),
        cmocka_unit_test(refuses_places_to_write),
        cmocka_unit_test(a_full_disk_is_reported_by_commit),
        cmocka_unit_test(suffixes),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
