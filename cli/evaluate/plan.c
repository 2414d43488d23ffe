/* Which tasks there are, and into which parts they are cut. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_choice table_names[] = {{"1", EVALUATE_TABLE_1},
                                         {"2", EVALUATE_TABLE_2},
                                         {"3", EVALUATE_TABLE_3},
                                         {"sweep", EVALUATE_TABLE_SWEEP},
                                         {"mix", EVALUATE_TABLE_MIX},
                                         {"ood", EVALUATE_TABLE_OOD},
                                         {NULL, 0}};

int evaluate_tables_read(int32_t *tables, const char *text) {
    *tables = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        const cli_choice *c = table_names;
        while (c->name && (strlen(c->name) != length || strncmp(c->name, at, length) != 0))
            c++;
        if (!c->name)
            return cli_fail(CLI_USAGE, "--tables %s: \"%.*s\" is none of 1, 2, 3, sweep, mix, ood",
                            text, (int)length, at);
        *tables |= c->value;
        at += length;
        if (!*at)
            return CLI_DONE;
    }
}

json_t *evaluate_tables_json(int32_t tables) {
    json_t *list = json_array();
    for (const cli_choice *c = table_names; c->name; c++)
        if (tables & c->value)
            (void)json_array_append_new(list, json_string(c->name));
    return list;
}

/* ---------------------------------------------------------------- questions ------------------ */

bool evaluate_has_rows(const evaluate *e, int32_t model) {
    bool pooled = e->networks[model].opened.info.pooled;
    return (e->tables & (pooled ? EVALUATE_TABLE_3 : EVALUATE_TABLE_1)) != 0;
}

int32_t evaluate_frechet_network(const evaluate *e, int32_t model) {
    return e->reference >= 0 ? e->reference : model;
}

static bool is_equal(double a, double b) {
    return !(a < b) && !(a > b);
}

bool evaluate_is_default_scale(const evaluate *e, int32_t model, double scale) {
    const featinv_sample_options *o = &e->networks[model].sampling;
    return is_equal(o->scale, scale) && is_equal(o->hint_scale, 1.0);
}

const evaluate_task *evaluate_find_task(const evaluate *e, evaluate_kind kind, int32_t model,
                                        double value) {
    for (int32_t i = 0; i < e->task_count; i++)
        if (e->tasks[i].kind == kind && e->tasks[i].model == model &&
            is_equal(e->tasks[i].value, value))
            return &e->tasks[i];
    return NULL;
}

int32_t evaluate_find_slot(const evaluate_task *task, int32_t network) {
    for (int32_t i = 0; task && i < task->slot_count; i++)
        if (task->slots[i].network == network)
            return i;
    return -1;
}

const evaluate_task *evaluate_task_of(const evaluate *e, int64_t part) {
    int32_t i = 0;
    while (part >= e->tasks[i].first_part + e->tasks[i].part_count)
        i++;
    return &e->tasks[i];
}

const evaluate_set *evaluate_task_set(const evaluate *e, const evaluate_task *task) {
    return task->kind == EVALUATE_OOD ? &e->ood : &e->set;
}

int64_t evaluate_item_image(const evaluate *e, const evaluate_task *task, int64_t item) {
    return task->kind == EVALUATE_CLASS ? e->set.by_class[item]
           : task->kind == EVALUATE_MIX ? e->set.pairs[2 * item]
                                        : item;
}

void evaluate_picture_name(char text[96], const evaluate_task *task, int64_t image) {
    (void)snprintf(text, 96, "pictures/%04lld-%s.png", (long long)image,
                   task ? task->name : "original");
}

/* ---------------------------------------------------------------- tasks ---------------------- */

/* Room was made for all. */
static evaluate_task *add_task(evaluate *e, evaluate_kind kind, int32_t model, double value,
                               int64_t count) {
    static const char *const names[] = {"floor", "drawn", "class", "autoencoder",
                                        "scale", "mix",   "ood"};
    evaluate_task *task = &e->tasks[e->task_count++];
    *task = (evaluate_task){.kind = kind, .model = model, .value = value, .count = count};
    if (kind == EVALUATE_SCALE || kind == EVALUATE_MIX)
        (void)snprintf(task->name, sizeof task->name, "%s%g-m%d", names[kind], value, model);
    else
        (void)snprintf(task->name, sizeof task->name, "%s-m%d", names[kind], model);
    return task;
}

static void add_slot(evaluate_task *task, int32_t network, bool positions, bool rows) {
    if (evaluate_find_slot(task, network) < 0)
        task->slots[task->slot_count++] = (evaluate_slot){network, positions, rows};
}

/* The reference, where there is one. */
static void add_reference(evaluate_task *task, const evaluate *e, bool rows) {
    if (e->reference >= 0)
        add_slot(task, e->reference, false, rows);
}

