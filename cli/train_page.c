/* index.html of a training: figures, curves, pictures, settings. */
#include "page.h"
#include "plot.h"
#include "train.h"

#include "../lib/markup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_POINTS = 400, MOST_ROWS = 8, RELOAD_SECONDS = 10 };

/* ---------------------------------------------------------------- curves --------------------- */

static void put_plot(cli_page *page, const char *title, const plot_series *series, size_t count) {
    const char *const names[] = {series[0].name, series[count - 1].name};
    const size_t looks[] = {series[0].look, series[count - 1].look};
    if (count > 1)
        plot_legend(page->stream, names, looks, count);
    plot_lines(page->stream, &(plot){.title = title,
                                     .x_name = "step",
                                     .y_name = title,
                                     .series = series,
                                     .count = count,
                                     .least = NAN,
                                     .most = NAN,
                                     .counts = true});
}

/* The loss of single steps is noisy: an exponential mean over about 50 of them, its weights summing
 * to 1 from the first step on. */
static void put_losses(cli_page *page, const train *t) {
    const int64_t steps = train_step_count(t);
    const int64_t stride = steps / MOST_POINTS + 1;
    double *x = calloc((size_t)(steps / stride) + 2, sizeof *x);
    double *y = calloc((size_t)(steps / stride) + 2, sizeof *y);
    const double decay = exp(-1.0 / 50.0);
    double sum = 0.0, weight = 0.0;
    size_t count = 0;
    for (int64_t i = 0; x && y && i < steps; i++) {
        if (isfinite(t->losses[i])) {
            sum = decay * sum + (1.0 - decay) * t->losses[i];
            weight = decay * weight + (1.0 - decay);
        }
        if (((i + 1) % stride == 0 || i + 1 == steps) && weight > 0.0) {
            x[count] = (double)(i + 1);
            y[count++] = sum / weight;
        }
    }
    if (count) {
        const plot_series series = {.x = x, .y = y, .count = count};
        cli_page_card(page, "Training loss",
                      "Exponential mean over about 50 steps, dropouts included.");
        put_plot(page, "loss", &series, 1);
        cli_page_card_end(page);
    }
    free(x);
    free(y);
}

static void put_checks(cli_page *page, const train *t) {
    const size_t n = (size_t)t->check_count;
    double *values = calloc(4 * n + 1, sizeof *values);
    if (!values || !n) {
        free(values);
        return;
    }
    double *x = values, *right = values + n, *shuffled = values + 2 * n, *cosine = values + 3 * n;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)t->checks[i].step;
        right[i] = t->checks[i].right;
        shuffled[i] = t->checks[i].shuffled;
        cosine[i] = t->checks[i].cosine;
    }
    const plot_series losses[] = {
        {.name = "with its own map", .x = x, .y = right, .count = n},
        {.name = "with another's map", .x = x, .y = shuffled, .count = n, .look = 1}};
    const plot_series cosines = {.x = x, .y = cosine, .count = n};
    cli_page_card(page, "Loss of held-out images",
                  "Each at one timestep and noise that stay the same. The lines part where the "
                  "model has learned to use the map.");
    put_plot(page, "loss", losses, 2);
    cli_page_card_end(page);
    cli_page_card(page, "Agreement of pictures drawn",
                  "Median cosine between the map of a held-out image and that of the picture drawn "
                  "from it; mean over the pictures below.");
    put_plot(page, "cosine", &cosines, 1);
    cli_page_card_end(page);
    free(values);
}

/* ---------------------------------------------------------------- pictures ------------------- */

static void put_row(cli_page *page, const train_check *check) {
    char label[48], name[48], head[32];
    (void)snprintf(label, sizeof label, "step %lld", (long long)check->step);
    cli_page_row(page, label);
    for (int32_t i = 0; i < check->pictures; i++) {
        (void)snprintf(name, sizeof name, "drawn-%08lld-%d.png", (long long)check->step, i);
        (void)snprintf(head, sizeof head, "%.3f", check->cosines[i]);
        cli_page_picture(page, name, head, NULL, check->cosines[i], false);
    }
    cli_page_row_end(page);
}

