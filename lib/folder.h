/* A folder that appears whole or not at all. */
#ifndef FI_FOLDER_H
#define FI_FOLDER_H

#include "hash.h"

#include <stdbool.h>

typedef struct fi_folder fi_folder;

/* Makes an empty folder beside path, which takes that name on commit. The folder of path must
 * exist. */
featinv_status fi_folder_open(fi_folder **out, const char *path);
/* The folder as it is now, with its links resolved. */
const char *fi_folder_path(const fi_folder *folder);
/* "FOLDER/name" in fresh memory, with the folders in between made; NULL sets the error. */
char *fi_folder_file(const fi_folder *folder, const char *name);
/* Puts the folder in place; what stood there under that name is removed (replace), or keeps its
 * place and is an error. Frees the folder either way. */
featinv_status fi_folder_commit(fi_folder *folder, bool replace);
/* Removes the folder with all that is in it; NULL is fine. */
void fi_folder_abort(fi_folder *folder);

/* Copies a file, and hashes what was copied. */
featinv_status fi_file_copy(char sha256[FI_HASH_TEXT], const char *to, const char *from);

#endif
