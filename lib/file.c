#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- reading -------------------- */

static featinv_status fail_read(const char *path, int error) {
    featinv_status status =
        error == ENOENT || error == ENOTDIR ? FEATINV_ERROR_NOT_FOUND : FEATINV_ERROR_READ;
    if (status == FEATINV_ERROR_NOT_FOUND)
        return fi_fail(status, "%s: no such file", path);
    return fi_fail(status, "%s: cannot be read (%s)", path, strerror(error));
}

featinv_status fi_file_open(int *fd, uint64_t *size, const char *path) {
    *fd = -1;
    *size = 0;
    if (!path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the path of the file to read is NULL");

    /* O_NONBLOCK: a FIFO without a writer must not hold us up before fstat can refuse it. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return fail_read(path, errno);
    struct stat info;
    featinv_status status = FEATINV_OK;
    if (fstat(file, &info) != 0)
        status = fail_read(path, errno);
    else if (S_ISDIR(info.st_mode))
        status = fi_fail(FEATINV_ERROR_READ, "%s: is a directory", path);
    else if (!S_ISREG(info.st_mode))
        status = fi_fail(FEATINV_ERROR_READ, "%s: is not a regular file", path);
    if (status) {
        (void)close(file);
        return status;
    }
    *fd = file;
    *size = (uint64_t)info.st_size;
    return FEATINV_OK;
}

featinv_status fi_file_read_at(int fd, void *bytes, size_t size, uint64_t offset,
                               const char *path) {
    uint8_t *at = bytes;
    while (size > 0) {
        size_t wanted = size < ((size_t)1 << 30) ? size : (size_t)1 << 30;
        ssize_t got = pread(fd, at, wanted, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_read(path, errno);
        if (got == 0)
            return fi_fail(FEATINV_ERROR_FORMAT, "%s: ends early, at byte %llu", path,
                           (unsigned long long)offset);
        at += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return FEATINV_OK;
}

void fi_file_close(int fd) {
    if (fd >= 0)
        (void)close(fd);
}

featinv_status fi_file_read(uint8_t **bytes, size_t *size, const char *path, size_t limit) {
    *bytes = NULL;
    *size = 0;
    int fd;
    uint64_t length;
    featinv_status status = fi_file_open(&fd, &length, path);
    if (status)
        return status;

    uint8_t *block = NULL;
    if (length > limit || length >= SIZE_MAX) {
        status = fi_fail(FEATINV_ERROR_LIMIT, "%s: %llu bytes, at most %zu are read", path,
                         (unsigned long long)length, limit);
        goto done;
    }
    block = malloc((size_t)length + 1);
    if (!block) {
        status = fi_fail_memory((size_t)length + 1);
        goto done;
    }
    status = fi_file_read_at(fd, block, (size_t)length, 0, path);
    if (status)
        goto done;
    block[length] = 0;
    *bytes = block;
    *size = (size_t)length;
    block = NULL;
done:
    free(block);
    fi_file_close(fd);
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

struct fi_writer {
    FILE *stream;
    int error; /* errno of the first failure, 0 while all is well */
    char *path;
    char *temporary; /* in the same folder, so that rename is atomic */
};

static featinv_status fail_write(const char *path, int error) {
    return fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path, strerror(error));
}

/* Length of the folder part of path, its slash included. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Creates a fresh file beside path. The name does not contain path's own, which may be as long as
 * the file system allows. */
