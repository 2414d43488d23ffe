#include "compose.h"

#include "json.h"
#include "page.h"

#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- json ----------------------- */

static json_t *fidelity_json(const cli_fidelity *f) {
    json_t *object = json_object();
    cli_json_set(object, "inside_a", cli_json_number(f->inside_a));
    cli_json_set(object, "inside_b", cli_json_number(f->inside_b));
    cli_json_set(object, "outside_a", cli_json_number(f->outside_a));
    cli_json_set(object, "outside_b", cli_json_number(f->outside_b));
    return object;
}

static json_t *item_json(const cli_composition *c, int64_t lane) {
    char name[48];
    int64_t samples = c->pair.job.sampling.samples;
    json_t *item = json_object();
    cli_composition_name(name, c, lane, "");
    cli_json_set(item, "map", json_string(cli_composition_maps[lane / samples]));
    cli_json_set(item, "sample", json_integer((json_int_t)(lane % samples)));
    cli_json_set(item, "image", json_string(name));
    cli_score_json(item, &c->pair.drawn.scores[lane], c->pair.job.opened.model);
    cli_json_set(item, "fidelity", fidelity_json(&c->fidelities[lane]));
    return item;
}

json_t *cli_composition_json(const cli_composition *c) {
    const cli_values *v = c->pair.job.values;
    json_t *root = json_object(), *items = json_array(), *summary = cli_draw_settings(&c->pair.job);
    json_t *maps = json_object(), *change = json_array(), *region = json_array();
    double inside_share = 0.0;
    for (int64_t j = 0; j < c->pair.drawn.done; j++)
        (void)json_array_append_new(items, item_json(c, j));
    for (int i = 0; i < CLI_MAPS; i++) {
        cli_fidelity mean = cli_fidelity_mean(c, i);
        json_t *row = fidelity_json(&mean);
        cli_json_set(row, "norm_percentile", cli_json_number(c->norms[i]));
        cli_json_set(row, "residual_percentile", cli_json_number(c->residuals[i]));
        cli_json_set(maps, cli_composition_maps[i], row);
    }
    for (int64_t i = 0; i < c->influence.count; i++)
        (void)json_array_append_new(change, cli_json_number(c->influence.change[i]));
    for (int i = 0; c->rectangle && i < 4; i++)
        (void)json_array_append_new(region, json_real(c->rectangle[i]));
    for (int64_t i = 0; i < c->pair.map[1] * c->pair.map[2]; i++)
        inside_share += (double)c->mask[i] / (double)(c->pair.map[1] * c->pair.map[2]);
    cli_fidelity composite = cli_fidelity_mean(c, CLI_COMPOSITE);
    cli_json_set(summary, "a", cli_json_text(c->pair.sides[CLI_A].path));
    cli_json_set(summary, "b", cli_json_text(c->pair.sides[CLI_B].path));
    cli_json_set(summary, "region", c->rectangle ? json_incref(region) : json_null());
    cli_json_set(summary, "mask", cli_json_text(v->mask));
    cli_json_set(summary, "share", cli_json_number(inside_share));
    cli_json_set(summary, "samples", json_integer(c->pair.job.sampling.samples));
    cli_json_set(root, "items", items);
    cli_json_set(root, "maps", maps);
    cli_json_set(root, "fidelity_inside", cli_json_number(composite.inside_b));
    cli_json_set(root, "fidelity_outside", cli_json_number(composite.outside_a));
    cli_json_set(root, "change_by_distance", change);
    cli_json_set(root, "radius_10_percent", cli_json_number(c->influence.radius));
    cli_json_set(root, "summary", summary);
    json_decref(region);
    return root;
}

/* ---------------------------------------------------------------- page ----------------------- */

static void put_originals(cli_page *page, const cli_composition *c) {
    static const char *const files[] = {"a-original.png", "b-original.png"};
    char text[512];
    cli_page_card(page, "A and B",
                  "The line is the region: the composite has A's features outside of "
                  "it and B's inside.");
    cli_page_row(page, NULL);
    for (int i = 0; i < 2; i++)
        if (c->pair.sides[i].picture)
            cli_page_picture(page, files[i], i ? "B" : "A", c->pair.sides[i].name, NAN, false);
    cli_page_row_end(page);
    for (int i = 0; i < 2; i++)
        if (!c->pair.sides[i].picture) {
            (void)snprintf(text, sizeof text, "%s is the map in %s.", i ? "B" : "A",
                           c->pair.sides[i].name);
            cli_page_text(page, text);
        }
    cli_page_card_end(page);
}

static void put_picture(cli_page *page, const cli_composition *c, int64_t lane, const char *what) {
    char name[48], head[32], score[256], scope[96], lines[512];
    int64_t map = lane / c->pair.job.sampling.samples;
    if (lane >= c->pair.drawn.done)
        return;
    cli_composition_name(name, c, lane, map == CLI_COMPOSITE ? "-outline" : "");
    cli_score_lines(score, sizeof score, &c->pair.drawn.scores[lane], c->pair.job.opened.model);
    cli_scope_line(scope, sizeof scope, c->norms[map], c->residuals[map]);
    (void)snprintf(lines, sizeof lines, "%s%s%s%s%s", what, *score ? "\n" : "", score,
                   *scope ? "\n" : "", scope);
    cli_page_picture(page, name, cli_cosine_text(head, c->pair.drawn.scores[lane].cosine_median),
                     lines, c->pair.drawn.scores[lane].cosine_median, false);
}

