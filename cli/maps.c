#include "maps.h"

#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what the backbone sees ----- */

/* Where the crop begins on a side of `size` pixels that is resized to `whole`, and its extent
 * there: the middle, half a pixel rounded to even as the backbone's own crop does. */
static void middle(double *begin, double *extent, int64_t whole, int32_t count, int32_t size) {
    int64_t difference = whole - count, first = difference / 2;
    if (difference % 2 != 0 && first % 2 != 0)
        first++;
    *begin = (double)first * size / (double)whole;
    *extent = (double)count * size / (double)whole;
}

void cli_seen(double seen[4], const featinv_model_details *info, int32_t width, int32_t height) {
    int64_t h = (int64_t)floor(info->input_height / info->crop), high = h;
    int64_t w = (int64_t)floor(info->input_width / info->crop), wide = w;
    if (width * h <= height * w)
        high = w * height / width; /* truncated, as the backbone's resize does */
    else
        wide = h * width / height;
    middle(&seen[0], &seen[2], wide, info->input_width, width);
    middle(&seen[1], &seen[3], high, info->input_height, height);
}

/* The same in whole pixels of one side. */
typedef struct part {
    int64_t begin, count;
} part;

static part whole_pixels(double begin, double length, int64_t size) {
    int64_t first = (int64_t)floor(begin + 0.5), end = (int64_t)floor(begin + length + 0.5);
    first = first < 0 ? 0 : first > size - 1 ? size - 1 : first;
    end = end > size ? size : end;
    return (part){first, end > first ? end - first : 1};
}

/* The crop of an image at the size of the pictures. For looking at: the crop is taken at whole
 * pixels of the image, so that no image, however long, is enlarged beyond it. */
static featinv_status crop(uint8_t *out, int32_t width, int32_t height,
                           const featinv_model_details *info, const featinv_image *image) {
    double seen[4];
    cli_seen(seen, info, image->width, image->height);
    part x = whole_pixels(seen[0], seen[2], image->width);
    part y = whole_pixels(seen[1], seen[3], image->height);
    int64_t row = image->row_bytes ? image->row_bytes : 3 * (int64_t)image->width;
    featinv_image cut = {image->pixels + y.begin * row + 3 * x.begin, (int32_t)x.count,
                         (int32_t)y.count, row};
    return featinv_image_resize(out, width, height, &cut, info->interpolation);
}

/* ---------------------------------------------------------------- extraction ----------------- */

typedef struct extraction {
    cli_maps *out;
    const cli_opened *opened;
    const cli_values *values;
    cli_progress progress;
    featinv_image *photos; /* of a batch */
} extraction;

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int note_error(cli_maps *out, int64_t input, int code, const char *error) {
    json_t *item = json_object();
    (void)cli_fail(code, "%s", error);
    out->code = out->inputs.count == 1 ? code : CLI_INPUT;
    cli_json_set(item, "input", cli_json_text(out->inputs.items[input].path));
    cli_json_set(item, "error", cli_json_text(error));
    return json_array_append_new(out->errors, item) ? cli_fail_memory() : CLI_DONE;
}

/* The images of a batch that were read, with their pictures. */
static int take_photos(extraction *e, cli_photos *read, int64_t first, int64_t count,
                       int64_t *good) {
    cli_maps *out = e->out;
    const featinv_image *images = cli_photos_wait(read);
    int code = CLI_DONE;
    *good = 0;
    for (int64_t i = 0; !code && i < count; i++) {
        int error_code;
        const char *error = cli_photos_error(read, i, &error_code);
        int64_t row = out->count + *good;
        if (error) {
            code = note_error(out, first + i, error_code, error);
        } else if (images[i].pixels) { /* without pixels: interrupted */
            featinv_status status = crop(cli_picture_at(out, row), out->width, out->height,
                                         &e->opened->info, &images[i]);
            code = status ? cli_fail_status(status, out->inputs.items[first + i].path) : CLI_DONE;
            out->whose[row] = first + i;
            out->sizes[row][0] = images[i].width;
            out->sizes[row][1] = images[i].height;
            e->photos[(*good)++] = images[i];
        }
    }
    return code;
}

