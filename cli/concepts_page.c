#include "concepts_show.h"

#include "json.h"
#include "page.h"

#include <math.h>
#include <stdlib.h>

enum { PROTOTYPES = 5, SHOWN_IMAGES = 24 };
#define DEGREES (180.0 / 3.14159265358979323846)

/* ---------------------------------------------------------------- json ----------------------- */

static const char *class_name(const cli_show *s, int32_t index) {
    return index < 0 || !s->opened.model ? NULL : featinv_model_class_name(s->opened.model, index);
}

static json_t *concept_json(const cli_show *s, int64_t k) {
    int64_t n = s->images.count;
    json_t *item = json_object(), *prototypes = json_array(), *row = json_array();
    json_t *angles = json_array();
    for (int64_t r = 0; r < n && r < PROTOTYPES; r++) {
        int64_t i = s->order[k * n + r];
        (void)json_array_append_new(prototypes, json_pack("{s:o, s:f, s:f}", "input",
                                                          cli_json_text(cli_show_path(s, i)),
                                                          "maximum", (double)s->high[k * n + i],
                                                          "mean", (double)s->mean[k * n + i]));
    }
    for (int64_t j = 0; j < s->parts; j++) {
        (void)json_array_append_new(row, cli_json_number(s->distance[k * s->parts + j]));
        (void)json_array_append_new(angles, cli_json_number(s->angle[k * s->parts + j]));
    }
    cli_json_set(item, "concept",
                 k < s->info.count ? json_integer((json_int_t)k) : json_string("complement"));
    cli_json_set(item, "dimension",
                 json_integer(cli_concept_dimension(&s->info, cli_show_index(s, k))));
    cli_json_set(item, "global_relevance", s->global ? cli_json_number(s->global[k]) : json_null());
    cli_json_set(item, "prototypes", prototypes);
    cli_json_set(item, "grassmann", row);
    cli_json_set(item, "smallest_angle", angles);
    return item;
}

static json_t *image_json(const cli_show *s, int64_t i) {
    int64_t n = s->images.count;
    int32_t index = cli_class_of(&s->images, i);
    json_t *item = json_object(), *high = json_array(), *mean = json_array();
    json_t *relevance = json_array();
    for (int64_t k = 0; k < s->parts; k++) {
        (void)json_array_append_new(high, cli_json_number((double)s->high[k * n + i]));
        (void)json_array_append_new(mean, cli_json_number((double)s->mean[k * n + i]));
        if (s->relevance)
            (void)json_array_append_new(relevance,
                                        cli_json_number((double)s->relevance[i * s->parts + k]));
    }
    cli_json_set(item, "input", cli_json_text(cli_show_path(s, i)));
    cli_json_set(item, "class", cli_json_text(class_name(s, index)));
    cli_json_set(item, "logit",
                 index < 0
                     ? json_null()
                     : cli_json_number((double)s->images.logits[i * s->images.classes + index]));
    cli_json_set(item, "activation_maximum", high);
    cli_json_set(item, "activation_mean", mean);
    cli_json_set(item, "local_relevance", s->relevance ? relevance : json_null());
    if (!s->relevance)
        json_decref(relevance);
    return item;
}

json_t *cli_show_json(const cli_show *s) {
    json_t *root = json_object(), *concepts = json_array(), *items = json_array();
    for (int64_t k = 0; k < s->parts; k++)
        (void)json_array_append_new(concepts, concept_json(s, k));
    for (int64_t i = 0; i < s->images.count; i++)
        (void)json_array_append_new(items, image_json(s, i));
    if (s->images.errors)
        (void)json_array_extend(items, s->images.errors);
    cli_json_set(root, "concepts", concepts);
    cli_json_set(root, "items", items);
    cli_json_set(root, "class", cli_json_text(class_name(s, s->class_index)));
    cli_json_set(root, "smallest_angle", cli_json_number(s->info.smallest_angle));
    cli_json_set(root, "bundle_sha256", cli_json_text(s->opened.info.sha256));
    cli_json_set(root, "version", json_string(featinv_version()));
    return root;
}

/* ---------------------------------------------------------------- page ----------------------- */

