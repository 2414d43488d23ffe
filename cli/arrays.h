/* Arrays in .npy and .npz files. */
#ifndef CLI_ARRAYS_H
#define CLI_ARRAYS_H

#include "cli.h"

typedef struct cli_array {
    void *data;
    featinv_array_info info; /* dtype as stored in the file; shape */
    featinv_dtype dtype;     /* of data */
} cli_array;

/* Reads a whole array, converted to dtype. Returns an exit code, after an error. */
int cli_array_read(cli_array *out, const char *path, const char *member, featinv_dtype dtype);
/* Whether an .npz holds that member; the array is read then. Other failures are errors. */
int cli_array_read_optional(cli_array *out, bool *found, const char *path, const char *member,
                            featinv_dtype dtype);
void cli_array_free(cli_array *array);

/* A view; its shape points into the array, which must stay where it is. */
featinv_tensor cli_array_view(cli_array *array);
int64_t cli_array_count(const cli_array *array); /* elements */

/* Error (CLI_INPUT) unless the shape is wanted (-1: any extent); `what` names the dimensions. */
int cli_array_check(const cli_array *array, const char *path, const int64_t *wanted, int32_t ndim,
                    const char *what);
/* Error (CLI_INPUT) where a float32 array holds NaN or infinity; says in which row. */
int cli_array_check_finite(const cli_array *array, const char *path, const char *row);

/* FNV-1a over the bytes, as text: what a resumed job compares. */
void cli_hash_start(uint64_t *hash);
void cli_hash_add(uint64_t *hash, const void *bytes, size_t size);

/* Usage error unless path ends in one of the suffixes, is no folder and lies in one that is there
 * and can be written. NULL path: fine. */
int cli_check_output_file(const char *option, const char *path, const char *suffix,
                          const char *other_suffix);

#endif
