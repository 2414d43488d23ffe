/* Text files that appear whole or not at all: written beside their name, then renamed. */
#ifndef CLI_WRITER_H
#define CLI_WRITER_H

#include <jansson.h>
#include <stdio.h>

typedef struct cli_writer {
    FILE *stream;
    char *path, *temporary;
} cli_writer;

/* Each returns an exit code, after an error. */
int cli_writer_open(cli_writer *out, const char *path);
int cli_writer_commit(cli_writer *writer);
void cli_writer_abort(cli_writer *writer); /* fine after a failed open, too */

/* FOLDER/name: fresh memory, NULL where there is none. */
char *cli_path(const char *folder, const char *name);
/* Writes FOLDER/name; the value stays the caller's, NULL is an error of memory. */
int cli_write_json(const char *folder, const char *name, const json_t *value);

#endif
