/* A folder appears whole or not at all, and what is not ours stays. */
#include "scratch.h"

#include "file.h"
#include "folder.h"

static void put_file(const fi_folder *folder, const char *name, const char *text) {
    char *path = fi_folder_file(folder, name);
    assert_non_null(path);
    CHECK_OK(fi_file_write(path, text, strlen(text)));
    free(path);
}

static void check_file(const char *path, const char *text) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    CHECK_OK(fi_file_read(&bytes, &size, path, 1000));
    assert_string_equal((char *)bytes, text);
    free(bytes);
}

static void remove_all(void) {
    char command[200];
    (void)snprintf(command, sizeof command, "rm -rf '%s'/* '%s'/.f*", scratch_folder,
                   scratch_folder);
    assert_int_equal(system(command), 0);
}

static void appears_on_commit(void **state) {
    (void)state;
    fi_folder *folder;
    char path[200];
    (void)snprintf(path, sizeof path, "%s//", scratch("new"));
    CHECK_OK(fi_folder_open(&folder, path));
    put_file(folder, "a", "1");
    put_file(folder, "deep/er/b", "2");
    assert_int_not_equal(access(scratch("new"), F_OK), 0);
    CHECK_OK(fi_folder_commit(folder, false));
    check_file(scratch("new/a"), "1");
    check_file(scratch("new/deep/er/b"), "2");
    assert_int_equal(scratch_entries(0), 1);
    remove_all();
}

static void goes_on_abort(void **state) {
    (void)state;
    fi_folder *folder;
    CHECK_OK(fi_folder_open(&folder, scratch("new")));
    put_file(folder, "deep/er/b", "2");
    /* what a link points to is none of the folder's */
    const char *kept = scratch_file("kept", "3", 1);
    char *link = fi_folder_file(folder, "link");
    assert_int_equal(symlink(kept, link), 0);
    free(link);
    fi_folder_abort(folder);
    fi_folder_abort(NULL);
    check_file(scratch("kept"), "3");
    assert_int_equal(scratch_entries(0), 1);
    remove_all();
}

static void replaces_only_on_demand(void **state) {
    (void)state;
    fi_folder *folder;
    for (int round = 0; round < 3; round++) {
        char text[2] = {(char)('0' + round), 0};
        CHECK_OK(fi_folder_open(&folder, scratch("new")));
        put_file(folder, round == 1 ? "other" : "a", text);
        if (round == 1)
            CHECK_FAILS(fi_folder_commit(folder, false), FEATINV_ERROR_WRITE, "new");
        else
            CHECK_OK(fi_folder_commit(folder, true));
        assert_int_equal(scratch_entries(0), 1);
        assert_int_not_equal(access(scratch("new/other"), F_OK), 0);
        check_file(scratch("new/a"), round == 2 ? "2" : "0");
    }
    remove_all();
}

static void places_that_cannot_be(void **state) {
    (void)state;
    fi_folder *folder = NULL;
    CHECK_FAILS(fi_folder_open(&folder, ""), FEATINV_ERROR_ARGUMENT, "path");
    CHECK_FAILS(fi_folder_open(&folder, scratch("none/new")), FEATINV_ERROR_WRITE, "none/new");
    (void)scratch_file("file", "1", 1);
    CHECK_FAILS(fi_folder_open(&folder, scratch("file/new")), FEATINV_ERROR_WRITE, "file/new");
    assert_null(folder);
    CHECK_OK(fi_folder_open(&folder, scratch("new")));
    put_file(folder, "a", "1");
    assert_null(fi_folder_file(folder, "a/b/c"));
    fi_folder_abort(folder);
    assert_int_equal(scratch_entries(0), 1);
    remove_all();
}

static void copies_are_hashed(void **state) {
    (void)state;
    char sha256[FI_HASH_TEXT], wanted[FI_HASH_TEXT];
    static char bytes[(1 << 20) + 77];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * i >> 3);
    static const size_t sizes[] = {0, 1, 1 << 20, sizeof bytes};
    for (size_t i = 0; i < 4; i++) {
        const char *from = scratch_file("from", bytes, sizes[i]);
        CHECK_OK(fi_file_copy(sha256, scratch("to"), from));
        CHECK_OK(fi_hash_bytes(wanted, bytes, sizes[i]));
        assert_string_equal(sha256, wanted);
        CHECK_OK(fi_hash_file(sha256, scratch("to")));
        assert_string_equal(sha256, wanted);
    }
    CHECK_FAILS(fi_file_copy(sha256, scratch("to"), scratch("no")), FEATINV_ERROR_NOT_FOUND, "no");
    CHECK_FAILS(fi_file_copy(sha256, scratch("none/to"), scratch("from")), FEATINV_ERROR_WRITE,
                "none/to");
    remove_all();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_on_commit),       cmocka_unit_test(goes_on_abort),
        cmocka_unit_test(replaces_only_on_demand), cmocka_unit_test(places_that_cannot_be),
        cmocka_unit_test(copies_are_hashed),
    };
    return cmocka_run_group_tests_name("folder", tests, scratch_make, scratch_remove);
}
