/* A folder for one test program's files. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include "check.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_folder[64];

static inline int scratch_make(void **state) {
    (void)state;
    strcpy(scratch_folder, "/tmp/featinv-test-XXXXXX");
    return mkdtemp(scratch_folder) ? 0 : -1;
}

/* Number of entries in the folder; also removes them when asked to. */
static inline int scratch_entries(int remove_them) {
    int count = 0;
    DIR *folder = opendir(scratch_folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[400];
        if (entry->d_name[0] == '.' && (!entry->d_name[1] || entry->d_name[1] == '.'))
            continue;
        count++;
        snprintf(path, sizeof path, "%s/%s", scratch_folder, entry->d_name);
        if (remove_them && unlink(path) != 0)
            (void)rmdir(path);
    }
    if (folder)
        closedir(folder);
    return count;
}

static inline int scratch_remove(void **state) {
    (void)state;
    (void)scratch_entries(1);
    return rmdir(scratch_folder);
}

/* Path of a file in the folder, in one of four buffers. */
static inline const char *scratch(const char *name) {
    static char paths[4][200];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", scratch_folder, name);
    return paths[next];
}

static inline const char *scratch_file(const char *name, const void *bytes, size_t size) {
    const char *path = scratch(name);
    (void)unlink(path); /* a file truncated instead is flushed to the disk by ext4 on closing */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

#endif
