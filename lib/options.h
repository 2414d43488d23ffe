/* Option structs of any age: smaller ones from older callers, larger ones from newer. */
#ifndef FI_OPTIONS_H
#define FI_OPTIONS_H

#include "featinv.h"

/* Copies defaults (known bytes, struct_size first) into a caller's struct of `size` bytes; what
 * lies beyond is zeroed. Errors: ARGUMENT for NULL or a size that cannot be. */
featinv_status fi_options_init(void *options, size_t size, void *defaults, size_t known);

/* Lays a caller's options over the defaults in `into` (known bytes). NULL options keep the
 * defaults; a larger struct is fine while its tail is zero. Errors: ARGUMENT, UNSUPPORTED. */
featinv_status fi_options_read(void *into, size_t known, const void *options);

#endif
