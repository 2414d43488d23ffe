/* libfeatinv-mpi.so: ranks and sums over MPI. */
#include "featinv.h"
#include "ranks.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Counts of MPI are ints, and a block of 64 MiB is long enough to fill any network. */
enum { BLOCK = 1 << 24 };

static MPI_Comm group = MPI_COMM_NULL;
static bool begun_here; /* else the program that uses the library began MPI, and ends it */
static char text[MPI_MAX_ERROR_STRING + 64];

static const char *error(void) {
    return text;
}

static int fail(const char *what) {
    (void)snprintf(text, sizeof text, "%s", what);
    return FEATINV_ERROR_BACKEND;
}

/* 0, or a failure with MPI's own words. */
static int checked(int code, const char *call) {
    char words[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS)
        return 0;
    (void)MPI_Error_string(code, words, &length);
    (void)snprintf(text, sizeof text, "%s: %s", call, words);
    return FEATINV_ERROR_BACKEND;
}

/* ---------------------------------------------------------------- joining -------------------- */

static int begin(void) {
    int begun = 0, ended = 0, level = MPI_THREAD_SINGLE;
    (void)MPI_Initialized(&begun);
    (void)MPI_Finalized(&ended);
    if (ended)
        return fail("MPI has ended in this process, and cannot begin again");
    int failed = begun ? checked(MPI_Query_thread(&level), "MPI_Query_thread")
                       : checked(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level),
                                 "MPI_Init_thread");
    if (failed)
        return failed;
    begun_here = !begun;
    if (level < MPI_THREAD_FUNNELED) {
        if (begun_here)
            (void)MPI_Finalize();
        return fail("this MPI does not work in a process with threads");
    }
    return 0;
}

static int join(int32_t *rank, int32_t *ranks) {
    int own = 0, all = 0;
    if (group != MPI_COMM_NULL)
        return fail("this process has joined already");
    int failed = begin();
    /* a communicator of one's own keeps apart what else the program sends */
    if (!failed)
        failed = checked(MPI_Comm_dup(MPI_COMM_WORLD, &group), "MPI_Comm_dup");
    if (!failed)
        failed =
            checked(MPI_Comm_set_errhandler(group, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    if (!failed)
        failed = checked(MPI_Comm_rank(group, &own), "MPI_Comm_rank");
    if (!failed)
        failed = checked(MPI_Comm_size(group, &all), "MPI_Comm_size");
    *rank = own;
    *ranks = all;
    return failed;
}

static void leave(int32_t given_up) {
    if (given_up)
        (void)MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    (void)MPI_Comm_free(&group);
    if (begun_here)
        (void)MPI_Finalize();
}

/* ---------------------------------------------------------------- sums ----------------------- */

/* Summed on rank 0 and copied from there: MPI_Allreduce may sum in another order on every rank.
 * MPI (4.0, 6.9.1) asks of MPI_Reduce that equal calls give equal results, and Open MPI's trees
 * depend on the count of ranks and the size alone. */
static int sum_block(void *values, int count, MPI_Datatype type) {
    int own = 0;
    int failed = checked(MPI_Comm_rank(group, &own), "MPI_Comm_rank");
    if (!failed)
        failed = checked(MPI_Reduce(own ? values : MPI_IN_PLACE, own ? NULL : values, count, type,
                                    MPI_SUM, 0, group),
                         "MPI_Reduce");
    return failed ? failed : checked(MPI_Bcast(values, count, type, 0, group), "MPI_Bcast");
}

static int block_of(int64_t left) {
    return left < BLOCK ? (int)left : BLOCK;
}

static int sum_floats(float *values, int64_t count) {
    int failed = 0;
    for (int64_t done = 0; !failed && done < count; done += BLOCK)
        failed = sum_block(values + done, block_of(count - done), MPI_FLOAT);
    return failed;
}

static int sum_doubles(double *values, int64_t count) {
    int failed = 0;
    for (int64_t done = 0; !failed && done < count; done += BLOCK)
        failed = sum_block(values + done, block_of(count - done), MPI_DOUBLE);
    return failed;
}

static int largest(int64_t *value) {
    return checked(MPI_Allreduce(MPI_IN_PLACE, value, 1, MPI_INT64_T, MPI_MAX, group),
                   "MPI_Allreduce");
}

static int share(void *bytes, int64_t size, int32_t root) {
    int failed = 0;
    for (int64_t done = 0; !failed && done < size; done += BLOCK)
        failed =
            checked(MPI_Bcast((char *)bytes + done, block_of(size - done), MPI_BYTE, root, group),
                    "MPI_Bcast");
    return failed;
}

/* ---------------------------------------------------------------- table ---------------------- */

static const fi_ranks_plugin table = {.abi = FI_RANKS_ABI,
                                      .size = sizeof(fi_ranks_plugin),
                                      .error = error,
                                      .join = join,
                                      .sum_floats = sum_floats,
                                      .sum_doubles = sum_doubles,
                                      .largest = largest,
                                      .share = share,
                                      .leave = leave};

__attribute__((visibility("default"))) const fi_ranks_plugin *fi_ranks_table(void);

const fi_ranks_plugin *fi_ranks_table(void) {
    return &table;
}
