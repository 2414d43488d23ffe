/* A safetensors file, written in one pass and hashed on the way. */
#ifndef FI_SAFETENSORS_WRITER_H
#define FI_SAFETENSORS_WRITER_H

#include "hash.h"
#include "safetensors.h"

#include <jansson.h>

typedef struct fi_safetensors_writer fi_safetensors_writer;

/* Starts a file that takes its name on commit. entries: key, dtype and shape of every tensor, in
 * the order of their data (begin and end are ignored). metadata: an object of strings, or NULL. */
featinv_status fi_safetensors_writer_open(fi_safetensors_writer **out, const char *path,
                                          const fi_safetensors_entry *entries, int64_t count,
                                          const json_t *metadata);
/* Data of the tensors, one after the other, in pieces of any size. A failure is reported by
 * commit. */
void fi_safetensors_writer_write(fi_safetensors_writer *writer, const void *bytes, size_t size);
/* Fills the last tensor, U8 (64): the SHA-256 of every byte of the file before it. */
featinv_status fi_safetensors_writer_seal(fi_safetensors_writer *writer);
/* Puts the file in place; frees the writer either way. sha256 (NULL: not wanted; empty for a sealed
 * file) and bytes (NULL): of the whole file. */
featinv_status fi_safetensors_writer_commit(char sha256[FI_HASH_TEXT], uint64_t *bytes,
                                            fi_safetensors_writer *writer);
/* Gives up, leaving nothing; NULL is fine. */
void fi_safetensors_writer_abort(fi_safetensors_writer *writer);

/* Checks the seal, the last tensor of an open file. Errors: FORMAT without one, HASH, READ. */
featinv_status fi_safetensors_check_seal(const fi_safetensors *header, int fd, const char *path);

#endif
