/* The plots of an evaluation's page, from the figures of its tables. */
#include "../plot.h"
#include "show.h"

#include "../cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Points of one curve, with room for all items. */
typedef struct points {
    double *x, *y, *low, *high;
    size_t count;
} points;

static bool points_new(points *p, size_t capacity) {
    double *values = calloc(4 * capacity + 1, sizeof *values);
    *p = (points){values, values, values, values, 0};
    if (!values)
        return false;
    p->y += capacity;
    p->low += 2 * capacity;
    p->high += 3 * capacity;
    return true;
}

/* Keeps x ascending, whatever order the items have. */
static void points_add(points *p, double x, evaluation_figure figure) {
    size_t at = p->count++;
    for (; at > 0 && p->x[at - 1] > x; at--) {
        p->x[at] = p->x[at - 1];
        p->y[at] = p->y[at - 1];
        p->low[at] = p->low[at - 1];
        p->high[at] = p->high[at - 1];
    }
    p->x[at] = x;
    p->y[at] = figure.value;
    p->low[at] = figure.low;
    p->high[at] = figure.high;
}

static json_int_t model_of(const json_t *item) {
    return json_integer_value(json_object_get(item, "model"));
}

static double number_of(const json_t *item, const char *key) {
    return json_number_value(json_object_get(item, key));
}

/* The points of `key` over `x_key` of the items of one model. */
static bool points_of(points *p, const json_t *items, json_int_t model, const char *x_key,
                      const char *key) {
    const json_t *item;
    size_t i;
    if (!points_new(p, json_array_size(items)))
        return false;
    json_array_foreach(items, i, item) {
        if (model_of(item) == model)
            points_add(p, number_of(item, x_key), evaluation_figure_of(item, key));
    }
    return true;
}

static plot_series series_of(const points *p, const char *name, size_t look) {
    return (plot_series){name, p->x, p->y, p->low, p->high, p->count, look};
}

/* The models that have an item, in order; count of them. `models` has room for all. */
static size_t models_of(json_int_t *models, const json_t *items, size_t most) {
    size_t count = 0, i;
    const json_t *item;
    for (size_t m = 0; m < most; m++) {
        bool found = false;
        json_array_foreach(items, i, item) {
            found = found || model_of(item) == (json_int_t)m;
        }
        if (found)
            models[count++] = (json_int_t)m;
    }
    return count;
}

/* Legend of the models that have an item; their colours are the same in all plots. */
static void put_models_legend(cli_page *page, const json_t *tables, const json_int_t *models,
                              size_t count) {
    json_t *names = json_array();
    const char **texts = calloc(count + 1, sizeof *texts);
    size_t *looks = calloc(count + 1, sizeof *looks);
    for (size_t i = 0; texts && looks && i < count; i++) {
        json_t *index = json_integer(models[i]);
        (void)json_array_append_new(names, evaluation_model_name(tables, index));
        texts[i] = json_string_value(json_array_get(names, i));
        looks[i] = (size_t)models[i];
        json_decref(index);
    }
    if (texts && looks)
        plot_legend(page->stream, texts, looks, count);
    free(looks);
    free(texts);
    json_decref(names);
}

/* ---------------------------------------------------------------- sweep ---------------------- */

static bool put_sweep_plot(cli_page *page, const json_t *items, const json_int_t *models,
                           size_t count, const plot *look, const char *key) {
    points *curves = calloc(count + 1, sizeof *curves);
    plot_series *series = calloc(count + 1, sizeof *series);
    bool fine = curves && series;
    for (size_t i = 0; fine && i < count; i++) {
        fine = points_of(&curves[i], items, models[i], "scale", key);
        series[i] = series_of(&curves[i], NULL, (size_t)models[i]);
    }
    if (fine) {
        plot p = *look;
        p.series = series;
        p.count = count;
        plot_lines(page->stream, &p);
    }
    for (size_t i = 0; curves && i < count; i++)
        free(curves[i].x);
    free(series);
    free(curves);
    return fine;
}

