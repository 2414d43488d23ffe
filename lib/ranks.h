/* The processes of one training. Functions that take ranks are collective: every rank calls them,
 * in the same order. NULL ranks, or one of them, is a process alone: nothing is exchanged. */
#ifndef FI_RANKS_H
#define FI_RANKS_H

#include "featinv.h"
#include "../shim/ranks.h"

#include <stdbool.h>

struct featinv_ranks {
    const fi_ranks_plugin *plugin;
    int32_t rank, size;
    bool broken; /* a call of the plug-in failed: what the others know is unknown */
};

/* One status for all: OK where every rank's is, else that of a rank that failed, with its text on
 * every rank. Failures that only some ranks meet must pass through here before the next exchange.
 */
featinv_status fi_ranks_agree(featinv_ranks *ranks, featinv_status status);

/* Sums over ranks, in place, the same bits on every rank. */
featinv_status fi_ranks_sum_floats(featinv_ranks *ranks, float *values, size_t count);
featinv_status fi_ranks_sum_double(featinv_ranks *ranks, double *value);

/* Rank 0's bytes for every rank. */
featinv_status fi_ranks_share(featinv_ranks *ranks, void *bytes, size_t size);

#endif
