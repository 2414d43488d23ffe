/* Pictures and problems, gathered from all tasks. */
#include "evaluate.h"

#include "../json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Cosines of the first few images by each task, NaN where there is no picture. */
typedef struct shown {
    const evaluate *e;
    int64_t count;
    double *cosines; /* (tasks, count) */
} shown;

static int add_problems(json_t *problems, json_t *seen, const json_t *more) {
    json_t *problem;
    size_t i;
    json_array_foreach(more, i, problem) {
        const char *input = json_string_value(json_object_get(problem, "input"));
        if (!input || json_object_get(seen, input))
            continue;
        if (json_object_set_new(seen, input, json_true()) || json_array_append(problems, problem))
            return cli_fail_memory();
    }
    return CLI_DONE;
}

/* Of each task the agreement in the network of the model that draws. */
static int read_all(shown *s, json_t *problems) {
    const evaluate *e = s->e;
    json_t *seen = json_object();
    int code = seen ? CLI_DONE : cli_fail_memory();
    for (int32_t t = 0; !code && t < e->task_count; t++) {
        const evaluate_task *task = &e->tasks[t];
        evaluate_block block;
        code = evaluate_task_read(&block, e, task);
        if (!code)
            code = add_problems(problems, seen, block.problems);
        for (int64_t i = 0; !code && i < task->count; i++) {
            int64_t image = task->kind == EVALUATE_MIX ? e->set.pairs[2 * i] : i;
            if (task->kind != EVALUATE_FLOOR && task->kind != EVALUATE_OOD && image < s->count)
                s->cosines[t * s->count + image] =
                    block.figures[evaluate_find_slot(task, task->model)]
                                 [i * EVALUATE_FIGURES + EVALUATE_MEDIAN];
        }
        evaluate_block_free(&block);
    }
    json_decref(seen);
    return code;
}

static double cosine_of(const shown *s, const evaluate_task *task, int64_t image) {
    return task ? s->cosines[(task - s->e->tasks) * s->count + image] : NAN;
}

/* Nothing where the task has no picture of the image. */
static void add_item(json_t *items, const shown *s, const evaluate_task *task, int64_t image,
                     const char *what) {
    char name[96];
    double cosine = cosine_of(s, task, image);
    if (isnan(cosine))
        return;
    json_t *item = json_object();
    evaluate_picture_name(name, task, image);
    cli_json_set(item, "model", json_integer(task->model));
    cli_json_set(item, "what", json_string(what));
    cli_json_set(item, "image", json_string(name));
    cli_json_set(item, "cosine", cli_json_number(cosine));
    (void)json_array_append_new(items, item);
}

/* Models with one base have one autoencoder: its pictures are shown once. */
static bool is_first_of_base(const evaluate *e, int32_t m) {
    for (int32_t k = 0; k < m; k++)
        if (strcmp(e->networks[k].base, e->networks[m].base) == 0 &&
            evaluate_find_task(e, EVALUATE_AUTOENCODER, k, 0.0))
            return false;
    return true;
}

static void add_items(json_t *items, const shown *s, int32_t m, int64_t image) {
    const evaluate *e = s->e;
    const evaluate_task *drawn = evaluate_find_task(e, EVALUATE_DRAWN, m, 0.0);
    char what[48];
    add_item(items, s, drawn, image, "controlnet");
    add_item(items, s, evaluate_find_task(e, EVALUATE_CLASS, m, EVALUATE_CLASS_SCALE), image,
             "class_prompt");
    if (is_first_of_base(e, m))
        add_item(items, s, evaluate_find_task(e, EVALUATE_AUTOENCODER, m, 0.0), image,
                 "autoencoder");
    for (int32_t i = 0; i < e->scale_count && (e->tables & EVALUATE_TABLE_SWEEP); i++) {
        const evaluate_task *task = evaluate_find_task(e, EVALUATE_SCALE, m, e->scales[i]);
        (void)snprintf(what, sizeof what, "scale %g", e->scales[i]);
        add_item(items, s, task ? task : drawn, image, what);
    }
    for (int32_t i = 0; i < e->weight_count && (e->tables & EVALUATE_TABLE_MIX); i++) {
        (void)snprintf(what, sizeof what, "mix %g", e->weights[i]);
        add_item(items, s, evaluate_find_task(e, EVALUATE_MIX, m, e->weights[i]), image, what);
    }
}

static void add_picture(json_t *pictures, const shown *s, int64_t image) {
    const evaluate *e = s->e;
    const evaluate_image *from = &e->set.images[image];
    char name[96];
    bool has_original = false;
    for (int32_t t = 0; t < e->task_count; t++)
        has_original = has_original ||
                       (e->tasks[t].writes_originals && !isnan(cosine_of(s, &e->tasks[t], image)));
    if (!has_original)
        return;
    json_t *picture = json_object(), *items = json_array();
    evaluate_picture_name(name, NULL, image);
    cli_json_set(picture, "id", cli_json_text(from->id));
    cli_json_set(picture, "original", json_string(name));
    cli_json_set(picture, "class", cli_json_text(e->set.classes[from->class_index]));
    for (int32_t m = 0; m < e->model_count; m++)
        add_items(items, s, m, image);
    cli_json_set(picture, "items", items);
    (void)json_array_append_new(pictures, picture);
}

int evaluate_shown(json_t *pictures, json_t *problems, const evaluate *e) {
    shown s = {.e = e, .count = e->pictures < e->set.count ? e->pictures : e->set.count};
    size_t n = (size_t)e->task_count * (size_t)s.count;
    s.cosines = malloc((n + 1) * sizeof *s.cosines);
    if (!s.cosines)
        return cli_fail_memory();
    for (size_t i = 0; i < n; i++)
        s.cosines[i] = NAN;
    int code = read_all(&s, problems);
    for (int64_t i = 0; !code && i < s.count; i++)
        add_picture(pictures, &s, i);
    free(s.cosines);
    return code;
}