static int open_temporary(char *name, size_t capacity, const char *path) {
    static atomic_uint counter;
    int folder = (int)folder_length(path);
    for (int attempt = 0; attempt < 1000; attempt++) {
        (void)snprintf(name, capacity, "%.*s.featinv-%ld-%u.tmp", folder, path, (long)getpid(),
                       atomic_fetch_add(&counter, 1u));
        int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

featinv_status fi_writer_open(fi_writer **out, const char *path) {
    *out = NULL;
    if (!path || !*path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the path of the file to write is empty");
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) /* never rename over a device */
        return fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path,
                       S_ISDIR(info.st_mode) ? "it is a directory" : "it is not a regular file");

    featinv_status status = FEATINV_OK;
    int fd = -1;
    size_t capacity = folder_length(path) + 64;
    fi_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return fi_fail_memory(sizeof *writer);
    writer->path = strdup(path);
    writer->temporary = malloc(capacity);
    if (!writer->path || !writer->temporary) {
        status = fi_fail_memory(capacity);
        goto done;
    }
    fd = open_temporary(writer->temporary, capacity, path);
    if (fd < 0) {
        status = fail_write(path, errno);
        goto done;
    }
    writer->stream = fdopen(fd, "w+b");
    if (!writer->stream) {
        status = fail_write(path, errno);
        (void)unlink(writer->temporary);
        goto done;
    }
    fd = -1;
    *out = writer;
    writer = NULL;
done:
    fi_file_close(fd);
    if (writer) {
        free(writer->path);
        free(writer->temporary);
        free(writer);
    }
    return status;
}

/* Keeps the first error; libraries that write to the stream may have lost its number. */
static void keep_error(fi_writer *writer, int error) {
    if (!writer->error)
        writer->error = error ? error : EIO;
}

void fi_writer_write(fi_writer *writer, const void *bytes, size_t size) {
    if (size == 0 || writer->error)
        return;
    errno = 0;
    if (fwrite(bytes, 1, size, writer->stream) != size)
        keep_error(writer, errno);
}

void fi_writer_patch(fi_writer *writer, uint64_t offset, const void *bytes, size_t size) {
    if (writer->error)
        return;
    errno = 0;
    if (fflush(writer->stream) != 0 ||
        pwrite(fileno(writer->stream), bytes, size, (off_t)offset) != (ssize_t)size)
        keep_error(writer, errno);
}

FILE *fi_writer_stream(fi_writer *writer) {
    return writer->stream;
}

/* Makes a rename last through a power cut; some file systems cannot, which is no failure. */
static void sync_folder(char *name) {
    size_t length = folder_length(name);
    name[length] = 0;
    int fd = open(length ? name : ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd >= 0)
        (void)fsync(fd);
    fi_file_close(fd);
}

static void close_writer(fi_writer *writer, bool keep) {
    if (writer->stream)
        (void)fclose(writer->stream);
    if (keep)
        sync_folder(writer->temporary);
    else
        (void)unlink(writer->temporary);
    free(writer->path);
    free(writer->temporary);
    free(writer);
}

featinv_status fi_writer_commit(fi_writer *writer) {
    errno = 0;
    if (ferror(writer->stream) || fflush(writer->stream) != 0)
        keep_error(writer, errno);
    if (!writer->error && fsync(fileno(writer->stream)) != 0 && errno != EINVAL && errno != ENOTSUP)
        keep_error(writer, errno);
    int closed = fclose(writer->stream);
    writer->stream = NULL;
    if (closed != 0)
        keep_error(writer, errno);
    if (!writer->error && rename(writer->temporary, writer->path) != 0)
        keep_error(writer, errno);

    bool kept = writer->error == 0;
    featinv_status status = kept ? FEATINV_OK : fail_write(writer->path, writer->error);
    close_writer(writer, kept);
    return status;
}

void fi_writer_abort(fi_writer *writer) {
    if (writer)
        close_writer(writer, false);
}

bool fi_path_has_suffix(const char *path, const char *suffix) {
    size_t length = strlen(path), end = strlen(suffix);
    return length > end && path[length - end - 1] != '/' &&
           strcasecmp(path + length - end, suffix) == 0;
}

featinv_status fi_file_write(const char *path, const void *bytes, size_t size) {
    fi_writer *writer;
    featinv_status status = fi_writer_open(&writer, path);
    if (status)
        return status;
    fi_writer_write(writer, bytes, size);
    return fi_writer_commit(writer);
}
