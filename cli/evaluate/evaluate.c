/* The verb `evaluate`: from options to tables. */
#include "evaluate.h"

#include "../arrays.h"
#include "../job.h"
#include "../json.h"
#include "../writer.h"
#include "present.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double usual_scales[] = {0.5, 1.0, 1.75, 3.0, 5.0, 8.0};
static const double usual_weights[] = {0.0, 0.25, 0.5, 0.75, 1.0};
enum { PER_CLASS = 10, PICTURES = 8, BOOTSTRAP = 1000, SEED = 100 };

/* ---------------------------------------------------------------- options -------------------- */

/* Two values that read alike would have files of one name. */
static int check_twice(const char *option, const double *values, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        for (int32_t j = 0; j < i; j++) {
            char a[32], b[32];
            (void)snprintf(a, sizeof a, "%g", values[i]);
            (void)snprintf(b, sizeof b, "%g", values[j]);
            if (strcmp(a, b) == 0)
                return cli_fail(CLI_USAGE, "%s: %s is given twice", option, a);
        }
    return CLI_DONE;
}

static int read_numbers(double **out, int32_t *count, const char *option, const char *text,
                        double high, const double *usual, size_t usual_count) {
    if (text) {
        int code = cli_numbers(out, count, option, text, high > 1.0 ? -high : 0.0, high);
        return code ? code : check_twice(option, *out, *count);
    }
    *out = malloc(usual_count * sizeof **out);
    if (!*out)
        return cli_fail_memory();
    memcpy(*out, usual, usual_count * sizeof **out);
    *count = (int32_t)usual_count;
    return CLI_DONE;
}

static int32_t given_or(int32_t value, int32_t usual) {
    return value < 0 ? usual : value;
}

static int read_options(evaluate *e) {
    const cli_values *v = e->values;
    e->per_class = given_or(v->per_class, PER_CLASS);
    e->pictures = given_or(v->pictures, PICTURES);
    e->bootstrap = given_or(v->bootstrap, BOOTSTRAP);
    e->seed = v->seed.given ? v->seed.value : SEED;
    e->tables = EVALUATE_TABLE_1 | EVALUATE_TABLE_3 | EVALUATE_TABLE_SWEEP | EVALUATE_TABLE_MIX |
                (v->models.count > 1 ? EVALUATE_TABLE_2 : 0) | (v->ood ? EVALUATE_TABLE_OOD : 0);
    if (e->seed > INT64_MAX) /* tables.json holds it as a number */
        return cli_fail(CLI_USAGE, "--seed %llu: must be at most %lld here",
                        (unsigned long long)e->seed, (long long)INT64_MAX);
    int code = v->tables ? evaluate_tables_read(&e->tables, v->tables) : CLI_DONE;
    if (!code && (e->tables & EVALUATE_TABLE_OOD) && !v->ood)
        code = cli_fail(CLI_USAGE, "--tables %s: ood needs --ood DIR", v->tables);
    if (!code && (e->tables & EVALUATE_TABLE_2) && v->models.count < 2)
        code = cli_fail(CLI_USAGE, "--tables %s: 2 needs two models, -m A -m B", v->tables);
    if (!code && !(e->tables & EVALUATE_TABLE_OOD) && v->ood)
        code = cli_fail(CLI_USAGE, "--ood %s: is in none of --tables %s", v->ood, v->tables);
    if (!code)
        code = read_numbers(&e->scales, &e->scale_count, "--scales", v->scales, 1e6, usual_scales,
                            sizeof usual_scales / sizeof *usual_scales);
    if (!code)
        code = read_numbers(&e->weights, &e->weight_count, "--weights", v->weights, 1.0,
                            usual_weights, sizeof usual_weights / sizeof *usual_weights);
    return code;
}

