#include "arrays.h"
#include "inputs.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

/* What was read of each input, in the order of the rows. */
typedef struct extraction {
    const cli_values *values;
    cli_opened opened;
    cli_inputs inputs;
    int64_t map_size, classes;
    float *maps, *logits;
    int64_t rows;
    json_t *items; /* by input; null: not this shard's, or not reached */
    cli_progress progress;
    int code; /* of bad inputs */
} extraction;

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void note(extraction *e, int64_t input, const char *error, int64_t row) {
    json_t *item = json_object();
    cli_json_set(item, "input", cli_json_text(e->inputs.items[input].path));
    cli_json_set(item, "row", error ? json_null() : json_integer((json_int_t)row));
    if (error)
        cli_json_set(item, "error", cli_json_text(error));
    (void)json_array_set_new(e->items, (size_t)input, item);
}

/* The batch's images that were read, and whose they are; errors are printed. Returns how many. */
static int64_t take_photos(extraction *e, cli_photos *read, featinv_image *photos, int64_t *whose,
                           int64_t first, int64_t count) {
    const featinv_image *images = cli_photos_wait(read);
    int64_t good = 0;
    for (int64_t i = 0; i < count; i++) {
        int code;
        const char *error = cli_photos_error(read, i, &code);
        if (error) {
            (void)cli_fail(code, "%s", error);
            e->code = e->inputs.count == 1 ? code : CLI_INPUT;
            note(e, first + i, error, 0);
        } else if (images[i].pixels) { /* without pixels: interrupted */
            whose[good] = first + i;
            photos[good++] = images[i];
        }
    }
    return good;
}

static featinv_status extract_rows(extraction *e, const featinv_image *photos, int64_t count) {
    const featinv_model_details *info = &e->opened.info;
    int64_t map[4] = {count, info->channels, info->height, info->width};
    int64_t logit[2] = {count, e->classes};
    featinv_run_options o;
    featinv_status status = featinv_run_options_init(&o, sizeof o);
    if (status)
        return status;
    o.progress = cli_progress_call;
    o.user_data = &e->progress;
    featinv_tensor maps =
        featinv_tensor_view(e->maps + e->rows * e->map_size, FEATINV_DTYPE_F32, 4, map);
    featinv_tensor logits = featinv_tensor_view(e->logits ? e->logits + e->rows * e->classes : NULL,
                                                FEATINV_DTYPE_F32, 2, logit);
    return featinv_extract(&maps, e->logits ? &logits : NULL, e->opened.session, photos, count, &o);
}

static int extract_batch(extraction *e, const featinv_image *photos, const int64_t *whose,
                         int64_t count) {
    const char *bundle = e->opened.info.path;
    featinv_status status = extract_rows(e, photos, count);
    for (int64_t i = 0; !status && i < count; i++)
        note(e, whose[i], NULL, e->rows++);
    if (!status)
        return CLI_DONE;
    if (status == FEATINV_ERROR_CANCELLED)
        return CLI_INTERRUPTED;
    return strncmp(featinv_last_error(), bundle, strlen(bundle)) == 0
               ? cli_fail_bundle(status, NULL)
               : cli_fail_status(status, NULL);
}

static int extract_all(extraction *e) {
    int64_t size = e->opened.batch, count = e->inputs.count;
    int32_t shards = e->values->shards > 1 ? e->values->shards : 1;
    int64_t step = size * shards, first = size * e->values->shard;
    featinv_image *photos = calloc((size_t)size, sizeof *photos);
    int64_t *whose = calloc((size_t)size, sizeof *whose);
    cli_photos *ahead = NULL;
    int code = photos && whose ? CLI_DONE : cli_fail_memory();
    if (!code && first < count)
        ahead = cli_photos_start(&e->inputs, first, smaller(size, count - first),
                                 e->values->max_pixels);
    for (; !code && first < count; first += step) {
        cli_photos *read = ahead;
        int64_t n = smaller(size, count - first), next = first + step;
        ahead = NULL;
        if (!read) {
            code = cli_fail_memory();
            break;
        }
        int64_t good = take_photos(e, read, photos, whose, first, n);
        if (next < count)
            ahead = cli_photos_start(&e->inputs, next, smaller(size, count - next),
                                     e->values->max_pixels);
        e->progress.first = first;
        e->progress.count = n;
        if (good && !cli_interrupted())
            code = extract_batch(e, photos, whose, good);
        if (!code && cli_interrupted())
            code = CLI_INTERRUPTED;
        cli_photos_free(read);
    }
    cli_photos_free(ahead);
    free(photos);
    free(whose);
    return code;
}

