/* FeatInv-Viz (paper, algorithm 1): what changes in the picture when a concept is turned down. */
#include "viz.h"

#include "json.h"
#include "writer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NULL_DRAWS = 4 }; /* random subspaces for --threshold null */

/* Pictures of one image: of its map, and of the altered ones. */
typedef struct pictures {
    uint8_t *originals, *altered; /* (pairs, H, W, 3); (count, pairs, H, W, 3) */
    float *maps;                  /* (1 + count, C, h, w): what was drawn */
} pictures;

/* ---------------------------------------------------------------- names ---------------------- */

void cli_viz_name(char *text, size_t capacity, const cli_viz_run *run, int64_t image, int32_t place,
                  const char *what, int32_t number) {
    const char *name = run->images.inputs.items[run->images.whose[image]].name;
    char middle[32] = "", tail[16] = "";
    if (place >= 0 && run->indices[place] == FEATINV_COMPLEMENT)
        (void)snprintf(middle, sizeof middle, "-complement");
    else if (place >= 0)
        (void)snprintf(middle, sizeof middle, "-concept-%d", run->indices[place]);
    if (number >= 0)
        (void)snprintf(tail, sizeof tail, "-%d", number);
    (void)snprintf(text, capacity, "%s%s-%s%s.png", name, middle, what, tail);
}

/* ---------------------------------------------------------------- memory --------------------- */

static void *room(bool *good, int64_t a, int64_t b, int64_t c, size_t element) {
    size_t count, bytes;
    void *memory = NULL;
    if (!__builtin_mul_overflow((size_t)a * (size_t)b, (size_t)c, &count) &&
        !__builtin_mul_overflow(count, element, &bytes))
        memory = calloc(bytes + 1, 1);
    *good = *good && memory;
    return memory;
}

static int make_room(cli_viz_run *v) {
    int64_t n = v->images.count, count = v->count, pairs = v->options.pairs;
    int64_t pixels = v->job.image[0] * v->job.image[1];
    int64_t positions = v->images.map[1] * v->images.map[2];
    bool good = true;
    v->maps = room(&good, n, count, pixels, sizeof(float));
    v->masks = room(&good, n, count, pixels, 1);
    v->activation = room(&good, n, count, positions, sizeof(float));
    v->maxima = room(&good, n, count, 1, sizeof(double));
    v->norms = room(&good, n, count + 1, 1, sizeof(double));
    v->residuals = room(&good, n, count + 1, 1, sizeof(double));
    v->scores = room(&good, n, pairs, 1, sizeof(featinv_score));
    v->altered_scores = room(&good, n, count, pairs, sizeof(featinv_score));
    if (v->options.null_draws)
        v->null_maps = room(&good, n, count, pixels, sizeof(float));
    return good ? CLI_DONE : cli_fail_memory();
}

/* ---------------------------------------------------------------- one image ------------------ */

static int failed(const cli_viz_run *v, featinv_status status) {
    const char *bundle = v->job.opened.info.path;
    if (status == FEATINV_ERROR_CANCELLED)
        return CLI_INTERRUPTED;
    if (strncmp(featinv_last_error(), bundle, strlen(bundle)) == 0)
        return cli_fail_bundle(status, NULL);
    return cli_fail_concepts(status, v->job.values->concepts);
}