/* Pictures and tables among the images would be images of the next run. */
static int check_apart(const char *output, const char *option, const char *folder) {
    struct stat a, b;
    if (stat(output, &a) == 0 && stat(folder, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return cli_fail(CLI_USAGE, "-o %s: is the folder of %s: take another one, or one in it",
                        output, option);
    return CLI_DONE;
}

static int check_usage(const cli_values *v) {
    if (v->argument_count)
        return cli_fail(CLI_USAGE, "%s: evaluate takes no argument; --data DIR names the images",
                        v->arguments[0]);
    if (!v->data)
        return cli_fail(CLI_USAGE, "evaluate: --data DIR is missing");
    if (!v->output)
        return cli_fail(CLI_USAGE, "evaluate: -o DIR is missing");
    if (v->force && (v->resume || v->shards > 0))
        return cli_fail(CLI_USAGE, "--force: removes the parts that %s goes on from",
                        v->resume ? "--resume" : "--shard");
    int code = check_apart(v->output, "--data", v->data);
    if (!code && v->ood)
        code = check_apart(v->output, "--ood", v->ood);
    return code ? code : cli_folder_check(v);
}

/* ---------------------------------------------------------------- opening -------------------- */

static int check_model_twice(const evaluate *e, int32_t m) {
    const featinv_model_details *info = &e->networks[m].opened.info;
    for (int32_t k = 0; k < m; k++)
        if (strcmp(e->networks[k].opened.info.sha256, info->sha256) == 0)
            return cli_fail(CLI_USAGE, "-m %s: is the same bundle as -m %s",
                            e->values->models.items[m], e->values->models.items[k]);
    return CLI_DONE;
}

/* Without -m the default bundle. */
static int open_networks(evaluate *e) {
    const cli_values *v = e->values;
    const int32_t count = v->models.count ? v->models.count : 1;
    int code = CLI_DONE;
    e->reference = -1;
    for (int32_t m = 0; !code && m < count; m++) {
        e->model_count = e->network_count = m + 1;
        code = evaluate_network_open(&e->networks[m], v, v->models.items[m], true);
        code = code ? code : check_model_twice(e, m);
    }
    if (!code && v->fid_features) {
        e->reference = e->network_count++;
        code = evaluate_network_open(&e->networks[e->reference], v, v->fid_features, false);
    }
    for (int32_t m = 0; !code && m < e->model_count; m++)
        for (int32_t i = 0; i < e->set.class_count && !e->networks[m].reads_classes; i++)
            e->networks[m].reads_classes =
                evaluate_class_context(&e->networks[m], e->set.classes[i]) != NULL;
    if (!code)
        e->batch = e->networks[0].opened.batch;
    return code;
}

/* Everything that tables.json depends on. */
static json_t *settings_json(const evaluate *e) {
    const cli_values *v = e->values;
    const featinv_session *session = e->networks[0].opened.session;
    json_t *s = json_object(), *models = json_array();
    for (int32_t m = 0; m < e->model_count; m++)
        (void)json_array_append_new(models, cli_json_text(e->networks[m].opened.info.sha256));
    cli_json_set(s, "format", json_string("featinv-evaluation-settings"));
    cli_json_set(s, "version", json_string(featinv_version()));
    cli_json_set(s, "models", models);
    cli_json_set(s, "fid_features",
                 e->reference < 0 ? json_null()
                                  : cli_json_text(e->networks[e->reference].opened.info.sha256));
    cli_json_set(s, "data", cli_json_text(v->data));
    cli_json_set(s, "ood", cli_json_text(v->ood));
    cli_json_set(s, "seed", json_integer((json_int_t)e->seed));
    cli_json_set(s, "per_class", json_integer(e->per_class));
    cli_json_set(s, "tables", evaluate_tables_json(e->tables));
    cli_json_set(s, "scales", evaluate_numbers_json(e->scales, e->scale_count));
    cli_json_set(s, "weights", evaluate_numbers_json(e->weights, e->weight_count));
    cli_json_set(s, "ceiling", json_boolean(v->ceiling));
    cli_json_set(s, "steps", json_integer(v->steps));
    cli_json_set(s, "pictures", json_integer(e->pictures));
    cli_json_set(s, "bootstrap", json_integer(e->bootstrap));
    cli_json_set(s, "device", evaluate_device_json(e));
    cli_json_set(s, "dtype", cli_json_text(featinv_session_dtype(session)));
    cli_json_set(s, "deterministic", json_boolean(v->deterministic));
    cli_json_set(s, "batch", json_integer((json_int_t)e->batch));
    cli_json_set(s, "threads", json_integer(v->threads));
    cli_json_set(s, "max_pixels", json_integer((json_int_t)v->max_pixels));
    cli_json_set(s, "images", json_integer((json_int_t)e->set.count));
    cli_json_set(s, "images_hash", cli_json_hash(e->set.hash));
    cli_json_set(s, "ood_hash", cli_json_hash(e->ood.hash));
    return s;
}

/* Settings and their hash, which each part carries. */
static int settle(evaluate *e) {
    e->settings = settings_json(e);
    char *text = json_dumps(e->settings, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t hash;
    if (!text)
        return cli_fail_memory();
    cli_hash_start(&hash);
    cli_hash_add(&hash, text, strlen(text));
    (void)snprintf(e->settings_hash, sizeof e->settings_hash, "%016llx", (unsigned long long)hash);
    free(text);
    return CLI_DONE;
}

static int prepare(evaluate *e) {
    const cli_values *v = e->values;
    int code = evaluate_set_labelled(&e->set, v->data, v->output, e->seed, e->per_class);
    if (!code && v->tables && (e->tables & EVALUATE_TABLE_MIX) && !e->set.pair_count)
        code = cli_fail(CLI_USAGE, "--tables %s: mix needs images of two classes, %s holds %d",
                        v->tables, v->data, e->set.class_count);
    if (!code && v->ood)
        code = evaluate_set_plain(&e->ood, v->ood, v->output, e->seed);
    if (!code)
        code = open_networks(e);
    if (!code)
        code = evaluate_plan(e);
    if (!code && !e->part_count)
        code =
            cli_fail(CLI_USAGE, "--tables %s: there is nothing to do for these models", v->tables);
    if (!code)
        code = settle(e);
    if (!code) {
        e->reported = json_object();
        code = e->reported ? evaluate_store_open(e) : cli_fail_memory();
    }
    return code;
}

/* ---------------------------------------------------------------- running -------------------- */

static bool is_mine(const evaluate *e, int64_t part) {
    return e->values->shards < 2 || part % e->values->shards == e->values->shard;
}

static int64_t images_of(const evaluate *e, int64_t part) {
    const evaluate_task *task = evaluate_task_of(e, part);
    int64_t left = task->count - (part - task->first_part) * e->batch;
    return left < e->batch ? left : e->batch;
}

/* What this run has to do: parts that were there when it began are done. */
static int run_parts(evaluate *e) {
    bool *wanted = calloc((size_t)e->part_count, sizeof *wanted);
    int64_t images = 0;
    int code = wanted ? CLI_DONE : cli_fail_memory();
    for (int64_t part = 0; !code && part < e->part_count; part++) {
        wanted[part] = is_mine(e, part) && !evaluate_part_is_there(e, part);
        images += wanted[part] ? images_of(e, part) : 0;
    }
    cli_progress_start(&e->progress, "evaluate", "pictures", images, e->values->quiet);
    for (int64_t part = 0; !code && part < e->part_count; part++) {
        if (!wanted[part])
            continue;
        if (cli_interrupted())
            code = CLI_INTERRUPTED;
        e->progress.count = images_of(e, part);
        (void)cli_progress_call(&e->progress, 0, 1);
        if (!code)
            code = evaluate_work(e, part);
        e->progress.first += e->progress.count;
    }
    cli_progress_clear();
    free(wanted);
    return code;
}

/* ---------------------------------------------------------------- results -------------------- */

static double value_of(const json_t *row, const char *key) {
    const json_t *value = json_object_get(json_object_get(row, key), "value");
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static json_t *summary_json(const evaluate *e, const json_t *tables, int64_t there,
                            double seconds) {
    static const char *const keys[] = {"cosine_median", "cosine_centred", "match_top1", "frechet"};
    json_t *root = json_object(), *rows = json_array();
    const json_t *row;
    size_t i;
    json_array_foreach(json_object_get(tables, "rows"), i, row) {
        json_t *short_row = json_object();
        int32_t m = (int32_t)json_integer_value(json_object_get(row, "model"));
        cli_json_set(short_row, "model", cli_json_text(e->networks[m].opened.info.name));
        cli_json_set(short_row, "kind", json_incref(json_object_get(row, "kind")));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            cli_json_set(short_row, keys[k], cli_json_number(value_of(row, keys[k])));
        (void)json_array_append_new(rows, short_row);
    }
    cli_json_set(root, "folder", cli_json_text(e->values->output));
    cli_json_set(root, "images", json_integer((json_int_t)e->set.count));
    cli_json_set(root, "parts", json_integer((json_int_t)e->part_count));
    cli_json_set(root, "parts_there", json_integer((json_int_t)there));
    cli_json_set(root, "complete", json_boolean(tables != NULL));
    cli_json_set(root, "seconds", json_real(seconds));
    cli_json_set(root, "rows", rows);
    return root;
}

static void print_number(const char *label, double value, double factor, const char *unit) {
    if (!isnan(value))
        (void)printf("%s %.*f%s", label, factor > 1.0 ? 0 : 3, factor * value, unit);
}

static void print_tables(const evaluate *e, const json_t *tables) {
    const json_t *row;
    size_t i;
    json_array_foreach(json_object_get(tables, "rows"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "kind")), "controlnet") != 0)
            continue;
        int32_t m = (int32_t)json_integer_value(json_object_get(row, "model"));
        (void)printf("%s:", e->networks[m].opened.info.name);
        print_number(" cosine", value_of(row, "cosine_median"), 1.0, "");
        print_number(", centred", value_of(row, "cosine_centred"), 1.0, "");
        print_number(", top-1", value_of(row, "match_top1"), 100.0, " %");
        print_number(", distance", value_of(row, "frechet"), 1.0, "");
        (void)printf("\n");
    }
    (void)printf("%s/index.html\n", e->values->output);
}

/* tables NULL: parts of other shards are missing. */
static int print_results(const evaluate *e, const json_t *tables, int64_t there, double seconds) {
    const cli_values *v = e->values;
    if (v->json)
        return cli_json_print(summary_json(e, tables, there, seconds));
    if (v->quiet)
        return CLI_DONE;
    if (tables)
        print_tables(e, tables);
    else
        (void)printf("shard %d of %d: %lld of %lld parts are there\n", v->shard, v->shards,
                     (long long)there, (long long)e->part_count);
    return CLI_DONE;
}

static int write_tables(json_t **tables, evaluate *e) {
    int code = evaluate_tables(tables, e);
    if (!code)
        code = evaluate_store_check(e);
    if (!code)
        code = cli_write_json(e->values->output, "tables.json", *tables);
    if (!code)
        code = cli_evaluation_write(e->values->output, *tables);
    e->has_problems = e->has_problems || json_array_size(json_object_get(*tables, "problems")) > 0;
    return code;
}

static int run_opened(evaluate *e, double started) {
    json_t *tables = NULL;
    int code = run_parts(e);
    int64_t there = evaluate_parts_there(e);
    if (code == CLI_INTERRUPTED)
        return cli_fail(code, "interrupted after %lld of %lld parts; --resume goes on",
                        (long long)there, (long long)e->part_count);
    if (!code && there == e->part_count)
        code = write_tables(&tables, e);
    else if (!code && e->values->shards < 2)
        code = cli_fail(CLI_FAILED, "%s: only %lld of %lld parts are there; --resume goes on",
                        e->values->output, (long long)there, (long long)e->part_count);
    if (!code)
        code = print_results(e, tables, there, cli_now() - started);
    json_decref(tables);
    return code || !e->has_problems ? code : CLI_INPUT;
}

static void evaluate_free(evaluate *e) {
    for (int32_t k = 0; k < e->network_count; k++)
        evaluate_network_close(&e->networks[k]);
    evaluate_set_free(&e->set);
    evaluate_set_free(&e->ood);
    free(e->scales);
    free(e->weights);
    free(e->tasks);
    json_decref(e->settings);
    json_decref(e->reported);
}

static int run(const cli_values *values) {
    double started = cli_now();
    evaluate *e = calloc(1, sizeof *e);
    if (!e)
        return cli_fail_memory();
    e->values = values;
    int code = check_usage(values);
    if (!code)
        code = read_options(e);
    if (!code)
        code = prepare(e);
    if (!code) {
        cli_watch(NULL); /* Ctrl-C is noted between parts */
        code = run_opened(e, started);
    }
    evaluate_free(e);
    free(e);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

#define AT(field) offsetof(cli_values, field)
static const cli_option own[] = {
    {"data", 0, CLI_TEXT, AT(data), 0, 0, NULL, "DIR",
     "class folders of images, or images with a labels.json"},
    {"model", 'm', CLI_TEXTS, AT(models), 0, 0, NULL, "BUNDLE",
     "what is evaluated; may be given several times (FEATINV_MODEL, else the shipped one)"},
    {"output", 'o', CLI_TEXT, AT(output), 0, 0, NULL, "DIR",
     "folder for tables.json, tables.md, index.html, pictures and parts"},
    {"per-class", 0, CLI_INTEGER, AT(per_class), 1, 1e9, NULL, "N", "images of each class (10)"},
    {"tables", 0, CLI_TEXT, AT(tables), 0, 0, NULL, "LIST",
     "of 1, 2, 3, sweep, mix, ood (all; 2 with several models, ood with --ood)"},
    {"force", 0, CLI_FLAG, AT(force), 0, 0, NULL, NULL,
     "remove the parts that are in the output folder and begin anew"},
    {"ceiling", 0, CLI_FLAG, AT(ceiling), 0, 0, NULL, NULL,
     "also the round trip through the autoencoder"},
    {"fid-features", 0, CLI_TEXT, AT(fid_features), 0, 0, NULL, "BUNDLE",
     "network of the Frechet distance and the reference columns (each model's own)"},
    {"ood", 0, CLI_TEXT, AT(ood), 0, 0, NULL, "DIR", "images of another kind"},
    {"scales", 0, CLI_TEXT, AT(scales), 0, 0, NULL, "LIST",
     "guidance scales of the sweep (0.5,1,1.75,3,5,8)"},
    {"weights", 0, CLI_TEXT, AT(weights), 0, 0, NULL, "LIST",
     "weights of mixed maps (0,0.25,0.5,0.75,1)"},
    {"steps", 0, CLI_INTEGER, AT(steps), 1, 999, NULL, "N",
     "sampling steps (each bundle's, else 50)"},
    {"seed", 0, CLI_SEED, AT(seed), 0, 0, NULL, "N",
     "seed of the choice of images, noise and bootstrap (100)"},
    {"pictures", 0, CLI_INTEGER, AT(pictures), 0, 1e6, NULL, "N", "images shown on the page (8)"},
    {"bootstrap", 0, CLI_INTEGER, AT(bootstrap), 0, 1e6, NULL, "N",
     "resamples for the intervals, 0: none (1000)"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_device_options,
                                           cli_job_options,
                                           cli_image_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_evaluate = {
    .name = "evaluate",
    .usage = "evaluate --data DIR -m BUNDLE [-m BUNDLE]... -o DIR",
    .summary = "tables and curves of the paper for trained bundles",
    .details = "Draws images from their own maps and compares, beside floors (other images), a\n"
               "ceiling (autoencoder) and bootstrap intervals. Work is dealt in batches, each a\n"
               "file in DIR/parts: --resume goes on, and whichever --shard finds all of them\n"
               "there makes the tables. Ctrl-C finishes the running batch.",
    .tables = tables,
    .run = run};
