/* What concepts are: where each is active in given images, how it counts for the class, its best
 * examples, and how the concepts lie to each other. */
#include "concepts_show.h"

#include "job.h"
#include "json.h"
#include "writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- figures -------------------- */

int32_t cli_show_index(const cli_show *s, int64_t part) {
    return part < s->info.count ? (int32_t)part : FEATINV_COMPLEMENT;
}

static float *activation_at(const cli_show *s, int64_t part, int64_t image) {
    int64_t positions = s->images.map[1] * s->images.map[2];
    return s->activation + (part * s->images.count + image) * positions;
}

static int measure_similarity(cli_show *s) {
    size_t n = (size_t)(s->parts * s->parts);
    double *angles = calloc((size_t)s->info.channels + 1, sizeof *angles);
    s->distance = calloc(n, sizeof *s->distance);
    s->angle = calloc(n, sizeof *s->angle);
    int code = angles && s->distance && s->angle ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < s->parts; i++)
        for (int64_t j = 0; !code && j < s->parts; j++) {
            int32_t count = 0, a = cli_show_index(s, i), b = cli_show_index(s, j);
            size_t at = (size_t)(i * s->parts + j);
            s->distance[at] = s->angle[at] = NAN;
            if (!cli_concept_dimension(&s->info, a) || !cli_concept_dimension(&s->info, b))
                continue; /* a complement of no dimension has no angles */
            featinv_status status = featinv_concepts_similarity(
                &s->distance[at], angles, s->info.channels, &count, s->concepts, a, s->concepts, b);
            code = status ? cli_fail_status(status, s->values->concepts) : CLI_DONE;
            s->angle[at] = count > 0 ? angles[count - 1] : NAN;
        }
    free(angles);
    return code;
}

