/* index.html of an evaluation. */
#include "../plot.h"
#include "show.h"

#include "../cli.h"
#include "../json.h"
#include "../../lib/markup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    "<style>.pairs{display:flex;flex-wrap:wrap;gap:.4rem 2rem}table{margin:0 0 .4rem}"
    ".pairs>div{width:35rem;max-width:100%}.side{display:grid;gap:0 1rem;"
    "grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr))}"
    ".series{margin:.9rem 0 0}.series figure,.series figure img,.series .gone{width:140px}"
    "table{font-size:.76rem}td,th{vertical-align:top;padding:.25rem .3rem}"
    "th:first-child{min-width:8rem}</style>\n";

/* ---------------------------------------------------------------- tables --------------------- */

/* A figure may break between its value and its interval, but not within it. */
static json_t *unbroken(const char *text) {
    const char *comma = text && strchr(text, '[') ? strstr(text, ", ") : NULL;
    return comma ? json_sprintf("%.*s,\xc2\xa0%s", (int)(comma - text), text, comma + 2)
                 : json_string(text ? text : "");
}

/* The cells of all rows, an array of texts for each. */
static json_t *unbroken_cells(const json_t *rows) {
    json_t *all = json_array();
    const json_t *row, *cell;
    size_t i, j;
    json_array_foreach(rows, i, row) {
        json_t *cells = json_array();
        json_array_foreach(json_object_get(row, "cells"), j, cell) {
            (void)json_array_append_new(cells, unbroken(json_string_value(cell)));
        }
        (void)json_array_append_new(all, cells);
    }
    return all;
}

/* Borrowed texts of the first `count` of an array of strings. */
static void texts_of(const char **texts, const json_t *array, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        texts[i] = text ? text : "";
    }
}

/* texts: names of rows, names of columns, cells. */
static void fill_table(const char **texts, double *strength, const json_t *grid,
                       const json_t *cells, size_t columns) {
    const json_t *rows = json_object_get(grid, "rows"), *row;
    const size_t count = json_array_size(rows);
    size_t i;
    texts_of(texts + count, json_object_get(grid, "columns"), columns);
    json_array_foreach(rows, i, row) {
        const json_t *tints = json_object_get(row, "strength");
        texts[i] = evaluation_string(row, "name");
        texts_of(texts + count + columns + i * columns, json_array_get(cells, i), columns);
        for (size_t j = 0; j < columns; j++)
            strength[i * columns + j] = json_number_value(json_array_get(tints, j));
    }
}

static void put_table(cli_page *page, const json_t *grid) {
    const json_t *rows = json_object_get(grid, "rows");
    const size_t count = json_array_size(rows);
    const size_t columns = json_array_size(json_object_get(grid, "columns"));
    const char **texts = calloc(count * (columns + 1) + columns + 1, sizeof *texts);
    double *strength = calloc(count * columns + 1, sizeof *strength);
    json_t *cells = unbroken_cells(rows);
    if (texts && strength && cells) {
        bool tinted = json_object_get(json_array_get(rows, 0), "strength") != NULL;
        fill_table(texts, strength, grid, cells, columns);
        cli_page_table(page, &(cli_table){.corner = evaluation_string(grid, "corner"),
                                          .row_names = texts,
                                          .column_names = texts + count,
                                          .cells = texts + count + columns,
                                          .strength = tinted ? strength : NULL,
                                          .rows = count,
                                          .columns = columns});
    } else {
        page->code = cli_fail_memory();
    }
    json_decref(cells);
    free(strength);
    free(texts);
}

typedef void (*put_extra)(cli_page *page, const json_t *tables);

/* A card with what `before` draws above the table. */
static void put_card(cli_page *page, const json_t *tables, const json_t *grids, const char *id,
                     put_extra before) {
    const json_t *grid = evaluation_grid(grids, id);
    if (!grid)
        return;
    cli_page_card(page, evaluation_string(grid, "heading"), evaluation_string(grid, "text"));
    if (before)
        before(page, tables);
    put_table(page, grid);
    if (json_object_get(grid, "note"))
        cli_page_text(page, evaluation_string(grid, "note"));
    if (strcmp(id, "sweep") == 0)
        evaluation_put_series(page, tables, "scale ", "The same map at different scales.");
    if (strcmp(id, "mix") == 0)
        evaluation_put_series(page, tables, "mix ",
                              "The map of the original mixed with another's; the weight is that of "
                              "the other one, the cosine that with the mixed map.");
    cli_page_card_end(page);
}

/* ---------------------------------------------------------------- head ----------------------- */

