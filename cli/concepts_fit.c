#include "json.h"
#include "maps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Radians: 5 degrees. Below it the parts of two concepts grow much larger than what they sum to. */
#define SMALL_ANGLE 0.0873
#define DEGREES (180.0 / 3.14159265358979323846)

typedef struct fit {
    const cli_values *values;
    cli_opened opened; /* model NULL: linear algebra only */
    cli_maps images;
    cli_array file, logits; /* --features */
    float *features;        /* (shape...), of either */
    int64_t shape[4], *kept;
    int32_t ndim, class_index;
    double *weight; /* of the class, (C); NULL: unknown */
    featinv_concepts *concepts;
    featinv_concepts_details info;
    double completeness, *relevance; /* (K + 1) lengths of the weight's parts; NULL: unknown */
    cli_progress progress;
} fit;

/* ---------------------------------------------------------------- input ---------------------- */

static int open_what_is_needed(fit *f) {
    const cli_values *v = f->values;
    bool bundle = !v->features || v->class_name;
    int code = bundle ? cli_open(&f->opened, v) : cli_open_algebra(&f->opened, v);
    if (code || !v->class_name)
        return code;
    f->class_index = cli_find_class(f->opened.model, v->class_name);
    return f->class_index < 0
               ? cli_fail(CLI_USAGE, "--class %s: the bundle has no such class", v->class_name)
               : CLI_DONE;
}

static bool is_npz(const char *path) {
    size_t length = strlen(path);
    return length > 0 && (path[length - 1] == 'z' || path[length - 1] == 'Z');
}

