#include "dataset.h"

#include "error.h"
#include "model.h"
#include "options.h"
#include "tensor.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SIDE = 65535, MAX_BATCH = 65536, MAX_THREADS = 1024, MAX_PREFETCH = 1024 };

/* ---------------------------------------------------------------- options -------------------- */

/* The public release's: ConvNeXt at 288 and Stable Diffusion at 256, batch 8. */
static featinv_dataset_options defaults(const featinv_model *model) {
    featinv_dataset_options o = {.struct_size = sizeof o,
                                 .batch = 8,
                                 .image_height = 256,
                                 .image_width = 256,
                                 .view_height = 288,
                                 .view_width = 288,
                                 .filter = FEATINV_FILTER_BILINEAR,
                                 .augment = 1,
                                 .crop = 1.0,
                                 .scale_min = 0.08,
                                 .scale_max = 1.0,
                                 .ratio_min = 3.0 / 4.0,
                                 .ratio_max = 4.0 / 3.0,
                                 .flip_horizontal = 0.5,
                                 .flip_vertical = 0.5,
                                 .shuffle = 1,
                                 .prefetch = 2,
                                 .seed = 100};
    if (model && model->has_generator) {
        o.image_height = model->bundle->image[1];
        o.image_width = model->bundle->image[2];
    }
    if (model && model->bundle->has_backbone) {
        o.view_height = model->bundle->input_height;
        o.view_width = model->bundle->input_width;
        o.filter = model->bundle->interpolation;
        o.crop = model->bundle->crop;
    }
    return o;
}

featinv_status featinv_dataset_options_init(featinv_dataset_options *options, size_t size,
                                            const featinv_model *model) {
    featinv_dataset_options all = defaults(model);
    return fi_options_init(options, size, &all, sizeof all);
}

static featinv_status check_count(const char *name, int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_ARGUMENT, "%s is %lld: it must be %lld to %lld", name,
                         (long long)value, (long long)low, (long long)high);
}

/* 0 < low <= high <= most */
static featinv_status check_range(const char *name, double low, double high, double most) {
    return low > 0 && low <= high && high <= most
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_ARGUMENT,
                         "%s is %g to %g: it must ascend, above 0 and up to %g", name, low, high,
                         most);
}

static featinv_status check_probability(const char *name, double value) {
    return value >= 0 && value <= 1
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_ARGUMENT, "%s is %g: it must be from 0 to 1", name, value);
}

static featinv_status check_counts(const featinv_dataset_options *o) {
    const struct {
        const char *name;
        int64_t value, low, high;
    } counts[] = {
        {"batch", o->batch, 1, MAX_BATCH},
        {"image_height", o->image_height, 1, MAX_SIDE},
        {"image_width", o->image_width, 1, MAX_SIDE},
        {"view_height", o->view_height, 1, MAX_SIDE},
        {"view_width", o->view_width, 1, MAX_SIDE},
        {"filter", o->filter, FEATINV_FILTER_BILINEAR, FEATINV_FILTER_BICUBIC},
        {"augment", o->augment, 0, 1},
        {"legacy_target", o->legacy_target, 0, 1},
        {"shuffle", o->shuffle, 0, 1},
        {"threads", o->threads, 0, MAX_THREADS},
        {"prefetch", o->prefetch, 1, MAX_PREFETCH},
        {"max_pixels", o->max_pixels, 0, INT64_MAX},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        featinv_status status =
            check_count(counts[i].name, counts[i].value, counts[i].low, counts[i].high);
        if (status)
            return status;
    }
    return FEATINV_OK;
}

static featinv_status read_options(featinv_dataset_options *o,
                                   const featinv_dataset_options *options) {
    *o = defaults(NULL);
    featinv_status status = fi_options_read(o, sizeof *o, options);
    if (!status)
        status = check_counts(o);
    if (!status)
        status = check_range("crop", o->crop, o->crop, 1);
    if (!status)
        status = check_range("scale", o->scale_min, o->scale_max, 1);
    if (!status)
        status = check_range("ratio", o->ratio_min, o->ratio_max, 1e6);
    if (!status)
        status = check_probability("flip_horizontal", o->flip_horizontal);
    if (!status)
        status = check_probability("flip_vertical", o->flip_vertical);
    return status;
}

static int32_t processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    const int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count;
}

