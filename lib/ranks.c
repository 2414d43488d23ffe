#include "ranks.h"

#include "backend.h"
#include "error.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_FILE "libfeatinv-mpi.so"

enum { TEXT_BYTES = 1024 }; /* of another rank's error */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const fi_ranks_plugin *table;

/* ---------------------------------------------------------------- plug-in -------------------- */

static featinv_status plugin_path(char *path) {
    const char *given = getenv("FEATINV_MPI");
    char folder[PATH_MAX - 32];
    if (given && *given) {
        (void)snprintf(path, PATH_MAX, "%s", given);
    } else {
        featinv_status status = fi_library_folder(folder, sizeof folder);
        if (status)
            return status;
        (void)snprintf(path, PATH_MAX, "%s/%s", folder, PLUGIN_FILE);
    }
    if (access(path, R_OK) != 0)
        return fi_fail(FEATINV_ERROR_BACKEND,
                       "the MPI plug-in %s cannot be read (%s); it is built where mpicc is found",
                       path, strerror(errno));
    return FEATINV_OK;
}

static featinv_status open_plugin(void) {
    char path[PATH_MAX];
    featinv_status status = plugin_path(path);
    if (status)
        return status;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        const char *text = dlerror();
        return fi_fail(FEATINV_ERROR_BACKEND, "the MPI plug-in does not load: %s",
                       text ? text : path);
    }
    fi_ranks_entry entry;
    void *symbol = dlsym(handle, FI_RANKS_ENTRY);
    memcpy(&entry, &symbol, sizeof entry);
    if (!symbol)
        return fi_fail(FEATINV_ERROR_BACKEND, "%s: not an MPI plug-in: it lacks %s", path,
                       FI_RANKS_ENTRY);
    const fi_ranks_plugin *found = entry();
    if (found->abi != FI_RANKS_ABI || found->size != sizeof *found)
        return fi_fail(FEATINV_ERROR_BACKEND, "%s: from another build (interface %u, needed %u)",
                       path, found->abi, (unsigned)FI_RANKS_ABI);
    table = found;
    return FEATINV_OK;
}

/* MPI in a process that no launcher started would be a group of one, or end the process. */
static bool is_launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]))
            return true;
    return false;
}

/* ---------------------------------------------------------------- public --------------------- */

featinv_status featinv_ranks_join(featinv_ranks **out) {
    if (!out)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the ranks");
    *out = NULL;
    if (!is_launched())
        return fi_fail(FEATINV_ERROR_BACKEND,
                       "this process was started alone: several are started by mpirun -n N or by "
                       "srun --mpi=pmix");
    (void)pthread_mutex_lock(&lock);
    featinv_status status = table ? FEATINV_OK : open_plugin();
    (void)pthread_mutex_unlock(&lock);
    if (status)
        return status;
    featinv_ranks *ranks = calloc(1, sizeof *ranks);
    if (!ranks)
        return fi_fail_memory(sizeof *ranks);
    ranks->plugin = table;
    int failed = table->join(&ranks->rank, &ranks->size);
    if (failed) {
        free(ranks);
        return fi_fail(failed, "MPI does not start: %s", table->error());
    }
    *out = ranks;
    return FEATINV_OK;
}

featinv_status featinv_ranks_info(int32_t *rank, int32_t *size, const featinv_ranks *ranks) {
    if (!ranks)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no ranks");
    if (rank)
        *rank = ranks->rank;
    if (size)
        *size = ranks->size;
    return FEATINV_OK;
}

void featinv_ranks_leave(featinv_ranks *ranks) {
    if (!ranks)
        return;
    ranks->plugin->leave(ranks->broken);
    free(ranks);
}

/* ---------------------------------------------------------------- exchanges ------------------ */

static bool is_alone(const featinv_ranks *ranks) {
    return !ranks || ranks->size == 1;
}

/* failed: of the plug-in. From then on no rank can know what the others wait for. */
static featinv_status checked(featinv_ranks *ranks, int failed) {
    if (!failed)
        return FEATINV_OK;
    ranks->broken = true;
    return fi_fail(failed, "rank %d of %d has lost the others: %s", ranks->rank, ranks->size,
                   ranks->plugin->error());
}

static featinv_status fail_broken(const featinv_ranks *ranks) {
    return fi_fail(FEATINV_ERROR_BACKEND, "rank %d of %d has lost the others", ranks->rank,
                   ranks->size);
}

featinv_status featinv_ranks_largest(int64_t *value, featinv_ranks *ranks) {
    if (!ranks || !value)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", ranks ? "value" : "ranks");
    if (is_alone(ranks))
        return FEATINV_OK;
    return ranks->broken ? fail_broken(ranks) : checked(ranks, ranks->plugin->largest(value));
}

featinv_status fi_ranks_agree(featinv_ranks *ranks, featinv_status status) {
    if (is_alone(ranks))
        return status;
    if (ranks->broken)
        return status ? status : fail_broken(ranks);
    /* the number of the failure first, so that every rank finds the same one */
    int64_t worst = status ? ((int64_t)-status << 32) + ranks->rank : 0;
    featinv_status exchanged = checked(ranks, ranks->plugin->largest(&worst));
    if (exchanged || !worst)
        return exchanged;
    const int32_t from = (int32_t)(worst & INT32_MAX);
    const featinv_status theirs = (featinv_status)(-(worst >> 32));
    char text[TEXT_BYTES] = "";
    if (from == ranks->rank)
        (void)snprintf(text, sizeof text, "%s", featinv_last_error());
    exchanged = checked(ranks, ranks->plugin->share(text, sizeof text, from));
    text[TEXT_BYTES - 1] = '\0';
    return exchanged ? exchanged : fi_fail(theirs, "rank %d: %s", from, text);
}

featinv_status fi_ranks_sum_floats(featinv_ranks *ranks, float *values, size_t count) {
    if (is_alone(ranks))
        return FEATINV_OK;
    return ranks->broken ? fail_broken(ranks)
                         : checked(ranks, ranks->plugin->sum_floats(values, (int64_t)count));
}

featinv_status fi_ranks_sum_double(featinv_ranks *ranks, double *value) {
    if (is_alone(ranks))
        return FEATINV_OK;
    return ranks->broken ? fail_broken(ranks)
                         : checked(ranks, ranks->plugin->sum_doubles(value, 1));
}

featinv_status fi_ranks_share(featinv_ranks *ranks, void *bytes, size_t size) {
    if (is_alone(ranks))
        return FEATINV_OK;
    return ranks->broken ? fail_broken(ranks)
                         : checked(ranks, ranks->plugin->share(bytes, (int64_t)size, 0));
}
