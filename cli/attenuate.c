#include "canvas.h"
#include "draw.h"
#include "json.h"
#include "maps.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PAPER_FACTOR 0.25 /* paper, section 4.3 */

typedef struct attenuation {
    const cli_values *values;
    cli_array maps, mask; /* mask.data NULL: everywhere */
    featinv_concepts *concepts;
    featinv_concepts_details info;
    featinv_model *model; /* with -m: what is usual */
    double factor;
    double change; /* length of what was taken away beside that of the maps */
    double *norms, *residuals;
} attenuation;

static bool is_array_file(const char *path) {
    size_t length = strlen(path);
    return length > 4 && (strcasecmp(path + length - 4, ".npy") == 0 ||
                          strcasecmp(path + length - 4, ".npz") == 0);
}

/* A picture of any size: a cell's share is the mean over its area. */
static int read_picture(attenuation *a) {
    const char *path = a->values->mask;
    int64_t rows = a->maps.info.shape[2], columns = a->maps.info.shape[3];
    float *grey;
    int32_t width, height;
    int code = cli_grey_read(&grey, &width, &height, path, CLI_MAX_PIXELS);
    if (code)
        return code;
    a->mask = (cli_array){.info = {.struct_size = sizeof a->mask.info, .ndim = 2},
                          .dtype = FEATINV_DTYPE_F32,
                          .data = calloc((size_t)(rows * columns) + 1, sizeof(float))};
    a->mask.info.shape[0] = rows;
    a->mask.info.shape[1] = columns;
    if (a->mask.data)
        cli_area_mean(a->mask.data, rows, columns, grey, height, width);
    free(grey);
    return a->mask.data ? CLI_DONE : cli_fail_memory();
}