static void put_tile(cli_page *page, const json_t *value, const char *label) {
    char text[32];
    (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    cli_page_tile(page, text, label);
}

/* The best figure among all drawings from features, or NaN. */
static double best(const json_t *tables, const char *key) {
    const json_t *row;
    double most = NAN;
    size_t i;
    json_array_foreach(json_object_get(tables, "rows"), i, row) {
        if (strcmp(evaluation_string(row, "kind"), "controlnet") == 0)
            most = fmax(most, evaluation_figure_of(row, key).value);
    }
    return most;
}

static void put_best(cli_page *page, const json_t *tables, const char *key, const char *label) {
    char text[EVALUATION_TEXT];
    evaluation_figure figure = {best(tables, key), NAN, NAN};
    if (isnan(figure.value))
        return;
    evaluation_figure_text(text, figure);
    cli_page_tile(page, text, label);
}

static void put_tiles(cli_page *page, const json_t *tables) {
    const json_t *settings = json_object_get(tables, "settings");
    json_t *models = json_integer((json_int_t)json_array_size(json_object_get(tables, "models")));
    cli_page_tiles(page);
    put_tile(page, json_object_get(settings, "images"),
             json_integer_value(json_object_get(settings, "images")) == 1 ? "image" : "images");
    put_tile(page, json_object_get(settings, "classes"),
             json_integer_value(json_object_get(settings, "classes")) == 1 ? "class" : "classes");
    put_tile(page, models, json_integer_value(models) == 1 ? "model" : "models");
    put_best(page, tables, "cosine_centred", "best centred cosine");
    put_best(page, tables, "share", "best share of floor → ceiling");
    put_best(page, tables, "match_top1", "best top-1");
    cli_page_tiles_end(page);
    json_decref(models);
}

static void put_glossary(cli_page *page) {
    cli_page_card(page, "What the columns say", NULL);
    (void)fputs("<dl class=says>\n", page->stream);
    for (size_t i = 0; evaluation_glossary[i][0]; i++) {
        (void)fputs("<dt>", page->stream);
        fi_markup_escape(page->stream, evaluation_glossary[i][0]);
        (void)fputs("</dt><dd>", page->stream);
        fi_markup_escape(page->stream, evaluation_glossary[i][1]);
        (void)fputs("</dd>\n", page->stream);
    }
    (void)fputs("<dt>" EVALUATION_DASH "</dt><dd>Not measured, or without a meaning in that row."
                "</dd></dl>\n",
                page->stream);
    cli_page_card_end(page);
}

/* As the page lists them: each with the name of its file. */
static void put_problems(cli_page *page, const json_t *tables) {
    json_t *items = json_array();
    const json_t *problem;
    size_t i;
    json_array_foreach(json_object_get(tables, "problems"), i, problem) {
        json_t *item = json_object();
        cli_json_set(item, "error", evaluation_problem(problem));
        (void)json_array_append_new(items, item);
    }
    cli_page_errors(page, items);
    json_decref(items);
}

/* ---------------------------------------------------------------- page ----------------------- */

int evaluation_page_write(const char *folder, const json_t *tables, const json_t *grids) {
    cli_page page;
    json_t *settings = evaluation_settings_line(tables);
    cli_page_open(&page, folder, "Evaluation", evaluation_about);
    if (!page.stream) {
        json_decref(settings);
        return page.code;
    }
    (void)fputs(plot_style, page.stream);
    (void)fputs(style, page.stream);
    put_tiles(&page, tables);
    cli_page_text(&page, settings ? json_string_value(settings) : "");
    json_decref(settings);
    put_problems(&page, tables);
    put_card(&page, tables, grids, "table1", NULL);
    put_card(&page, tables, grids, "table3", NULL);
    evaluation_put_shares(&page, tables);
    put_glossary(&page);
    evaluation_put_pictures(&page, tables);
    evaluation_put_pairs(&page, tables);
    (void)fputs("<div class=side>\n", page.stream);
    put_card(&page, tables, grids, "cross-cosine_median", NULL);
    put_card(&page, tables, grids, "cross-cosine_centred", NULL);
    put_card(&page, tables, grids, "cross-match_top1", NULL);
    put_card(&page, tables, grids, "cross-match_top5", NULL);
    (void)fputs("</div>\n", page.stream);
    put_card(&page, tables, grids, "sweep", evaluation_put_sweep);
    put_card(&page, tables, grids, "mix", evaluation_put_mix);
    put_card(&page, tables, grids, "ood", NULL);
    put_card(&page, tables, grids, "models", NULL);
    cli_page_text(&page, evaluation_citation);
    return cli_page_close(&page, NULL, false);
}