static int read_file(fit *f) {
    const char *path = f->values->features;
    const int64_t any[4] = {-1, -1, -1, -1};
    bool found = false;
    int code = cli_array_read(&f->file, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(&f->file, path, any, f->file.info.ndim == 2 ? 2 : 4,
                               "maps (N, C, H, W) or rows (n, C):");
    if (!code && f->class_index >= 0 && f->file.info.shape[1] != f->opened.info.channels)
        code = cli_fail(CLI_INPUT, "%s: features of %lld channels, --class is of a bundle of %d",
                        path, (long long)f->file.info.shape[1], f->opened.info.channels);
    if (!code && f->class_index >= 0 && is_npz(path))
        code = cli_array_read_optional(&f->logits, &found, path, "logits", FEATINV_DTYPE_F32);
    if (code)
        return code;
    f->features = f->file.data;
    f->ndim = f->file.info.ndim;
    memcpy(f->shape, f->file.info.shape, sizeof f->shape);
    const int64_t wanted[2] = {f->shape[0], f->opened.info.classes};
    return found ? cli_array_check(&f->logits, path, wanted, 2, "by its features and the bundle:")
                 : CLI_DONE;
}

static int read_images(fit *f) {
    const cli_values *v = f->values;
    int code = cli_maps_extract(&f->images, &f->opened, v, v->arguments, v->argument_count);
    f->features = f->images.maps;
    f->ndim = 4;
    f->shape[0] = f->images.count;
    memcpy(f->shape + 1, f->images.map, sizeof f->images.map);
    return code;
}

/* Leaves the rows of the class, where it is known which these are. kept: their old places. */
static int keep_class(fit *f) {
    int64_t classes = f->opened.info.classes, count = f->shape[0], row = 1, n = 0;
    const float *logits = f->values->features ? f->logits.data : f->images.logits;
    f->kept = calloc((size_t)count + 1, sizeof *f->kept);
    if (!f->kept)
        return cli_fail_memory();
    for (int32_t i = 1; i < f->ndim; i++)
        row *= f->shape[i];
    for (int64_t i = 0; i < count; i++) {
        if (f->class_index >= 0 && logits &&
            cli_largest(logits + i * classes, classes) != f->class_index)
            continue;
        if (n < i)
            memcpy(f->features + n * row, f->features + i * row, (size_t)row * sizeof(float));
        f->kept[n++] = i;
    }
    f->shape[0] = n;
    return n ? CLI_DONE
             : cli_fail(CLI_INPUT, "--class %s: none of the %lld %s is classified so",
                        f->values->class_name, (long long)count,
                        f->values->features ? "rows" : "images");
}

static int read_weight(fit *f) {
    if (f->class_index < 0)
        return CLI_DONE;
    f->weight = calloc((size_t)f->opened.info.channels, sizeof *f->weight);
    if (!f->weight)
        return cli_fail_memory();
    featinv_status status = featinv_class_weight(f->weight, f->opened.session, f->class_index);
    if (status != FEATINV_ERROR_UNSUPPORTED)
        return status ? cli_fail_status(status, NULL) : CLI_DONE;
    free(f->weight); /* the class is kept apart by the logits; no figure goes by its weight */
    f->weight = NULL;
    const cli_values *v = f->values;
    return v->orthogonalize || v->count == CLI_COUNT_COMPLETENESS
               ? cli_fail_status(status, v->orthogonalize ? "--orthogonalize" : "--count")
               : CLI_DONE;
}

/* ---------------------------------------------------------------- fit ------------------------ */

static void set_options(featinv_fit_options *o, const fit *f) {
    const cli_values *v = f->values;
    if (v->legacy) {
        o->basis = FEATINV_BASIS_CENTRED;
        o->rule = FEATINV_COUNT_LEGACY;
    }
    if (v->method >= 0)
        o->method = v->method;
    if (v->basis >= 0)
        o->basis = v->basis;
    if (v->count > 0)
        o->count = v->count;
    if (v->count == CLI_COUNT_COMPLETENESS)
        o->rule = FEATINV_COUNT_COMPLETENESS;
    if (v->max_count)
        o->max_count = v->max_count;
    if (!isnan(v->gamma))
        o->gamma = v->gamma;
    if (!isnan(v->tau))
        o->tau = v->tau;
    if (!isnan(v->outlier_quantile))
        o->outlier_quantile = v->outlier_quantile;
    if (v->memory)
        o->memory = v->memory;
    if (v->seed.given)
        o->seed = v->seed.value;
    o->max_rows = v->max_rows;
    o->orthogonalize = v->orthogonalize;
    o->keep_coefficients = v->coefficients_out != NULL;
    o->weight = f->weight;
    o->class_name = v->class_name;
}

static int failed(const fit *f, featinv_status status) {
    if (status == FEATINV_ERROR_CANCELLED)
        return cli_fail(CLI_INTERRUPTED, "interrupted; nothing was written");
    /* what is wrong with the features is their file's fault, with the options nobody's */
    const char *file = status == FEATINV_ERROR_ARGUMENT ? NULL : f->values->features;
    if (status == FEATINV_ERROR_UNSUPPORTED)
        return cli_fail(CLI_INPUT, "%s%s%s", file ? file : "", file ? ": " : "",
                        featinv_last_error());
    return cli_fail_status(status, file);
}

static int find_concepts(fit *f) {
    featinv_fit_options o;
    featinv_status status = featinv_fit_options_init(&o, sizeof o);
    cli_progress_start(&f->progress, "concepts fit", "sets", 1, f->values->quiet);
    f->progress.count = 1;
    if (!status) {
        set_options(&o, f);
        o.progress = cli_progress_call;
        o.user_data = &f->progress;
        featinv_tensor view =
            featinv_tensor_view(f->features, FEATINV_DTYPE_F32, f->ndim, f->shape);
        status = featinv_concepts_fit(&f->concepts, f->opened.session, &view, &o);
    }
    cli_progress_clear();
    f->info = (featinv_concepts_details){.struct_size = sizeof f->info};
    if (!status)
        status = featinv_concepts_info(&f->info, f->concepts);
    return status ? failed(f, status) : CLI_DONE;
}

static int rate(fit *f) {
    double rest;
    f->completeness = NAN;
    if (!f->weight)
        return CLI_DONE;
    f->relevance = calloc((size_t)f->info.count + 1, sizeof *f->relevance);
    if (!f->relevance)
        return cli_fail_memory();
    featinv_status status =
        featinv_concepts_completeness(&f->completeness, &rest, f->concepts, f->weight);
    if (!status)
        status = featinv_concepts_relevance(f->relevance, NULL, NULL, f->opened.session,
                                            f->concepts, NULL, f->class_index);
    if (status == FEATINV_ERROR_UNSUPPORTED) { /* overlapping concepts have no parts */
        free(f->relevance);
        f->relevance = NULL;
        status = FEATINV_OK;
    }
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* ---------------------------------------------------------------- output --------------------- */

/* As scipy.sparse.load_npz reads it: data, indices, indptr, shape, and the format as bytes. */
static int write_coefficients(const fit *f) {
    const int64_t *offsets;
    const int32_t *indices;
    const double *values;
    int64_t rows, scalar = 0;
    char format[3] = {'c', 's', 'r'};
    if (!f->values->coefficients_out)
        return CLI_DONE;
    featinv_status status =
        featinv_concepts_coefficients(&offsets, &indices, &values, &rows, f->concepts);
    if (!status) {
        int64_t count = offsets[rows], pointers = rows + 1, shape[2] = {rows, rows}, two = 2;
        const char *const names[5] = {"data", "indices", "indptr", "shape", "format"};
        featinv_tensor t[5] = {
            featinv_tensor_view((void *)(uintptr_t)values, FEATINV_DTYPE_F64, 1, &count),
            featinv_tensor_view((void *)(uintptr_t)indices, FEATINV_DTYPE_I32, 1, &count),
            featinv_tensor_view((void *)(uintptr_t)offsets, FEATINV_DTYPE_I64, 1, &pointers),
            featinv_tensor_view(shape, FEATINV_DTYPE_I64, 1, &two),
            featinv_tensor_view(format, FEATINV_DTYPE_U8, 0, &scalar)};
        t[4].dtype_lanes = sizeof format;
        status = featinv_array_write(f->values->coefficients_out, t, names, 5, 1);
    }
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

static int64_t rows_of(const fit *f, int32_t concept_index) {
    int64_t count = f->info.label_ndim ? 1 : 0, n = 0;
    for (int32_t i = 0; i < f->info.label_ndim; i++)
        count *= f->info.label_shape[i];
    for (int64_t i = 0; f->info.labels && i < count; i++)
        n += f->info.labels[i] == concept_index;
    return n;
}

static bool overlaps(const fit *f) {
    return f->info.smallest_singular < 1e-6;
}

static void warning_text(char *text, size_t capacity, const fit *f) {
    const featinv_concepts_details *i = &f->info;
    *text = 0;
    if (overlaps(f))
        (void)snprintf(text, capacity,
                       "the concepts overlap (smallest singular value %.1e): no feature has one "
                       "part in each, so decompose and attenuate refuse them",
                       i->smallest_singular);
    else if (i->angle_first >= 0 && i->smallest_angle < SMALL_ANGLE)
        (void)snprintf(text, capacity,
                       "concepts %d and %d come within %.1f degrees of each other: their parts can "
                       "be far larger than the feature that they sum to",
                       i->angle_first, i->angle_second, i->smallest_angle * DEGREES);
}

static void print_table(const fit *f) {
    const featinv_concepts_details *i = &f->info;
    char text[512];
    (void)printf("concept     dimension      rows%s\n", f->relevance ? "  relevance" : "");
    for (int32_t k = 0; k <= i->count; k++) {
        bool rest = k == i->count;
        char name[16] = "complement", rows[24] = "-", relevance[24] = "";
        if (!rest)
            (void)snprintf(name, sizeof name, "%d", k);
        if (!rest && i->labels)
            (void)snprintf(rows, sizeof rows, "%lld", (long long)rows_of(f, k));
        if (f->relevance)
            (void)snprintf(relevance, sizeof relevance, "  %9.3f", f->relevance[k]);
        (void)printf("%-10s  %9d  %8s%s\n", name,
                     cli_concept_dimension(i, rest ? FEATINV_COMPLEMENT : k), rows, relevance);
    }
    (void)printf("%lld rows, %lld of them removed as outliers, in %.2f s\n", (long long)i->rows,
                 (long long)i->rows_removed, i->seconds);
    if (!isnan(f->completeness))
        (void)printf("completeness for %s: %.3f\n", f->values->class_name, f->completeness);
    if (i->angle_first >= 0)
        (void)printf("smallest angle: %.1f degrees, between concepts %d and %d\n",
                     i->smallest_angle * DEGREES, i->angle_first, i->angle_second);
    warning_text(text, sizeof text, f);
    if (*text)
        (void)printf("warning: %s\n", text);
    (void)printf("%s\n", f->values->output);
}

static json_t *concepts_json(const fit *f) {
    json_t *list = json_array();
    for (int32_t k = 0; k <= f->info.count; k++) {
        bool rest = k == f->info.count;
        json_t *item = json_object();
        cli_json_set(item, "concept", rest ? json_string("complement") : json_integer(k));
        cli_json_set(item, "dimension",
                     json_integer(cli_concept_dimension(&f->info, rest ? FEATINV_COMPLEMENT : k)));
        cli_json_set(item, "rows",
                     rest || !f->info.labels ? json_null()
                                             : json_integer((json_int_t)rows_of(f, k)));
        cli_json_set(item, "relevance",
                     f->relevance ? cli_json_number(f->relevance[k]) : json_null());
        (void)json_array_append_new(list, item);
    }
    return list;
}

static int print_json(const fit *f) {
    const featinv_concepts_details *i = &f->info;
    char text[512];
    json_t *root = json_object(), *dimensions = json_array(), *inputs = json_array();
    json_t *eigenvalues = json_array();
    for (int32_t k = 0; k < i->count; k++)
        (void)json_array_append_new(dimensions, json_integer(cli_concept_dimension(i, k)));
    for (int32_t k = 0; k < i->eigenvalue_count; k++)
        (void)json_array_append_new(eigenvalues, cli_json_number(i->eigenvalues[k]));
    for (int64_t k = 0; !f->values->features && k < f->shape[0]; k++)
        (void)json_array_append_new(
            inputs, cli_json_text(f->images.inputs.items[f->images.whose[f->kept[k]]].path));
    warning_text(text, sizeof text, f);
    cli_json_set(root, "output", cli_json_text(f->values->output));
    cli_json_set(root, "count", json_integer(i->count));
    cli_json_set(root, "channels", json_integer(i->channels));
    cli_json_set(root, "dimensions", dimensions);
    cli_json_set(root, "smallest_angle", cli_json_number(i->smallest_angle));
    cli_json_set(root, "smallest_angle_degrees", cli_json_number(i->smallest_angle * DEGREES));
    cli_json_set(root, "smallest_singular", cli_json_number(i->smallest_singular));
    cli_json_set(root, "objective", cli_json_number(i->objective));
    cli_json_set(root, "stationarity_residual", cli_json_number(i->stationarity));
    cli_json_set(root, "seconds", cli_json_number(i->seconds));
    cli_json_set(root, "rows", json_integer((json_int_t)i->rows));
    cli_json_set(root, "rows_removed", json_integer((json_int_t)i->rows_removed));
    cli_json_set(root, "class", cli_json_text(f->values->class_name));
    cli_json_set(root, "completeness", cli_json_number(f->completeness));
    cli_json_set(root, "eigenvalues", eigenvalues);
    cli_json_set(root, "concepts", concepts_json(f));
    cli_json_set(root, "images", inputs);
    cli_json_set(root, "errors", f->images.errors ? json_incref(f->images.errors) : json_array());
    cli_json_set(root, "warning", *text ? json_string(text) : json_null());
    return cli_json_print(root);
}

static int write_and_print(fit *f) {
    featinv_status status = featinv_concepts_save(f->concepts, f->values->output);
    int code = status ? cli_fail_status(status, f->values->output) : write_coefficients(f);
    if (!code && f->values->json)
        code = print_json(f);
    else if (!code && !f->values->quiet)
        print_table(f);
    return code ? code : f->images.code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static int check_usage(const cli_values *v) {
    if (!v->features && !v->argument_count)
        return cli_fail(CLI_USAGE, "concepts fit: of what? IMAGE|DIR... or --features F");
    if (v->features && v->argument_count)
        return cli_fail(CLI_USAGE, "%s: with --features no images are taken", v->arguments[0]);
    if (!v->output)
        return cli_fail(CLI_USAGE, "concepts fit: -o concepts.npz is missing");
    if ((v->method == FEATINV_CONCEPTS_KMEANS || v->method == FEATINV_CONCEPTS_PCA) && v->count < 1)
        return cli_fail(CLI_USAGE, "--method %s: needs --count K",
                        v->method == FEATINV_CONCEPTS_PCA ? "pca" : "kmeans");
    if ((v->orthogonalize || v->count == CLI_COUNT_COMPLETENESS) && !v->class_name)
        return cli_fail(CLI_USAGE, "%s: needs --class NAME, by whose weight it goes",
                        v->orthogonalize ? "--orthogonalize" : "--count completeness");
    int code = cli_check_output_file("-o", v->output, ".npz", NULL);
    return code ? code
                : cli_check_output_file("--coefficients-out", v->coefficients_out, ".npz", NULL);
}

static int run(const cli_values *values) {
    fit f = {.values = values, .class_index = -1};
    int code = check_usage(values);
    if (!code)
        code = open_what_is_needed(&f);
    if (!code) {
        cli_watch(f.opened.session);
        code = values->features ? read_file(&f) : read_images(&f);
    }
    if (!code)
        code = keep_class(&f);
    if (!code)
        code = read_weight(&f);
    if (!code)
        code = find_concepts(&f);
    if (!code)
        code = rate(&f);
    if (!code)
        code = write_and_print(&f);
    featinv_concepts_release(f.concepts);
    cli_close(&f.opened);
    cli_maps_free(&f.images);
    cli_array_free(&f.file);
    cli_array_free(&f.logits);
    free(f.kept);
    free(f.weight);
    free(f.relevance);
    return code;
}

#define AT(field) offsetof(cli_values, field)
static const cli_choice methods[] = {{"mcd", FEATINV_CONCEPTS_MCD},
                                     {"kmeans", FEATINV_CONCEPTS_KMEANS},
                                     {"pca", FEATINV_CONCEPTS_PCA},
                                     {NULL, 0}};
static const cli_choice bases[] = {
    {"origin", FEATINV_BASIS_ORIGIN}, {"centred", FEATINV_BASIS_CENTRED}, {NULL, 0}};
static const cli_choice counts[] = {
    {"auto", CLI_COUNT_AUTO}, {"completeness", CLI_COUNT_COMPLETENESS}, {NULL, 0}};

static const cli_option own[] = {
    {"features", 0, CLI_TEXT, AT(features), 0, 0, NULL, "F",
     "maps (N, C, H, W) or rows (n, C): .npy, or .npz with `features`"},
    {"output", 'o', CLI_TEXT, AT(output), 0, 0, NULL, "C.npz", "file for the concepts"},
    {"method", 0, CLI_CHOICE, AT(method), 0, 0, methods, "KIND",
     "mcd (sparse subspace clustering), kmeans or pca (mcd)"},
    {"count", 0, CLI_INTEGER, AT(count), 1, 1000000, counts, "K",
     "how many, auto (by the spectrum), or completeness (auto)"},
    {"max-count", 0, CLI_INTEGER, AT(max_count), 1, 1000000, NULL, "K",
     "the largest that auto may choose (10)"},
    {"class", 0, CLI_TEXT, AT(class_name), 0, 0, NULL, "NAME",
     "only what is classified so; its weight gives the completeness"},
    {"gamma", 0, CLI_NUMBER, AT(gamma), CLI_ABOVE_ZERO, 1.7976931348623157e308, NULL, "X",
     "sparsity of the self-representation (10)"},
    {"tau", 0, CLI_NUMBER, AT(tau), CLI_ABOVE_ZERO, 1, NULL, "X",
     "1: lasso, below: elastic net (1)"},
    {"outlier-quantile", 0, CLI_NUMBER, AT(outlier_quantile), CLI_ABOVE_ZERO, 1, NULL, "X",
     "rows above it are removed; 1 removes none (0.75)"},
    {"max-rows", 0, CLI_LARGE, AT(max_rows), 0, 1e15, NULL, "N",
     "draw that many rows at random; 0: all (0)"},
    {"basis", 0, CLI_CHOICE, AT(basis), 0, 0, bases, "KIND",
     "principal directions through the origin, or centred (origin)"},
    {"orthogonalize", 0, CLI_FLAG, AT(orthogonalize), 0, 0, NULL, NULL,
     "make the concepts orthogonal, by the class weight"},
    {"memory", 0, CLI_SIZE, AT(memory), 1, 1e18, NULL, "SIZE",
     "what the Gram matrix may take, else it is recomputed (2G)"},
    {"legacy", 0, CLI_FLAG, AT(legacy), 0, 0, NULL, NULL,
     "centred bases and the spectral-gap rule, as published"},
    {"seed", 0, CLI_SEED, AT(seed), 0, 0, NULL, "N", "of subsampling and k-means (0)"},
    {"coefficients-out", 0, CLI_TEXT, AT(coefficients_out), 0, 0, NULL, "F.npz",
     "write the self-representation, for scipy.sparse.load_npz"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {
    own, cli_run_options, cli_image_options, cli_output_options, cli_help_options, NULL};

const cli_verb cli_concepts_fit = {
    .name = "concepts fit",
    .usage = "concepts fit IMAGE|DIR...|--features F -o concepts.npz",
    .summary = "find the concepts in the features of some images (MCD)",
    .details =
        "Every position of every map is a row; rows that explain each other fall into one "
        "concept,\n"
        "a linear subspace of its own dimension. With --features and without --class no bundle is\n"
        "opened and any number of channels is taken.",
    .tables = tables,
    .run = run};
