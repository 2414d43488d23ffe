#include "writer.h"

#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *path, int error) {
    return cli_fail(CLI_FAILED, "%s: cannot be written (%s)", path, strerror(error));
}

void cli_writer_abort(cli_writer *writer) {
    if (writer->stream) {
        (void)fclose(writer->stream);
        (void)unlink(writer->temporary);
    }
    free(writer->path);
    free(writer->temporary);
    *writer = (cli_writer){0};
}

int cli_writer_open(cli_writer *out, const char *path) {
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    size_t size = (size_t)folder + 40;
    *out = (cli_writer){.path = strdup(path), .temporary = malloc(size)};
    if (!out->path || !out->temporary) {
        cli_writer_abort(out);
        return cli_fail_memory();
    }
    /* the name itself may be as long as the file system allows */
    (void)snprintf(out->temporary, size, "%.*s.featinv-%ld.tmp", folder, path, (long)getpid());
    out->stream = fopen(out->temporary, "wxe");
    int error = errno;
    if (out->stream)
        return CLI_DONE;
    cli_writer_abort(out);
    return fail(path, error);
}

int cli_writer_commit(cli_writer *writer) {
    FILE *stream = writer->stream;
    errno = 0;
    bool bad = ferror(stream) || fflush(stream) != 0;
    if (!bad && fsync(fileno(stream)) != 0 && errno != EINVAL && errno != ENOTSUP)
        bad = true;
    int error = errno;
    writer->stream = NULL;
    if (fclose(stream) != 0 && !bad) {
        bad = true;
        error = errno;
    }
    if (!bad && rename(writer->temporary, writer->path) != 0) {
        bad = true;
        error = errno;
    }
    int code = bad ? fail(writer->path, error ? error : EIO) : CLI_DONE;
    if (bad)
        (void)unlink(writer->temporary);
    cli_writer_abort(writer);
    return code;
}

char *cli_path(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        (void)snprintf(path, size, "%s/%s", folder, name);
    return path;
}

int cli_write_json(const char *folder, const char *name, const json_t *value) {
    cli_writer writer = {0};
    char *path = value ? cli_path(folder, name) : NULL;
    int code = path ? cli_writer_open(&writer, path) : cli_fail_memory();
    if (!code) {
        int failed = json_dumpf(value, writer.stream, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
        (void)fputc('\n', writer.stream);
        if (failed && !ferror(writer.stream)) {
            cli_writer_abort(&writer);
            code = cli_fail_memory();
        } else {
            code = cli_writer_commit(&writer);
        }
    }
    free(path);
    return code;
}
