/* --cache: without augmentation an image's latents and map are always the same. */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The sample of featinv_noise that gives an epoch's order; positions in a batch are below it. */
static const uint32_t ORDER_SAMPLE = UINT32_MAX;

/* ---------------------------------------------------------------- filling -------------------- */

static int make_room(train *t) {
    train_data *d = &t->data;
    const size_t n = (size_t)d->trained_count, share = (size_t)t->share;
    const double bytes = (double)n * (double)(2 * d->latent_size + d->map_size) * sizeof(float);
    const double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (memory > 0.0 && bytes > 0.9 * memory)
        return cli_fail(CLI_MEMORY,
                        "--cache: latents and maps of %lld images take %.1f GiB, this machine has "
                        "%.1f",
                        (long long)n, bytes / 0x1p30, memory / 0x1p30);
    d->means = malloc((n * d->latent_size + 1) * sizeof *d->means);
    d->logvars = malloc((n * d->latent_size + 1) * sizeof *d->logvars);
    d->maps = malloc((n * d->map_size + 1) * sizeof *d->maps);
    d->order = calloc(n + 1, sizeof *d->order);
    d->keys = calloc(n + 1, sizeof *d->keys);
    d->batch_latents = calloc(share, d->latent_size * sizeof *d->batch_latents);
    d->batch_maps = calloc(share, d->map_size * sizeof *d->batch_maps);
    return d->means && d->logvars && d->maps && d->order && d->keys && d->batch_latents &&
                   d->batch_maps
               ? CLI_DONE
               : cli_fail_memory();
}

/* What the generator is to draw of one image, and what the backbone sees; false: a problem. */
static bool read_pictures(uint8_t *image, const train *t, const char *path, int *code) {
    const train_data *d = &t->data;
    featinv_dataset_options o;
    featinv_dataset *one = NULL;
    int64_t shape[4] = {1, d->image[0], d->image[1], 3};
    featinv_tensor images = featinv_tensor_view(image, FEATINV_DTYPE_U8, 4, shape);
    (void)featinv_dataset_options_init(&o, sizeof o, t->opened.model);
    o.batch = 1;
    o.augment = 0;
    o.legacy_target = t->values->legacy;
    o.threads = 1;
    o.prefetch = 1;
    o.max_pixels = t->values->max_pixels;
    featinv_status status = featinv_dataset_create(&one, &path, 1, &o);
    if (!status)
        status = featinv_dataset_batch(&images, NULL, NULL, one, 0);
    featinv_dataset_destroy(one);
    *code = status == FEATINV_ERROR_MEMORY ? cli_fail_memory() : CLI_DONE;
    return !status;
}

