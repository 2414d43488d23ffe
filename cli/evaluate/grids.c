/* The tables of an evaluation, as grids of text (present.h). */
#include "present.h"

#include "../json.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- building ------------------- */

static json_t *new_grid(const char *id, const char *heading, const char *corner, const char *text) {
    json_t *grid = json_object();
    cli_json_set(grid, "id", json_string(id));
    cli_json_set(grid, "heading", json_string(heading));
    cli_json_set(grid, "text", json_string(text));
    cli_json_set(grid, "corner", json_string(corner));
    cli_json_set(grid, "columns", json_array());
    cli_json_set(grid, "rows", json_array());
    return grid;
}

/* Steals name. */
static void add_column(json_t *grid, json_t *name) {
    (void)json_array_append_new(json_object_get(grid, "columns"), name);
}

/* Steals name; the row is the grid's. */
static json_t *add_row(json_t *grid, json_t *name) {
    json_t *row = json_object();
    cli_json_set(row, "name", name);
    cli_json_set(row, "cells", json_array());
    (void)json_array_append_new(json_object_get(grid, "rows"), row);
    return row;
}

/* Steals text. */
static void add_cell(json_t *row, json_t *text) {
    (void)json_array_append_new(json_object_get(row, "cells"), text);
}

static void add_figure(json_t *row, evaluation_figure figure) {
    char text[EVALUATION_TEXT];
    evaluation_figure_text(text, figure);
    add_cell(row, json_string(text));
}

static void add_strength(json_t *row, double strength) {
    if (!json_object_get(row, "strength"))
        cli_json_set(row, "strength", json_array());
    (void)json_array_append_new(json_object_get(row, "strength"),
                                json_real(isnan(strength) ? 0.0 : fmin(fmax(strength, 0.0), 1.0)));
}

static bool is_dash(const json_t *cell) {
    const char *text = json_string_value(cell);
    return !text || strcmp(text, EVALUATION_DASH) == 0;
}

/* Leaves out columns that no row has a figure for. */
static void drop_empty_columns(json_t *grid) {
    json_t *rows = json_object_get(grid, "rows"), *columns = json_object_get(grid, "columns"), *row;
    for (size_t j = json_array_size(columns), i; j-- > 0;) {
        bool empty = true;
        json_array_foreach(rows, i, row) {
            empty = empty && is_dash(json_array_get(json_object_get(row, "cells"), j));
        }
        if (!empty)
            continue;
        (void)json_array_remove(columns, j);
        json_array_foreach(rows, i, row) {
            (void)json_array_remove(json_object_get(row, "cells"), j);
        }
    }
}

/* Appends the grid to `grids`, or throws it away where it has no row. */
static void finish(json_t *grids, json_t *grid, bool drop_empty) {
    if (drop_empty)
        drop_empty_columns(grid);
    if (json_array_size(json_object_get(grid, "rows")))
        (void)json_array_append_new(grids, grid);
    else
        json_decref(grid);
}

/* A figure of a row and the name of its column. */
typedef struct measure {
    const char *key, *name; /* name NULL: that of the Fréchet distance */
} measure;

static void add_measure_columns(json_t *grid, const json_t *tables, const measure *measures,
                                size_t count) {
    for (size_t j = 0; j < count; j++)
        add_column(grid, measures[j].name ? json_string(measures[j].name)
                                          : evaluation_distance_name(tables));
}

static void add_measures(json_t *row, const json_t *object, const measure *measures, size_t count) {
    for (size_t j = 0; j < count; j++)
        add_figure(row, evaluation_figure_of(object, measures[j].key));
}

static json_t *model_name(const json_t *tables, const json_t *object) {
    return evaluation_model_name(tables, json_object_get(object, "model"));
}

/* ---------------------------------------------------------------- models --------------------- */

static json_t *text_or_dash(const char *text) {
    return json_string(*text ? text : EVALUATION_DASH);
}

