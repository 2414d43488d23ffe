/* Validation: losses with the right and with another image's map, and a few pictures drawn. */
#include "canvas.h"
#include "train.h"
#include "writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void train_held_free(train_held *held) {
    free(held->images);
    free(held->views);
    free(held->shuffled);
    free(held->maps);
    *held = (train_held){0};
}

/* ---------------------------------------------------------------- reading -------------------- */

static size_t image_bytes(const train *t) {
    return (size_t)t->data.image[0] * (size_t)t->data.image[1] * 3;
}

static size_t view_bytes(const train *t) {
    return (size_t)t->data.view[0] * (size_t)t->data.view[1] * 3;
}

/* All held-out images, as the backbone and the generator see them. A stand-in for a file that
 * cannot be read is left out: it is another one of them. */
static int read_pictures(train *t, bool *is_good) {
    train_data *d = &t->data;
    train_held *h = &t->held;
    int64_t n = d->held_count,
            shapes[2][4] = {{n, d->image[0], d->image[1], 3}, {n, d->view[0], d->view[1], 3}};
    featinv_tensor images = featinv_tensor_view(h->images, FEATINV_DTYPE_U8, 4, shapes[0]);
    featinv_tensor views = featinv_tensor_view(h->views, FEATINV_DTYPE_U8, 4, shapes[1]);
    int64_t indices[TRAIN_MOST_HELD];
    featinv_dataset_options o;
    featinv_dataset *all = NULL;
    (void)featinv_dataset_options_init(&o, sizeof o, t->opened.model);
    o.batch = (int32_t)n;
    o.augment = 0;
    o.shuffle = 0;
    o.prefetch = 1;
    o.legacy_target = t->values->legacy;
    o.threads = t->values->workers;
    o.max_pixels = t->values->max_pixels;
    featinv_status status = featinv_dataset_create(&all, d->held, n, &o);
    if (!status)
        status = featinv_dataset_batch(&images, &views, indices, all, 0);
    int code = status == FEATINV_ERROR_MEMORY ? cli_fail_memory() : CLI_DONE;
    if (!code && status) { /* no file is good: those that are trained on may be */
        code = train_problem(t, featinv_last_error());
        if (!code)
            (void)cli_fail(CLI_DONE,
                           "%s: none of the %lld held-out images can be read, so there "
                           "is no validation",
                           t->values->data, (long long)n);
        n = 0;
    }
    for (int64_t i = 0; !code && i < featinv_dataset_problems(all); i++)
        code = train_problem(t, featinv_dataset_problem(NULL, all, i));
    for (int64_t i = 0; !code && i < n; i++) {
        is_good[i] = indices[i] == i;
        if (!is_good[i])
            continue;
        memmove(h->images + (size_t)h->count * image_bytes(t),
                h->images + (size_t)i * image_bytes(t), image_bytes(t));
        memmove(h->views + (size_t)h->count * view_bytes(t), h->views + (size_t)i * view_bytes(t),
                view_bytes(t));
        h->count++;
    }
    featinv_dataset_destroy(all);
    return code;
}

/* Maps of the first few, and what they are to become as original-0.png ... */
static int extract_maps(train *t, const bool *is_good) {
    const train_data *d = &t->data;
    train_held *h = &t->held;
    const featinv_model_details *info = &t->opened.info;
    const cli_canvas canvas = {t->state, d->image[1], d->image[0]};
    cli_inputs inputs = {.items = calloc(TRAIN_PICTURES, sizeof *inputs.items)};
    if (!inputs.items)
        return cli_fail_memory();
    for (int64_t i = 0; i < d->held_count && inputs.count < TRAIN_PICTURES; i++)
        if (is_good[i])
            inputs.items[inputs.count++].path = (char *)(uintptr_t)d->held[i];
    cli_photos *photos = cli_photos_start(&inputs, 0, inputs.count, t->values->max_pixels);
    const featinv_image *read = photos ? cli_photos_wait(photos) : NULL;
    int code = photos ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < inputs.count; i++) {
        int bad;
        const char *error = cli_photos_error(photos, i, &bad);
        code = error ? cli_fail(bad, "%s", error) : cli_interrupted() ? CLI_INTERRUPTED : CLI_DONE;
    }
    int64_t shape[4] = {inputs.count, info->channels, info->height, info->width};
    if (!code) {
        featinv_tensor maps = featinv_tensor_view(h->maps, FEATINV_DTYPE_F32, 4, shape);
        featinv_status status =
            featinv_extract(&maps, NULL, t->opened.session, read, inputs.count, NULL);
        code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    }
    for (int64_t i = 0; !code && i < inputs.count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "original-%d.png", (int)i);
        code = cli_canvas_write(&canvas, name, h->images + (size_t)i * image_bytes(t));
    }
    h->pictures = (int32_t)inputs.count;
    cli_photos_free(photos);
    free(inputs.items);
    return code;
}

int train_check_prepare(train *t) {
    train_held *h = &t->held;
    const size_t n = (size_t)t->data.held_count;
    bool is_good[TRAIN_MOST_HELD] = {false};
    if (!n)
        return CLI_DONE;
    h->images = malloc(n * image_bytes(t));
    h->views = malloc(n * view_bytes(t));
    h->shuffled = malloc(n * view_bytes(t));
    h->maps = malloc(TRAIN_PICTURES * t->data.map_size * sizeof *h->maps);
    if (!h->images || !h->views || !h->shuffled || !h->maps)
        return cli_fail_memory();
    int code = read_pictures(t, is_good);
    if (code || !h->count)
        return code;
    const size_t size = view_bytes(t), last = (size_t)(h->count - 1);
    memcpy(h->shuffled, h->views + last * size, size);
    memcpy(h->shuffled + size, h->views, last * size);
    return extract_maps(t, is_good);
}