static featinv_status draw(cli_viz_run *v, const pictures *p, int64_t i) {
    int64_t *map = v->images.map, *size = v->job.image, pixels = size[0] * size[1];
    int64_t pairs = v->options.pairs, count = v->count;
    int64_t one[4] = {1, map[0], map[1], map[2]}, plane[4] = {1, count, size[0], size[1]};
    int64_t first[5] = {1, pairs, size[0], size[1], 3};
    int64_t second[6] = {1, count, pairs, size[0], size[1], 3};
    int64_t changed[5] = {1, count, map[0], map[1], map[2]};
    featinv_tensor contexts[2];
    featinv_sample_options sampling = cli_draw_options(&v->job, contexts);
    featinv_visualize_options o = v->options;
    featinv_tensor maps = featinv_tensor_view(cli_map_at(&v->images, i), FEATINV_DTYPE_F32, 4, one);
    featinv_tensor heat =
        featinv_tensor_view(v->maps + i * count * pixels, FEATINV_DTYPE_F32, 4, plane);
    featinv_tensor mask =
        featinv_tensor_view(v->masks + i * count * pixels, FEATINV_DTYPE_U8, 4, plane);
    featinv_tensor null_map = featinv_tensor_view(
        v->null_maps ? v->null_maps + i * count * pixels : NULL, FEATINV_DTYPE_F32, 4, plane);
    featinv_tensor originals = featinv_tensor_view(p->originals, FEATINV_DTYPE_U8, 5, first);
    featinv_tensor altered = featinv_tensor_view(p->altered, FEATINV_DTYPE_U8, 6, second);
    featinv_tensor altered_maps =
        featinv_tensor_view(p->maps + cli_map_size(&v->images), FEATINV_DTYPE_F32, 5, changed);
    sampling.progress = cli_progress_call;
    sampling.user_data = &v->job.progress;
    o.sampling = &sampling;
    o.originals = &originals;
    o.altered = &altered;
    o.altered_maps = &altered_maps;
    o.null_map = v->null_maps ? &null_map : NULL;
    o.maxima = v->maxima + i * count;
    return featinv_visualize(&heat, &mask, v->job.opened.session, v->concepts, v->indices, v->count,
                             &maps, &o);
}

/* Agreement of every picture with the map that it was drawn from. */
static featinv_status score(cli_viz_run *v, const pictures *p, int64_t i) {
    int64_t *map = v->images.map, *size = v->job.image, pairs = v->options.pairs;
    int64_t first[4] = {pairs, size[0], size[1], 3}, one[4] = {1, map[0], map[1], map[2]};
    int64_t second[4] = {pairs * v->count, size[0], size[1], 3};
    int64_t many[4] = {v->count, map[0], map[1], map[2]};
    featinv_tensor originals = featinv_tensor_view(p->originals, FEATINV_DTYPE_U8, 4, first);
    featinv_tensor altered = featinv_tensor_view(p->altered, FEATINV_DTYPE_U8, 4, second);
    featinv_tensor maps = featinv_tensor_view(p->maps, FEATINV_DTYPE_F32, 4, one);
    featinv_tensor changed =
        featinv_tensor_view(p->maps + cli_map_size(&v->images), FEATINV_DTYPE_F32, 4, many);
    featinv_status status = featinv_score_samples(
        v->scores + i * pairs, NULL, v->job.opened.session, &originals, &maps, NULL, NULL);
    if (!status)
        status = featinv_score_samples(v->altered_scores + i * pairs * v->count, NULL,
                                       v->job.opened.session, &altered, &changed, NULL, NULL);
    return status;
}

