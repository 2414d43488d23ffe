/* Table 2, the curves, and the images of another kind. */
#include "evaluate.h"

#include "../json.h"

int evaluate_put_mean(json_t *to, const char *key, const evaluate_resamples *resamples,
                      const evaluate_block *block, int32_t slot, int32_t figure) {
    evaluate_figure result;
    evaluate_column column = {slot < 0 ? NULL : block->figures[slot] + figure, EVALUATE_FIGURES};
    int code = evaluate_mean(&result, resamples, column);
    cli_json_set(to, key, evaluate_figure_json(result));
    return code;
}

/* The figures of one slot, by name. */
typedef struct named {
    const char *key;
    int32_t figure;
} named;

static int put_means(json_t *to, const evaluate_resamples *resamples, const evaluate_block *block,
                     int32_t slot, const named *names, size_t count) {
    int code = CLI_DONE;
    for (size_t i = 0; !code && i < count; i++)
        code = evaluate_put_mean(to, names[i].key, resamples, block, slot, names[i].figure);
    return code;
}

static const named agreement[] = {{"cosine_median", EVALUATE_MEDIAN},
                                  {"cosine_centred", EVALUATE_CENTRED},
                                  {"match_top1", EVALUATE_TOP1},
                                  {"match_top5", EVALUATE_TOP5}};
enum { AGREEMENT = sizeof agreement / sizeof *agreement };

/* ---------------------------------------------------------------- Table 2 -------------------- */

int evaluate_cross(json_t *rows, const evaluate *e, const evaluate_resamples *resamples) {
    int code = CLI_DONE;
    for (int32_t m = 0; !code && m < e->model_count && (e->tables & EVALUATE_TABLE_2); m++) {
        const evaluate_task *task = evaluate_find_task(e, EVALUATE_DRAWN, m, 0.0);
        evaluate_block block;
        code = evaluate_task_read(&block, e, task);
        for (int32_t k = 0; !code && k < e->model_count; k++) {
            json_t *row = json_object();
            cli_json_set(row, "condition", json_integer(m));
            cli_json_set(row, "evaluate", json_integer(k));
            code = put_means(row, resamples, &block, evaluate_find_slot(task, k), agreement,
                             AGREEMENT);
            (void)json_array_append_new(rows, row);
        }
        evaluate_block_free(&block);
    }
    return code;
}

/* ---------------------------------------------------------------- figures 6 and 7 ------------ */

static int sweep_row(json_t *rows, const evaluate *e, const evaluate_resamples *resamples,
                     int32_t m, double scale, const evaluate_block *floor) {
    const evaluate_task *task = evaluate_find_task(e, EVALUATE_SCALE, m, scale);
    const int32_t network = evaluate_frechet_network(e, m);
    evaluate_block block;
    evaluate_figure figure;
    if (!task) /* it is the default one */
        task = evaluate_find_task(e, EVALUATE_DRAWN, m, 0.0);
    json_t *row = json_object();
    cli_json_set(row, "model", json_integer(m));
    cli_json_set(row, "scale", json_real(scale));
    cli_json_set(row, "hint_scale", json_real(1.0));
    int code = evaluate_task_read(&block, e, task);
    if (!code)
        code = put_means(row, resamples, &block, evaluate_find_slot(task, m), agreement, AGREEMENT);
    if (!code)
        code = evaluate_frechet(&figure, resamples, e->values, floor->rows[0],
                                block.rows[evaluate_find_slot(task, network)],
                                e->networks[network].channels);
    if (!code)
        cli_json_set(row, "frechet", evaluate_figure_json(figure));
    (void)json_array_append_new(rows, row);
    evaluate_block_free(&block);
    return code;
}

int evaluate_sweep(json_t *rows, const evaluate *e, const evaluate_resamples *resamples) {
    int code = CLI_DONE;
    for (int32_t m = 0; !code && m < e->model_count && (e->tables & EVALUATE_TABLE_SWEEP); m++) {
        evaluate_block floor;
        code = evaluate_task_read(
            &floor, e, evaluate_find_task(e, EVALUATE_FLOOR, evaluate_frechet_network(e, m), 0.0));
        for (int32_t i = 0; !code && i < e->scale_count; i++)
            code = sweep_row(rows, e, resamples, m, e->scales[i], &floor);
        evaluate_block_free(&floor);
    }
    return code;
}

/* ---------------------------------------------------------------- mixed maps ----------------- */

static int mix_row(json_t *rows, const evaluate *e, const evaluate_resamples *resamples, int32_t m,
                   double weight) {
    static const char *const keys[] = {"cosine_mixed", "cosine_a", "cosine_b"};
    const evaluate_task *task = evaluate_find_task(e, EVALUATE_MIX, m, weight);
    evaluate_block block;
    json_t *row = json_object();
    cli_json_set(row, "model", json_integer(m));
    cli_json_set(row, "mode", json_string("lerp"));
    cli_json_set(row, "weight", json_real(weight));
    cli_json_set(row, "pairs", json_integer((json_int_t)e->set.pair_count));
    int code = evaluate_task_read(&block, e, task);
    for (int32_t s = 0; !code && s < 3; s++)
        code = evaluate_put_mean(row, keys[s], resamples, &block, s, EVALUATE_MEDIAN);
    (void)json_array_append_new(rows, row);
    evaluate_block_free(&block);
    return code;
}

int evaluate_mixes(json_t *rows, const evaluate *e) {
    evaluate_resamples resamples;
    if (!(e->tables & EVALUATE_TABLE_MIX) || !e->set.pair_count)
        return CLI_DONE;
    int code = evaluate_resamples_make(&resamples, e->set.pair_count, e->bootstrap, e->seed);
    for (int32_t m = 0; !code && m < e->model_count; m++)
        for (int32_t i = 0; !code && i < e->weight_count; i++)
            code = mix_row(rows, e, &resamples, m, e->weights[i]);
    evaluate_resamples_free(&resamples);
    return code;
}

/* ---------------------------------------------------------------- another kind --------------- */

int evaluate_ood(json_t *rows, const evaluate *e) {
    evaluate_resamples resamples;
    if (!(e->tables & EVALUATE_TABLE_OOD))
        return CLI_DONE;
    int code = evaluate_resamples_make(&resamples, e->ood.count, e->bootstrap, e->seed);
    for (int32_t m = 0; !code && m < e->model_count; m++) {
        const evaluate_task *task = evaluate_find_task(e, EVALUATE_OOD, m, 0.0);
        evaluate_block block;
        json_t *row = json_object();
        cli_json_set(row, "model", json_integer(m));
        code = evaluate_task_read(&block, e, task);
        if (!code)
            code = put_means(row, &resamples, &block, evaluate_find_slot(task, m), agreement,
                             AGREEMENT);
        if (!code)
            code = evaluate_put_mean(row, "reference_cosine", &resamples, &block,
                                     evaluate_find_slot(task, e->reference), EVALUATE_MEDIAN);
        (void)json_array_append_new(rows, row);
        evaluate_block_free(&block);
    }
    evaluate_resamples_free(&resamples);
    return code;
}
