/* The thread's last error, and the one way to set it. */
#ifndef FI_ERROR_H
#define FI_ERROR_H

#include "featinv.h"

#if defined(__GNUC__)
#define FI_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define FI_PRINTF(f, a)
#endif

/* Sets the thread's error text (one line; control characters are replaced) and returns status. */
featinv_status fi_fail(featinv_status status, const char *format, ...) FI_PRINTF(2, 3);

/* Puts "prefix: " in front of the thread's error text and returns status. */
featinv_status fi_fail_prefix(featinv_status status, const char *format, ...) FI_PRINTF(2, 3);

/* fi_fail(MEMORY, ...) for an allocation of so many bytes. */
featinv_status fi_fail_memory(size_t bytes);

#endif
