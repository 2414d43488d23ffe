/* Several processes that train together, as mpirun or srun started them. */
#include "train.h"

int train_ranks_join(train *t) {
    int32_t started;
    if (!cli_launched(&t->rank, &started)) {
        t->size = 1;
        return CLI_DONE;
    }
    featinv_status status = featinv_ranks_join(&t->ranks);
    if (!status)
        status = featinv_ranks_info(&t->rank, &t->size, t->ranks);
    if (!status)
        cli_error_rank(t->rank);
    if (status)
        return cli_fail_status(status, NULL);
    /* of a launcher that this MPI does not understand every process would train for itself */
    if (t->size != started)
        return cli_fail(CLI_DEVICE,
                        "the launcher started %d processes, and MPI joins %d: is it the launcher "
                        "of this MPI?",
                        started, t->size);
    return CLI_DONE;
}

bool train_ranks_speaks(const train *t, featinv_status status) {
    return t->rank == 0 || status == FEATINV_ERROR_BACKEND;
}

static int fail_together(const train *t, featinv_status status) {
    return train_ranks_speaks(t, status) ? cli_fail_status(status, NULL) : cli_code(status);
}

int train_ranks_agree(const train *t, int code) {
    int64_t worst = code;
    if (!t->ranks)
        return code;
    featinv_status status = featinv_ranks_largest(&worst, t->ranks);
    if (status)
        return code ? code : cli_fail_status(status, NULL);
    if (worst == CLI_USAGE && !code && t->rank == 0) /* whose text was left to this process */
        (void)cli_fail(CLI_USAGE, "another process cannot take these options: does it find the "
                                  "same images?");
    return (int)worst;
}

int train_ranks_check_same(const train *t, int64_t value, const char *what) {
    int64_t most = value, least = -value;
    if (!t->ranks)
        return CLI_DONE;
    featinv_status status = featinv_ranks_largest(&most, t->ranks);
    if (!status)
        status = featinv_ranks_largest(&least, t->ranks);
    if (status)
        return fail_together(t, status);
    if (most == -least)
        return CLI_DONE;
    return t->rank ? CLI_INPUT
                   : cli_fail(CLI_INPUT, "%s: %s are not the same for all processes",
                              t->values->data, what);
}

int train_ranks_share(train *t) {
    if (!t->ranks)
        return CLI_DONE;
    int code = train_ranks_check_same(t, (int64_t)(t->data.hash >> 2), "the images found");
    if (code)
        return code;
    featinv_status status = featinv_trainer_share(t->trainer);
    t->started = train_step_count(t);
    return status ? fail_together(t, status) : CLI_DONE;
}

int train_ranks_compare(train *t) {
    featinv_status status = t->ranks ? featinv_trainer_compare(t->trainer) : FEATINV_OK;
    t->broken = t->broken || status == FEATINV_ERROR_COMPUTE;
    return status ? fail_together(t, status) : CLI_DONE;
}

void train_ranks_leave(train *t) {
    featinv_ranks_leave(t->ranks);
    t->ranks = NULL;
}
