/* One map pasted into another (paper, section 4.2): how well both parts are drawn, and how far
 * the paste reaches beyond its region. */
#include "compose.h"

#include "json.h"
#include "writer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const cli_composition_maps[CLI_MAPS] = {"a", "b", "composite"};

/* ---------------------------------------------------------------- region --------------------- */

/* The image whose pixels the region counts: A's, else B's, else a picture as it is drawn. */
static void choose_size(cli_composition *c) {
    for (int i = 1; i >= 0; i--)
        if (c->pair.sides[i].picture) {
            c->width = c->pair.sides[i].width;
            c->height = c->pair.sides[i].height;
        }
    if (c->width)
        return;
    c->width = (int32_t)c->pair.job.image[1];
    c->height = (int32_t)c->pair.job.image[0];
}

static int read_grey(cli_composition *c) {
    const cli_values *v = c->pair.job.values;
    int32_t width, height;
    int code = cli_grey_read(&c->grey, &width, &height, v->mask, v->max_pixels);
    bool image = c->pair.sides[CLI_A].picture || c->pair.sides[CLI_B].picture;
    if (!code && image && (width != c->width || height != c->height))
        code = cli_fail(CLI_INPUT, "%s: is %d x %d pixels, %s is %d x %d", v->mask, width, height,
                        c->pair.sides[c->pair.sides[CLI_A].picture ? CLI_A : CLI_B].path, c->width,
                        c->height);
    c->width = width;
    c->height = height;
    return code;
}

static int check_rectangle(const cli_composition *c) {
    const double *r = c->rectangle;
    const char *text = c->pair.job.values->region;
    if (r[0] >= r[2] || r[1] >= r[3])
        return cli_fail(CLI_USAGE, "--region %s: is empty; it must be X0 < X1 and Y0 < Y1", text);
    if (r[0] < 0.0 || r[1] < 0.0 || r[2] > c->width || r[3] > c->height)
        return cli_fail(CLI_USAGE, "--region %s: reaches beyond the image of %d x %d pixels", text,
                        c->width, c->height);
    return CLI_DONE;
}

static int make_mask(cli_composition *c) {
    int64_t shape[2] = {c->pair.map[1], c->pair.map[2]}, pixels[2] = {c->height, c->width};
    float sum = 0.0f;
    c->mask = calloc((size_t)(shape[0] * shape[1]), sizeof *c->mask);
    if (!c->mask)
        return cli_fail_memory();
    featinv_tensor mask = featinv_tensor_view(c->mask, FEATINV_DTYPE_F32, 2, shape);
    featinv_tensor grey = featinv_tensor_view(c->grey, FEATINV_DTYPE_F32, 2, pixels);
    featinv_status status = c->rectangle
                                ? featinv_region_mask(&mask, c->pair.job.opened.model, c->width,
                                                      c->height, c->rectangle)
                                : featinv_pixel_mask(&mask, c->pair.job.opened.model, &grey);
    if (status)
        return cli_fail_status(status, c->rectangle ? "--region" : c->pair.job.values->mask);
    for (int64_t i = 0; i < shape[0] * shape[1]; i++)
        sum += c->mask[i];
    return sum > 0.0f ? CLI_DONE
                      : cli_fail(CLI_INPUT, "%s: is black in all that the backbone sees",
                                 c->pair.job.values->mask);
}

static float grey_at(const cli_composition *c, double x, double y) {
    int64_t i = (int64_t)fmin(fmax(y, 0.0), c->height - 1.0);
    int64_t j = (int64_t)fmin(fmax(x, 0.0), c->width - 1.0);
    return c->grey[i * c->width + j];
}