/* Floors in each network that figures or Fréchet distances need: those of originals, too. */
static void add_floors(evaluate *e) {
    const int32_t rows = EVALUATE_TABLE_1 | EVALUATE_TABLE_3, sweep = EVALUATE_TABLE_SWEEP;
    for (int32_t k = 0; k < e->network_count; k++) {
        bool is_reference = k == e->reference;
        bool needed = is_reference ? (e->tables & rows) != 0 : evaluate_has_rows(e, k);
        if ((e->tables & sweep) && (is_reference || e->reference < 0))
            needed = true;
        if (!needed)
            continue;
        evaluate_task *task = add_task(e, EVALUATE_FLOOR, k, 0.0, e->set.count);
        task->slots[0] = (evaluate_slot){k, !is_reference, true};
        task->slots[1] = (evaluate_slot){k, !is_reference, false};
        task->slot_count = 2;
    }
}

static void add_drawn(evaluate *e, int32_t m) {
    bool own_rows = e->reference < 0, has_rows = evaluate_has_rows(e, m);
    if (!has_rows && !(e->tables & EVALUATE_TABLE_2))
        return;
    evaluate_task *task = add_task(e, EVALUATE_DRAWN, m, 0.0, e->set.count);
    task->with_gradient = true;
    add_slot(task, m, true, own_rows);
    for (int32_t k = 0; k < e->model_count && (e->tables & EVALUATE_TABLE_2); k++)
        add_slot(task, k, false, false);
    add_reference(task, e, true);
}

/* One for all models that would draw the same. */
static bool is_same_base(const evaluate_network *a, const evaluate_network *b) {
    return strcmp(a->base, b->base) == 0 && a->sampling.steps == b->sampling.steps;
}

static void add_class(evaluate *e, int32_t m) {
    const evaluate_network *n = e->networks;
    for (int32_t k = 0; k < m; k++)
        if (evaluate_has_rows(e, k) && is_same_base(&n[k], &n[m]))
            return;
    if (!evaluate_has_rows(e, m) || !n[m].reads_classes)
        return;
    evaluate_task *task = add_task(e, EVALUATE_CLASS, m, EVALUATE_CLASS_SCALE, e->set.count);
    task->with_gradient = true;
    for (int32_t k = m; k < e->model_count; k++)
        if (evaluate_has_rows(e, k) && is_same_base(&n[k], &n[m]))
            add_slot(task, k, true, e->reference < 0);
    add_reference(task, e, true);
}

static void add_autoencoder(evaluate *e, int32_t m) {
    if (!e->values->ceiling || !evaluate_has_rows(e, m) || !e->networks[m].opened.info.has_encoder)
        return;
    evaluate_task *task = add_task(e, EVALUATE_AUTOENCODER, m, 0.0, e->set.count);
    task->with_gradient = true;
    add_slot(task, m, true, e->reference < 0);
    add_reference(task, e, true);
}

static void add_scales(evaluate *e, int32_t m) {
    for (int32_t i = 0; i < e->scale_count && (e->tables & EVALUATE_TABLE_SWEEP); i++) {
        if (evaluate_is_default_scale(e, m, e->scales[i]) &&
            evaluate_find_task(e, EVALUATE_DRAWN, m, 0.0))
            continue;
        evaluate_task *task = add_task(e, EVALUATE_SCALE, m, e->scales[i], e->set.count);
        add_slot(task, m, false, e->reference < 0);
        add_reference(task, e, true);
    }
}

static void add_mixes(evaluate *e, int32_t m) {
    for (int32_t i = 0; i < e->weight_count && (e->tables & EVALUATE_TABLE_MIX); i++) {
        evaluate_task *task = add_task(e, EVALUATE_MIX, m, e->weights[i], e->set.pair_count);
        for (; task->slot_count < 3; task->slot_count++)
            task->slots[task->slot_count] = (evaluate_slot){m, false, false};
    }
}

static void add_ood(evaluate *e, int32_t m) {
    if (!(e->tables & EVALUATE_TABLE_OOD))
        return;
    evaluate_task *task = add_task(e, EVALUATE_OOD, m, 0.0, e->ood.count);
    add_slot(task, m, false, false);
    add_reference(task, e, false);
}

int evaluate_plan(evaluate *e) {
    size_t most = (size_t)e->network_count +
                  (size_t)e->model_count * (size_t)(4 + e->scale_count + e->weight_count);
    e->tasks = calloc(most, sizeof *e->tasks);
    if (!e->tasks)
        return cli_fail_memory();
    add_floors(e);
    for (int32_t m = 0; m < e->model_count; m++) {
        add_drawn(e, m);
        add_class(e, m);
        add_autoencoder(e, m);
        add_scales(e, m);
        add_mixes(e, m);
        add_ood(e, m);
    }
    evaluate_task *writer = NULL;
    for (int32_t i = 0; i < e->task_count; i++) {
        evaluate_task *task = &e->tasks[i];
        task->first_part = e->part_count;
        task->part_count = (task->count + e->batch - 1) / e->batch;
        e->part_count += task->part_count;
        if ((!writer || writer->kind == EVALUATE_MIX) &&
            (task->kind == EVALUATE_DRAWN || task->kind == EVALUATE_SCALE ||
             (task->kind == EVALUATE_MIX && !writer)))
            writer = task;
    }
    if (writer)
        writer->writes_originals = true;
    return CLI_DONE;
}
