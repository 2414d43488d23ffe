/* What `featinv evaluate` shows: tables.md and index.html from the content of tables.json. Both
 * hold the same tables, which are built once, as JSON "grids":
 *
 *     {"id", "heading", "text", "corner": name of the row names' column,
 *      "note": line below the table, or absent,
 *      "columns": [name...],
 *      "rows": [{"name", "cells": [text...], "strength": [number...] or absent}...]}
 *
 * strength, in [0, 1], tints a cell where colours can be shown. */
#ifndef CLI_EVALUATE_PRESENT_H
#define CLI_EVALUATE_PRESENT_H

#include "../page.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Writes FOLDER/tables.md and FOLDER/index.html, each whole or not at all. `tables` is the content
 * of tables.json; its pictures are read from FOLDER. Returns an exit code, after an error. */
int cli_evaluation_write(const char *folder, const json_t *tables);

int evaluation_markdown_write(const char *folder, const json_t *tables, const json_t *grids);
int evaluation_page_write(const char *folder, const json_t *tables, const json_t *grids);

/* ---------------------------------------------------------------- figures -------------------- */

#define EVALUATION_DASH "–" /* what is not known, or makes no sense */

/* The parts of a figure: an object with value, low, high, or a bare number; NaN where null. */
typedef struct evaluation_figure {
    double value, low, high;
} evaluation_figure;
evaluation_figure evaluation_figure_of(const json_t *object, const char *key);

enum { EVALUATION_TEXT = 64 }; /* bytes that a figure's text needs at most */
/* "+.982 [.979, .985]" without the plus; a dash where the value is NaN. */
void evaluation_figure_text(char text[EVALUATION_TEXT], evaluation_figure figure);

const char *evaluation_string(const json_t *object, const char *key); /* "" where there is none */

/* ---------------------------------------------------------------- names ---------------------- */

/* The name of model `index` of `tables`, different for each model: a fresh JSON string. */
json_t *evaluation_model_name(const json_t *tables, const json_t *index);

/* "ControlNet" of "controlnet"; what is not known stays as it is. */
const char *evaluation_kind_name(const char *kind);

/* What the Fréchet distance is called with these features: a fresh JSON string. */
json_t *evaluation_distance_name(const json_t *tables);

/* ---------------------------------------------------------------- grids ---------------------- */

/* All grids that `tables` has something for, in the order they are shown in. */
json_t *evaluation_grids(const json_t *tables);
const json_t *evaluation_grid(const json_t *grids, const char *id); /* NULL: none */

/* What is measured: a sentence for each column, as pairs of name and sentence, ended by NULL. */
extern const char *const evaluation_glossary[][2];
extern const char evaluation_about[], evaluation_citation[];

/* "input: error", or the error alone where it names its input: a fresh JSON string. */
json_t *evaluation_problem(const json_t *problem);

/* A line on images, seed and bootstrap: a fresh JSON string. */
json_t *evaluation_settings_line(const json_t *tables);

#endif