/* Bars of one image compare with each other: the largest relevance of the image is a full one. */
static double relevance_share(const cli_show *s, int64_t image, int64_t part) {
    double most = 0.0;
    const float *row = s->relevance ? s->relevance + image * s->parts : NULL;
    for (int64_t k = 0; row && k < s->parts; k++)
        most = fmax(most, fabs((double)row[k]));
    return row ? (most > 0.0 ? (double)row[part] / most : 0.0) : NAN;
}

static void put_prototypes(cli_page *page, const cli_show *s, int64_t k) {
    char name[256], head[64], lines[512];
    int64_t n = s->images.count;
    cli_page_row(page, "where it is strongest");
    for (int64_t r = 0; r < n && r < PROTOTYPES; r++) {
        int64_t i = s->order[k * n + r];
        const char *label = class_name(s, cli_class_of(&s->images, i));
        char relevance[64] = "";
        if (s->relevance)
            (void)snprintf(relevance, sizeof relevance, "\nrelevance %+.2f",
                           (double)s->relevance[i * s->parts + k]);
        cli_show_picture(name, sizeof name, s, i, k);
        (void)snprintf(head, sizeof head, "activation %.2f", (double)s->high[k * n + i]);
        (void)snprintf(lines, sizeof lines, "%s%s%s%s", cli_show_name(s, i), label ? "\n" : "",
                       label ? label : "", relevance);
        cli_page_picture(page, name, head, lines, relevance_share(s, i, k), true);
    }
    cli_page_row_end(page);
}

static void put_concept(cli_page *page, const cli_show *s, int64_t k) {
    char heading[96], text[256] = "";
    int32_t dimension = cli_concept_dimension(&s->info, cli_show_index(s, k));
    if (k < s->info.count)
        (void)snprintf(heading, sizeof heading, "Concept %lld · %d dimension%s", (long long)k,
                       dimension, dimension == 1 ? "" : "s");
    else
        (void)snprintf(heading, sizeof heading, "Complement · %d dimension%s", dimension,
                       dimension == 1 ? "" : "s");
    if (s->global)
        (void)snprintf(text, sizeof text,
                       "Global relevance for %s: %.3f (length of the unit class weight's part).%s",
                       class_name(s, s->class_index), s->global[k],
                       k < s->info.count ? "" : " This is what no concept spans.");
    else if (k == s->info.count)
        (void)snprintf(text, sizeof text, "What no concept spans.");
    cli_page_card(page, heading, *text ? text : NULL);
    if (s->images.count)
        put_prototypes(page, s, k);
    cli_page_card_end(page);
}

static void put_explanation(cli_page *page, const cli_show *s) {
    char text[1024];
    if (!s->images.count)
        return;
    (void)snprintf(
        text, sizeof text,
        "Heat: the length of the feature's part in the concept, on one scale over all images; "
        "line: "
        "half of the largest one met. The number is the largest in the image, over the length of "
        "the image's longest feature; it can exceed 1, since concepts need not be orthogonal.%s",
        s->relevance
            ? " Bars and relevance: what the part adds to the logit of the predicted class, "
              "to the right for it, to the left against it; over all parts, with the "
              "head's bias, these numbers sum to the logit."
            : "");
    cli_page_card(page, "How to read this", text);
    cli_page_card_end(page);
}

static void put_images(cli_page *page, const cli_show *s) {
    char name[256], label[512], head[32], lines[64];
    int64_t shown = s->images.count < SHOWN_IMAGES ? s->images.count : SHOWN_IMAGES;
    if (!s->images.count)
        return;
    cli_page_card(page, "Each image",
                  shown < s->images.count
                      ? "The first images; the files of all lie beside this page."
                      : NULL);
    for (int64_t i = 0; i < shown; i++) {
        int32_t index = cli_class_of(&s->images, i);
        const char *class_label = class_name(s, index);
        (void)snprintf(label, sizeof label, "%s%s%s", cli_show_name(s, i), class_label ? ": " : "",
                       class_label ? class_label : "");
        cli_page_row(page, label);
        (void)snprintf(name, sizeof name, "%s-original.png", cli_show_name(s, i));
        if (index >= 0)
            (void)snprintf(lines, sizeof lines, "logit %.2f",
                           (double)s->images.logits[i * s->images.classes + index]);
        cli_page_picture(page, name, "image", index >= 0 ? lines : NULL, NAN, false);
        for (int64_t k = 0; k < s->parts; k++) {
            cli_show_picture(name, sizeof name, s, i, k);
            if (s->relevance)
                (void)snprintf(lines, sizeof lines, "relevance %+.2f",
                               (double)s->relevance[i * s->parts + k]);
            cli_page_picture(page, name, cli_concept_name(head, cli_show_index(s, k)),
                             s->relevance ? lines : NULL, relevance_share(s, i, k), true);
        }
        cli_page_row_end(page);
    }
    cli_page_card_end(page);
}

