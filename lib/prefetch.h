/* Batches made ahead by threads, into a ring of a few slots, for one reader. */
#ifndef FI_PREFETCH_H
#define FI_PREFETCH_H

#include "featinv.h"

#include <stdbool.h>

typedef struct fi_prefetch fi_prefetch;

/* Makes place `place` of batch `batch` in slot `slot`, as worker `worker` (from 0). What it makes
 * may depend on batch and place alone. Between long steps it asks fi_prefetch_wanted. */
typedef featinv_status (*fi_prefetch_task)(void *context, int32_t worker, int32_t slot,
                                           int64_t batch, int32_t place);

/* depth: slots, so batches made ahead; places: in each batch. Nothing is made before the first
 * fi_prefetch_take. Where the system gives fewer threads, fewer work; without any the reader makes
 * its batches itself. Errors: MEMORY. */
featinv_status fi_prefetch_create(fi_prefetch **out, int32_t threads, int32_t depth, int32_t places,
                                  fi_prefetch_task task, void *context);

/* Waits until a batch is whole; its slot stays untouched until fi_prefetch_pass. A batch that is
 * not ahead in the ring makes the ring start over from it. A failure is the one of the batch's
 * first failing place; the next call tries again. Reader's thread only, batch from 0. */
featinv_status fi_prefetch_take(int32_t *slot, fi_prefetch *p, int64_t batch);
/* The batch was used: its slot goes to batch + depth. */
void fi_prefetch_pass(fi_prefetch *p, int64_t batch);

/* Whether anybody still waits for that batch in that slot. From tasks. */
bool fi_prefetch_wanted(fi_prefetch *p, int32_t slot, int64_t batch);

/* Waits for the places that are being made, not for those that are to be made. NULL is fine. */
void fi_prefetch_destroy(fi_prefetch *p);

#endif
