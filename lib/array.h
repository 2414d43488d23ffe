/* Arrays in .npy and .npz files, for the library's own readers. */
#ifndef FI_ARRAY_H
#define FI_ARRAY_H

#include "featinv.h"

/* As featinv_array_read into fresh memory (at least one byte, also for empty arrays). */
featinv_status fi_array_load(void **data, featinv_array_info *info, const char *path,
                             const char *member, featinv_dtype dtype);

/* Names of the arrays of an .npz in the file's order, without ".npy": a NULL-ended list in one
 * block, to be freed. Errors: as featinv_array_read. */
featinv_status fi_array_names(char ***names, int64_t *count, const char *path);

#endif
