/* A few threads that share loops over independent items. */
#ifndef FI_WORKERS_H
#define FI_WORKERS_H

#include "featinv.h"

typedef struct fi_workers fi_workers;

/* Items first .. last - 1, done by worker number `worker` (from 0). */
typedef void (*fi_workers_task)(void *context, int32_t worker, int64_t first, int64_t last);

/* count: threads in all, the caller's own among them; 1: none is started. Where the system gives
 * fewer threads, fewer work. Errors: MEMORY. */
featinv_status fi_workers_create(fi_workers **out, int32_t count);
/* Runs items 0 .. total - 1 in chunks and returns when all are done. */
void fi_workers_run(fi_workers *workers, fi_workers_task task, void *context, int64_t total,
                    int64_t chunk);
void fi_workers_destroy(fi_workers *workers);

#endif