/* The region in pixels of the pictures, by their centres. */
static int mark_inside(cli_composition *c) {
    double seen[4];
    const double *r = c->rectangle;
    int64_t height = c->pair.job.image[0], width = c->pair.job.image[1];
    cli_seen(seen, &c->pair.job.opened.info, c->width, c->height);
    c->inside = calloc((size_t)(height * width) + 1, 1);
    if (!c->inside)
        return cli_fail_memory();
    for (int64_t i = 0; i < height * width; i++) {
        double x = seen[0] + seen[2] * ((double)(i % width) + 0.5) / (double)width;
        double y = seen[1] + seen[3] * ((double)(i / width) + 0.5) / (double)height;
        c->inside[i] =
            r ? x >= r[0] && x < r[2] && y >= r[1] && y < r[3] : grey_at(c, x, y) >= 0.5f;
    }
    return CLI_DONE;
}

static int read_region(cli_composition *c) {
    int code = CLI_DONE;
    choose_size(c);
    if (c->pair.job.values->mask)
        code = read_grey(c);
    if (!code && c->rectangle)
        code = check_rectangle(c);
    if (!code)
        code = make_mask(c);
    return code ? code : mark_inside(c);
}

/* ---------------------------------------------------------------- computing ------------------ */

static int compose(cli_composition *c) {
    int64_t size = c->pair.map[0] * c->pair.map[1] * c->pair.map[2], shape[4],
            cells[2] = {c->pair.map[1], c->pair.map[2]};
    size_t bytes = (size_t)size * sizeof *c->pair.maps;
    c->pair.maps = malloc(CLI_MAPS * bytes);
    if (!c->pair.maps)
        return cli_fail_memory();
    memcpy(c->pair.maps, c->pair.sides[CLI_A].map, bytes);
    memcpy(c->pair.maps + size, c->pair.sides[CLI_B].map, bytes);
    featinv_tensor a = cli_side_view(&c->pair.sides[CLI_A], &c->pair.job.opened, shape);
    featinv_tensor b = cli_side_view(&c->pair.sides[CLI_B], &c->pair.job.opened, shape);
    featinv_tensor mask = featinv_tensor_view(c->mask, FEATINV_DTYPE_F32, 2, cells);
    featinv_tensor out =
        featinv_tensor_view(c->pair.maps + CLI_COMPOSITE * size, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status = featinv_features_compose(&out, &a, &b, &mask);
    return status ? cli_fail_status(status, NULL)
                  : cli_scope(c->norms, c->residuals, c->pair.job.opened.model, c->pair.maps,
                              CLI_MAPS, c->pair.map);
}

/* Cosine at a position of two maps (C, h, w). */
static double cosine_at(const float *a, const float *b, const int64_t map[3], int64_t position) {
    int64_t positions = map[1] * map[2];
    double dot = 0.0, left = 0.0, right = 0.0;
    for (int64_t k = position; k < map[0] * positions; k += positions) {
        dot += (double)a[k] * (double)b[k];
        left += (double)a[k] * (double)a[k];
        right += (double)b[k] * (double)b[k];
    }
    return left > 0.0 && right > 0.0 ? dot / sqrt(left * right) : 0.0;
}

/* Means of the cosine over the cells, weighted by the mask and by its rest; NaN without any. */
static void compare(double *inside, double *outside, const cli_composition *c, const float *seen,
                    const float *map) {
    double in = 0.0, out = 0.0, weight = 0.0, rest = 0.0;
    for (int64_t i = 0; i < c->pair.map[1] * c->pair.map[2]; i++) {
        double cosine = cosine_at(seen, map, c->pair.map, i), m = (double)c->mask[i];
        in += m * cosine;
        out += (1.0 - m) * cosine;
        weight += m;
        rest += 1.0 - m;
    }
    *inside = weight > 0.0 ? in / weight : NAN;
    *outside = rest > 0.0 ? out / rest : NAN;
}

static int measure(cli_composition *c) {
    int64_t size = c->pair.map[0] * c->pair.map[1] * c->pair.map[2],
            samples = c->pair.job.sampling.samples;
    c->fidelities = calloc((size_t)c->pair.drawn.lanes + 1, sizeof *c->fidelities);
    if (!c->fidelities)
        return cli_fail_memory();
    for (int64_t j = 0; j < c->pair.drawn.lanes; j++) {
        cli_fidelity *f = &c->fidelities[j];
        *f = (cli_fidelity){NAN, NAN, NAN, NAN};
        if (!c->pair.drawn.maps)
            continue;
        compare(&f->inside_a, &f->outside_a, c, c->pair.drawn.maps + j * size,
                c->pair.sides[CLI_A].map);
        compare(&f->inside_b, &f->outside_b, c, c->pair.drawn.maps + j * size,
                c->pair.sides[CLI_B].map);
    }
    size_t bytes = (size_t)(samples * cli_image_size(&c->pair.job));
    return cli_influence_measure(&c->influence, c->pair.drawn.images,
                                 c->pair.drawn.images + CLI_COMPOSITE * bytes, samples, c->inside,
                                 c->pair.job.image[0], c->pair.job.image[1]);
}

cli_fidelity cli_fidelity_mean(const cli_composition *c, int map) {
    int64_t samples = c->pair.job.sampling.samples;
    cli_fidelity sum = {0};
    for (int64_t k = 0; k < samples; k++) {
        const cli_fidelity *f = &c->fidelities[map * samples + k];
        sum.inside_a += f->inside_a / (double)samples;
        sum.inside_b += f->inside_b / (double)samples;
        sum.outside_a += f->outside_a / (double)samples;
        sum.outside_b += f->outside_b / (double)samples;
    }
    return sum;
}

/* ---------------------------------------------------------------- files ---------------------- */

void cli_composition_name(char text[48], const cli_composition *c, int64_t lane,
                          const char *suffix) {
    int64_t samples = c->pair.job.sampling.samples;
    const char *name = cli_composition_maps[lane / samples];
    if (samples > 1)
        (void)snprintf(text, 48, "%s-%lld%s.png", name, (long long)(lane % samples), suffix);
    else
        (void)snprintf(text, 48, "%s%s.png", name, suffix);
}

static int write_picture(const cli_composition *c, int64_t lane, const float *region) {
    char name[48];
    const uint8_t *pixels = c->pair.drawn.images + lane * cli_image_size(&c->pair.job);
    cli_composition_name(name, c, lane, "");
    int code = cli_canvas_write(&c->pair.canvas, name, pixels);
    cli_composition_name(name, c, lane, "-outline");
    return code || lane / c->pair.job.sampling.samples != CLI_COMPOSITE
               ? code
               : cli_canvas_overlay(&c->pair.canvas, name, pixels, region, c->pair.job.image[0],
                                    c->pair.job.image[1], 1.0, 0.0, 0.5);
}

static int write_pictures(const cli_composition *c) {
    static const char *const originals[] = {"a-original.png", "b-original.png"};
    int64_t pixels = c->pair.job.image[0] * c->pair.job.image[1];
    float *region = calloc((size_t)pixels + 1, sizeof *region);
    int code = region ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < pixels; i++)
        region[i] = c->inside[i];
    for (int i = 0; !code && i < 2; i++)
        if (c->pair.sides[i].picture)
            code =
                cli_canvas_overlay(&c->pair.canvas, originals[i], c->pair.sides[i].picture, region,
                                   c->pair.job.image[0], c->pair.job.image[1], 1.0, 0.0, 0.5);
    for (int64_t j = 0; !code && j < c->pair.drawn.done; j++)
        code = write_picture(c, j, region);
    free(region);
    return code;
}

