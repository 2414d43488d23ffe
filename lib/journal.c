#define _POSIX_C_SOURCE 200809L
#include "journal.h"

#include "error.h"
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_BYTES ((size_t)1 << 30)

/* ---------------------------------------------------------------- reading -------------------- */

/* Names the first key whose values differ. */
static featinv_status fail_settings(const char *path, const json_t *old, const json_t *now) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        const json_t *before = json_object_get(old, key);
        if (before && json_equal(before, value))
            continue;
        char *was = before ? json_dumps(before, JSON_ENCODE_ANY) : NULL;
        char *is = json_dumps(value, JSON_ENCODE_ANY);
        featinv_status status = fi_fail(
            FEATINV_ERROR_ARGUMENT, "%s: the job was begun with other settings (%s was %s, now %s)",
            path, key, was ? was : "absent", is ? is : "?");
        free(was);
        free(is);
        return status;
    }
    return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the job was begun with other settings", path);
}

/* The first line. *matches: whether the rest belongs to these settings. */
static featinv_status read_header(bool *matches, const char *path, const json_t *line,
                                  const json_t *settings, bool strict) {
    const json_t *version = json_object_get(line, "journal");
    const json_t *old = json_object_get(line, "settings");
    *matches = false;
    if (!json_is_integer(version) || !json_is_object(old))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: is not a journal", path);
    if (json_integer_value(version) != 1)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: journal version %lld is not known", path,
                       (long long)json_integer_value(version));
    *matches = json_equal(old, settings);
    return *matches || !strict ? FEATINV_OK : fail_settings(path, old, settings);
}

/* One line behind the first; false where it cannot belong to a journal: the rest is torn. */
static bool read_line(fi_journal *out, json_t *batch, json_t *line, size_t end) {
    const json_t *commit = json_object_get(line, "commit");
    const json_t *done = json_object_get(line, "done");
    if (json_is_string(json_object_get(line, "input")))
        return json_array_append(batch, line) == 0;
    if (json_is_number(done) && json_array_size(batch) == 0) {
        out->done = true;
        out->seconds = json_number_value(done);
        return true;
    }
    if (json_integer_value(commit) != (json_int_t)json_array_size(out->batches) ||
        !json_is_integer(commit))
        return false;
    json_t *copy = json_copy(batch);
    if (!copy || json_array_append_new(out->batches, copy) || json_array_clear(batch))
        return false;
    out->bytes = end;
    out->done = false; /* a resumed shard goes on behind its done line */
    return true;
}

static featinv_status parse(fi_journal *out, const char *text, size_t size, const char *path,
                            const json_t *settings, bool strict) {
    json_t *batch = json_array();
    featinv_status status = batch ? FEATINV_OK : fi_fail_memory(sizeof(json_t));
    bool going = true, first = true;
    for (size_t at = 0; !status && going && at < size; first = false) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end)
            break;
        json_t *line =
            json_loadb(text + at, (size_t)(end - text) - at, JSON_REJECT_DUPLICATES, NULL);
        at = (size_t)(end - text) + 1;
        if (!line)
            going = false;
        else if (first)
            status = read_header(&going, path, line, settings, strict);
        else
            going = read_line(out, batch, line, at);
        if (line && first && going && !status) {
            out->batches = json_array();
            out->bytes = at;
            if (!out->batches)
                status = fi_fail_memory(sizeof(json_t));
        }
        json_decref(line);
    }
    json_decref(batch);
    return status;
}

featinv_status fi_journal_read(fi_journal *out, const char *path, const json_t *settings,
                               bool strict) {
    memset(out, 0, sizeof *out);
    uint8_t *bytes;
    size_t size;
    featinv_status status = fi_file_read(&bytes, &size, path, MOST_BYTES);
    if (status == FEATINV_ERROR_NOT_FOUND)
        return FEATINV_OK;
    if (status)
        return status;
    status = parse(out, (const char *)bytes, size, path, settings, strict);
    free(bytes);
    if (status)
        fi_journal_free(out);
    return status;
}

void fi_journal_free(fi_journal *journal) {
    json_decref(journal->batches);
    memset(journal, 0, sizeof *journal);
}

/* ---------------------------------------------------------------- writing -------------------- */

static featinv_status fail_write(const char *path) {
    return fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path, strerror(errno));
}

static bool put_line(FILE *stream, const json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    bool good = text && fputs(text, stream) >= 0 && fputc('\n', stream) != EOF;
    if (!text)
        errno = ENOMEM;
    free(text);
    return good;
}

static bool reach_disk(FILE *stream) {
    return fflush(stream) == 0 && fsync(fileno(stream)) == 0;
}

featinv_status fi_journal_open(FILE **out, const char *path, const json_t *settings, size_t keep) {
    *out = NULL;
    if (keep && truncate(path, (off_t)keep) != 0)
        return fail_write(path);
    FILE *stream = fopen(path, keep ? "ae" : "we");
    if (!stream)
        return fail_write(path);
    if (!keep) {
        json_t *header = json_pack("{s:i, s:O}", "journal", 1, "settings", settings);
        bool good = put_line(stream, header) && reach_disk(stream);
        json_decref(header);
        if (!good) {
            featinv_status status = fail_write(path);
            (void)fclose(stream);
            (void)unlink(path);
            return status;
        }
    }
    *out = stream;
    return FEATINV_OK;
}

static featinv_status finish(FILE *stream, const char *path, bool good, json_t *last) {
    good = good && put_line(stream, last) && reach_disk(stream);
    featinv_status status = good ? FEATINV_OK : fail_write(path);
    json_decref(last);
    return status;
}

featinv_status fi_journal_commit(FILE *stream, const char *path, const json_t *items,
                                 size_t batch) {
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(items); i++)
        good = put_line(stream, json_array_get(items, i));
    return finish(stream, path, good, json_pack("{s:I}", "commit", (json_int_t)batch));
}

featinv_status fi_journal_done(FILE *stream, const char *path, double seconds) {
    return finish(stream, path, true, json_pack("{s:f}", "done", seconds));
}
