/* The backend file: found and opened late, once, and kept until the process ends. */
#ifndef FI_LIB_BACKEND_H
#define FI_LIB_BACKEND_H

#include "featinv.h"
#include "../shim/backend.h"

/* The open backend, opening it where needed. Errors: BACKEND; FORK in a child of the process that
 * opened it. */
featinv_status fi_backend_get(const fi_backend **out);

/* Puts the backend's text into the thread's error, behind "what: " unless it names what, and
 * returns status. */
featinv_status fi_backend_fail(const fi_backend *backend, int status, const char *what);

/* Folder of libfeatinv.so itself. */
featinv_status fi_library_folder(char *path, size_t capacity);

featinv_status fi_backend_download(void *host, const void *device, size_t bytes,
                                   int32_t device_index);

#endif
