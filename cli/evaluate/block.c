/* What was measured, in memory. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* `count` times `each` NaN. */
static double *unknown(int64_t count, int64_t each) {
    size_t n = (size_t)count * (size_t)each;
    double *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = NAN;
    return values;
}

static float *unknown_rows(int64_t count, int64_t each) {
    size_t n = (size_t)count * (size_t)each;
    float *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = NAN;
    return values;
}

int evaluate_block_make(evaluate_block *out, const evaluate *e, const evaluate_task *task,
                        int64_t count) {
    *out = (evaluate_block){.count = count, .problems = json_array()};
    bool good = out->problems != NULL;
    for (int32_t s = 0; s < task->slot_count; s++) {
        const evaluate_slot *slot = &task->slots[s];
        const evaluate_network *network = &e->networks[slot->network];
        out->figures[s] = unknown(count, EVALUATE_FIGURES);
        if (slot->positions)
            out->positions[s] = unknown(count, network->positions);
        if (slot->rows)
            out->rows[s] = unknown_rows(count, network->channels);
        good = good && out->figures[s] && (!slot->positions || out->positions[s]) &&
               (!slot->rows || out->rows[s]);
    }
    if (task->with_gradient)
        out->gradient = unknown(count, 2);
    good = good && (!task->with_gradient || out->gradient);
    if (good)
        return CLI_DONE;
    evaluate_block_free(out);
    return cli_fail_memory();
}

void evaluate_block_free(evaluate_block *block) {
    for (int32_t s = 0; s < EVALUATE_MOST_SLOTS; s++) {
        free(block->figures[s]);
        free(block->positions[s]);
        free(block->rows[s]);
    }
    free(block->gradient);
    json_decref(block->problems);
    *block = (evaluate_block){0};
}

static void move_rows(void *to, const void *from, size_t bytes, const int64_t *places,
                      int64_t count) {
    for (int64_t i = 0; to && i < count; i++)
        memcpy((char *)to + (size_t)places[i] * bytes, (const char *)from + (size_t)i * bytes,
               bytes);
}

int evaluate_block_reorder(evaluate_block *block, const evaluate *e, const evaluate_task *task,
                           const int64_t *to) {
    evaluate_block moved;
    int code = evaluate_block_make(&moved, e, task, block->count);
    if (code)
        return code;
    for (int32_t s = 0; s < task->slot_count; s++) {
        const evaluate_network *n = &e->networks[task->slots[s].network];
        move_rows(moved.figures[s], block->figures[s], EVALUATE_FIGURES * sizeof(double), to,
                  block->count);
        move_rows(moved.positions[s], block->positions[s], (size_t)n->positions * sizeof(double),
                  to, block->count);
        move_rows(moved.rows[s], block->rows[s], (size_t)n->channels * sizeof(float), to,
                  block->count);
    }
    move_rows(moved.gradient, block->gradient, 2 * sizeof(double), to, block->count);
    json_decref(moved.problems);
    moved.problems = json_incref(block->problems);
    evaluate_block_free(block);
    *block = moved;
    return CLI_DONE;
}