static int write_maps(const cli_composition *c) {
    int64_t size = c->pair.map[0] * c->pair.map[1] * c->pair.map[2];
    int64_t shape[4] = {1, c->pair.map[0], c->pair.map[1], c->pair.map[2]},
            cells[2] = {c->pair.map[1], c->pair.map[2]};
    const char *const members[2] = {"features", "mask"};
    featinv_tensor t[2] = {
        featinv_tensor_view(c->pair.maps + CLI_COMPOSITE * size, FEATINV_DTYPE_F32, 4, shape),
        featinv_tensor_view(c->mask, FEATINV_DTYPE_F32, 2, cells)};
    char *path = cli_path(c->pair.job.values->output, "composed.npz");
    if (!path)
        return cli_fail_memory();
    featinv_status status = featinv_array_write(path, t, members, 2, 0);
    free(path);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static void print_figures(const cli_composition *c) {
    cli_fidelity f = cli_fidelity_mean(c, CLI_COMPOSITE), alone = cli_fidelity_mean(c, CLI_A);
    if (!isnan(f.inside_b))
        (void)printf("inside: cosine with B %.3f (A's picture: %.3f)\n", f.inside_b,
                     alone.inside_b);
    if (!isnan(f.outside_a))
        (void)printf("outside: cosine with A %.3f (A's picture: %.3f)\n", f.outside_a,
                     alone.outside_a);
    if (isnan(c->influence.radius))
        (void)printf("influence: does not fall to 10 %% in the picture\n");
    else
        (void)printf("influence: falls to 10 %% at %.1f pixels\n", c->influence.radius);
    (void)printf("%s/index.html\n", c->pair.job.values->output);
}

/* Of an interrupted run the pictures that are there; figures need them all. */
static int write_results(cli_pair *pair, bool whole) {
    cli_composition *c = (cli_composition *)pair;
    const cli_values *v = c->pair.job.values;
    json_t *root = NULL;
    int code = whole ? measure(c) : CLI_DONE;
    if (!code)
        code = write_pictures(c);
    if (!code)
        code = write_maps(c);
    if (!code && whole) {
        root = cli_composition_json(c);
        code = cli_write_json(v->output, "compose.json", root);
    }
    if (!code)
        code = cli_composition_page(c, whole);
    if (!code && whole && v->json)
        code = cli_json_print(json_incref(root));
    else if (!code && whole && !v->quiet)
        print_figures(c);
    json_decref(root);
    return code;
}

static int make_maps(cli_pair *pair) {
    cli_composition *c = (cli_composition *)pair;
    int code = read_region(c);
    pair->count = CLI_MAPS;
    return code ? code : compose(c);
}

static int check_usage(cli_composition *c) {
    const cli_values *v = c->pair.job.values;
    int32_t count = 4;
    int code = cli_pair_check(&c->pair);
    if (code)
        return code;
    if (!v->region == !v->mask)
        return cli_fail(CLI_USAGE, "compose: needs %s--region X0,Y0,X1,Y1 or --mask M.png",
                        v->region ? "one of " : "");
    code = v->region ? cli_numbers(&c->rectangle, &count, "--region", v->region, -DBL_MAX, DBL_MAX)
                     : CLI_DONE;
    if (!code && count != 4)
        code = cli_fail(CLI_USAGE, "--region %s: must be X0,Y0,X1,Y1", v->region);
    return code;
}

static int run(const cli_values *values) {
    static const cli_pair_verb verb = {make_maps, write_results};
    cli_composition c = {.pair.job = {.values = values, .verb = "compose"}};
    int code = check_usage(&c);
    if (!code)
        code = cli_pair_run(&c.pair, &verb);
    free(c.rectangle);
    free(c.grey);
    free(c.mask);
    free(c.inside);
    free(c.fidelities);
    cli_influence_free(&c.influence);
    cli_pair_free(&c.pair);
    return code;
}

static const cli_option own[] = {
    {"region", 0, CLI_TEXT, offsetof(cli_values, region), 0, 0, NULL, "X0,Y0,X1,Y1",
     "rectangle in pixels of the image A (of B where A is a map)"},
    {"mask", 0, CLI_TEXT, offsetof(cli_values, mask), 0, 0, NULL, "M.png",
     "grey picture of that image's size: white takes B, grey mixes"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "DIR",
     "folder for the pictures, compose.json, composed.npz and index.html"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_sampling_options,
                                           cli_run_options,
                                           cli_image_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_compose = {
    .name = "compose",
    .usage = "compose A B --region X0,Y0,X1,Y1 | --mask M.png -o DIR",
    .summary = "one image's features in a region, another's around it",
    .details =
        "A outside, B inside; a cell of the map takes as much of B as the region covers of it.\n"
        "Writes a.png, b.png, composite.png (with several samples a-0.png ...) and\n"
        "composite-outline.png, how well each part is drawn, and how far the paste reaches.",
    .tables = tables,
    .run = run};
