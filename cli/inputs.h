/* The input images of a job: files, and folders in place of their image files. */
#ifndef CLI_INPUTS_H
#define CLI_INPUTS_H

#include "cli.h"

typedef struct cli_input {
    char *path;  /* as given, or FOLDER/file */
    char *name;  /* for output files: unique among the inputs, no slash */
    char *error; /* it cannot be read; NULL: not known yet */
    int code;    /* of the error */
} cli_input;

typedef struct cli_inputs {
    cli_input *items;
    int64_t count, capacity;
} cli_inputs;

/* Expands the arguments. What is missing, or a folder without images, becomes an input with an
 * error. Returns an exit code; errors of single inputs are none of it. */
int cli_inputs_list(cli_inputs *out, const char *const *arguments, int count);
void cli_inputs_free(cli_inputs *inputs);

/* A run of inputs, decoded by a thread while the backend computes on the one before. */
typedef struct cli_photos cli_photos;
/* Starts reading inputs first to first + count. NULL when out of memory. */
cli_photos *cli_photos_start(const cli_inputs *inputs, int64_t first, int64_t count,
                             int64_t max_pixels);
/* Waits. Image i belongs to input first + i; its pixels are NULL where it failed. */
const featinv_image *cli_photos_wait(cli_photos *photos);
/* Error line and exit code of image i, NULL and 0 where it was read. Valid after the wait. */
const char *cli_photos_error(const cli_photos *photos, int64_t i, int *code);
void cli_photos_free(cli_photos *photos); /* waits, too; NULL is fine */

#endif
