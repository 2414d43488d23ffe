/* One part of an evaluation: its pictures are made, measured and written. */
#include "evaluate.h"

#include "../canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    evaluate *e;
    const evaluate_task *task;
    const evaluate_network *network; /* that draws */
    evaluate_block *block;
    evaluate_photos photos; /* of all items; of a mix A's, then B's */
    /* the items that can be drawn */
    int64_t count;
    int64_t *items, *indices; /* places in the block, numbers of the images */
    const evaluate_image **images;
    featinv_image *seen[2];        /* photos: of a mix A's and B's */
    uint8_t *pictures, *originals; /* (count, H, W, 3); originals NULL: not wanted */
    /* maps and logits of the originals in each network: NULL until they are wanted */
    float *maps[EVALUATE_MOST_NETWORKS], *logits[EVALUATE_MOST_NETWORKS];
    float *mixed, *second; /* of a mix: what is drawn, and B's maps */
} work;

static size_t map_size(const evaluate_network *network) {
    return (size_t)(network->channels * network->positions);
}

static size_t picture_bytes(const work *w) {
    const featinv_model_details *info = &w->network->opened.info;
    return (size_t)info->image[1] * (size_t)info->image[2] * 3;
}

static float *room(const work *w, size_t each) {
    return malloc((size_t)w->count * each * sizeof(float) + 1);
}

/* ---------------------------------------------------------------- originals ------------------ */

/* An image of a class that the bundle has no prompt for cannot be drawn from one. */
static bool has_prompt(const work *w, const evaluate_image *image) {
    return w->task->kind != EVALUATE_CLASS ||
           evaluate_class_context(w->network, w->e->set.classes[image->class_index]);
}

static int read_photos(work *w, int64_t first) {
    const evaluate_set *set = evaluate_task_set(w->e, w->task);
    const int64_t n = w->block->count, sides = w->task->kind == EVALUATE_MIX ? 2 : 1;
    int64_t *which = calloc((size_t)n, 2 * sizeof *which);
    int code = which ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < n; i++) {
        which[i] = evaluate_item_image(w->e, w->task, first + i);
        if (sides == 2)
            which[n + i] = set->pairs[2 * (first + i) + 1];
    }
    if (!code)
        code = evaluate_photos_read(&w->photos, w->e, w->block, set, which, sides * n);
    for (int64_t i = 0; !code && i < n; i++) {
        const featinv_image *a = &w->photos.images[i], *b = a + (sides - 1) * n;
        if (!a->pixels || !b->pixels || !has_prompt(w, &set->images[which[i]]))
            continue;
        w->items[w->count] = i;
        w->indices[w->count] = which[i];
        w->images[w->count] = &set->images[which[i]];
        w->seen[0][w->count] = *a;
        w->seen[1][w->count++] = *b;
    }
    free(which);
    return code;
}

static int look(work *w, int32_t k) {
    const evaluate_network *network = &w->e->networks[k];
    if (w->maps[k])
        return CLI_DONE;
    w->maps[k] = room(w, map_size(network));
    w->logits[k] = room(w, (size_t)network->classes);
    if (!w->maps[k] || !w->logits[k])
        return cli_fail_memory();
    return evaluate_extract(w->maps[k], w->logits[k], network, w->seen[0], w->count);
}

/* The crops at the generator's size. */
static int make_originals(work *w) {
    const char **paths = calloc((size_t)w->count, sizeof *paths);
    w->originals = malloc((size_t)w->count * picture_bytes(w));
    int code = paths && w->originals ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < w->count; i++)
        paths[i] = w->images[i]->path;
    if (!code)
        code = evaluate_references(w->originals, w->e, w->network, paths, w->count);
    free(paths);
    return code;
}

/* ---------------------------------------------------------------- pictures ------------------- */

/* (1 - w) A + w B */
static int mix_maps(work *w) {
    const featinv_model_details *info = &w->network->opened.info;
    int64_t shape[4] = {w->count, info->channels, info->height, info->width};
    float *logits = room(w, (size_t)w->network->classes);
    w->mixed = room(w, map_size(w->network));
    w->second = room(w, map_size(w->network));
    int code = logits && w->mixed && w->second ? look(w, w->task->model) : cli_fail_memory();
    if (!code)
        code = evaluate_extract(w->second, logits, w->network, w->seen[1], w->count);
    if (!code) {
        featinv_tensor a =
            featinv_tensor_view(w->maps[w->task->model], FEATINV_DTYPE_F32, 4, shape);
        featinv_tensor b = featinv_tensor_view(w->second, FEATINV_DTYPE_F32, 4, shape);
        featinv_tensor out = featinv_tensor_view(w->mixed, FEATINV_DTYPE_F32, 4, shape);
        featinv_status status =
            featinv_features_mix(&out, &a, &b, w->task->value, FEATINV_MIX_LERP);
        code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    }
    free(logits);
    return code;
}