static json_t *number_text(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_sprintf("%.6g", json_number_value(value))
                                 : json_string(EVALUATION_DASH);
}

static json_t *map_text(const json_t *model) {
    return json_sprintf("%lld×%lld×%lld",
                        (long long)json_integer_value(json_object_get(model, "channels")),
                        (long long)json_integer_value(json_object_get(model, "height")),
                        (long long)json_integer_value(json_object_get(model, "width")));
}

static void add_models(json_t *grids, const json_t *tables) {
    static const char *const columns[] = {"backbone",   "layer",         "map (C×H×W)",
                                          "condition",  "steps",         "guidance scale",
                                          "hint scale", "class prompts", "manifest (SHA-256)"};
    json_t *grid = new_grid("models", "Models", "model",
                            "What was measured, and how each model draws where a table does not "
                            "say otherwise.");
    const json_t *model;
    size_t i;
    for (size_t j = 0; j < sizeof columns / sizeof *columns; j++)
        add_column(grid, json_string(columns[j]));
    json_array_foreach(json_object_get(tables, "models"), i, model) {
        json_t *index = json_integer((json_int_t)i);
        json_t *row = add_row(grid, evaluation_model_name(tables, index));
        bool pooled = json_is_true(json_object_get(model, "pooled"));
        bool classes = json_is_true(json_object_get(model, "reads_classes"));
        add_cell(row, text_or_dash(evaluation_string(model, "backbone")));
        add_cell(row, text_or_dash(evaluation_string(model, "layer")));
        add_cell(row, map_text(model));
        add_cell(row, json_string(pooled ? "pooled" : "spatial"));
        add_cell(row, number_text(model, "steps"));
        add_cell(row, number_text(model, "scale"));
        add_cell(row, number_text(model, "hint_scale"));
        add_cell(row, json_string(classes ? "yes" : "no"));
        add_cell(row, json_sprintf("%.12s", evaluation_string(model, "sha256")));
        json_decref(index);
    }
    finish(grids, grid, false);
}

/* ---------------------------------------------------------------- tables 1 and 3 ------------- */

static const measure agreement[] = {
    {"cosine_median", "cosine (median per image, mean)"},
    {"cosine_median_all", "cosine (median of all positions)"},
    {"cosine_centred", "centred cosine"},
    {"share", "share of floor → ceiling"},
    {"cosine_pooled", "pooled cosine"},
    {"match_top1", "top-1"},
    {"match_top5", "top-5"},
    {"frechet", NULL},
    {"reference_cosine", "reference: cosine"},
    {"reference_centred", "reference: centred"},
    {"reference_top1", "reference: top-1"},
    {"gradient", "gradient"},
};
enum { AGREEMENT = sizeof agreement / sizeof *agreement };

/* Why a model has no centred cosine: one line for all such models. */
static void note_missing_mean(json_t *grid, const char *name) {
    const char *names = evaluation_string(grid, "without_mean");
    cli_json_set(grid, "without_mean", json_sprintf("%s%s%s", names, *names ? ", " : "", name));
    cli_json_set(grid, "note",
                 json_sprintf("No centred cosine of %s: the bundle has no features.npz, which an "
                              "export with --feature-maps writes.",
                              evaluation_string(grid, "without_mean")));
}

static void add_agreement(json_t *grids, const json_t *tables, int which, const char *heading,
                          const char *text) {
    char id[16];
    const json_t *item;
    size_t i;
    (void)snprintf(id, sizeof id, "table%d", which);
    json_t *grid = new_grid(id, heading, "pictures", text);
    add_measure_columns(grid, tables, agreement, AGREEMENT);
    json_array_foreach(json_object_get(tables, "rows"), i, item) {
        if (json_integer_value(json_object_get(item, "table")) != which)
            continue;
        json_t *name = model_name(tables, item);
        const char *kind = evaluation_kind_name(evaluation_string(item, "kind"));
        json_t *row = add_row(grid, json_sprintf("%s · %s", json_string_value(name), kind));
        add_measures(row, item, agreement, AGREEMENT);
        if (strcmp(evaluation_string(item, "kind"), "controlnet") == 0 &&
            isnan(evaluation_figure_of(item, "cosine_centred").value))
            note_missing_mean(grid, json_string_value(name));
        json_decref(name);
    }
    finish(grids, grid, true);
}

