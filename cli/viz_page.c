#include "viz.h"

#include "json.h"
#include "page.h"

#include <math.h>

enum { SHOWN_IMAGES = 24 };

/* ---------------------------------------------------------------- figures -------------------- */

/* Share of the pixels that are affected. */
static double affected(const cli_viz_run *v, int64_t i, int32_t k) {
    int64_t pixels = v->job.image[0] * v->job.image[1], count = 0;
    const uint8_t *mask = v->masks + (i * v->count + k) * pixels;
    for (int64_t j = 0; j < pixels; j++)
        count += !mask[j];
    return (double)count / (double)pixels;
}

static const featinv_score *score_at(const cli_viz_run *v, int64_t i, int32_t k, int32_t pair) {
    int64_t pairs = v->options.pairs;
    return k < 0 ? v->scores + i * pairs + pair
                 : v->altered_scores + (i * v->count + k) * pairs + pair;
}

static double mean_cosine(const cli_viz_run *v, int64_t i, int32_t k) {
    double sum = 0.0;
    for (int32_t j = 0; j < v->options.pairs; j++)
        sum += score_at(v, i, k, j)->cosine_median;
    return sum / v->options.pairs;
}

static const char *input_path(const cli_viz_run *v, int64_t i) {
    return v->images.inputs.items[v->images.whose[i]].path;
}

static const char *class_name(const cli_viz_run *v, int64_t index) {
    return index < 0 ? NULL : featinv_model_class_name(v->job.opened.model, (int32_t)index);
}

/* ---------------------------------------------------------------- json ----------------------- */

static json_t *name_json(const cli_viz_run *v, int64_t i, int32_t k, const char *what) {
    char name[256];
    cli_viz_name(name, sizeof name, v, i, k, what, -1);
    return cli_json_text(name);
}

static json_t *pictures_json(const cli_viz_run *v, int64_t i, int32_t k) {
    json_t *list = json_array();
    char name[256];
    for (int32_t j = 0; j < v->options.pairs; j++) {
        json_t *item = json_object();
        cli_viz_name(name, sizeof name, v, i, k, "pair", j);
        cli_json_set(item, "image", cli_json_text(name));
        cli_score_json(item, score_at(v, i, k, j), v->job.opened.model);
        (void)json_array_append_new(list, item);
    }
    return list;
}

static void set_scope(json_t *item, const cli_viz_run *v, int64_t i, int32_t k) {
    int64_t at = i * (v->count + 1) + k + 1;
    cli_json_set(item, "norm_percentile", cli_json_number(v->norms[at]));
    cli_json_set(item, "residual_percentile", cli_json_number(v->residuals[at]));
}

static json_t *concept_json(const cli_viz_run *v, int64_t i, int32_t k) {
    json_t *item = json_object();
    cli_json_set(item, "concept",
                 v->indices[k] == FEATINV_COMPLEMENT ? json_string("complement")
                                                     : json_integer(v->indices[k]));
    cli_json_set(item, "map", name_json(v, i, k, "viz"));
    cli_json_set(item, "activation", name_json(v, i, k, "activation"));
    cli_json_set(item, "mask", name_json(v, i, k, "mask"));
    cli_json_set(item, "maximum", cli_json_number(v->maxima[i * v->count + k]));
    cli_json_set(item, "affected", cli_json_number(affected(v, i, k)));
    cli_json_set(item, "cosine_median", cli_json_number(mean_cosine(v, i, k)));
    set_scope(item, v, i, k);
    cli_json_set(item, "pictures", pictures_json(v, i, k));
    return item;
}

static json_t *item_json(const cli_viz_run *v, int64_t i) {
    json_t *item = json_object(), *concepts = json_array();
    for (int32_t k = 0; k < v->count; k++)
        (void)json_array_append_new(concepts, concept_json(v, i, k));
    cli_json_set(item, "input", cli_json_text(input_path(v, i)));
    cli_json_set(item, "class", cli_json_text(class_name(v, cli_class_of(&v->images, i))));
    cli_json_set(item, "original", name_json(v, i, -1, "original"));
    cli_json_set(item, "cosine_median", cli_json_number(mean_cosine(v, i, -1)));
    set_scope(item, v, i, -1);
    cli_json_set(item, "pictures", pictures_json(v, i, -1));
    cli_json_set(item, "concepts", concepts);
    return item;
}

json_t *cli_viz_json(const cli_viz_run *v) {
    const featinv_visualize_options *o = &v->options;
    json_t *root = json_object(), *items = json_array(), *summary = cli_draw_settings(&v->job);
    for (int64_t i = 0; i < v->done; i++)
        (void)json_array_append_new(items, item_json(v, i));
    (void)json_array_extend(items, v->images.errors);
    cli_json_set(summary, "concepts", cli_json_text(v->job.values->concepts));
    cli_json_set(summary, "pairs", json_integer(o->pairs));
    cli_json_set(summary, "factor", cli_json_number(o->factor));
    cli_json_set(summary, "threshold",
                 o->threshold < 0.0 ? json_string("null") : cli_json_number(o->threshold));
    cli_json_set(summary, "normalize",
                 json_string(o->normalization == FEATINV_NORMALIZE_MAX ? "max" : "minmax"));
    cli_json_set(root, "items", items);
    cli_json_set(root, "summary", summary);
    return root;
}