static fi_augment augment_of(const featinv_dataset_options *o) {
    return (fi_augment){.view = {.height = o->view_height,
                                 .width = o->view_width,
                                 .filter = o->filter,
                                 .crop = o->crop},
                        .image_height = o->image_height,
                        .image_width = o->image_width,
                        .random = o->augment != 0,
                        .scale = {o->scale_min, o->scale_max},
                        .ratio = {o->ratio_min, o->ratio_max},
                        .mirror = o->flip_horizontal,
                        .upset = o->flip_vertical,
                        .legacy_target = o->legacy_target != 0};
}

/* ---------------------------------------------------------------- creation ------------------- */

static featinv_status check_paths(const char *const *paths, int64_t count) {
    if (!paths)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the paths of the images are NULL");
    featinv_status status = check_count("count of images", count, 1, INT32_MAX);
    for (int64_t i = 0; !status && i < count; i++)
        if (!paths[i] || !paths[i][0])
            status = fi_fail(FEATINV_ERROR_ARGUMENT, "the path of image %lld is %s", (long long)i,
                             paths[i] ? "empty" : "NULL");
    return status;
}

/* The pointers and, behind them, the names: one block. */
static featinv_status copy_paths(featinv_dataset *d, const char *const *paths) {
    size_t bytes = (size_t)d->count * sizeof(char *);
    for (int64_t i = 0; i < d->count; i++)
        bytes += strlen(paths[i]) + 1;
    d->paths = malloc(bytes);
    if (!d->paths)
        return fi_fail_memory(bytes);
    char *name = (char *)(d->paths + d->count);
    for (int64_t i = 0; i < d->count; i++) {
        const size_t length = strlen(paths[i]) + 1;
        memcpy(name, paths[i], length);
        d->paths[i] = name;
        name += length;
    }
    return FEATINV_OK;
}

static featinv_status make_ring(featinv_dataset *d) {
    const featinv_dataset_options *o = &d->options;
    const int64_t image[4] = {o->prefetch, o->batch, o->image_height, o->image_width};
    const int64_t view[4] = {o->prefetch, o->batch, o->view_height, o->view_width};
    const size_t places = (size_t)o->prefetch * (size_t)o->batch;
    size_t images = 0, views = 0;
    bool sized = fi_checked_size(&images, image, 4, 3) && fi_checked_size(&views, view, 4, 3);
    d->images = sized ? malloc(images) : NULL;
    d->views = sized ? malloc(views) : NULL;
    d->image_bytes = images / places;
    d->view_bytes = views / places;
    d->indices = calloc(places, sizeof *d->indices);
    d->passed = calloc(places, sizeof *d->passed);
    d->scratch = calloc((size_t)o->threads, sizeof *d->scratch);
    d->faults = calloc((size_t)d->count, sizeof(fi_dataset_fault *));
    if (!d->images || !d->views || !d->indices || !d->passed || !d->scratch || !d->faults)
        return fi_fail(FEATINV_ERROR_MEMORY,
                       "out of memory: %d batches of %d images, %d x %d and %d x %d pixels",
                       o->prefetch, o->batch, o->image_width, o->image_height, o->view_width,
                       o->view_height);
    return FEATINV_OK;
}

featinv_status featinv_dataset_create(featinv_dataset **out, const char *const *paths,
                                      int64_t count, const featinv_dataset_options *options) {
    if (!out)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the dataset");
    *out = NULL;
    featinv_dataset_options checked;
    featinv_status status = read_options(&checked, options);
    if (!status)
        status = check_paths(paths, count);
    if (status)
        return status;
    featinv_dataset *d = calloc(1, sizeof *d);
    if (!d)
        return fi_fail_memory(sizeof *d);
    (void)pthread_mutex_init(&d->lock, NULL);
    d->options = checked;
    if (!d->options.threads)
        d->options.threads = processors();
    d->augment = augment_of(&d->options);
    d->count = count;
    d->owner = getpid();
    status = copy_paths(d, paths);
    if (!status)
        status = make_ring(d);
    if (!status)
        status = fi_prefetch_create(&d->prefetch, d->options.threads, d->options.prefetch,
                                    d->options.batch, fi_dataset_make_place, d);
    if (status)
        featinv_dataset_destroy(d);
    else
        *out = d;
    return status;
}