static void put_pictures(cli_page *page, const cli_composition *c) {
    int64_t samples = c->pair.job.sampling.samples;
    cli_page_card(
        page, "Drawn from the maps",
        "All from the same noise. Under each picture: how well its own features agree "
        "with the map that it was drawn from (1: the same direction everywhere), with the "
        "training mean removed (centred), what the classifier takes it for, and the map's "
        "percentiles among training maps (length; what lies off their main directions).");
    for (int64_t k = 0; k < samples; k++) {
        cli_page_row(page, NULL);
        put_picture(page, c, CLI_A * samples + k, "from A's map");
        put_picture(page, c, CLI_B * samples + k, "from B's map");
        put_picture(page, c, CLI_COMPOSITE * samples + k, "from the composite");
        cli_page_row_end(page);
    }
    cli_page_card_end(page);
}

static void put_fidelity(cli_page *page, const cli_composition *c) {
    static const char *const rows[CLI_MAPS] = {"picture of A", "picture of B",
                                               "picture of the composite"};
    static const char *const columns[4] = {"inside, with B", "inside, with A", "outside, with A",
                                           "outside, with B"};
    char texts[CLI_MAPS * 4][16];
    const char *cells[CLI_MAPS * 4];
    if (!c->pair.drawn.maps)
        return;
    for (int i = 0; i < CLI_MAPS; i++) {
        cli_fidelity f = cli_fidelity_mean(c, i);
        double values[4] = {f.inside_b, f.inside_a, f.outside_a, f.outside_b};
        for (int j = 0; j < 4; j++) {
            cells[i * 4 + j] = texts[i * 4 + j];
            if (isnan(values[j]))
                (void)snprintf(texts[i * 4 + j], sizeof *texts, "-");
            else
                (void)snprintf(texts[i * 4 + j], sizeof *texts, "%.3f", values[j]);
        }
    }
    cli_page_card(page, "Is each part drawn as it was meant?",
                  "Mean cosine between the features of a picture and the maps, inside and outside "
                  "of the region. A good composite has B's value inside and A's outside.");
    cli_page_table(page, &(cli_table){.corner = "cosine",
                                      .row_names = rows,
                                      .column_names = columns,
                                      .cells = cells,
                                      .rows = CLI_MAPS,
                                      .columns = 4});
    cli_page_card_end(page);
}

static void put_influence(cli_page *page, const cli_composition *c) {
    const cli_influence *n = &c->influence;
    char text[512];
    double *x = calloc((size_t)n->count + 1, sizeof *x), high = 0.0;
    for (int64_t i = 0; x && i < n->count; i++) {
        x[i] = (double)i;
        high = isnan(n->change[i]) ? high : fmax(high, n->change[i]);
    }
    if (isnan(n->radius))
        (void)snprintf(
            text, sizeof text,
            "How much the composite's picture differs in colour from A's, by the distance "
            "from the region (0: inside). It does not fall to a tenth of what it is inside "
            "anywhere in the picture.");
    else
        (void)snprintf(
            text, sizeof text,
            "How much the composite's picture differs in colour from A's, by the distance "
            "from the region (0: inside). It falls to a tenth of what it is inside at %.1f "
            "pixels of the picture, %.1f cells of the map.",
            n->radius, n->radius * (double)c->pair.map[2] / (double)c->pair.job.image[1]);
    cli_page_card(page, "How far does the paste reach?", text);
    if (x && n->count > 1 && high > 0.0)
        cli_page_curve(page, &(cli_curve){.x_name = "distance from the region, pixels",
                                          .y_name = "change in colour (most: 1.73)",
                                          .x = x,
                                          .y = n->change,
                                          .count = (size_t)n->count,
                                          .y_low = 0.0,
                                          .y_high = high,
                                          .mark = n->radius});
    cli_page_card_end(page);
    free(x);
}

static void put_tiles(cli_page *page, const cli_composition *c) {
    cli_fidelity f = cli_fidelity_mean(c, CLI_COMPOSITE);
    char text[32];
    cli_page_tiles(page);
    if (!isnan(f.inside_b)) {
        (void)snprintf(text, sizeof text, "%.3f", f.inside_b);
        cli_page_tile(page, text, "cosine with B inside");
    }
    if (!isnan(f.outside_a)) {
        (void)snprintf(text, sizeof text, "%.3f", f.outside_a);
        cli_page_tile(page, text, "cosine with A outside");
    }
    if (!isnan(c->influence.radius)) {
        (void)snprintf(text, sizeof text, "%.1f px", c->influence.radius);
        cli_page_tile(page, text, "to a tenth of the influence");
    }
    cli_page_tiles_end(page);
}

int cli_composition_page(const cli_composition *c, bool whole) {
    cli_page page;
    cli_page_open(
        &page, c->pair.job.values->output, "One feature map pasted into another",
        "The features of B take the place of A's in one region, and the composite map is "
        "drawn. Where the picture follows, the vision model keeps places apart; where the "
        "paste shows outside of its region, its features look further than their place.");
    if (whole)
        put_tiles(&page, c);
    put_originals(&page, c);
    put_pictures(&page, c);
    if (whole) {
        put_fidelity(&page, c);
        put_influence(&page, c);
    }
    return cli_page_close(&page, c->pair.job.opened.info.sha256, false);
}
