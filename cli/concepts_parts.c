/* `featinv concepts decompose` and `import`: files to files, no bundle is opened. */
#include "json.h"
#include "maps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- decompose ------------------ */

typedef struct decomposition {
    const cli_values *values;
    cli_array maps;
    featinv_concepts *concepts;
    featinv_concepts_details info;
    float *parts; /* (K + 1, N, C, H, W) */
} decomposition;

static int decompose(decomposition *d) {
    const cli_values *v = d->values;
    const char *const name = "parts";
    int64_t *n = d->maps.info.shape, shape[5] = {d->info.count + 1, n[0], n[1], n[2], n[3]};
    size_t count, bytes;
    if (__builtin_mul_overflow((size_t)cli_array_count(&d->maps), (size_t)shape[0], &count) ||
        __builtin_mul_overflow(count, sizeof *d->parts, &bytes))
        return cli_fail_memory();
    d->parts = malloc(bytes);
    if (!d->parts)
        return cli_fail(CLI_MEMORY, "%s: %d parts of its maps are too large for the memory",
                        v->features, d->info.count + 1);
    featinv_tensor maps = cli_array_view(&d->maps);
    featinv_tensor parts = featinv_tensor_view(d->parts, FEATINV_DTYPE_F32, 5, shape);
    featinv_status status = featinv_concepts_decompose(&parts, d->concepts, &maps);
    if (status)
        return cli_fail_concepts(status, v->concepts);
    if (cli_interrupted())
        return cli_fail(CLI_INTERRUPTED, "interrupted; nothing was written");
    status = featinv_array_write(v->output, &parts, &name, 1, 0);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* Length of each part beside that of the maps, both over all positions. */
static double share(const decomposition *d, int32_t part) {
    size_t count = (size_t)cli_array_count(&d->maps);
    const float *maps = d->maps.data, *values = d->parts + (size_t)part * count;
    double whole = 0.0, squares = 0.0;
    for (size_t i = 0; i < count; i++) {
        whole += (double)maps[i] * (double)maps[i];
        squares += (double)values[i] * (double)values[i];
    }
    return whole > 0.0 ? sqrt(squares / whole) : 0.0;
}

static int print_parts(const decomposition *d) {
    const cli_values *v = d->values;
    const int64_t *n = d->maps.info.shape;
    json_t *shares = v->json ? json_array() : NULL;
    for (int32_t k = 0; !v->quiet && !v->json && k <= d->info.count; k++) {
        char text[32];
        (void)printf("%-12s  length %.3f of the maps'\n",
                     cli_concept_name(text, k < d->info.count ? k : FEATINV_COMPLEMENT),
                     share(d, k));
    }
    if (!v->json) {
        if (!v->quiet)
            (void)printf("%s: parts (%d, %lld, %lld, %lld, %lld), complement last\n", v->output,
                         d->info.count + 1, (long long)n[0], (long long)n[1], (long long)n[2],
                         (long long)n[3]);
        return CLI_DONE;
    }
    for (int32_t k = 0; k <= d->info.count; k++)
        (void)json_array_append_new(shares, cli_json_number(share(d, k)));
    json_t *root = json_object();
    cli_json_set(root, "output", cli_json_text(v->output));
    cli_json_set(root, "shape",
                 json_pack("[i, I, I, I, I]", d->info.count + 1, (json_int_t)n[0], (json_int_t)n[1],
                           (json_int_t)n[2], (json_int_t)n[3]));
    cli_json_set(root, "relative_length", shares);
    return cli_json_print(root);
}

static int run_decompose(const cli_values *values) {
    decomposition d = {.values = values};
    if (values->argument_count)
        return cli_fail(CLI_USAGE, "%s: decompose takes no argument; --features F names the maps",
                        values->arguments[0]);
    if (!values->features || !values->concepts || !values->output)
        return cli_fail(CLI_USAGE, "concepts decompose: %s is missing",
                        !values->features   ? "--features F"
                        : !values->concepts ? "--concepts C"
                                            : "-o parts.npz");
    int code = cli_check_output_file("-o", values->output, ".npz", NULL);
    cli_watch(NULL);
    if (!code)
        code = cli_maps_read(&d.maps, values->features);
    if (!code)
        code = cli_concepts_open(&d.concepts, &d.info, values, NULL, d.maps.info.shape[1]);
    if (!code)
        code = decompose(&d);
    if (!code)
        code = print_parts(&d);
    free(d.parts);
    featinv_concepts_release(d.concepts);
    cli_array_free(&d.maps);
    return code;
}

static const cli_option decompose_own[] = {
    {"features", 0, CLI_TEXT, offsetof(cli_values, features), 0, 0, NULL, "F",
     "maps (N, C, H, W): .npy, or .npz with `features`"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "F.npz",
     "file for `parts` (K + 1, N, C, H, W)"},
    {"model", 'm', CLI_TEXT, offsetof(cli_values, model), 0, 0, NULL, "BUNDLE",
     "where --concepts names a set: the bundle that holds it"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const decompose_tables[] = {decompose_own, cli_concepts_options,
                                                     cli_output_options, cli_help_options, NULL};

const cli_verb cli_concepts_decompose = {
    .name = "concepts decompose",
    .usage = "concepts decompose --features F --concepts C -o parts.npz",
    .summary = "feature maps into one part for each concept, and the rest",
    .details =
        "The parts sum to the maps; the last one lies in the complement, which no concept spans.",
    .tables = decompose_tables,
    .run = run_decompose};

/* ---------------------------------------------------------------- import --------------------- */

static int read_offsets(int32_t **out, int32_t *count, const char *text, int64_t total) {
    double *values = NULL;
    int32_t n;
    int code = cli_numbers(&values, &n, "--offsets", text, 0, INT32_MAX);
    if (code)
        return code;
    *out = calloc((size_t)n, sizeof **out);
    *count = n - 1;
    if (!*out)
        code = cli_fail_memory();
    else if (n < 2)
        code = cli_fail(CLI_USAGE, "--offsets %s: needs 0 and where each concept ends", text);
    for (int32_t i = 0; !code && i < n; i++) {
        (*out)[i] = (int32_t)values[i];
        bool rises = i == 0 ? values[i] < 1.0 : values[i] > values[i - 1];
        if (!rises || floor(values[i]) < values[i])
            code =
                cli_fail(CLI_USAGE, "--offsets %s: must be whole numbers that rise from 0", text);
    }
    if (!code && (*out)[n - 1] != total)
        code = cli_fail(CLI_USAGE, "--offsets %s: must end at %lld, the bases' columns", text,
                        (long long)total);
    free(values);
    return code;
}

static int print_import(const cli_values *v, const featinv_concepts *concepts) {
    featinv_concepts_details info = {.struct_size = sizeof info};
    featinv_status status = featinv_concepts_info(&info, concepts);
    if (status)
        return cli_fail_status(status, NULL);
    if (v->json) {
        json_t *root = json_object(), *dimensions = json_array();
        for (int32_t k = 0; k < info.count; k++)
            (void)json_array_append_new(dimensions, json_integer(cli_concept_dimension(&info, k)));
        cli_json_set(root, "output", cli_json_text(v->output));
        cli_json_set(root, "count", json_integer(info.count));
        cli_json_set(root, "channels", json_integer(info.channels));
        cli_json_set(root, "dimensions", dimensions);
        cli_json_set(root, "smallest_angle", cli_json_number(info.smallest_angle));
        cli_json_set(root, "smallest_singular", cli_json_number(info.smallest_singular));
        return cli_json_print(root);
    }
    if (v->quiet)
        return CLI_DONE;
    (void)printf("%s: %d concept%s of %d channels, %d dimensions in all\n", v->output, info.count,
                 info.count == 1 ? "" : "s", info.channels, info.total);
    if (info.smallest_singular < 1e-6)
        (void)printf("warning: the concepts overlap (smallest singular value %.1e): decompose and "
                     "attenuate refuse them\n",
                     info.smallest_singular);
    return CLI_DONE;
}

static int import_bases(const cli_values *v) {
    const int64_t any[2] = {-1, -1};
    cli_array bases = {0};
    int32_t *offsets = NULL, count = 0;
    featinv_concepts *concepts = NULL;
    int code = cli_array_read(&bases, v->bases, NULL, FEATINV_DTYPE_F64);
    if (!code)
        code = cli_array_check(&bases, v->bases, any, 2, "(C, dimensions in all):");
    if (!code && bases.info.shape[1] > bases.info.shape[0])
        code = cli_fail(CLI_INPUT, "%s: %lld dimensions in all are more than its %lld channels",
                        v->bases, (long long)bases.info.shape[1], (long long)bases.info.shape[0]);
    if (!code)
        code = read_offsets(&offsets, &count, v->offsets, bases.info.shape[1]);
    if (!code) {
        featinv_tensor view = cli_array_view(&bases);
        featinv_status status =
            featinv_concepts_create(&concepts, &view, offsets, count, v->orthonormalize);
        /* the offsets are good: what is left to refuse are the values */
        if (status == FEATINV_ERROR_ARGUMENT)
            code = cli_fail(CLI_INPUT, "%s: %s", v->bases, featinv_last_error());
        else if (!status)
            status = featinv_concepts_save(concepts, v->output);
        if (status && !code)
            code = cli_fail_status(status, concepts ? v->output : v->bases);
    }
    if (!code)
        code = print_import(v, concepts);
    featinv_concepts_release(concepts);
    free(offsets);
    cli_array_free(&bases);
    return code;
}

static int run_import(const cli_values *values) {
    if (values->argument_count)
        return cli_fail(CLI_USAGE, "%s: import takes no argument; --bases F names the bases",
                        values->arguments[0]);
    if (!values->bases || !values->offsets || !values->output)
        return cli_fail(CLI_USAGE, "concepts import: %s is missing",
                        !values->bases     ? "--bases F.npy"
                        : !values->offsets ? "--offsets 0,..."
                                           : "-o concepts.npz");
    int code = cli_check_output_file("-o", values->output, ".npz", NULL);
    return code ? code : import_bases(values);
}

static const cli_option import_own[] = {
    {"bases", 0, CLI_TEXT, offsetof(cli_values, bases), 0, 0, NULL, "F.npy",
     "bases side by side (C, dimensions in all), one direction a column"},
    {"offsets", 0, CLI_TEXT, offsetof(cli_values, offsets), 0, 0, NULL, "0,3,7",
     "where each concept's columns begin, and the end"},
    {"orthonormalize", 0, CLI_FLAG, offsetof(cli_values, orthonormalize), 0, 0, NULL, NULL,
     "make each basis orthonormal (same subspace) instead of refusing it"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "C.npz",
     "file for the concepts"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const import_tables[] = {import_own, cli_output_options, cli_help_options,
                                                  NULL};

const cli_verb cli_concepts_import = {
    .name = "concepts import",
    .usage = "concepts import --bases F.npy --offsets 0,3,7 -o concepts.npz",
    .summary = "subspaces that another method has found (CRAFT, NMF, SAE, CAV)",
    .details =
        "Concept i spans the columns offsets[i] to offsets[i + 1] - 1; single directions are\n"
        "concepts of one dimension: --offsets 0,1,2,3.",
    .tables = import_tables,
    .run = run_import};
