/* The journal of a job over many images: JSON lines, appended batch by batch.
 *
 *     {"journal": 1, "settings": {...}}     first line
 *     {"input": ..., ...}                   an item, as results.json holds it
 *     {"commit": 0}                         ends batch 0; what has no commit behind it is forgotten
 *     {"done": 12.5}                        the job ended after so many seconds
 */
#ifndef FI_JOURNAL_H
#define FI_JOURNAL_H

#include "featinv.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct fi_journal {
    json_t *batches; /* array of arrays of items; NULL: there is no journal of these settings */
    size_t bytes;    /* length up to the last commit */
    bool done;
    double seconds; /* of the done line, else 0 */
} fi_journal;

/* Reads what was committed. A missing or torn file is an empty journal. strict: other settings are
 * an ARGUMENT error that names the difference, else an empty journal. Errors: READ, FORMAT, MEMORY.
 */
featinv_status fi_journal_read(fi_journal *out, const char *path, const json_t *settings,
                               bool strict);
void fi_journal_free(fi_journal *journal);

/* Opens for appending: keep 0 starts a new journal, else the file is cut to that many bytes. */
featinv_status fi_journal_open(FILE **out, const char *path, const json_t *settings, size_t keep);
/* Appends the items and their commit line, and waits until they are on the disk. */
featinv_status fi_journal_commit(FILE *stream, const char *path, const json_t *items, size_t batch);
featinv_status fi_journal_done(FILE *stream, const char *path, double seconds);

#endif
