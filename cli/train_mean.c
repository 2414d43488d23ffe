/* The channel mean of the training maps: what a bundle needs for centred cosines. */
#include "train.h"

#include <stdlib.h>

/* Images whose maps give the mean, and how many pass through the backbone at a time. Both are
 * fixed: a resumed training finds the same mean to the bit, whatever its number of processes. */
enum { MOST_IMAGES = 256, AT_A_TIME = 8 };

typedef struct total {
    double *sums; /* (C) */
    float *maps;  /* (AT_A_TIME, C, h, w) */
    int64_t count;
} total;

static int add_maps(total *all, train *t, const featinv_image *photos, int64_t count) {
    const featinv_model_details *info = &t->opened.info;
    const size_t positions = (size_t)info->height * (size_t)info->width;
    int64_t shape[4] = {count, info->channels, info->height, info->width};
    featinv_tensor maps = featinv_tensor_view(all->maps, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status = featinv_extract(&maps, NULL, t->opened.session, photos, count, NULL);
    if (status)
        return cli_fail_status(status, NULL);
    const float *value = all->maps;
    for (int64_t i = 0; i < count; i++)
        for (int32_t c = 0; c < info->channels; c++)
            for (size_t p = 0; p < positions; p++)
                all->sums[c] += (double)*value++;
    all->count += count;
    return CLI_DONE;
}

/* Files that cannot be read are left out here, and reported when it is their turn in training. */
static int add_files(total *all, train *t, cli_inputs *inputs) {
    featinv_image good[AT_A_TIME];
    int64_t read = 0;
    cli_photos *photos = cli_photos_start(inputs, 0, inputs->count, t->values->max_pixels);
    int code = photos ? CLI_DONE : cli_fail_memory();
    const featinv_image *decoded = photos ? cli_photos_wait(photos) : NULL;
    for (int64_t i = 0; !code && i < inputs->count; i++) {
        int bad;
        const char *error = cli_photos_error(photos, i, &bad);
        if (error && bad == CLI_MEMORY)
            code = cli_fail_memory();
        else if (!error)
            good[read++] = decoded[i];
    }
    if (!code && read)
        code = add_maps(all, t, good, read);
    cli_photos_free(photos);
    return code;
}

/* Of files spread evenly over all, since folders in their order may be classes. */
static int add_all(total *all, train *t) {
    const train_data *d = &t->data;
    const int64_t n = d->trained_count < MOST_IMAGES ? d->trained_count : MOST_IMAGES;
    int code = CLI_DONE;
    cli_progress_start(&t->progress, "mean", "images", n, t->values->quiet);
    for (int64_t first = 0; !code && first < n; first += AT_A_TIME) {
        cli_input items[AT_A_TIME] = {0};
        cli_inputs inputs = {.items = items};
        for (int64_t i = first; i < n && inputs.count < AT_A_TIME; i++)
            items[inputs.count++].path = (char *)(uintptr_t)d->trained[i * d->trained_count / n];
        t->progress.first = first;
        code = cli_progress_call(&t->progress, 0, 1) ? CLI_INTERRUPTED : add_files(all, t, &inputs);
    }
    cli_progress_clear();
    return code;
}

int train_mean_find(train *t) {
    const featinv_model_details *info = &t->opened.info;
    const size_t channels = (size_t)info->channels;
    const double positions = (double)info->height * (double)info->width;
    total all = {0};
    int code = CLI_DONE;
    if (info->feature_mean)
        return CLI_DONE;
    all.sums = calloc(channels, sizeof *all.sums);
    all.maps = calloc(AT_A_TIME, t->data.map_size * sizeof *all.maps);
    code = all.sums && all.maps ? add_all(&all, t) : cli_fail_memory();
    if (!code && all.count) {
        t->mean = malloc(channels * sizeof *t->mean);
        if (!t->mean)
            code = cli_fail_memory();
        for (size_t c = 0; !code && c < channels; c++)
            t->mean[c] = (float)(all.sums[c] / ((double)all.count * positions));
    }
    free(all.sums);
    free(all.maps);
    return code;
}
