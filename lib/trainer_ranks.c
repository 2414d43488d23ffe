/* A trainer among several processes: summed gradients, equal weights. */
#include "trainer.h"

#include "error.h"
#include "hash.h"

#include <stdlib.h>
#include <string.h>

/* Values that are exchanged at once: few exchanges for many small tensors, little memory for large
 * models. 16 MiB. */
static const size_t BUCKET = 1 << 22;

static size_t capacity_of(const featinv_trainer *trainer) {
    size_t largest = fi_trainer_largest(trainer), all = 0;
    for (int64_t i = 0; i < trainer->count && all < BUCKET; i++)
        all += trainer->tensors[i].count;
    size_t useful = all < BUCKET ? all : BUCKET;
    return largest > useful ? largest : useful;
}

featinv_status fi_trainer_ranks_prepare(featinv_trainer *trainer) {
    if (!trainer->options.ranks)
        return FEATINV_OK;
    trainer->capacity = capacity_of(trainer);
    trainer->exchange = malloc(trainer->capacity * sizeof *trainer->exchange + 1);
    return trainer->exchange ? FEATINV_OK
                             : fi_fail_memory(trainer->capacity * sizeof *trainer->exchange);
}

/* One past the last tensor that fits into the buffer with `first`; *used: their values. */
static int64_t end_of_bucket(size_t *used, const featinv_trainer *trainer, int64_t first) {
    int64_t end = first;
    for (*used = 0;
         end < trainer->count && trainer->tensors[end].count <= trainer->capacity - *used; end++)
        *used += trainer->tensors[end].count;
    return end;
}

/* Moves tensors [first, end) of a kind between the trainer and the buffer. */
static featinv_status move(featinv_trainer *trainer, int32_t what, int64_t first, int64_t end,
                           featinv_status (*transfer)(featinv_trainer *, int32_t, int64_t,
                                                      float *)) {
    featinv_status status = FEATINV_OK;
    size_t at = 0;
    for (int64_t i = first; !status && i < end; i++) {
        status = transfer(trainer, what, i, trainer->exchange + at);
        at += trainer->tensors[i].count;
    }
    return status;
}

static featinv_status write_back(featinv_trainer *trainer, int32_t what, int64_t index,
                                 float *values) {
    return fi_trainer_write(trainer, what, index, values);
}

featinv_status fi_trainer_sum_gradients(featinv_trainer *trainer) {
    featinv_ranks *ranks = trainer->options.ranks;
    featinv_status status = FEATINV_OK;
    size_t used;
    if (!ranks)
        return FEATINV_OK;
    /* after a failure of its own a rank goes on exchanging until all hear of it */
    for (int64_t first = 0, end; first < trainer->count; first = end) {
        end = end_of_bucket(&used, trainer, first);
        if (!status)
            status = move(trainer, FI_TRAINED_GRADIENT, first, end, fi_trainer_read);
        featinv_status summed = fi_ranks_sum_floats(ranks, trainer->exchange, used);
        if (!status)
            status = summed;
        if (!status)
            status = move(trainer, FI_TRAINED_GRADIENT, first, end, write_back);
    }
    return fi_ranks_agree(ranks, status);
}

/* ---------------------------------------------------------------- equal weights -------------- */

static featinv_status check_ranks(const featinv_trainer *trainer) {
    if (!trainer)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no trainer");
    return trainer->options.ranks
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_ARGUMENT, "this trainer has no ranks in its options");
}

static featinv_status share_kind(featinv_trainer *trainer, int32_t what, featinv_status status) {
    featinv_ranks *ranks = trainer->options.ranks;
    size_t used;
    for (int64_t first = 0, end; first < trainer->count; first = end) {
        end = end_of_bucket(&used, trainer, first);
        if (!status && ranks->rank == 0)
            status = move(trainer, what, first, end, fi_trainer_read);
        featinv_status shared =
            fi_ranks_share(ranks, trainer->exchange, used * sizeof *trainer->exchange);
        if (!status)
            status = shared;
        if (!status && ranks->rank != 0)
            status = move(trainer, what, first, end, write_back);
    }
    return status;
}

featinv_status featinv_trainer_share(featinv_trainer *trainer) {
    featinv_status status = check_ranks(trainer);
    if (status)
        return status;
    static const int32_t kinds[] = {FI_TRAINED_VALUE, FI_TRAINED_FIRST, FI_TRAINED_SECOND,
                                    FI_TRAINED_AVERAGE};
    const size_t count = trainer->options.average > 0.0 ? 4 : 3;
    int64_t step = trainer->step;
    for (size_t i = 0; i < count; i++)
        status = share_kind(trainer, kinds[i], status);
    featinv_status shared = fi_ranks_share(trainer->options.ranks, &step, sizeof step);
    status = fi_ranks_agree(trainer->options.ranks, status ? status : shared);
    if (!status)
        trainer->step = step;
    return status;
}

static featinv_status digest(char text[FI_HASH_TEXT], featinv_trainer *trainer) {
    fi_hash *hash = NULL;
    featinv_status status = fi_hash_create(&hash);
    for (int64_t i = 0; !status && i < trainer->count; i++) {
        status = fi_trainer_read(trainer, FI_TRAINED_VALUE, i, trainer->exchange);
        if (!status)
            fi_hash_update(hash, trainer->exchange,
                           trainer->tensors[i].count * sizeof *trainer->exchange);
    }
    if (status) {
        fi_hash_destroy(hash);
        return status;
    }
    fi_hash_finish(text, hash);
    return *text ? FEATINV_OK : fi_fail(FEATINV_ERROR_INTERNAL, "the weights cannot be hashed");
}

featinv_status featinv_trainer_compare(featinv_trainer *trainer) {
    featinv_status status = check_ranks(trainer);
    if (status)
        return status;
    featinv_ranks *ranks = trainer->options.ranks;
    char own[FI_HASH_TEXT] = "", first[FI_HASH_TEXT] = "";
    status = fi_ranks_agree(ranks, digest(own, trainer));
    if (status)
        return status;
    memcpy(first, own, sizeof first);
    status = fi_ranks_share(ranks, first, sizeof first);
    if (!status && strcmp(own, first) != 0)
        status = fi_fail(FEATINV_ERROR_COMPUTE,
                         "after step %lld the weights are not those of rank 0: do the machines "
                         "have different processors or libraries?",
                         (long long)trainer->step);
    return fi_ranks_agree(ranks, status);
}