static int write_maps(const extraction *e) {
    const featinv_model_details *info = &e->opened.info;
    const char *path = e->values->output;
    const char *const names[] = {"features", "logits"};
    int64_t map[4] = {e->rows, info->channels, info->height, info->width};
    int64_t logit[2] = {e->rows, e->classes};
    featinv_tensor arrays[2] = {featinv_tensor_view(e->maps, FEATINV_DTYPE_F32, 4, map),
                                featinv_tensor_view(e->logits, FEATINV_DTYPE_F32, 2, logit)};
    bool npz = path[strlen(path) - 1] == 'z' || path[strlen(path) - 1] == 'Z';
    featinv_status status =
        featinv_array_write(path, arrays, npz ? names : NULL, npz && e->logits ? 2 : 1, 0);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

static json_t *reached(const json_t *items) {
    json_t *list = json_array(), *item;
    size_t i;
    json_array_foreach(items, i, item) {
        if (!json_is_null(item))
            (void)json_array_append(list, item);
    }
    return list;
}

static int print_done(extraction *e) {
    const featinv_model_details *i = &e->opened.info;
    if (e->values->json) {
        json_t *root = json_object();
        cli_json_set(root, "output", cli_json_text(e->values->output));
        cli_json_set(
            root, "shape",
            json_pack("[I, i, i, i]", (json_int_t)e->rows, i->channels, i->height, i->width));
        cli_json_set(root, "logits", json_boolean(e->logits != NULL));
        cli_json_set(root, "items", reached(e->items));
        return cli_json_print(root);
    }
    if (!e->values->quiet)
        (void)printf("%s: %lld map%s of (%d, %d, %d)\n", e->values->output, (long long)e->rows,
                     e->rows == 1 ? "" : "s", i->channels, i->height, i->width);
    return CLI_DONE;
}

static int run_opened(extraction *e) {
    const featinv_model_details *info = &e->opened.info;
    if (!info->has_backbone)
        return cli_fail(CLI_FAILED, "%s: this bundle has no backbone", info->path);
    int code = cli_inputs_list(&e->inputs, e->values->arguments, e->values->argument_count);
    if (code)
        return code;
    e->map_size = (int64_t)info->channels * info->height * info->width;
    e->classes = info->classes;
    e->items = json_array();
    for (int64_t i = 0; e->items && i < e->inputs.count; i++)
        (void)json_array_append_new(e->items, json_null());
    e->maps = calloc((size_t)e->inputs.count, (size_t)e->map_size * sizeof *e->maps);
    if (e->classes > 0)
        e->logits = calloc((size_t)e->inputs.count, (size_t)e->classes * sizeof *e->logits);
    if (!e->items || !e->maps || (e->classes > 0 && !e->logits))
        return cli_fail_memory();
    cli_watch(e->opened.session);
    cli_progress_start(&e->progress, "extract", "images", e->inputs.count, e->values->quiet);
    code = extract_all(e);
    cli_progress_clear();
    if (code == CLI_INTERRUPTED)
        (void)cli_fail(code, "interrupted after %lld of %lld images", (long long)e->rows,
                       (long long)e->inputs.count);
    /* a file without a map is no file of maps */
    if ((code && code != CLI_INTERRUPTED) || !e->rows)
        return code ? code : e->code;
    int written = write_maps(e);
    if (!written)
        written = print_done(e);
    return written ? written : code ? code : e->code;
}

static int run(const cli_values *values) {
    extraction e = {.values = values};
    if (!values->argument_count)
        return cli_fail(CLI_USAGE,
                        "extract: which images? featinv extract IMAGE|DIR... -o maps.npz");
    if (!values->output)
        return cli_fail(CLI_USAGE, "extract: -o maps.npz is missing");
    int code = cli_check_output_file("-o", values->output, ".npz", ".npy");
    if (!code)
        code = cli_open(&e.opened, values);
    if (!code)
        code = run_opened(&e);
    cli_close(&e.opened);
    cli_inputs_free(&e.inputs);
    json_decref(e.items);
    free(e.maps);
    free(e.logits);
    return code;
}

static const cli_option own[] = {{"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL,
                                  "F.npz",
                                  "file for the maps: .npz with `features` and `logits`, or .npy"},
                                 {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_run_options,
                                           cli_shard_options,
                                           cli_image_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_extract = {
    .name = "extract",
    .usage = "extract IMAGE|DIR... -o maps.npz",
    .summary = "images to feature maps",
    .details =
        "Rows are in the order of the inputs; an input that cannot be read is reported and has no\n"
        "row (--json lists which row is whose).",
    .tables = tables,
    .run = run};