/* The originals, then the newest validations down to the first, evenly thinned. */
static void put_pictures(cli_page *page, const train *t) {
    if (!t->check_count || !t->held.pictures)
        return;
    cli_page_card(page, "Pictures",
                  "Held-out images, and what is drawn from their maps. Under each its cosine.");
    cli_page_row(page, "original");
    for (int32_t i = 0; i < t->held.pictures; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "original-%d.png", i);
        cli_page_picture(page, name, NULL, NULL, NAN, false);
    }
    cli_page_row_end(page);
    const int64_t n = t->check_count, rows = n < MOST_ROWS ? n : MOST_ROWS;
    for (int64_t i = rows - 1; i >= 0; i--)
        put_row(page, &t->checks[rows > 1 ? i * (n - 1) / (rows - 1) : n - 1]);
    cli_page_card_end(page);
}

/* ---------------------------------------------------------------- figures -------------------- */

static void put_tile(cli_page *page, double value, const char *format, const char *label) {
    char text[32];
    if (isnan(value))
        (void)snprintf(text, sizeof text, "–");
    else
        (void)snprintf(text, sizeof text, format, value);
    cli_page_tile(page, text, label);
}

static void put_tiles(cli_page *page, const train *t) {
    const train_check *last = t->check_count ? &t->checks[t->check_count - 1] : NULL;
    char text[64];
    (void)snprintf(text, sizeof text, "%lld of %lld", (long long)train_step_count(t),
                   (long long)t->steps);
    cli_page_tiles(page);
    cli_page_tile(page, text, "steps");
    put_tile(page, train_mean_loss(t), "%.4f", "loss, last 100 steps");
    put_tile(page, last ? last->right : NAN, "%.4f", "held out, own map");
    put_tile(page, last ? last->shuffled : NAN, "%.4f", "held out, another's map");
    put_tile(page, last ? last->cosine : NAN, "%.3f", "cosine");
    if (!isnan(train_speed(t))) /* no step yet, or nothing left to do */
        put_tile(page, train_speed(t), "%.1f", "samples a second");
    cli_page_tiles_end(page);
}

static void put_settings(cli_page *page, const train *t) {
    json_t *all = train_settings(t), *group, *value;
    const char *name, *group_name;
    cli_page_card(page, "Settings", NULL);
    (void)fputs("<div class=scroll><table>\n", page->stream);
    json_object_foreach(all, group_name, group){json_object_foreach(group, name, value){
        char *text = json_is_string(value)
                         ? strdup(json_string_value(value))
                         : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    (void)fputs("<tr><th>", page->stream);
    fi_markup_escape(page->stream, name);
    (void)fputs("</th><td>", page->stream);
    fi_markup_escape(page->stream, text);
    (void)fputs("</td></tr>\n", page->stream);
    free(text);
}
}
(void)fputs("</table></div>\n", page->stream);
cli_page_card_end(page);
json_decref(all);
}

static void put_problems(cli_page *page, const train *t) {
    json_t *items = json_array(), *text;
    size_t i;
    json_array_foreach(t->problems, i, text) {
        json_t *item = json_object();
        (void)json_object_set(item, "error", text);
        (void)json_array_append_new(items, item);
    }
    cli_page_errors(page, items);
    json_decref(items);
}

int train_page_write(const train *t, bool running) {
    cli_page page;
    char title[256], about[256];
    (void)snprintf(title, sizeof title, "Training of %.200s", t->opened.info.name);
    (void)snprintf(about, sizeof about,
                   running ? "Running. This page reloads itself; it is written at each validation "
                             "and checkpoint."
                   : train_step_count(t) >= t->steps ? "Finished."
                                                     : "Stopped before its end; --resume goes on.");
    cli_page_open(&page, t->state, title, about);
    if (!page.stream)
        return page.code;
    if (running)
        (void)fprintf(page.stream, "<meta http-equiv=refresh content=%d>\n", RELOAD_SECONDS);
    (void)fputs(plot_style, page.stream);
    put_tiles(&page, t);
    put_problems(&page, t);
    (void)fputs("<div style=\"display:grid;gap:1rem;margin:0 0 1rem;grid-template-columns:"
                "repeat(auto-fit,minmax(min(21rem,100%),1fr))\">\n",
                page.stream);
    put_losses(&page, t);
    put_checks(&page, t);
    (void)fputs("</div>\n", page.stream);
    put_pictures(&page, t);
    put_settings(&page, t);
    return cli_page_close(&page, t->opened.info.sha256, false);
}
