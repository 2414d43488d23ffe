/* The seam between libfeatinv and what joins several processes: one table of functions, in a
 * plug-in that is opened only where a caller joins (lib/ranks.c), so that nothing else needs MPI.
 *
 * Private: both sides are built from one source tree, and FI_RANKS_ABI changes with any edit. All
 * functions but error and leave are collective: every rank calls them in the same order. Those that
 * can fail return 0 or a negative featinv_status number and leave one line in error(). The thread
 * that joined is the one that calls.
 */
#ifndef FI_RANKS_PLUGIN_H
#define FI_RANKS_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define FI_RANKS_ABI 1
#define FI_RANKS_ENTRY "fi_ranks_table"

typedef struct fi_ranks_plugin {
    uint32_t abi;  /* FI_RANKS_ABI */
    uint32_t size; /* sizeof(fi_ranks_plugin) */

    const char *(*error)(void); /* the last failure; never NULL */
    /* Once a process: MPI cannot be begun again after its end. */
    int (*join)(int32_t *rank, int32_t *ranks);
    /* Sums over ranks, in place: the same bits on every rank, and in every run of as many ranks. */
    int (*sum_floats)(float *values, int64_t count);
    int (*sum_doubles)(double *values, int64_t count);
    /* The largest of all ranks' values. */
    int (*largest)(int64_t *value);
    /* Copies the root's bytes to every rank. */
    int (*share)(void *bytes, int64_t size, int32_t root);
    /* Waits for the other ranks to leave, too. given_up: ends all their processes, and this one. */
    void (*leave)(int32_t given_up);
} fi_ranks_plugin;

/* Exported by a plug-in file. */
typedef const fi_ranks_plugin *(*fi_ranks_entry)(void);

#endif