static int read_mask(attenuation *a) {
    const char *path = a->values->mask;
    const int64_t *n = a->maps.info.shape, wanted[3] = {n[0], n[2], n[3]};
    if (!path)
        return CLI_DONE;
    if (!is_array_file(path))
        return read_picture(a);
    int code = cli_array_read(&a->mask, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = a->mask.info.ndim == 3
                   ? cli_array_check(&a->mask, path, wanted, 3, "as the maps, (N, H, W):")
                   : cli_array_check(&a->mask, path, wanted + 1, 2, "as the maps, (H, W):");
    const float *values = a->mask.data;
    for (int64_t i = 0; !code && i < cli_array_count(&a->mask); i++)
        if (!(values[i] >= 0.0f && values[i] <= 1.0f))
            code =
                cli_fail(CLI_INPUT, "%s: holds %g, a mask lies in 0 to 1", path, (double)values[i]);
    return code;
}

static double length_of_difference(const float *a, const float *b, size_t count) {
    double squares = 0.0, whole = 0.0;
    for (size_t i = 0; i < count; i++) {
        squares += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        whole += (double)a[i] * (double)a[i];
    }
    return whole > 0.0 ? sqrt(squares / whole) : 0.0;
}

static int attenuate(attenuation *a) {
    const cli_values *v = a->values;
    size_t count = (size_t)cli_array_count(&a->maps);
    float *out = malloc(count * sizeof *out);
    if (!out)
        return cli_fail(CLI_MEMORY, "%s: too large for the memory", v->features);
    const char *const name = "features";
    featinv_tensor maps = cli_array_view(&a->maps), mask = cli_array_view(&a->mask);
    featinv_tensor result = featinv_tensor_view(out, FEATINV_DTYPE_F32, 4, a->maps.info.shape);
    featinv_status status = featinv_concepts_attenuate(
        &result, a->concepts, &maps, v->concept_index, a->factor, a->mask.data ? &mask : NULL);
    int code = status ? cli_fail_concepts(status, v->concepts) : CLI_DONE;
    if (!code && cli_interrupted())
        code = cli_fail(CLI_INTERRUPTED, "interrupted; nothing was written");
    if (!code) {
        bool npz =
            v->output[strlen(v->output) - 1] == 'z' || v->output[strlen(v->output) - 1] == 'Z';
        a->change = length_of_difference(a->maps.data, out, count);
        status = featinv_array_write(v->output, &result, npz ? &name : NULL, 1, 0);
        code = status ? cli_fail_status(status, NULL) : CLI_DONE;
    }
    if (!code && a->model)
        code = cli_scope(a->norms, a->residuals, a->model, out, a->maps.info.shape[0],
                         a->maps.info.shape + 1);
    free(out);
    return code;
}

/* Where a bundle is named, the maps are compared with those that it was trained on. */
static int open_bundle(attenuation *a) {
    featinv_model_details info = {.struct_size = sizeof info};
    const int64_t *n = a->maps.info.shape;
    if (!a->values->model)
        return CLI_DONE;
    featinv_status status = featinv_model_open(&a->model, a->values->model, NULL);
    if (!status)
        status = featinv_model_info(&info, a->model);
    if (status)
        return cli_fail_bundle(status, a->values->model);
    if (n[1] != info.channels)
        return cli_fail(CLI_INPUT, "%s: maps of %lld channels, those of the bundle have %d",
                        a->values->features, (long long)n[1], info.channels);
    a->norms = calloc((size_t)n[0] + 1, sizeof *a->norms);
    a->residuals = calloc((size_t)n[0] + 1, sizeof *a->residuals);
    return a->norms && a->residuals ? CLI_DONE : cli_fail_memory();
}

static json_t *list(const double *values, int64_t count) {
    json_t *all = json_array();
    for (int64_t i = 0; values && i < count; i++)
        (void)json_array_append_new(all, cli_json_number(values[i]));
    return all;
}

static int print_done(const attenuation *a) {
    const cli_values *v = a->values;
    const int64_t *n = a->maps.info.shape;
    char name[32];
    if (v->json) {
        json_t *root = json_object();
        cli_json_set(root, "output", cli_json_text(v->output));
        cli_json_set(root, "shape",
                     json_pack("[I, I, I, I]", (json_int_t)n[0], (json_int_t)n[1], (json_int_t)n[2],
                               (json_int_t)n[3]));
        cli_json_set(root, "concept",
                     v->concept_index < 0 ? json_string("complement")
                                          : json_integer(v->concept_index));
        cli_json_set(root, "factor", cli_json_number(a->factor));
        cli_json_set(root, "change", cli_json_number(a->change));
        cli_json_set(root, "norm_percentile", a->norms ? list(a->norms, n[0]) : json_null());
        cli_json_set(root, "residual_percentile",
                     a->norms ? list(a->residuals, n[0]) : json_null());
        return cli_json_print(root);
    }
    if (v->quiet)
        return CLI_DONE;
    (void)printf("%s: %lld map%s, %s times %g; the change is %.3f of the maps' length\n", v->output,
                 (long long)n[0], n[0] == 1 ? "" : "s", cli_concept_name(name, v->concept_index),
                 a->factor, a->change);
    for (int64_t i = 0; a->norms && i < n[0]; i++) {
        char scope[96];
        cli_scope_line(scope, sizeof scope, a->norms[i], a->residuals[i]);
        if (*scope)
            (void)printf("map %lld among the training maps: %s\n", (long long)i, scope);
    }
    return CLI_DONE;
}

static int check_usage(const cli_values *v) {
    if (v->argument_count)
        return cli_fail(CLI_USAGE, "%s: attenuate takes no argument; --features F names the maps",
                        v->arguments[0]);
    bool no_concept = v->concept_index == CLI_CONCEPT_MISSING;
    if (!v->features || !v->concepts || !v->output || no_concept)
        return cli_fail(CLI_USAGE, "attenuate: %s is missing",
                        !v->features   ? "--features F"
                        : !v->concepts ? "--concepts C"
                        : no_concept   ? "--concept I"
                                       : "-o G.npy");
    return cli_check_output_file("-o", v->output, ".npy", ".npz");
}

static int run(const cli_values *values) {
    attenuation a = {.values = values,
                     .factor = isnan(values->factor) ? PAPER_FACTOR : values->factor};
    int code = check_usage(values);
    cli_watch(NULL);
    if (!code)
        code = cli_maps_read(&a.maps, values->features);
    if (!code)
        code = cli_concepts_open(&a.concepts, &a.info, values, NULL, a.maps.info.shape[1]);
    if (!code)
        code = cli_check_concept(values, &a.info);
    if (!code)
        code = read_mask(&a);
    if (!code)
        code = open_bundle(&a);
    if (!code)
        code = attenuate(&a);
    if (!code)
        code = print_done(&a);
    featinv_concepts_release(a.concepts);
    featinv_model_release(a.model);
    cli_array_free(&a.maps);
    cli_array_free(&a.mask);
    free(a.norms);
    free(a.residuals);
    return code;
}

static const cli_choice words[] = {{"complement", FEATINV_COMPLEMENT}, {NULL, 0}};
static const cli_option own[] = {
    {"features", 0, CLI_TEXT, offsetof(cli_values, features), 0, 0, NULL, "F",
     "maps (N, C, H, W): .npy, or .npz with `features`"},
    {"concept", 0, CLI_INTEGER, offsetof(cli_values, concept_index), 0, 1000000, words, "I",
     "which one, from 0, or complement"},
    {"factor", 0, CLI_NUMBER, offsetof(cli_values, factor), -DBL_MAX, DBL_MAX, NULL, "X",
     "0 removes, 1 leaves as it is, above 1 turns up (0.25)"},
    {"mask", 0, CLI_TEXT, offsetof(cli_values, mask), 0, 0, NULL, "M",
     "only there: (H, W) or (N, H, W) in 0 to 1, or a grey picture"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "G.npy",
     "file for the maps: .npy, or .npz with `features`"},
    {"model", 'm', CLI_TEXT, offsetof(cli_values, model), 0, 0, NULL, "BUNDLE",
     "say how usual the maps are beside this bundle's training maps"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own, cli_concepts_options, cli_output_options,
                                           cli_help_options, NULL};

const cli_verb cli_attenuate = {
    .name = "attenuate",
    .usage = "attenuate --features F --concepts C --concept I --factor 0.25 -o G.npy",
    .summary = "turn a concept down or up in feature maps",
    .details =
        "map - (1 - factor) * (the map's part in the concept), at every position or by a mask.\n"
        "`featinv sample --features G.npy` draws the result. Without -m no bundle is opened,\n"
        "unless --concepts names a set of the default one.",
    .tables = tables,
    .run = run};
