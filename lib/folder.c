#include "folder.h"

#include "error.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fi_folder {
    char *path;      /* final; no slash at its end */
    char *temporary; /* in the same folder */
};

static featinv_status fail_write(const char *path, int error) {
    return fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path, strerror(error));
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void remove_tree(const char *path) {
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void free_folder(fi_folder *folder) {
    free(folder->path);
    free(folder->temporary);
    free(folder);
}

/* Length of the part of path before its last name, the slash included. */
static size_t parent_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A fresh folder beside folder->path. */
static featinv_status make_temporary(fi_folder *folder) {
    static atomic_uint counter;
    char parent[PATH_MAX], name[PATH_MAX + 64], *real;
    size_t length = parent_length(folder->path);
    (void)snprintf(parent, sizeof parent, "%.*s", length ? (int)length : 1,
                   length ? folder->path : ".");
    real = realpath(parent, NULL);
    if (!real)
        return fail_write(folder->path, errno);
    int made = -1;
    for (int attempt = 0; made != 0 && attempt < 1000; attempt++) {
        (void)snprintf(name, sizeof name, "%s/.featinv-%ld-%u.tmp", strcmp(real, "/") ? real : "",
                       (long)getpid(), atomic_fetch_add(&counter, 1u));
        made = mkdir(name, 0777);
        if (made != 0 && errno != EEXIST)
            break;
    }
    free(real);
    if (made != 0)
        return fail_write(folder->path, errno);
    folder->temporary = strdup(name);
    if (folder->temporary)
        return FEATINV_OK;
    (void)rmdir(name);
    return fi_fail_memory(strlen(name));
}

featinv_status fi_folder_open(fi_folder **out, const char *path) {
    *out = NULL;
    fi_folder *folder = calloc(1, sizeof *folder);
    if (!folder)
        return fi_fail_memory(sizeof *folder);
    folder->path = strdup(path);
    featinv_status status = folder->path ? FEATINV_OK : fi_fail_memory(strlen(path));
    for (size_t n = status ? 0 : strlen(folder->path); n > 1 && folder->path[n - 1] == '/'; n--)
        folder->path[n - 1] = '\0';
    if (!status && (!*folder->path || strlen(folder->path) >= PATH_MAX - 64))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the path of a folder has %zu bytes",
                         strlen(folder->path));
    if (!status)
        status = make_temporary(folder);
    if (status)
        free_folder(folder);
    else
        *out = folder;
    return status;
}

const char *fi_folder_path(const fi_folder *folder) {
    return folder->temporary;
}

char *fi_folder_file(const fi_folder *folder, const char *name) {
    size_t root = strlen(folder->temporary) + 1, size = root + strlen(name) + 1;
    char *path = malloc(size);
    if (!path) {
        (void)fi_fail_memory(size);
        return NULL;
    }
    (void)snprintf(path, size, "%s/%s", folder->temporary, name);
    for (char *slash = strchr(path + root, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            (void)fail_write(path, errno);
            free(path);
            return NULL;
        }
        *slash = '/';
    }
    return path;
}

/* Makes a rename last through a power cut; some file systems cannot, which is no failure. */
static void sync_parent(const char *path) {
    char parent[PATH_MAX];
    (void)snprintf(parent, sizeof parent, "%.*s", (int)parent_length(path), path);
    int fd = open(parent, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd >= 0)
        (void)fsync(fd);
    fi_file_close(fd);
}

/* Moves the folder to its place, and what stood there, if it may go, to where the folder was.
 * Gives 0 or -1 with errno. */
static int move(const fi_folder *folder, bool replace) {
    const char *from = folder->temporary, *to = folder->path;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno == EEXIST && replace && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* The file system can do neither (NFS): two renames, and a moment with no folder at all. */
    struct stat info;
    char aside[PATH_MAX + 80];
    if (lstat(to, &info) != 0)
        return rename(from, to);
    (void)snprintf(aside, sizeof aside, "%s.old", from);
    errno = EEXIST;
    if (!replace || rename(to, aside) != 0)
        return -1;
    if (rename(from, to) == 0) {
        (void)rename(aside, from);
        return 0;
    }
    int error = errno;
    (void)rename(aside, to);
    errno = error;
    return -1;
}

featinv_status fi_folder_commit(fi_folder *folder, bool replace) {
    featinv_status status =
        move(folder, replace) == 0 ? FEATINV_OK : fail_write(folder->path, errno);
    remove_tree(folder->temporary); /* the new folder, or what stood in its place */
    if (!status)
        sync_parent(folder->temporary);
    free_folder(folder);
    return status;
}

void fi_folder_abort(fi_folder *folder) {
    if (!folder)
        return;
    remove_tree(folder->temporary);
    free_folder(folder);
}

featinv_status fi_file_copy(char sha256[FI_HASH_TEXT], const char *to, const char *from) {
    enum { BLOCK = 1 << 20 };
    int fd = -1;
    uint64_t size = 0;
    fi_hash *hash = NULL;
    fi_writer *writer = NULL;
    uint8_t *block = malloc(BLOCK);
    featinv_status status = block ? fi_file_open(&fd, &size, from) : fi_fail_memory(BLOCK);
    if (!status)
        status = fi_hash_create(&hash);
    if (!status)
        status = fi_writer_open(&writer, to);
    for (uint64_t at = 0; !status && at < size; at += BLOCK) {
        size_t part = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
        status = fi_file_read_at(fd, block, part, at, from);
        if (status)
            break;
        fi_hash_update(hash, block, part);
        fi_writer_write(writer, block, part);
    }
    if (!status) {
        status = fi_writer_commit(writer);
        writer = NULL;
    }
    if (!status) {
        fi_hash_finish(sha256, hash);
        hash = NULL;
    }
    fi_writer_abort(writer);
    fi_hash_destroy(hash);
    fi_file_close(fd);
    free(block);
    return status;
}
