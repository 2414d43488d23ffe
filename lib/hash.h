/* SHA-256 by OpenSSL, which uses the processor's instructions for it. */
#ifndef FI_HASH_H
#define FI_HASH_H

#include "featinv.h"

#define FI_HASH_TEXT 65 /* 64 hex digits and the end */

typedef struct fi_hash fi_hash;

featinv_status fi_hash_create(fi_hash **out);
void fi_hash_update(fi_hash *hash, const void *bytes, size_t size);
/* The digest in lower-case hex; frees the hash. A failure inside gives the empty text. */
void fi_hash_finish(char text[FI_HASH_TEXT], fi_hash *hash);
void fi_hash_destroy(fi_hash *hash);

featinv_status fi_hash_bytes(char text[FI_HASH_TEXT], const void *bytes, size_t size);
/* Streams a file; errors as fi_file_read. */
featinv_status fi_hash_file(char text[FI_HASH_TEXT], const char *path);

#endif