/* ---------------------------------------------------------------- table 2 -------------------- */

static const json_t *find_cross(const json_t *cross, json_int_t condition, json_int_t evaluate) {
    const json_t *item;
    size_t i;
    json_array_foreach(cross, i, item) {
        if (json_integer_value(json_object_get(item, "condition")) == condition &&
            json_integer_value(json_object_get(item, "evaluate")) == evaluate)
            return item;
    }
    return NULL;
}

/* Whether a cell of the matrix names the model under this key. */
static bool takes_part(const json_t *cross, const char *key, json_int_t model) {
    const json_t *item;
    size_t i;
    json_array_foreach(cross, i, item) {
        if (json_integer_value(json_object_get(item, key)) == model)
            return true;
    }
    return false;
}

static void add_cross(json_t *grids, const json_t *tables, const char *key, const char *heading,
                      const char *text) {
    const json_t *cross = json_object_get(tables, "cross");
    json_int_t models = (json_int_t)json_array_size(json_object_get(tables, "models"));
    char id[48];
    (void)snprintf(id, sizeof id, "cross-%s", key);
    json_t *grid = new_grid(id, heading, "drawn from ↓, compared in →", text);
    for (json_int_t r = 0; r < models; r++) {
        if (!takes_part(cross, "condition", r))
            continue;
        json_t *index = json_integer(r), *row = add_row(grid, evaluation_model_name(tables, index));
        for (json_int_t c = 0; c < models; c++) {
            if (!takes_part(cross, "evaluate", c))
                continue;
            evaluation_figure figure = evaluation_figure_of(find_cross(cross, r, c), key);
            add_figure(row, figure);
            add_strength(row, figure.value);
        }
        json_decref(index);
    }
    for (json_int_t c = 0; c < models; c++)
        if (takes_part(cross, "evaluate", c)) {
            json_t *index = json_integer(c);
            add_column(grid, evaluation_model_name(tables, index));
            json_decref(index);
        }
    finish(grids, grid, false);
}

/* ---------------------------------------------------------------- curves --------------------- */

static void add_sweep(json_t *grids, const json_t *tables) {
    static const measure measures[] = {
        {"cosine_median", "cosine (median per image, mean)"},
        {"cosine_centred", "centred cosine"},
        {"match_top1", "top-1"},
        {"match_top5", "top-5"},
        {"frechet", NULL},
    };
    enum { COUNT = sizeof measures / sizeof *measures };
    const json_t *item;
    size_t i;
    json_t *grid = new_grid("sweep", "Guidance scale", "model and scale",
                            "The same maps drawn with more or less guidance (the paper's figures "
                            "6 and 7).");
    add_column(grid, json_string("hint scale"));
    add_measure_columns(grid, tables, measures, COUNT);
    json_array_foreach(json_object_get(tables, "sweep"), i, item) {
        json_t *name = model_name(tables, item);
        double scale = json_number_value(json_object_get(item, "scale"));
        json_t *row =
            add_row(grid, json_sprintf("%s · scale %.6g", json_string_value(name), scale));
        add_cell(row, number_text(item, "hint_scale"));
        add_measures(row, item, measures, COUNT);
        json_decref(name);
    }
    finish(grids, grid, false);
}

