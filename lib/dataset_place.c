#include "dataset.h"

#include "error.h"
#include "shuffle.h"

#include <stdlib.h>
#include <string.h>

int64_t fi_dataset_index(const featinv_dataset *d, int64_t position, int64_t passed) {
    const uint32_t epoch = (uint32_t)(position / d->count);
    const int64_t place = (position % d->count + passed) % d->count;
    return d->options.shuffle ? fi_shuffle(d->options.seed, epoch, d->count, place) : place;
}

/* ---------------------------------------------------------------- faults --------------------- */

static bool is_faulty(featinv_dataset *d, int64_t index) {
    (void)pthread_mutex_lock(&d->lock);
    const bool faulty = d->faults[index] != NULL;
    (void)pthread_mutex_unlock(&d->lock);
    return faulty;
}

static bool all_faulty(featinv_dataset *d) {
    (void)pthread_mutex_lock(&d->lock);
    const bool all = d->fault_count == d->count;
    (void)pthread_mutex_unlock(&d->lock);
    return all;
}

/* Keeps the thread's last error as the fault of an image. */
static featinv_status add_fault(featinv_dataset *d, int64_t index, featinv_status status) {
    const size_t length = strlen(featinv_last_error()) + 1;
    fi_dataset_fault *fault = malloc(sizeof *fault + length);
    if (!fault)
        return fi_fail_memory(sizeof *fault + length);
    fault->status = status;
    fault->reported = false;
    memcpy(fault->text, featinv_last_error(), length);
    (void)pthread_mutex_lock(&d->lock);
    if (!d->faults[index]) { /* two places may have met it at once */
        d->faults[index] = fault;
        d->fault_count++;
        fault = NULL;
    }
    (void)pthread_mutex_unlock(&d->lock);
    free(fault);
    return FEATINV_OK;
}

/* All are faulty, so nothing changes any more, and the text is the same whoever came first. */
static featinv_status fail_all(const featinv_dataset *d) {
    return fi_fail(d->faults[0]->status, "none of the %lld images can be used; the first: %s",
                   (long long)d->count, d->faults[0]->text);
}

/* ---------------------------------------------------------------- one place ------------------ */

static featinv_status read_picture(featinv_image *out, fi_dataset_scratch *scratch,
                                   const char *path, int64_t max_pixels) {
    int32_t width = 0, height = 0;
    uint8_t nothing[1];
    featinv_status status =
        featinv_image_read(scratch->pixels ? scratch->pixels : nothing, scratch->capacity, &width,
                           &height, path, max_pixels);
    if (status == FEATINV_ERROR_CAPACITY) {
        const size_t needed = 3 * (size_t)width * (size_t)height;
        free(scratch->pixels);
        *scratch = (fi_dataset_scratch){malloc(needed), needed};
        if (!scratch->pixels) {
            scratch->capacity = 0;
            return fi_fail_memory(needed);
        }
        status = featinv_image_read(scratch->pixels, needed, &width, &height, path, max_pixels);
    }
    *out = (featinv_image){scratch->pixels, width, height, 3 * (int64_t)width};
    return status;
}

/* The first image from a place on that can be read; how many could not. */
static featinv_status find_picture(featinv_image *out, int64_t *index, int64_t *passed,
                                   featinv_dataset *d, int32_t worker, int32_t slot, int64_t batch,
                                   int64_t position) {
    for (*passed = 0; *passed < d->count; ++*passed) {
        *index = fi_dataset_index(d, position, *passed);
        if (!is_faulty(d, *index)) {
            featinv_status status =
                read_picture(out, d->scratch + worker, d->paths[*index], d->options.max_pixels);
            if (!status || status == FEATINV_ERROR_MEMORY)
                return status;
            status = add_fault(d, *index, status);
            if (status)
                return status;
        }
        if (all_faulty(d))
            return fail_all(d);
        if (!fi_prefetch_wanted(d->prefetch, slot, batch))
            return fi_fail(FEATINV_ERROR_CANCELLED, "the batch is not wanted any more");
    }
    return fail_all(d);
}

featinv_status fi_dataset_make_place(void *dataset, int32_t worker, int32_t slot, int64_t batch,
                                     int32_t place) {
    featinv_dataset *d = dataset;
    const int64_t position = batch * d->options.batch + place;
    const size_t at = (size_t)slot * (size_t)d->options.batch + (size_t)place;
    featinv_image picture;
    featinv_status status =
        find_picture(&picture, d->indices + at, d->passed + at, d, worker, slot, batch, position);
    if (status)
        return status;
    /* The numbers belong to the place: a stand-in is cropped as the missing image would have been,
     * and so differs from its own appearance in the epoch. */
    fi_random random = fi_random_start(d->options.seed, FI_STREAM_AUGMENT,
                                       (uint32_t)fi_dataset_index(d, position, 0));
    random.block = (uint64_t)(position / d->count) << 32;
    return fi_augment_apply(d->images + at * d->image_bytes, d->views + at * d->view_bytes,
                            &d->augment, &picture, &random);
}
