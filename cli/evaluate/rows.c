/* Tables 1 and 3: what is drawn, beside floors and ceiling. */
#include "evaluate.h"

#include "../json.h"

#include <math.h>
#include <stdlib.h>

/* What one kind of picture has measured; task NULL: it is not there. */
typedef struct measured {
    const evaluate_task *task;
    evaluate_block block;
} measured;

static int load(measured *out, const evaluate *e, const evaluate_task *task) {
    out->task = task;
    return task ? evaluate_task_read(&out->block, e, task) : CLI_DONE;
}

/* All of a model. */
typedef struct rows {
    const evaluate *e;
    const evaluate_resamples *resamples;
    int32_t model;
    measured drawn, prompted, coded;
    measured floor, reference; /* floors in the model's network and in the reference */
    const float *originals;    /* pooled features of the Fréchet distance's network */
} rows;

/* That of a model with the same base will do. */
static const evaluate_task *find_prompted(const evaluate *e, int32_t model) {
    for (int32_t i = 0; i < e->task_count; i++)
        if (e->tasks[i].kind == EVALUATE_CLASS && evaluate_find_slot(&e->tasks[i], model) >= 0)
            return &e->tasks[i];
    return NULL;
}

static int load_all(rows *r) {
    const evaluate *e = r->e;
    int32_t m = r->model;
    int code = load(&r->drawn, e, evaluate_find_task(e, EVALUATE_DRAWN, m, 0.0));
    if (!code)
        code = load(&r->prompted, e, find_prompted(e, m));
    if (!code)
        code = load(&r->coded, e, evaluate_find_task(e, EVALUATE_AUTOENCODER, m, 0.0));
    if (!code)
        code = load(&r->floor, e, evaluate_find_task(e, EVALUATE_FLOOR, m, 0.0));
    if (!code && e->reference >= 0)
        code = load(&r->reference, e, evaluate_find_task(e, EVALUATE_FLOOR, e->reference, 0.0));
    r->originals = e->reference < 0 ? r->floor.block.rows[0] : r->reference.block.rows[0];
    return code;
}

static void free_all(rows *r) {
    measured *const all[] = {&r->drawn, &r->prompted, &r->coded, &r->floor, &r->reference};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        evaluate_block_free(&all[i]->block);
}

static evaluate_column column_of(const measured *m, int32_t slot, int32_t figure) {
    if (!m->task || slot < 0)
        return (evaluate_column){NULL, 0};
    return (evaluate_column){m->block.figures[slot] + figure, EVALUATE_FIGURES};
}

static json_t *start_row(const rows *r, const char *kind) {
    bool pooled = r->e->networks[r->model].opened.info.pooled;
    json_t *row = json_object();
    cli_json_set(row, "table", json_integer(pooled ? 3 : 1));
    cli_json_set(row, "model", json_integer(r->model));
    cli_json_set(row, "kind", json_string(kind));
    return row;
}

/* The columns in the model's own network and in the reference. */
static int put_agreement(json_t *row, const rows *r, const measured *own, int32_t own_slot,
                         const measured *reference, int32_t reference_slot) {
    static const struct {
        const char *key;
        int32_t figure;
        bool is_reference;
    } columns[] = {
        {"cosine_median", EVALUATE_MEDIAN, false},     {"cosine_centred", EVALUATE_CENTRED, false},
        {"cosine_pooled", EVALUATE_POOLED, false},     {"match_top1", EVALUATE_TOP1, false},
        {"match_top5", EVALUATE_TOP5, false},          {"reference_cosine", EVALUATE_MEDIAN, true},
        {"reference_centred", EVALUATE_CENTRED, true}, {"reference_top1", EVALUATE_TOP1, true}};
    evaluate_figure figure;
    const double *positions = own->block.positions[own_slot];
    int code =
        evaluate_median(&figure, r->resamples, positions, r->e->networks[r->model].positions);
    cli_json_set(row, "cosine_median_all", evaluate_figure_json(figure));
    for (size_t i = 0; !code && i < sizeof columns / sizeof *columns; i++) {
        evaluate_column column = columns[i].is_reference
                                     ? column_of(reference, reference_slot, columns[i].figure)
                                     : column_of(own, own_slot, columns[i].figure);
        code = evaluate_mean(&figure, r->resamples, column);
        cli_json_set(row, columns[i].key, evaluate_figure_json(figure));
    }
    return code;
}

/* Distance of the pictures' set from the originals', and how busy they are. Floors have none: they
 * are the same images in another order. */
static int put_sets(json_t *row, const rows *r, const measured *m) {
    const int32_t network = evaluate_frechet_network(r->e, r->model);
    const int32_t slot = m ? evaluate_find_slot(m->task, network) : -1;
    const double *gradient = m ? m->block.gradient : NULL;
    evaluate_figure figure;
    int code =
        evaluate_frechet(&figure, r->resamples, r->e->values, r->originals,
                         slot < 0 ? NULL : m->block.rows[slot], r->e->networks[network].channels);
    cli_json_set(row, "frechet", evaluate_figure_json(figure));
    if (!code)
        code = evaluate_ratio(&figure, r->resamples,
                              (evaluate_column){gradient ? gradient + 1 : NULL, 2},
                              (evaluate_column){gradient, 2});
    cli_json_set(row, "gradient", evaluate_figure_json(figure));
    return code;
}

/* A kind of picture that was made; nothing where it was not. */
static int add_made(json_t *list, const rows *r, const char *kind, const measured *m) {
    if (!m->task)
        return CLI_DONE;
    json_t *row = start_row(r, kind);
    evaluate_figure figure = {NAN, NAN, NAN, NAN};
    int32_t slot = evaluate_find_slot(m->task, r->model);
    int code = put_agreement(row, r, m, slot, m, evaluate_find_slot(m->task, r->e->reference));
    if (!code)
        code = put_sets(row, r, m);
    if (!code && m == &r->drawn)
        code = evaluate_share(
            &figure, r->resamples, column_of(m, slot, EVALUATE_CENTRED),
            column_of(&r->floor, 1, EVALUATE_CENTRED),
            column_of(&r->coded, evaluate_find_slot(r->coded.task, r->model), EVALUATE_CENTRED));
    cli_json_set(row, "share", evaluate_figure_json(figure));
    (void)json_array_append_new(list, row);
    return code;
}

static int add_floor(json_t *list, const rows *r, const char *kind, int32_t slot) {
    json_t *row = start_row(r, kind);
    int code = put_agreement(row, r, &r->floor, slot, &r->reference, slot);
    if (!code)
        code = put_sets(row, r, NULL);
    cli_json_set(row, "share", json_null());
    (void)json_array_append_new(list, row);
    return code;
}

int evaluate_rows(json_t *list, const evaluate *e, const evaluate_resamples *resamples) {
    int code = CLI_DONE;
    for (int32_t m = 0; !code && m < e->model_count; m++) {
        rows r = {.e = e, .resamples = resamples, .model = m};
        if (!evaluate_has_rows(e, m))
            continue;
        code = load_all(&r);
        if (!code)
            code = add_made(list, &r, "controlnet", &r.drawn);
        if (!code)
            code = add_made(list, &r, "class_prompt", &r.prompted);
        if (!code)
            code = add_floor(list, &r, "shuffled", 0);
        if (!code)
            code = add_floor(list, &r, "same_class", 1);
        if (!code)
            code = add_made(list, &r, "autoencoder", &r.coded);
        free_all(&r);
    }
    return code;
}