/* Names and cells of the similarity table; `texts` is one block of 16 bytes each. */
static int put_similarity(cli_page *page, const cli_show *s) {
    size_t n = (size_t)s->parts;
    char(*texts)[16] = calloc(n * n + n, sizeof *texts);
    const char **cells = calloc(n * n + n, sizeof *cells);
    double *strength = calloc(n * n, sizeof *strength);
    if (!texts || !cells || !strength) {
        free(texts);
        free(cells);
        free(strength);
        return cli_fail_memory();
    }
    for (size_t i = 0; i < n * n + n; i++)
        cells[i] = texts[i];
    for (size_t i = 0; i < n * n; i++) {
        strength[i] = isnan(s->angle[i]) ? 0.0 : 1.0 - s->angle[i] * DEGREES / 90.0;
        if (isnan(s->angle[i]))
            (void)snprintf(texts[i], sizeof *texts, "-");
        else
            (void)snprintf(texts[i], sizeof *texts, "%.1f°", s->angle[i] * DEGREES);
    }
    for (size_t i = 0; i < n; i++)
        (void)snprintf(texts[n * n + i], sizeof *texts, i + 1 < n ? "%zu" : "complement", i);
    cli_page_card(page, "How the concepts lie to each other",
                  "Smallest principal angle between two concepts: 90° means that they share no "
                  "direction, a small angle that one can hardly be told from the other. Grassmann "
                  "distances stand in numbers.json.");
    cli_page_table(page, &(cli_table){.corner = "concept",
                                      .row_names = cells + n * n,
                                      .column_names = cells + n * n,
                                      .cells = cells,
                                      .strength = strength,
                                      .rows = n,
                                      .columns = n});
    cli_page_card_end(page);
    free(texts);
    free(cells);
    free(strength);
    return CLI_DONE;
}

int cli_show_page(const cli_show *s) {
    cli_page page;
    char text[64];
    cli_page_open(
        &page, s->values->output, "Concepts of a feature space",
        "Each concept is a linear subspace of the features that a vision model computes at every "
        "position of an image. A feature is the sum of one part in each concept and of a rest. A "
        "concept is active where its part is long; it counts for a class by what its part adds to "
        "that class's logit.");
    cli_page_tiles(&page);
    (void)snprintf(text, sizeof text, "%d", s->info.count);
    cli_page_tile(&page, text, "concepts");
    (void)snprintf(text, sizeof text, "%d of %d", s->info.total, s->info.channels);
    cli_page_tile(&page, text, "dimensions in them");
    if (s->info.angle_first >= 0) {
        (void)snprintf(text, sizeof text, "%.1f°", s->info.smallest_angle * DEGREES);
        cli_page_tile(&page, text, "smallest angle between two");
    }
    if (s->images.count) {
        (void)snprintf(text, sizeof text, "%lld", (long long)s->images.count);
        cli_page_tile(&page, text, "images");
    }
    cli_page_tiles_end(&page);
    cli_page_errors(&page, s->images.errors);
    put_explanation(&page, s);
    for (int64_t k = 0; k < s->parts; k++)
        put_concept(&page, s, k);
    put_images(&page, s);
    int code = put_similarity(&page, s);
    int closed = cli_page_close(&page, s->opened.info.sha256, code != CLI_DONE);
    return code ? code : closed;
}
