/* The picture rows of an evaluation's page. */
#include "show.h"

#include "../cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "cosine .982" under a picture, whose figure is a bare number. */
static void put_item(cli_page *page, const json_t *tables, const json_t *item, const char *what) {
    char head[EVALUATION_TEXT + 16], cosine[EVALUATION_TEXT];
    evaluation_figure figure = evaluation_figure_of(item, "cosine");
    json_t *name = evaluation_model_name(tables, json_object_get(item, "model"));
    json_t *lines = json_sprintf("%s\n%s", json_string_value(name), what);
    evaluation_figure_text(cosine, figure);
    (void)snprintf(head, sizeof head, "cosine %s", cosine);
    cli_page_picture(page, evaluation_string(item, "image"), head, json_string_value(lines),
                     figure.value, false);
    json_decref(lines);
    json_decref(name);
}

static void put_original(cli_page *page, const json_t *picture) {
    cli_page_picture(page, evaluation_string(picture, "original"), "original",
                     evaluation_string(picture, "class"), NAN, false);
}

static bool begins(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static bool is_plain(const json_t *item) {
    const char *what = evaluation_string(item, "what");
    return !begins(what, "scale ") && !begins(what, "mix ");
}

static json_int_t model_of(const json_t *item) {
    return json_integer_value(json_object_get(item, "model"));
}

/* ---------------------------------------------------------------- originals ------------------ */

static const char *first_line(const char *kind) {
    return strcmp(kind, "autoencoder") == 0 ? "autoencoder alone" : evaluation_kind_name(kind);
}

void evaluation_put_pictures(cli_page *page, const json_t *tables) {
    const json_t *picture, *item;
    size_t i, j;
    if (!json_array_size(json_object_get(tables, "pictures")))
        return;
    cli_page_card(page, "Originals and what is drawn from their maps",
                  "Under each picture the cosine of its features with the original's, median over "
                  "the positions of the map. It is the named model's own: compare it along a "
                  "column of pictures, not between models.");
    json_array_foreach(json_object_get(tables, "pictures"), i, picture) {
        cli_page_row(page, evaluation_string(picture, "id"));
        put_original(page, picture);
        json_array_foreach(json_object_get(picture, "items"), j, item) {
            if (is_plain(item))
                put_item(page, tables, item, first_line(evaluation_string(item, "what")));
        }
        cli_page_row_end(page);
    }
    cli_page_card_end(page);
}

/* ---------------------------------------------------------------- series --------------------- */

static bool has_series(const json_t *picture, json_int_t model, const char *start) {
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(picture, "items"), i, item) {
        if (model_of(item) == model && begins(evaluation_string(item, "what"), start))
            return true;
    }
    return false;
}

static void put_series_row(cli_page *page, const json_t *tables, const json_t *picture,
                           json_int_t model, const char *start) {
    const json_t *item;
    size_t i;
    cli_page_row(page, evaluation_string(picture, "id"));
    put_original(page, picture);
    json_array_foreach(json_object_get(picture, "items"), i, item) {
        const char *what = evaluation_string(item, "what");
        if (model_of(item) == model && begins(what, start))
            put_item(page, tables, item, what);
    }
    cli_page_row_end(page);
}

void evaluation_put_series(cli_page *page, const json_t *tables, const char *start,
                           const char *heading) {
    json_int_t models = (json_int_t)json_array_size(json_object_get(tables, "models"));
    const json_t *picture;
    size_t i;
    bool begun = false;
    json_array_foreach(json_object_get(tables, "pictures"), i, picture) {
        for (json_int_t m = 0; m < models; m++) {
            if (!has_series(picture, m, start))
                continue;
            if (!begun) {
                (void)fputs("<div class=series>\n", page->stream);
                cli_page_text(page, heading);
            }
            begun = true;
            put_series_row(page, tables, picture, m, start);
        }
    }
    if (begun)
        (void)fputs("</div>\n", page->stream);
}

/* ---------------------------------------------------------------- pairs ---------------------- */

static const json_t *find_drawn(const json_t *picture, json_int_t model) {
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(picture, "items"), i, item) {
        if (model_of(item) == model && strcmp(evaluation_string(item, "what"), "controlnet") == 0)
            return item;
    }
    return NULL;
}

static void put_pair(cli_page *page, const json_t *tables, const json_t *pair) {
    const json_t *picture;
    size_t i;
    json_array_foreach(json_object_get(tables, "pictures"), i, picture) {
        const json_t *spatial =
            find_drawn(picture, json_integer_value(json_object_get(pair, "spatial")));
        const json_t *pooled =
            find_drawn(picture, json_integer_value(json_object_get(pair, "pooled")));
        if (!spatial || !pooled)
            continue;
        (void)fputs("<div>", page->stream);
        cli_page_row(page, evaluation_string(picture, "id"));
        put_original(page, picture);
        put_item(page, tables, spatial, "from the whole map");
        put_item(page, tables, pooled, "from its mean");
        cli_page_row_end(page);
        (void)fputs("</div>", page->stream);
    }
}

void evaluation_put_pairs(cli_page *page, const json_t *tables) {
    const json_t *pairs = json_object_get(tables, "pooled_pairs"), *pair;
    size_t i;
    if (!json_array_size(pairs) || !json_array_size(json_object_get(tables, "pictures")))
        return;
    cli_page_card(page, "Whole map against pooled features",
                  "The same image drawn from the whole map and from its mean over all positions, "
                  "by two models of one backbone (the paper's figure 8). What the pooled one "
                  "misplaces is what only the layout of the map tells. Both cosines are over the "
                  "positions of the whole map.");
    json_array_foreach(pairs, i, pair) {
        (void)fputs("<div class=pairs>", page->stream);
        put_pair(page, tables, pair);
        (void)fputs("</div>\n", page->stream);
    }
    cli_page_card_end(page);
}
