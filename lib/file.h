/* Files: whole reads with a limit, and writes that appear whole or not at all. */
#ifndef FI_FILE_H
#define FI_FILE_H

#include "featinv.h"

#include <stdbool.h>
#include <stdio.h>

/* Reads a whole regular file into fresh memory (with a zero byte behind it). FIFOs, devices and
 * directories are refused. Errors: NOT_FOUND, READ, LIMIT, MEMORY; the text names the path. */
featinv_status fi_file_read(uint8_t **bytes, size_t *size, const char *path, size_t limit);

/* The same in pieces: opens a regular file, reads exactly size bytes at an offset (FORMAT when the
 * file ends before), closes (-1 is fine). */
featinv_status fi_file_open(int *fd, uint64_t *size, const char *path);
featinv_status fi_file_read_at(int fd, void *bytes, size_t size, uint64_t offset, const char *path);
void fi_file_close(int fd);

/* A file that is written beside its path and takes its name on commit (fsync, rename). */
typedef struct fi_writer fi_writer;
featinv_status fi_writer_open(fi_writer **out, const char *path);
/* A failure (disk full) is kept and reported by commit. */
void fi_writer_write(fi_writer *writer, const void *bytes, size_t size);
/* Overwrites bytes that were written before; the end of the file stays where it is. */
void fi_writer_patch(fi_writer *writer, uint64_t offset, const void *bytes, size_t size);
/* The stream, for libraries that want one. */
FILE *fi_writer_stream(fi_writer *writer);
/* Renames into place, or removes the temporary file; frees the writer either way. */
featinv_status fi_writer_commit(fi_writer *writer);
/* Removes the temporary file and frees the writer; NULL is fine. */
void fi_writer_abort(fi_writer *writer);

/* Whether a path ends in a suffix such as ".png", whatever its case, with a name before it. */
bool fi_path_has_suffix(const char *path, const char *suffix);

/* One atomic write of a block. */
featinv_status fi_file_write(const char *path, const void *bytes, size_t size);

#endif