void evaluation_put_sweep(cli_page *page, const json_t *tables) {
    const json_t *items = json_object_get(tables, "sweep");
    const size_t most = json_array_size(json_object_get(tables, "models"));
    json_int_t *models = calloc(most + 1, sizeof *models);
    const size_t count = models ? models_of(models, items, most) : 0;
    json_t *distance = evaluation_distance_name(tables);
    const plot cosine = {.title = "Agreement of the features",
                         .x_name = "guidance scale",
                         .y_name = "centred cosine",
                         .least = NAN,
                         .most = NAN};
    const plot top = {.title = "Same best class as the original",
                      .x_name = "guidance scale",
                      .y_name = "top-1, share of images",
                      .least = NAN,
                      .most = NAN};
    const plot apart = {.title = "Distance of the two sets of pictures",
                        .x_name = "guidance scale",
                        .y_name = json_string_value(distance),
                        .least = 0.0,
                        .most = NAN};
    if (count) {
        put_models_legend(page, tables, models, count);
        (void)fputs("<div class=plots>\n", page->stream);
        if (!put_sweep_plot(page, items, models, count, &cosine, "cosine_centred") ||
            !put_sweep_plot(page, items, models, count, &top, "match_top1") ||
            !put_sweep_plot(page, items, models, count, &apart, "frechet"))
            page->code = cli_fail_memory();
        (void)fputs("</div>\n", page->stream);
    }
    if (!models)
        page->code = cli_fail_memory();
    json_decref(distance);
    free(models);
}

/* ---------------------------------------------------------------- mixing --------------------- */

static const char *const mix_names[] = {"with the mixed map", "with A's map", "with B's map"};
enum { MIXES = sizeof mix_names / sizeof *mix_names };

static void put_mix_plot(cli_page *page, const json_t *tables, const json_t *items,
                         json_int_t model) {
    static const char *const keys[MIXES] = {"cosine_mixed", "cosine_a", "cosine_b"};
    points curves[MIXES] = {{0}};
    plot_series series[MIXES];
    bool fine = true;
    for (size_t i = 0; fine && i < MIXES; i++) {
        fine = points_of(&curves[i], items, model, "weight", keys[i]);
        series[i] = series_of(&curves[i], mix_names[i], i);
    }
    json_t *index = json_integer(model), *name = evaluation_model_name(tables, index);
    if (fine)
        plot_lines(page->stream, &(plot){.title = json_string_value(name),
                                         .x_name = "weight of B",
                                         .y_name = "cosine of the picture's map",
                                         .series = series,
                                         .count = MIXES,
                                         .least = NAN,
                                         .most = NAN});
    else
        page->code = cli_fail_memory();
    json_decref(name);
    json_decref(index);
    for (size_t i = 0; i < MIXES; i++)
        free(curves[i].x);
}

void evaluation_put_mix(cli_page *page, const json_t *tables) {
    static const size_t looks[MIXES] = {0, 1, 2};
    const json_t *items = json_object_get(tables, "mix");
    const size_t most = json_array_size(json_object_get(tables, "models"));
    json_int_t *models = calloc(most + 1, sizeof *models);
    const size_t count = models ? models_of(models, items, most) : 0;
    if (count) {
        plot_legend(page->stream, mix_names, looks, MIXES);
        (void)fputs("<div class=plots>\n", page->stream);
        for (size_t i = 0; i < count; i++)
            put_mix_plot(page, tables, items, models[i]);
        (void)fputs("</div>\n", page->stream);
    }
    if (!models)
        page->code = cli_fail_memory();
    free(models);
}

/* ---------------------------------------------------------------- shares --------------------- */

void evaluation_put_shares(cli_page *page, const json_t *tables) {
    const json_t *rows = json_object_get(tables, "rows"), *row;
    json_t *texts = json_array(); /* name and value of each bar */
    plot_bar *bars = calloc(json_array_size(rows) + 1, sizeof *bars);
    size_t count = 0, i;
    json_array_foreach(rows, i, row) {
        evaluation_figure share = evaluation_figure_of(row, "share");
        if (!bars || isnan(share.value))
            continue;
        char text[EVALUATION_TEXT];
        evaluation_figure_text(text, share);
        (void)json_array_append_new(texts,
                                    evaluation_model_name(tables, json_object_get(row, "model")));
        (void)json_array_append_new(texts, json_string(text));
        bars[count] = (plot_bar){.name = json_string_value(json_array_get(texts, 2 * count)),
                                 .text = json_string_value(json_array_get(texts, 2 * count + 1)),
                                 .value = share.value,
                                 .low = share.low,
                                 .high = share.high,
                                 .look = (size_t)model_of(row)};
        count++;
    }
    if (count) {
        cli_page_card(page, "How much of what can be reached is reached?",
                      "Centred cosine of the drawn pictures, on a scale from another image of the "
                      "same class to the original's own round trip through the autoencoder. On it "
                      "models of different backbones compare.");
        plot_bars(page->stream, "Share of the span from floor to ceiling",
                  "another image of the class", "autoencoder alone", bars, count);
        cli_page_card_end(page);
    }
    if (!bars)
        page->code = cli_fail_memory();
    free(bars);
    json_decref(texts);
}