/* ---------------------------------------------------------------- losses --------------------- */

/* Mean over the held-out images, each at one timestep and noise that never change. */
static int mean_loss(double *loss, train *t, uint8_t *views) {
    const train_data *d = &t->data;
    const train_held *h = &t->held;
    double sum = 0.0;
    for (int64_t first = 0; first < h->count; first += t->batch) {
        int64_t n = h->count - first < t->batch ? h->count - first : t->batch;
        int64_t shapes[2][4] = {{n, d->image[0], d->image[1], 3}, {n, d->view[0], d->view[1], 3}};
        featinv_tensor images = featinv_tensor_view(h->images + (size_t)first * image_bytes(t),
                                                    FEATINV_DTYPE_U8, 4, shapes[0]);
        featinv_tensor seen = featinv_tensor_view(views + (size_t)first * view_bytes(t),
                                                  FEATINV_DTYPE_U8, 4, shapes[1]);
        featinv_trainer_batch batch = {.struct_size = sizeof batch,
                                       .count = n,
                                       .position = first,
                                       .images = &images,
                                       .views = &seen};
        featinv_trainer_result result = {.struct_size = sizeof result};
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        featinv_status status = featinv_trainer_loss(&result, t->trainer, &batch);
        if (status)
            return cli_fail_status(status, NULL);
        sum += result.loss * (double)n;
    }
    *loss = sum / (double)h->count;
    return CLI_DONE;
}

/* ---------------------------------------------------------------- pictures ------------------- */

static int write_pictures(const train *t, const uint8_t *images, const train_check *check) {
    const cli_canvas canvas = {t->state, t->data.image[1], t->data.image[0]};
    int code = CLI_DONE;
    for (int32_t i = 0; !code && i < check->pictures; i++) {
        char name[48];
        (void)snprintf(name, sizeof name, "drawn-%08lld-%d.png", (long long)check->step, i);
        code = cli_canvas_write(&canvas, name, images + (size_t)i * image_bytes(t));
    }
    return code;
}

/* Draws from the maps with the bundle as it would be now. */
static int draw(train_check *check, train *t, featinv_session *session, featinv_model *model) {
    const featinv_model_details *info = &t->opened.info;
    const train_held *h = &t->held;
    const int64_t n = h->pictures;
    int64_t map_shape[4] = {n, info->channels, info->height, info->width};
    int64_t image_shape[4] = {n, t->data.image[0], t->data.image[1], 3};
    uint8_t *drawn = malloc((size_t)n * image_bytes(t));
    featinv_score scores[TRAIN_PICTURES];
    if (!drawn)
        return cli_fail_memory();
    featinv_tensor maps = featinv_tensor_view(h->maps, FEATINV_DTYPE_F32, 4, map_shape);
    featinv_tensor images = featinv_tensor_view(drawn, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_sample_options o;
    featinv_status status = featinv_sample_options_init(&o, sizeof o, model);
    if (!status)
        status = featinv_sample(&images, NULL, session, &maps, &o);
    if (!status)
        status = featinv_score_samples(scores, NULL, session, &images, &maps, NULL, NULL);
    int code = status == FEATINV_ERROR_CANCELLED ? CLI_INTERRUPTED
               : status                          ? cli_fail_status(status, NULL)
                                                 : CLI_DONE;
    check->pictures = code ? 0 : (int32_t)n;
    check->cosine = 0.0;
    for (int32_t i = 0; i < check->pictures; i++) {
        check->cosines[i] = scores[i].cosine_median;
        check->cosine += scores[i].cosine_median / (double)n;
    }
    if (!code)
        code = write_pictures(t, drawn, check);
    free(drawn);
    return code;
}

/* Through a bundle like the one that the training ends with, which is deleted at once. */
static int draw_through_bundle(train_check *check, train *t) {
    char *path = cli_path(t->state, "validation");
    if (!path)
        return cli_fail_memory();
    featinv_status status = train_export(t, path, /*name=*/NULL, /*force=*/false);
    int code = status ? cli_fail_status(status, path) : CLI_DONE;
    cli_opened opened = {0};
    cli_values values = *t->values;
    values.model = path;
    if (!code)
        code = cli_open(&opened, &values);
    if (!code) {
        cli_watch(opened.session);
        code = cli_interrupted() ? CLI_INTERRUPTED : draw(check, t, opened.session, opened.model);
    }
    cli_close(&opened);
    cli_watch(NULL);
    train_remove_tree(path);
    free(path);
    return code;
}

/* ---------------------------------------------------------------- validation ----------------- */

bool train_check_due(const train *t) {
    int64_t step = train_step_count(t);
    if (!t->held.count || (t->check_count && t->checks[t->check_count - 1].step == step))
        return false;
    return step % t->validate_every == 0 || step >= t->steps;
}

int train_check_run(train *t) {
    train_check check = {.step = train_step_count(t), .right = NAN, .shuffled = NAN};
    int code = mean_loss(&check.right, t, t->held.views);
    if (!code && t->held.count > 1)
        code = mean_loss(&check.shuffled, t, t->held.shuffled);
    if (!code)
        code = draw_through_bundle(&check, t);
    if (!code)
        code = train_log_check_line(t, &check);
    return code ? code : train_page_write(t, /*running=*/true);
}