static int activate(cli_show *s) {
    int64_t n = s->images.count, *map = s->images.map;
    int64_t maps_shape[4] = {n, map[0], map[1], map[2]}, shape[4] = {s->parts, n, map[1], map[2]};
    s->activation = calloc((size_t)(s->parts * n), (size_t)(map[1] * map[2]) * sizeof(float));
    if (!s->activation)
        return cli_fail_memory();
    featinv_tensor maps = featinv_tensor_view(s->images.maps, FEATINV_DTYPE_F32, 4, maps_shape);
    featinv_tensor out = featinv_tensor_view(s->activation, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status =
        featinv_concepts_activation(&out, s->concepts, &maps, FEATINV_ACTIVATION_IMAGE);
    return status ? cli_fail_concepts(status, s->values->concepts) : CLI_DONE;
}

/* Insertion keeps equal images in their given order. */
static void rank(int64_t *order, const float *high, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        int64_t at = i;
        for (; at > 0 && high[order[at - 1]] < high[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static int summarize(cli_show *s) {
    int64_t n = s->images.count, positions = s->images.map[1] * s->images.map[2];
    size_t all = (size_t)(s->parts * n);
    s->peak = calloc((size_t)s->parts, sizeof *s->peak);
    s->high = calloc(all, sizeof *s->high);
    s->mean = calloc(all, sizeof *s->mean);
    s->order = calloc(all, sizeof *s->order);
    if (!s->peak || !s->high || !s->mean || !s->order)
        return cli_fail_memory();
    for (int64_t k = 0; k < s->parts; k++) {
        for (int64_t i = 0; i < n; i++) {
            const float *values = activation_at(s, k, i);
            double sum = 0.0;
            float high = 0.0f;
            for (int64_t p = 0; p < positions; p++) {
                sum += (double)values[p];
                high = fmaxf(high, values[p]);
            }
            s->high[k * n + i] = high;
            s->mean[k * n + i] = (float)(sum / (double)positions);
            s->peak[k] = fmax(s->peak[k], (double)high);
        }
        rank(s->order + k * n, s->high + k * n, n);
    }
    return CLI_DONE;
}

/* The class of the concepts, where their file names one of the bundle's; else what most images
 * are. */
static void choose_class(cli_show *s) {
    int64_t best = 0;
    s->class_index = -1;
    if (s->info.class_name)
        s->class_index = cli_find_class(s->opened.model, s->info.class_name);
    for (int64_t i = 0; s->class_index < 0 && i < s->images.count; i++) {
        int64_t same = 0;
        for (int64_t j = 0; j < s->images.count; j++)
            same += cli_class_of(&s->images, j) == cli_class_of(&s->images, i);
        best = same > best ? same : best;
    }
    for (int64_t i = 0; s->class_index < 0 && best && i < s->images.count; i++) {
        int64_t same = 0;
        for (int64_t j = 0; j < s->images.count; j++)
            same += cli_class_of(&s->images, j) == cli_class_of(&s->images, i);
        if (same == best)
            s->class_index = cli_class_of(&s->images, i);
    }
}

/* Relevance of each image for the class that it is taken for. */
static featinv_status local_relevance(cli_show *s) {
    int64_t n = s->images.count, *map = s->images.map, positions = map[1] * map[2];
    int64_t one[4] = {1, map[0], map[1], map[2]}, row[2] = {1, s->parts};
    int64_t shape[4] = {s->parts, 1, map[1], map[2]};
    float *part = calloc((size_t)(s->parts * positions), sizeof *part);
    featinv_status status = part ? FEATINV_OK : FEATINV_ERROR_MEMORY;
    for (int64_t i = 0; !status && i < n; i++) {
        featinv_tensor maps =
            featinv_tensor_view(cli_map_at(&s->images, i), FEATINV_DTYPE_F32, 4, one);
        featinv_tensor local =
            featinv_tensor_view(s->relevance + i * s->parts, FEATINV_DTYPE_F32, 2, row);
        featinv_tensor local_map = featinv_tensor_view(part, FEATINV_DTYPE_F32, 4, shape);
        status = featinv_concepts_relevance(NULL, &local, &local_map, s->opened.session,
                                            s->concepts, &maps, cli_class_of(&s->images, i));
        for (int64_t k = 0; !status && k < s->parts; k++)
            memcpy(s->relevance_map + (k * n + i) * positions, part + k * positions,
                   (size_t)positions * sizeof *part);
    }
    free(part);
    return status;
}

/* A head that is no function of the map (UNSUPPORTED) has no relevance: the page goes without. */
static int relate(cli_show *s) {
    size_t n = (size_t)s->images.count, k = (size_t)s->parts;
    size_t positions = (size_t)(s->images.map[1] * s->images.map[2]);
    choose_class(s);
    if (s->class_index < 0)
        return CLI_DONE;
    s->global = calloc(k, sizeof *s->global);
    s->relevance = calloc(n * k + 1, sizeof *s->relevance);
    s->relevance_map = calloc(n * k + 1, positions * sizeof *s->relevance_map);
    if (!s->global || !s->relevance || !s->relevance_map)
        return cli_fail_memory();
    featinv_status status = featinv_concepts_relevance(s->global, NULL, NULL, s->opened.session,
                                                       s->concepts, NULL, s->class_index);
    if (!status && s->images.logits)
        status = local_relevance(s);
    if (status != FEATINV_ERROR_UNSUPPORTED)
        return status ? cli_fail_status(status, NULL) : CLI_DONE;
    free(s->global);
    free(s->relevance);
    free(s->relevance_map);
    s->global = NULL;
    s->relevance = s->relevance_map = NULL;
    return CLI_DONE;
}

/* ---------------------------------------------------------------- files ---------------------- */

static const char *part_name(char text[32], const cli_show *s, int64_t part) {
    if (part == s->info.count)
        return "complement";
    (void)snprintf(text, 32, "concept-%lld", (long long)part);
    return text;
}

const char *cli_show_name(const cli_show *s, int64_t image) {
    return s->images.inputs.items[s->images.whose[image]].name;
}

const char *cli_show_path(const cli_show *s, int64_t image) {
    return s->images.inputs.items[s->images.whose[image]].path;
}

void cli_show_picture(char *text, size_t capacity, const cli_show *s, int64_t image, int64_t part) {
    char name[32];
    (void)snprintf(text, capacity, "%s-%s.png", cli_show_name(s, image), part_name(name, s, part));
}

/* Every image under every concept: heat and contour on one scale for each concept. */
static int write_pictures(const cli_show *s) {
    char name[256];
    int code = CLI_DONE;
    for (int64_t i = 0; !code && i < s->images.count; i++) {
        (void)snprintf(name, sizeof name, "%s-original.png", cli_show_name(s, i));
        code = cli_canvas_write(&s->canvas, name, cli_picture_at(&s->images, i));
        for (int64_t k = 0; !code && k < s->parts; k++) {
            cli_show_picture(name, sizeof name, s, i, k);
            code = cli_canvas_overlay(&s->canvas, name, cli_picture_at(&s->images, i),
                                      activation_at(s, k, i), s->images.map[1], s->images.map[2],
                                      s->peak[k], 0.55, 0.5);
            if (!code && cli_interrupted())
                code = cli_fail(CLI_INTERRUPTED, "interrupted after %lld of %lld images",
                                (long long)i, (long long)s->images.count);
        }
    }
    return code;
}

static int write_arrays(const cli_show *s) {
    int64_t n = s->images.count, *map = (int64_t *)(uintptr_t)s->images.map;
    int64_t square[2] = {s->parts, s->parts}, shape[4] = {s->parts, n, map[1], map[2]};
    int64_t rows[2] = {n, s->parts}, parts[1] = {s->parts};
    const char *names[6];
    featinv_tensor t[6];
    int32_t count = 0;
#define ADD(name, data, dtype, ndim, extent)                                                       \
    (names[count] = (name),                                                                        \
     t[count++] = featinv_tensor_view((void *)(data), FEATINV_DTYPE_##dtype, ndim, extent))
    ADD("grassmann", s->distance, F64, 2, square);
    ADD("smallest_angle", s->angle, F64, 2, square);
    if (s->activation)
        ADD("activation", s->activation, F32, 4, shape);
    if (s->global)
        ADD("global_relevance", s->global, F64, 1, parts);
    if (s->relevance && n) {
        ADD("local_relevance", s->relevance, F32, 2, rows);
        ADD("local_relevance_map", s->relevance_map, F32, 4, shape);
    }
#undef ADD
    char *path = cli_path(s->values->output, "numbers.npz");
    featinv_status status =
        path ? featinv_array_write(path, t, names, count, 0) : FEATINV_ERROR_MEMORY;
    int code = !path ? cli_fail_memory() : status ? cli_fail_status(status, NULL) : CLI_DONE;
    free(path);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static int look_at_images(cli_show *s) {
    const cli_values *v = s->values;
    int code = cli_maps_extract(&s->images, &s->opened, v, v->arguments, v->argument_count);
    if (!code)
        code = activate(s);
    if (!code)
        code = summarize(s);
    s->canvas = (cli_canvas){v->output, s->images.width, s->images.height};
    return code;
}

static int write_all(cli_show *s) {
    size_t made_from;
    int code = cli_folder_make(s->values->output, &made_from);
    if (code)
        return code;
    code = write_pictures(s);
    if (!code)
        code = write_arrays(s);
    json_t *root = code ? NULL : cli_show_json(s);
    if (!code)
        code = cli_write_json(s->values->output, "numbers.json", root);
    if (!code)
        code = cli_show_page(s);
    if (!code && s->values->json)
        code = cli_json_print(json_incref(root));
    else if (!code && !s->values->quiet)
        (void)printf("%s/index.html\n", s->values->output);
    json_decref(root);
    if (code)
        cli_folder_unmake(s->values->output, made_from);
    return code ? code : s->images.code;
}

static void free_all(cli_show *s) {
    void *blocks[] = {s->activation, s->relevance, s->relevance_map, s->global, s->distance,
                      s->angle,      s->peak,      s->high,          s->mean,   s->order};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    featinv_concepts_release(s->concepts);
    cli_maps_free(&s->images);
    cli_close(&s->opened);
}

static int run(const cli_values *values) {
    cli_show s = {.values = values, .class_index = -1};
    bool bundle = values->argument_count || values->model;
    if (!values->concepts || !values->output)
        return cli_fail(CLI_USAGE, "concepts show: %s is missing",
                        values->concepts ? "-o DIR" : "--concepts C");
    int code = cli_folder_check(values);
    if (!code && bundle)
        code = cli_open(&s.opened, values);
    if (!code)
        code = cli_concepts_open(&s.concepts, &s.info, values, s.opened.model,
                                 bundle ? s.opened.info.channels : -1);
    s.parts = (int64_t)s.info.count + 1;
    cli_watch(s.opened.session);
    if (!code)
        code = measure_similarity(&s);
    if (!code && values->argument_count)
        code = look_at_images(&s);
    if (!code && bundle && s.opened.info.has_backbone)
        code = relate(&s);
    if (!code)
        code = write_all(&s);
    free_all(&s);
    return code;
}

static const cli_option own[] = {
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "DIR",
     "folder for the pictures, numbers.json, numbers.npz and index.html"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {
    cli_concepts_options, own, cli_run_options, cli_image_options, cli_output_options,
    cli_help_options,     NULL};

const cli_verb cli_concepts_show = {
    .name = "concepts show",
    .usage = "concepts show --concepts C [IMAGE|DIR...] -o DIR",
    .summary = "what concepts are: where they are active, what for, their best examples",
    .details =
        "Writes NAME-original.png, NAME-concept-0.png ..., NAME-complement.png for each image, "
        "the\n"
        "figures, and index.html. Without images no bundle is opened and only the concepts'\n"
        "dimensions and angles are shown; with -m their relevance for the class, too.",
    .tables = tables,
    .run = run};