static int make_pictures(work *w) {
    const evaluate_task *task = w->task;
    float *from = NULL;
    int code = CLI_DONE;
    w->pictures = malloc((size_t)w->count * picture_bytes(w));
    if (!w->pictures)
        return cli_fail_memory();
    if (task->with_gradient || task->writes_originals)
        code = make_originals(w);
    if (code)
        return code;
    if (task->kind == EVALUATE_CLASS)
        return evaluate_draw_classes(w->pictures, w->e, task->model, w->images, w->count);
    if (task->kind == EVALUATE_AUTOENCODER)
        return evaluate_round_trip(w->pictures, w->e, task->model, w->originals, w->count);
    code = task->kind == EVALUATE_MIX ? mix_maps(w) : look(w, task->model);
    from = task->kind == EVALUATE_MIX ? w->mixed : w->maps[task->model];
    return code ? code
                : evaluate_draw(w->pictures, w->e, task->model, task, from, w->images, w->count);
}

/* ---------------------------------------------------------------- measures ------------------- */

/* Maps of the pictures in a network, and how the classes of both match. logits NULL: unknown. */
static int score(float *drawn, double (*matches)[2], const work *w, const evaluate_network *network,
                 float *maps, float *logits) {
    const featinv_model_details *info = &network->opened.info, *from = &w->network->opened.info;
    int64_t shape[4] = {w->count, info->channels, info->height, info->width};
    int64_t image_shape[4] = {w->count, from->image[1], from->image[2], 3};
    int64_t logit_shape[2] = {w->count, network->classes};
    featinv_tensor map_view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor drawn_view = featinv_tensor_view(drawn, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor image_view = featinv_tensor_view(w->pictures, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor logit_view = featinv_tensor_view(logits, FEATINV_DTYPE_F32, 2, logit_shape);
    featinv_score *scores = calloc((size_t)w->count, sizeof *scores);
    if (!scores)
        return cli_fail_memory();
    featinv_status status =
        featinv_score_samples(scores, &drawn_view, network->opened.session, &image_view, &map_view,
                              logits && network->classes > 0 ? &logit_view : NULL, NULL);
    for (int64_t i = 0; i < w->count; i++) {
        matches[i][0] = scores[i].match_top1 < 0 ? NAN : (double)scores[i].match_top1;
        matches[i][1] = scores[i].match_top5 < 0 ? NAN : (double)scores[i].match_top5;
    }
    free(scores);
    return status ? evaluate_fail(network, status) : CLI_DONE;
}

/* Fills a slot from maps of originals and pictures. */
static int fill(const work *w, int32_t s, const float *maps, const float *drawn,
                const double (*matches)[2]) {
    const evaluate_slot *slot = &w->task->slots[s];
    const evaluate_network *network = &w->e->networks[slot->network];
    const size_t size = map_size(network);
    int code = CLI_DONE;
    for (int64_t i = 0; !code && i < w->count; i++) {
        const float *b = drawn + (size_t)i * size;
        int64_t item = w->items[i];
        if (slot->rows)
            evaluate_pool(w->block->rows[s] + item * network->channels, b, network->channels,
                          network->positions);
        code = evaluate_compare(w->block, slot, s, item, network, maps + (size_t)i * size, b,
                                matches[i]);
    }
    return code;
}

static int measure_slot(work *w, int32_t s) {
    const int32_t k = w->task->slots[s].network;
    const evaluate_network *network = &w->e->networks[k];
    float *drawn = room(w, map_size(network));
    double(*matches)[2] = calloc((size_t)w->count, sizeof *matches);
    int code = drawn && matches ? look(w, k) : cli_fail_memory();
    if (!code)
        code = score(drawn, matches, w, network, w->maps[k], w->logits[k]);
    if (!code)
        code = fill(w, s, w->maps[k], drawn, (const double(*)[2])matches);
    free(drawn);
    free(matches);
    return code;
}

/* Against the mixed map, A's and B's. */
static int measure_mix(work *w) {
    const float *const against[3] = {w->mixed, w->maps[w->task->model], w->second};
    float *drawn = room(w, map_size(w->network));
    double(*matches)[2] = calloc((size_t)w->count, sizeof *matches);
    int code =
        drawn && matches ? score(drawn, matches, w, w->network, w->mixed, NULL) : cli_fail_memory();
    for (int32_t s = 0; !code && s < 3; s++)
        code = fill(w, s, against[s], drawn, (const double(*)[2])matches);
    free(drawn);
    free(matches);
    return code;
}

static int measure(work *w) {
    const featinv_model_details *info = &w->network->opened.info;
    const size_t bytes = picture_bytes(w);
    int code = w->task->kind == EVALUATE_MIX ? measure_mix(w) : CLI_DONE;
    for (int32_t s = 0; !code && w->task->kind != EVALUATE_MIX && s < w->task->slot_count; s++)
        code = measure_slot(w, s);
    for (int64_t i = 0; !code && w->task->with_gradient && i < w->count; i++) {
        double *to = w->block->gradient + 2 * w->items[i];
        to[0] = evaluate_gradient(w->originals + (size_t)i * bytes, info->image[2], info->image[1]);
        to[1] = evaluate_gradient(w->pictures + (size_t)i * bytes, info->image[2], info->image[1]);
    }
    return code;
}

/* ---------------------------------------------------------------- files ---------------------- */

static int write_pictures(const work *w) {
    const featinv_model_details *info = &w->network->opened.info;
    const cli_canvas canvas = {w->e->values->output, info->image[2], info->image[1]};
    int code = CLI_DONE;
    for (int64_t i = 0; !code && i < w->count; i++) {
        const size_t at = (size_t)i * picture_bytes(w);
        char name[96];
        if (w->task->kind == EVALUATE_OOD || w->indices[i] >= w->e->pictures)
            continue;
        evaluate_picture_name(name, w->task, w->indices[i]);
        code = cli_canvas_write(&canvas, name, w->pictures + at);
        evaluate_picture_name(name, NULL, w->indices[i]);
        if (!code && w->task->writes_originals)
            code = cli_canvas_write(&canvas, name, w->originals + at);
    }
    return code;
}

/* ---------------------------------------------------------------- part ----------------------- */

static bool prepare(work *w) {
    size_t n = (size_t)w->block->count;
    w->items = calloc(n, sizeof *w->items);
    w->indices = calloc(n, sizeof *w->indices);
    w->images = calloc(n, sizeof *w->images);
    w->seen[0] = calloc(n, sizeof *w->seen[0]);
    w->seen[1] = calloc(n, sizeof *w->seen[1]);
    return w->items && w->indices && w->images && w->seen[0] && w->seen[1];
}

static void work_free(work *w) {
    evaluate_photos_free(&w->photos);
    for (int32_t k = 0; k < EVALUATE_MOST_NETWORKS; k++) {
        free(w->maps[k]);
        free(w->logits[k]);
    }
    free(w->items);
    free(w->indices);
    free(w->images);
    free(w->seen[0]);
    free(w->seen[1]);
    free(w->pictures);
    free(w->originals);
    free(w->mixed);
    free(w->second);
}

static int work_on_pictures(evaluate *e, const evaluate_task *task, evaluate_block *block,
                            int64_t first) {
    work w = {.e = e, .task = task, .network = &e->networks[task->model], .block = block};
    int code = prepare(&w) ? read_photos(&w, first) : cli_fail_memory();
    if (!code && w.count) {
        code = make_pictures(&w);
        if (!code)
            code = measure(&w);
        if (!code)
            code = evaluate_store_check(e);
        if (!code)
            code = write_pictures(&w);
    }
    work_free(&w);
    return code;
}

int evaluate_work(evaluate *e, int64_t part) {
    const evaluate_task *task = evaluate_task_of(e, part);
    int64_t first = (part - task->first_part) * e->batch, left = task->count - first;
    evaluate_block block;
    int code = evaluate_block_make(&block, e, task, left < e->batch ? left : e->batch);
    if (code)
        return code;
    code = task->kind == EVALUATE_FLOOR ? evaluate_work_floor(e, task, &block, first)
                                        : work_on_pictures(e, task, &block, first);
    if (!code)
        code = evaluate_part_write(e, part, &block);
    evaluate_block_free(&block);
    return code;
}