/* ---------------------------------------------------------------- page ----------------------- */

static void put_drawn(cli_page *page, const cli_viz_run *v, int64_t i, int32_t k) {
    char name[256], head[32], lines[256];
    for (int32_t j = 0; j < v->options.pairs; j++) {
        const featinv_score *s = score_at(v, i, k, j);
        cli_viz_name(name, sizeof name, v, i, k, "pair", j);
        cli_score_lines(lines, sizeof lines, s, v->job.opened.model);
        cli_page_picture(page, name, cli_cosine_text(head, s->cosine_median), lines,
                         s->cosine_median, false);
    }
}

static void put_concept(cli_page *page, const cli_viz_run *v, int64_t i, int32_t k) {
    char name[256], label[256], lines[160], scope[96];
    int64_t at = i * (v->count + 1) + k + 1;
    int32_t dimension = cli_concept_dimension(&v->info, v->indices[k]);
    cli_scope_line(scope, sizeof scope, v->norms[at], v->residuals[at]);
    (void)snprintf(label, sizeof label, "%s, %d dimension%s, times %g%s%s",
                   cli_concept_name(name, v->indices[k]), dimension, dimension == 1 ? "" : "s",
                   v->options.factor, *scope ? ". The altered map: " : "", scope);
    cli_page_row(page, label);
    cli_viz_name(name, sizeof name, v, i, k, "viz", -1);
    (void)snprintf(lines, sizeof lines, "largest change %.2f of 1.73", v->maxima[i * v->count + k]);
    cli_page_picture(page, name, "what changes", lines, NAN, false);
    cli_viz_name(name, sizeof name, v, i, k, "mask", -1);
    (void)snprintf(lines, sizeof lines, "%.0f %% of the picture", 100.0 * affected(v, i, k));
    cli_page_picture(page, name, "affected", lines, NAN, false);
    cli_viz_name(name, sizeof name, v, i, k, "activation", -1);
    cli_page_picture(page, name, "activation", "the ordinary map, enlarged", NAN, false);
    cli_viz_name(name, sizeof name, v, i, k, "null", -1);
    if (v->null_maps)
        cli_page_picture(page, name, "null", "random subspaces that change as much", NAN, false);
    put_drawn(page, v, i, k);
    cli_page_row_end(page);
}

static void put_image(cli_page *page, const cli_viz_run *v, int64_t i) {
    char name[256], label[192], scope[96];
    const char *class_label = class_name(v, cli_class_of(&v->images, i));
    cli_page_card(page, v->images.inputs.items[v->images.whose[i]].name, NULL);
    cli_scope_line(scope, sizeof scope, v->norms[i * (v->count + 1)],
                   v->residuals[i * (v->count + 1)]);
    (void)snprintf(label, sizeof label, "the image, and pictures drawn from its map%s%s",
                   *scope ? ". The map: " : "", scope);
    cli_page_row(page, label);
    cli_viz_name(name, sizeof name, v, i, -1, "original", -1);
    cli_page_picture(page, name, "image", class_label, NAN, false);
    put_drawn(page, v, i, -1);
    cli_page_row_end(page);
    for (int32_t k = 0; k < v->count; k++)
        put_concept(page, v, i, k);
    cli_page_card_end(page);
}

static void put_explanation(cli_page *page, const cli_viz_run *v) {
    char text[1024], threshold[96];
    if (v->options.threshold < 0.0)
        (void)snprintf(threshold, sizeof threshold,
                       "what random subspaces that change the map as much reach");
    else
        (void)snprintf(threshold, sizeof threshold, "%.0f %% of it", 100.0 * v->options.threshold);
    (void)snprintf(
        text, sizeof text,
        "What changes: the distance in colour between both pictures of a pair, the median over %d "
        "pairs, %s. Affected: where that is not below %s; the rest is pale. Activation: how long "
        "the "
        "feature's part in the concept is, the usual picture of a concept, over its own maximum. "
        "Under each drawn picture: how well its own features agree with the map that it was drawn "
        "from (1: the same direction everywhere), and what the classifier takes it for. "
        "Percentiles "
        "are those of the map among training maps: of its length and of what lies off their main "
        "directions; from 99 on it is unlike anything that the model was trained on.",
        v->options.pairs,
        v->options.normalization == FEATINV_NORMALIZE_MAX ? "bright where it is largest"
                                                          : "stretched from least to most",
        threshold);
    cli_page_card(page, "How to read this", text);
    cli_page_card_end(page);
}

int cli_viz_page(const cli_viz_run *v) {
    cli_page page;
    int64_t shown = v->done < SHOWN_IMAGES ? v->done : SHOWN_IMAGES;
    cli_page_open(
        &page, v->job.values->output, "What a concept shows as",
        "A vision model's features of an image are turned back into pictures twice: as they "
        "are, and with less of one concept in them. Both start from the same noise, so that "
        "whatever differs between them is what the concept stands for.");
    cli_page_errors(&page, v->images.errors);
    put_explanation(&page, v);
    for (int64_t i = 0; i < shown; i++)
        put_image(&page, v, i);
    if (shown < v->done)
        cli_page_text(&page, "The first images are shown; the files of all lie beside this page.");
    return cli_page_close(&page, v->job.opened.info.sha256, false);
}