static void add_mix(json_t *grids, const json_t *tables) {
    static const measure measures[] = {
        {"cosine_mixed", "with the mixed map"},
        {"cosine_a", "with A's map"},
        {"cosine_b", "with B's map"},
    };
    enum { COUNT = sizeof measures / sizeof *measures };
    const json_t *item;
    size_t i;
    json_t *grid = new_grid("mix", "Mixed maps", "model and weight of B",
                            "The maps of two images of different classes are mixed, weight 0 being "
                            "A alone and 1 B alone; cosine of the picture with the mixed map and "
                            "with both its sources (median per image, mean). Where the first one "
                            "falls, pictures with such a map are hard to find.");
    add_measure_columns(grid, tables, measures, COUNT);
    json_array_foreach(json_object_get(tables, "mix"), i, item) {
        json_t *name = model_name(tables, item);
        const char *mode = evaluation_string(item, "mode");
        json_t *row = add_row(
            grid, json_sprintf("%s%s%s · weight %.6g", json_string_value(name), *mode ? " · " : "",
                               mode, json_number_value(json_object_get(item, "weight"))));
        add_measures(row, item, measures, COUNT);
        json_decref(name);
    }
    finish(grids, grid, false);
}

/* ---------------------------------------------------------------- other images --------------- */

static void add_ood(json_t *grids, const json_t *tables) {
    static const measure measures[] = {
        {"cosine_median", "cosine (median per image, mean)"},
        {"cosine_centred", "centred cosine"},
        {"match_top1", "top-1"},
        {"match_top5", "top-5"},
        {"reference_cosine", "reference: cosine"},
    };
    enum { COUNT = sizeof measures / sizeof *measures };
    const json_t *ood = json_object_get(tables, "ood"), *item;
    size_t i;
    json_t *text =
        json_sprintf("%lld %s from %s, which are unlike those that the models were "
                     "trained with.",
                     (long long)json_integer_value(json_object_get(ood, "images")),
                     json_integer_value(json_object_get(ood, "images")) == 1 ? "image" : "images",
                     evaluation_string(ood, "folder"));
    json_t *grid = new_grid("ood", "Images of another kind", "model", json_string_value(text));
    json_decref(text);
    add_measure_columns(grid, tables, measures, COUNT);
    json_array_foreach(json_object_get(ood, "rows"), i, item) {
        json_t *row = add_row(grid, model_name(tables, item));
        add_measures(row, item, measures, COUNT);
    }
    finish(grids, grid, true);
}

/* ---------------------------------------------------------------- all ------------------------ */

json_t *evaluation_grids(const json_t *tables) {
    json_t *grids = json_array();
    add_agreement(grids, tables, 1, "Table 1: drawn from spatial maps",
                  "Pictures drawn from the whole feature map, and what to hold them against.");
    add_cross(grids, tables, "cosine_median", "Table 2: seen by another model (cosine)",
              "Pictures drawn from the maps of one model (rows), compared in the features of "
              "another (columns); cosine, median per image, mean.");
    add_cross(grids, tables, "cosine_centred", "Table 2: seen by another model (centred cosine)",
              "The same with the mean of each model's features removed.");
    add_cross(grids, tables, "match_top1", "Table 2: seen by another model (top-1)",
              "How often the other model sees the class that it sees in the original.");
    add_cross(grids, tables, "match_top5", "Table 2: seen by another model (top-5)",
              "How often the other model has it among its five best.");
    add_agreement(grids, tables, 3, "Table 3: drawn from pooled features",
                  "Pictures drawn from the mean of the map over its positions: the model knows "
                  "what is there, but not where.");
    add_sweep(grids, tables);
    add_mix(grids, tables);
    add_ood(grids, tables);
    add_models(grids, tables);
    return grids;
}

const json_t *evaluation_grid(const json_t *grids, const char *id) {
    const json_t *grid;
    size_t i;
    json_array_foreach(grids, i, grid) {
        if (strcmp(evaluation_string(grid, "id"), id) == 0)
            return grid;
    }
    return NULL;
}