static int extract_batch(extraction *e, int64_t count) {
    cli_maps *out = e->out;
    const char *bundle = e->opened->info.path;
    int64_t shape[4] = {count, out->map[0], out->map[1], out->map[2]};
    int64_t logit[2] = {count, out->classes};
    featinv_run_options o;
    featinv_status status = featinv_run_options_init(&o, sizeof o);
    o.progress = cli_progress_call;
    o.user_data = &e->progress;
    featinv_tensor maps =
        featinv_tensor_view(cli_map_at(out, out->count), FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor logits = featinv_tensor_view(
        out->logits ? out->logits + out->count * out->classes : NULL, FEATINV_DTYPE_F32, 2, logit);
    if (!status)
        status = featinv_extract(&maps, out->logits ? &logits : NULL, e->opened->session, e->photos,
                                 count, &o);
    if (!status)
        out->count += count;
    if (!status || status == FEATINV_ERROR_CANCELLED)
        return status ? CLI_INTERRUPTED : CLI_DONE;
    return strncmp(featinv_last_error(), bundle, strlen(bundle)) == 0
               ? cli_fail_bundle(status, NULL)
               : cli_fail_status(status, NULL);
}

/* Batch by batch, the next one being read while the backbone runs. */
static int extract_all(extraction *e) {
    cli_maps *out = e->out;
    int64_t size = e->opened->batch, count = out->inputs.count, good = 0;
    int64_t limit = e->values->max_pixels;
    int code = CLI_DONE;
    cli_photos *ahead = cli_photos_start(&out->inputs, 0, smaller(size, count), limit);
    for (int64_t first = 0; !code && first < count; first += size) {
        cli_photos *read = ahead;
        int64_t n = smaller(size, count - first), next = first + n;
        ahead = NULL;
        code = read ? take_photos(e, read, first, n, &good) : cli_fail_memory();
        if (!code && next < count)
            ahead = cli_photos_start(&out->inputs, next, smaller(size, count - next), limit);
        e->progress.first = first;
        e->progress.count = n;
        if (!code && good && !cli_interrupted())
            code = extract_batch(e, good);
        if (!code && cli_interrupted())
            code = CLI_INTERRUPTED;
        cli_photos_free(read);
    }
    cli_photos_free(ahead);
    cli_progress_clear();
    return code == CLI_INTERRUPTED ? cli_fail(code, "interrupted after %lld of %lld images",
                                              (long long)out->count, (long long)count)
                                   : code;
}

static int make_room(extraction *e) {
    cli_maps *out = e->out;
    const featinv_model_details *info = &e->opened->info;
    size_t n = (size_t)out->inputs.count;
    bool drawn = info->has_generator;
    out->map[0] = info->channels;
    out->map[1] = info->height;
    out->map[2] = info->width;
    out->classes = info->classes;
    out->height = drawn ? info->image[1] : info->input_height;
    out->width = drawn ? info->image[2] : info->input_width;
    out->maps = calloc(n + 1, (size_t)cli_map_size(out) * sizeof *out->maps);
    out->pictures = calloc(n + 1, (size_t)out->height * (size_t)out->width * 3);
    out->whose = calloc(n + 1, sizeof *out->whose);
    out->sizes = calloc(n + 1, sizeof *out->sizes);
    out->errors = json_array();
    e->photos = calloc((size_t)e->opened->batch, sizeof *e->photos);
    if (out->classes > 0)
        out->logits = calloc(n + 1, (size_t)out->classes * sizeof *out->logits);
    bool good = out->maps && out->pictures && out->whose && out->sizes && out->errors &&
                e->photos && (out->logits || out->classes <= 0);
    return good ? CLI_DONE : cli_fail_memory();
}

int cli_maps_extract(cli_maps *out, const cli_opened *opened, const cli_values *values,
                     const char *const *arguments, int count) {
    extraction e = {.out = out, .opened = opened, .values = values};
    *out = (cli_maps){0};
    if (!opened->info.has_backbone)
        return cli_fail(CLI_FAILED, "%s: this bundle has no backbone", opened->info.path);
    int code = cli_inputs_list(&out->inputs, arguments, count);
    if (!code)
        code = make_room(&e);
    if (!code) {
        cli_progress_start(&e.progress, "extract", "images", out->inputs.count, values->quiet);
        code = extract_all(&e);
    }
    free(e.photos);
    return !code && !out->count ? out->code : code;
}

void cli_maps_free(cli_maps *maps) {
    void *blocks[] = {maps->maps, maps->logits, maps->pictures, maps->whose, maps->sizes};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    cli_inputs_free(&maps->inputs);
    json_decref(maps->errors);
    *maps = (cli_maps){0};
}

/* ---------------------------------------------------------------- access --------------------- */

int64_t cli_map_size(const cli_maps *maps) {
    return maps->map[0] * maps->map[1] * maps->map[2];
}

float *cli_map_at(const cli_maps *maps, int64_t i) {
    return maps->maps + i * cli_map_size(maps);
}

uint8_t *cli_picture_at(const cli_maps *maps, int64_t i) {
    return maps->pictures + i * maps->height * maps->width * 3;
}

int64_t cli_largest(const float *logits, int64_t classes) {
    int64_t best = 0;
    for (int64_t k = 1; k < classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}

int32_t cli_class_of(const cli_maps *maps, int64_t i) {
    return maps->logits ? (int32_t)cli_largest(maps->logits + i * maps->classes, maps->classes)
                        : -1;
}

int32_t cli_find_class(const featinv_model *model, const char *name) {
    const char *known;
    for (int32_t i = 0; (known = featinv_model_class_name(model, i)); i++)
        if (strcmp(known, name) == 0)
            return i;
    return -1;
}

int cli_maps_read(cli_array *out, const char *path) {
    const int64_t any[4] = {-1, -1, -1, -1};
    int code = cli_array_read(out, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(out, path, any, 4, "maps (N, C, H, W):");
    return code ? code : cli_array_check_finite(out, path, "map");
}

/* ---------------------------------------------------------------- concepts ------------------- */

int cli_fail_concepts(featinv_status status, const char *path) {
    if (status == FEATINV_ERROR_UNSUPPORTED)
        return cli_fail(CLI_INPUT, "%s: %s", path, featinv_last_error());
    return cli_fail_status(status, NULL);
}

int cli_check_concept(const cli_values *values, const featinv_concepts_details *info) {
    if (values->concept_index < info->count)
        return CLI_DONE;
    return cli_fail(CLI_USAGE, "--concept %d: %s holds concepts 0 to %d, and the complement",
                    values->concept_index, values->concepts, info->count - 1);
}

const char *cli_concept_name(char text[32], int32_t concept_index) {
    if (concept_index == FEATINV_COMPLEMENT)
        return "complement";
    (void)snprintf(text, 32, "concept %d", concept_index);
    return text;
}

int32_t cli_concept_dimension(const featinv_concepts_details *info, int32_t concept_index) {
    return concept_index == FEATINV_COMPLEMENT
               ? info->channels - info->total
               : info->offsets[concept_index + 1] - info->offsets[concept_index];
}

int cli_scope(double *norms, double *residuals, const featinv_model *model, float *maps,
              int64_t count, const int64_t map[3]) {
    int64_t shape[4] = {count, map[0], map[1], map[2]};
    featinv_tensor view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status = featinv_features_scope(norms, residuals, model, &view);
    for (int64_t i = 0; status == FEATINV_ERROR_UNSUPPORTED && i < count; i++)
        norms[i] = residuals[i] = NAN;
    return status && status != FEATINV_ERROR_UNSUPPORTED ? cli_fail_status(status, NULL) : CLI_DONE;
}