void featinv_dataset_destroy(featinv_dataset *d) {
    if (!d || d->owner != getpid())
        return; /* a child has none of the threads, and a lock may be held by one of them */
    fi_prefetch_destroy(d->prefetch);
    for (int64_t i = 0; d->faults && i < d->count; i++)
        free(d->faults[i]);
    for (int32_t i = 0; d->scratch && i < d->options.threads; i++)
        free(d->scratch[i].pixels);
    free(d->scratch);
    free(d->report_indices);
    free(d->reports);
    free(d->faults);
    free(d->passed);
    free(d->indices);
    free(d->views);
    free(d->images);
    free(d->paths);
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

/* ---------------------------------------------------------------- batches -------------------- */

static featinv_status grow_reports(featinv_dataset *d) {
    if (d->report_count < d->report_capacity)
        return FEATINV_OK;
    const int64_t capacity = d->report_capacity ? 2 * d->report_capacity : 16;
    const size_t bytes = (size_t)capacity * sizeof(void *);
    fi_dataset_fault **reports = realloc(d->reports, bytes);
    if (reports)
        d->reports = reports;
    int64_t *indices =
        reports ? realloc(d->report_indices, (size_t)capacity * sizeof *indices) : NULL;
    if (!indices)
        return fi_fail_memory(bytes);
    d->report_indices = indices;
    d->report_capacity = capacity;
    return FEATINV_OK;
}

/* Faults that a delivered batch met, in the order of its places: what threads found ahead of the
 * reader waits, so that the list depends on the batches that were asked for alone. */
static featinv_status report_faults(featinv_dataset *d, int64_t position, const int64_t *passed) {
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; !status && i < d->options.batch; i++)
        for (int64_t k = 0; !status && k < passed[i]; k++) {
            const int64_t index = fi_dataset_index(d, position + i, k);
            (void)pthread_mutex_lock(&d->lock);
            fi_dataset_fault *fault = d->faults[index];
            (void)pthread_mutex_unlock(&d->lock);
            if (fault->reported)
                continue;
            status = grow_reports(d);
            if (status)
                break;
            fault->reported = true;
            d->reports[d->report_count] = fault;
            d->report_indices[d->report_count++] = index;
        }
    return status;
}

/* Epochs are numbered in 32 bits, also those of the batches that are made ahead. */
static featinv_status check_batch(const featinv_dataset *d, int64_t batch) {
    const int64_t positions = ((int64_t)UINT32_MAX + 1) * d->count; /* count is below 2^31 */
    const int64_t last = positions / d->options.batch - d->options.prefetch - 1;
    return check_count("batch_index", batch, 0, last);
}

static featinv_status outputs(void **image, void **view, const featinv_tensor *images,
                              const featinv_tensor *views, const featinv_dataset_options *o) {
    const int64_t image_shape[4] = {o->batch, o->image_height, o->image_width, 3};
    const int64_t view_shape[4] = {o->batch, o->view_height, o->view_width, 3};
    featinv_status status = FEATINV_OK;
    *image = *view = NULL;
    if (images)
        status = fi_tensor_data(image, images, "images", FEATINV_DTYPE_U8, 4, image_shape);
    if (!status && views)
        status = fi_tensor_data(view, views, "views", FEATINV_DTYPE_U8, 4, view_shape);
    return status;
}

featinv_status featinv_dataset_batch(const featinv_tensor *images, const featinv_tensor *views,
                                     int64_t *indices, featinv_dataset *d, int64_t batch_index) {
    if (!d)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no dataset");
    if (d->owner != getpid())
        return fi_fail(FEATINV_ERROR_FORK, "the dataset was created before fork(): a child "
                                           "process cannot use it");
    void *image, *view;
    int32_t slot;
    featinv_status status = outputs(&image, &view, images, views, &d->options);
    if (!status)
        status = check_batch(d, batch_index);
    if (!status)
        status = fi_prefetch_take(&slot, d->prefetch, batch_index);
    if (status)
        return status;
    const size_t n = (size_t)d->options.batch, first = (size_t)slot * n;
    if (image)
        memcpy(image, d->images + first * d->image_bytes, n * d->image_bytes);
    if (view)
        memcpy(view, d->views + first * d->view_bytes, n * d->view_bytes);
    if (indices)
        memcpy(indices, d->indices + first, n * sizeof *indices);
    status = report_faults(d, batch_index * d->options.batch, d->passed + first);
    fi_prefetch_pass(d->prefetch, batch_index);
    return status;
}

int64_t featinv_dataset_size(const featinv_dataset *d) {
    return d ? d->count : 0;
}

int64_t featinv_dataset_problems(const featinv_dataset *d) {
    return d ? d->report_count : 0;
}

const char *featinv_dataset_problem(int64_t *index, const featinv_dataset *d, int64_t i) {
    if (!d || i < 0 || i >= d->report_count)
        return NULL;
    if (index)
        *index = d->report_indices[i];
    return d->reports[i]->text;
}