/* Latents and maps of the `count` pictures read, into the cache's end. */
static featinv_status compute(train *t, const uint8_t *images, const featinv_image *photos,
                              int64_t count) {
    train_data *d = &t->data;
    const int32_t *l = t->opened.info.latent;
    const featinv_model_details *info = &t->opened.info;
    int64_t image_shape[4] = {count, d->image[0], d->image[1], 3};
    int64_t latent_shape[4] = {count, l[0], l[1], l[2]};
    int64_t map_shape[4] = {count, info->channels, info->height, info->width};
    const size_t at = (size_t)d->cached;
    featinv_tensor bytes =
        featinv_tensor_view((void *)(uintptr_t)images, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor means =
        featinv_tensor_view(d->means + at * d->latent_size, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor logvars =
        featinv_tensor_view(d->logvars + at * d->latent_size, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor maps =
        featinv_tensor_view(d->maps + at * d->map_size, FEATINV_DTYPE_F32, 4, map_shape);
    featinv_status status = featinv_encode(&means, &logvars, t->opened.session, &bytes, NULL);
    if (!status)
        status = featinv_extract(&maps, NULL, t->opened.session, photos, count, NULL);
    if (!status)
        d->cached += count;
    return status;
}

/* Images first to first + count, as they lie among those trained on. */
static int fill_part(train *t, int64_t first, int64_t count) {
    train_data *d = &t->data;
    const size_t bytes = (size_t)d->image[0] * (size_t)d->image[1] * 3;
    cli_inputs inputs = {.count = count, .items = calloc((size_t)count, sizeof *inputs.items)};
    uint8_t *images = malloc((size_t)count * bytes);
    featinv_image *good = calloc((size_t)count, sizeof *good);
    int64_t read = 0;
    for (int64_t i = 0; inputs.items && i < count; i++)
        inputs.items[i].path = (char *)(uintptr_t)d->trained[first + i];
    cli_photos *photos = inputs.items && images && good
                             ? cli_photos_start(&inputs, 0, count, t->values->max_pixels)
                             : NULL;
    int code = photos ? CLI_DONE : cli_fail_memory();
    const featinv_image *decoded = photos ? cli_photos_wait(photos) : NULL;
    for (int64_t i = 0; !code && i < count; i++) {
        int bad;
        const char *error = cli_photos_error(photos, i, &bad);
        if (error)
            code = bad == CLI_MEMORY ? cli_fail_memory() : train_problem(t, error);
        else if (decoded[i].pixels &&
                 read_pictures(images + (size_t)read * bytes, t, inputs.items[i].path, &code))
            good[read++] = decoded[i];
        else if (!code) /* it was there a moment ago */
            code = train_problem(t, featinv_last_error());
    }
    if (!code && read) {
        featinv_status status = compute(t, images, good, read);
        code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    }
    cli_photos_free(photos);
    free(inputs.items);
    free(images);
    free(good);
    return code;
}

int train_cache_fill(train *t) {
    train_data *d = &t->data;
    int code = make_room(t);
    cli_progress_start(&t->progress, "cache", "images", d->trained_count,
                       t->values->quiet || t->rank);
    for (int64_t first = 0; !code && first < d->trained_count; first += t->batch) {
        int64_t left = d->trained_count - first;
        t->progress.first = first;
        if (cli_progress_call(&t->progress, 0, 1))
            code = CLI_INTERRUPTED;
        else
            code = fill_part(t, first, left < t->batch ? left : t->batch);
    }
    cli_progress_clear();
    if (!code && !d->cached)
        code = cli_fail(CLI_INPUT, "%s: none of its images can be read", t->values->data);
    return code;
}

/* ---------------------------------------------------------------- batches -------------------- */

static const float *sorted_keys;

static int compare_keys(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    float x = sorted_keys[a], y = sorted_keys[b];
    if (x < y || x > y)
        return x < y ? -1 : 1;
    return a < b ? -1 : 1;
}

/* The order of an epoch: by one random number for each image. */
static featinv_status shuffle(train *t, int64_t epoch) {
    train_data *d = &t->data;
    if (d->order_epoch == epoch)
        return FEATINV_OK;
    featinv_status status =
        featinv_noise(d->keys, (size_t)d->cached, t->options.seed, ORDER_SAMPLE, (uint32_t)epoch);
    if (status)
        return status;
    for (int64_t i = 0; i < d->cached; i++)
        d->order[i] = i;
    sorted_keys = d->keys;
    qsort(d->order, (size_t)d->cached, sizeof *d->order, compare_keys);
    d->order_epoch = epoch;
    return FEATINV_OK;
}

/* z = latent_scale (mean + exp(logvar / 2) noise), drawn anew in every step, as from images. */
static featinv_status draw_latents(float *z, const train *t, int64_t image, int64_t place,
                                   int64_t step) {
    const train_data *d = &t->data;
    const float *mean = d->means + (size_t)image * d->latent_size;
    const float *logvar = d->logvars + (size_t)image * d->latent_size;
    featinv_status status =
        featinv_noise(z, d->latent_size, t->options.seed, (uint32_t)place, (uint32_t)step);
    for (size_t k = 0; !status && k < d->latent_size; k++)
        z[k] = (float)t->opened.info.latent_scale * (mean[k] + expf(0.5f * logvar[k]) * z[k]);
    return status;
}

int train_cache_batch(train_batch *out, train *t, int64_t step) {
    train_data *d = &t->data;
    const featinv_model_details *info = &t->opened.info;
    featinv_status status = FEATINV_OK;
    const int64_t place = t->rank * t->share; /* of this process's first image in the batch */
    for (int64_t i = 0; !status && i < t->share; i++) {
        int64_t position = step * t->batch + place + i;
        status = shuffle(t, position / d->cached);
        if (status)
            break;
        int64_t image = d->order[position % d->cached];
        memcpy(d->batch_maps + (size_t)i * d->map_size, d->maps + (size_t)image * d->map_size,
               d->map_size * sizeof *d->maps);
        status =
            draw_latents(d->batch_latents + (size_t)i * d->latent_size, t, image, place + i, step);
    }
    if (status)
        return cli_fail_status(status, NULL);
    *out = (train_batch){.shapes = {{t->share, info->latent[0], info->latent[1], info->latent[2]},
                                    {t->share, info->channels, info->height, info->width}}};
    out->tensors[0] = featinv_tensor_view(d->batch_latents, FEATINV_DTYPE_F32, 4, out->shapes[0]);
    out->tensors[1] = featinv_tensor_view(d->batch_maps, FEATINV_DTYPE_F32, 4, out->shapes[1]);
    out->batch = (featinv_trainer_batch){.struct_size = sizeof out->batch,
                                         .count = t->share,
                                         .position = place,
                                         .latents = &out->tensors[0],
                                         .maps = &out->tensors[1]};
    return CLI_DONE;
}