/* The ordinary activation map, for comparison. */
static featinv_status activate(cli_viz_run *v, int64_t i) {
    int64_t *map = v->images.map, positions = map[1] * map[2], parts = v->info.count + 1;
    int64_t one[4] = {1, map[0], map[1], map[2]}, shape[4] = {parts, 1, map[1], map[2]};
    float *all = calloc((size_t)(parts * positions), sizeof *all);
    if (!all)
        return FEATINV_ERROR_MEMORY;
    featinv_tensor maps = featinv_tensor_view(cli_map_at(&v->images, i), FEATINV_DTYPE_F32, 4, one);
    featinv_tensor out = featinv_tensor_view(all, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status =
        featinv_concepts_activation(&out, v->concepts, &maps, FEATINV_ACTIVATION_IMAGE);
    for (int32_t k = 0; !status && k < v->count; k++) {
        int64_t from = v->indices[k] == FEATINV_COMPLEMENT ? v->info.count : v->indices[k];
        memcpy(v->activation + (i * v->count + k) * positions, all + from * positions,
               (size_t)positions * sizeof *all);
    }
    free(all);
    return status;
}

/* ---------------------------------------------------------------- files ---------------------- */

static int write_concept(const cli_viz_run *v, const pictures *p, int64_t i, int32_t k) {
    char name[256];
    int64_t pixels = v->job.image[0] * v->job.image[1], at = i * v->count + k;
    int64_t rows = v->images.map[1], columns = v->images.map[2];
    const uint8_t *image = cli_picture_at(&v->images, i);
    const float *activation = v->activation + at * rows * columns;
    double peak = 0.0;
    for (int64_t j = 0; j < rows * columns; j++)
        peak = fmax(peak, (double)activation[j]);
    cli_viz_name(name, sizeof name, v, i, k, "viz", -1);
    int code = cli_canvas_overlay(&v->canvas, name, image, v->maps + at * pixels, v->job.image[0],
                                  v->job.image[1], 1.0, 0.75, NAN);
    cli_viz_name(name, sizeof name, v, i, k, "activation", -1);
    if (!code)
        code =
            cli_canvas_overlay(&v->canvas, name, image, activation, rows, columns, peak, 0.75, NAN);
    cli_viz_name(name, sizeof name, v, i, k, "mask", -1);
    if (!code)
        code = cli_canvas_mask(&v->canvas, name, image, v->masks + at * pixels);
    cli_viz_name(name, sizeof name, v, i, k, "null", -1);
    if (!code && v->null_maps)
        code = cli_canvas_overlay(&v->canvas, name, image, v->null_maps + at * pixels,
                                  v->job.image[0], v->job.image[1], 1.0, 0.75, NAN);
    for (int32_t j = 0; !code && j < v->options.pairs; j++) {
        cli_viz_name(name, sizeof name, v, i, k, "pair", j);
        code = cli_canvas_write(&v->canvas, name,
                                p->altered + (k * v->options.pairs + j) * pixels * 3);
    }
    return code;
}

static int write_image(const cli_viz_run *v, const pictures *p, int64_t i) {
    char name[256];
    int64_t bytes = v->job.image[0] * v->job.image[1] * 3;
    cli_viz_name(name, sizeof name, v, i, -1, "original", -1);
    int code = cli_canvas_write(&v->canvas, name, cli_picture_at(&v->images, i));
    for (int32_t j = 0; !code && j < v->options.pairs; j++) {
        cli_viz_name(name, sizeof name, v, i, -1, "pair", j);
        code = cli_canvas_write(&v->canvas, name, p->originals + j * bytes);
    }
    for (int32_t k = 0; !code && k < v->count; k++)
        code = write_concept(v, p, i, k);
    return code;
}

static int visualize(cli_viz_run *v, const pictures *p, int64_t i) {
    size_t size = (size_t)cli_map_size(&v->images);
    memcpy(p->maps, cli_map_at(&v->images, i), size * sizeof *p->maps);
    featinv_status status = draw(v, p, i);
    if (!status)
        status = score(v, p, i);
    if (!status)
        status = activate(v, i);
    int code = status ? failed(v, status) : CLI_DONE;
    if (!code)
        code = cli_scope(v->norms + i * (v->count + 1), v->residuals + i * (v->count + 1),
                         v->job.opened.model, p->maps, v->count + 1, v->images.map);
    return code ? code : write_image(v, p, i);
}

/* Image by image: what Ctrl-C leaves is whole. */
static int visualize_all(cli_viz_run *v) {
    int64_t pairs = v->options.pairs, bytes = v->job.image[0] * v->job.image[1] * 3;
    bool good = true;
    pictures p = {.originals = room(&good, pairs, bytes, 1, 1),
                  .altered = room(&good, v->count, pairs, bytes, 1),
                  .maps = room(&good, v->count + 1, cli_map_size(&v->images), 1, sizeof(float))};
    int code = good ? CLI_DONE : cli_fail_memory();
    cli_progress_start(&v->job.progress, "viz", "images", v->images.count, v->job.values->quiet);
    v->job.progress.count = 1;
    for (int64_t i = 0; !code && i < v->images.count; i++) {
        v->job.progress.first = i;
        code = cli_interrupted() ? CLI_INTERRUPTED : visualize(v, &p, i);
        v->done += !code;
    }
    cli_progress_clear();
    free(p.originals);
    free(p.altered);
    free(p.maps);
    return code;
}

static int write_arrays(const cli_viz_run *v) {
    int64_t n = v->done, count = v->count;
    int64_t plane[4] = {n, count, v->job.image[0], v->job.image[1]}, pair[2] = {n, count};
    int64_t cells[4] = {n, count, v->images.map[1], v->images.map[2]};
    const char *const names[5] = {"maps", "masks", "activation", "maxima", "null_maps"};
    featinv_tensor t[5] = {featinv_tensor_view(v->maps, FEATINV_DTYPE_F32, 4, plane),
                           featinv_tensor_view(v->masks, FEATINV_DTYPE_U8, 4, plane),
                           featinv_tensor_view(v->activation, FEATINV_DTYPE_F32, 4, cells),
                           featinv_tensor_view(v->maxima, FEATINV_DTYPE_F64, 2, pair),
                           featinv_tensor_view(v->null_maps, FEATINV_DTYPE_F32, 4, plane)};
    char *path = cli_path(v->job.values->output, "viz.npz");
    if (!path)
        return cli_fail_memory();
    featinv_status status = featinv_array_write(path, t, names, v->null_maps ? 5 : 4, 0);
    free(path);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

static int write_results(const cli_viz_run *v) {
    const cli_values *values = v->job.values;
    json_t *root = cli_viz_json(v);
    int code = write_arrays(v);
    if (!code)
        code = cli_write_json(values->output, "viz.json", root);
    if (!code)
        code = cli_viz_page(v);
    if (!code && values->json)
        code = cli_json_print(json_incref(root));
    else if (!code && !values->quiet)
        (void)printf("%s/index.html\n", values->output);
    json_decref(root);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static int choose_concepts(cli_viz_run *v) {
    int32_t chosen = v->job.values->concept_index;
    bool all = chosen == CLI_CONCEPT_MISSING || chosen == CLI_CONCEPT_ALL;
    int code = cli_check_concept(v->job.values, &v->info);
    v->count = all ? v->info.count + 1 : 1;
    v->indices = calloc((size_t)v->count, sizeof *v->indices);
    if (!code && !v->indices)
        code = cli_fail_memory();
    for (int32_t k = 0; !code && k < v->count; k++)
        v->indices[k] = !all ? chosen : k < v->info.count ? k : FEATINV_COMPLEMENT;
    return code;
}

static int set_options(cli_viz_run *v) {
    const cli_values *values = v->job.values;
    featinv_visualize_options *o = &v->options;
    featinv_status status = featinv_visualize_options_init(o, sizeof *o, v->job.opened.model);
    if (status)
        return cli_fail_status(status, NULL);
    if (values->pairs)
        o->pairs = values->pairs;
    if (!isnan(values->factor))
        o->factor = values->factor;
    if (!isnan(values->threshold))
        o->threshold = values->threshold;
    if (values->normalize >= 0)
        o->normalization = values->normalize;
    if (o->threshold < 0.0)
        o->null_draws = NULL_DRAWS;
    return CLI_DONE;
}

static int run_opened(cli_viz_run *v) {
    const cli_values *values = v->job.values;
    size_t made_from;
    int code = cli_draw_begin(&v->job);
    if (!code)
        code = cli_concepts_open(&v->concepts, &v->info, values, v->job.opened.model,
                                 v->job.opened.info.channels);
    if (!code)
        code = choose_concepts(v);
    if (!code)
        code = set_options(v);
    cli_watch(v->job.opened.session);
    if (!code)
        code = cli_maps_extract(&v->images, &v->job.opened, values, values->arguments,
                                values->argument_count);
    if (!code)
        code = make_room(v);
    if (!code)
        code = cli_folder_make(values->output, &made_from);
    if (code)
        return code;
    v->canvas = (cli_canvas){values->output, v->images.width, v->images.height};
    code = visualize_all(v);
    int written = v->done && (!code || code == CLI_INTERRUPTED) ? write_results(v) : CLI_DONE;
    if (code == CLI_INTERRUPTED)
        (void)cli_fail(code, "interrupted after %lld of %lld images", (long long)v->done,
                       (long long)v->images.count);
    if (code || written)
        cli_folder_unmake(values->output, made_from);
    return written ? written : code ? code : v->images.code;
}

static int run(const cli_values *values) {
    cli_viz_run v = {.job = {.values = values, .verb = "viz"}};
    if (!values->argument_count)
        return cli_fail(CLI_USAGE, "viz: which images? featinv viz IMAGE... --concepts C -o DIR");
    if (!values->concepts || !values->output)
        return cli_fail(CLI_USAGE, "viz: %s is missing",
                        values->concepts ? "-o DIR" : "--concepts C");
    int code = cli_folder_check(values);
    if (!code)
        code = cli_open(&v.job.opened, values);
    if (!code)
        code = run_opened(&v);
    void *blocks[] = {v.indices, v.maps,  v.null_maps, v.masks,  v.activation,
                      v.maxima,  v.norms, v.residuals, v.scores, v.altered_scores};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    featinv_concepts_release(v.concepts);
    cli_maps_free(&v.images);
    cli_job_free(&v.job);
    return code;
}

#define AT(field) offsetof(cli_values, field)
static const cli_choice words[] = {
    {"complement", FEATINV_COMPLEMENT}, {"all", CLI_CONCEPT_ALL}, {NULL, 0}};
static const cli_choice null_word[] = {{"null", -1}, {NULL, 0}};
static const cli_choice normalizations[] = {
    {"max", FEATINV_NORMALIZE_MAX}, {"minmax", FEATINV_NORMALIZE_MINMAX}, {NULL, 0}};
static const cli_option own[] = {{"concept", 0, CLI_INTEGER, AT(concept_index), 0, 1000000, words,
                                  "I", "which one, from 0, complement or all (all)"},
                                 {"pairs", 0, CLI_INTEGER, AT(pairs), 1, 1000, NULL, "N",
                                  "pictures of each map, each pair from one noise (5)"},
                                 {"factor", 0, CLI_NUMBER, AT(factor), -DBL_MAX, DBL_MAX, NULL, "X",
                                  "0 removes the concept, above 1 turns it up (0.25)"},
                                 {"threshold", 0, CLI_NUMBER, AT(threshold), 0, 1, null_word, "X",
                                  "below it unaffected; null: what random subspaces reach (0.33)"},
                                 {"normalize", 0, CLI_CHOICE, AT(normalize), 0, 0, normalizations,
                                  "KIND", "over the map's maximum, or minmax (max)"},
                                 {"output", 'o', CLI_TEXT, AT(output), 0, 0, NULL, "DIR",
                                  "folder for the pictures, viz.json, viz.npz and index.html"},
                                 {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {cli_concepts_options, own,
                                           cli_drawing_options,  cli_run_options,
                                           cli_image_options,    cli_output_options,
                                           cli_help_options,     NULL};

const cli_verb cli_viz = {
    .name = "viz",
    .usage = "viz IMAGE|DIR... --concepts C [--concept I|all] -o DIR",
    .summary = "what changes in the picture when a concept is turned down (FeatInv-Viz)",
    .details = "Draws the image's map and the map with less of the concept from the same noises; "
               "where the\n"
               "pictures differ, the concept shows. Writes NAME-concept-0-viz.png (heat map),\n"
               "-activation.png (the ordinary map), -mask.png, and the pairs NAME-pair-0.png and\n"
               "NAME-concept-0-pair-0.png ... of each image, and index.html.",
    .tables = tables,
    .run = run};
