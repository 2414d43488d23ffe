#include "manifest.h"

#include "error.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads values one after the other; after a failure every further read does nothing. */
typedef struct reader {
    featinv_status status;
} reader;

static void refuse(reader *r, const char *section, const char *key, const char *what) {
    if (!r->status)
        r->status = fi_fail(FEATINV_ERROR_BUNDLE, "manifest.json: `%s%s%s` %s", section,
                            *section ? "." : "", key, what);
}

static json_t *member(reader *r, json_t *object, const char *section, const char *key) {
    if (r->status)
        return NULL;
    json_t *value = json_object_get(object, key);
    if (!value)
        refuse(r, section, key, "is missing");
    return value;
}

static char *string(reader *r, json_t *object, const char *section, const char *key) {
    json_t *value = member(r, object, section, key);
    if (!value)
        return NULL;
    if (!json_is_string(value)) {
        refuse(r, section, key, "must be a string");
        return NULL;
    }
    char *copy = strdup(json_string_value(value));
    if (!copy)
        r->status = fi_fail_memory(json_string_length(value));
    return copy;
}

static int64_t integer(reader *r, json_t *object, const char *section, const char *key, int64_t low,
                       int64_t high) {
    json_t *value = member(r, object, section, key);
    if (!value)
        return 0;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < low || number > high) {
        char what[96];
        (void)snprintf(what, sizeof what, "must be an integer from %lld to %lld", (long long)low,
                       (long long)high);
        refuse(r, section, key, what);
        return 0;
    }
    return number;
}

static double real(reader *r, json_t *object, const char *section, const char *key, double low,
                   double high) {
    json_t *value = member(r, object, section, key);
    if (!value)
        return 0.0;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= low) || !(number <= high)) {
        char what[96];
        (void)snprintf(what, sizeof what, "must be a number from %g to %g", low, high);
        refuse(r, section, key, what);
        return 0.0;
    }
    return number;
}

static void reals(reader *r, double out[3], json_t *object, const char *section, const char *key,
                  double low) {
    json_t *value = member(r, object, section, key);
    if (!value)
        return;
    bool good = json_is_array(value) && json_array_size(value) == 3;
    for (size_t i = 0; good && i < 3; i++) {
        json_t *item = json_array_get(value, i);
        out[i] = json_number_value(item);
        good = json_is_number(item) && isfinite(out[i]) && out[i] >= low;
    }
    if (!good)
        refuse(r, section, key, "must be three numbers in range");
}

static void extents(reader *r, int32_t out[3], json_t *object, const char *section,
                    const char *key) {
    json_t *value = member(r, object, section, key);
    if (!value)
        return;
    bool good = json_is_array(value) && json_array_size(value) == 3;
    for (size_t i = 0; good && i < 3; i++) {
        json_t *item = json_array_get(value, i);
        json_int_t n = json_integer_value(item);
        good = json_is_integer(item) && n >= 1 && n <= 65536;
        out[i] = good ? (int32_t)n : 0;
    }
    if (!good)
        refuse(r, section, key, "must be [channels, height, width], each from 1 to 65536");
}

/* Index of the string in a NULL-ended list. */
static int32_t choice(reader *r, const char *text, const char *section, const char *key,
                      const char *const *list) {
    if (r->status || !text)
        return 0;
    for (int32_t i = 0; list[i]; i++)
        if (strcmp(text, list[i]) == 0)
            return i;
    char what[160];
    (void)snprintf(what, sizeof what, "is \"%.60s\", which this version does not know", text);
    refuse(r, section, key, what);
    return 0;
}

/* An object, or NULL where it is absent or null. */
static json_t *section(reader *r, json_t *root, const char *key) {
    json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return NULL;
    if (!json_is_object(value)) {
        refuse(r, "", key, "must be an object");
        return NULL;
    }
    return value;
}

bool fi_manifest_name_ok(const char *name) {
    if (!*name || *name == '/' || strlen(name) > 255)
        return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == '\\' || *c == 0x7f)
            return false;
    for (const char *part = name; part;) {
        size_t length = strcspn(part, "/");
        if (length == 0 || part[0] == '.')
            return false; /* also "." and "..", and hidden files */
        part = part[length] ? part + length + 1 : NULL;
    }
    return true;
}

static bool is_sha256(const char *text) {
    return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static void read_files(reader *r, fi_bundle *b, json_t *root) {
    json_t *files = member(r, root, "", "files");
    if (!files)
        return;
    if (!json_is_object(files) || json_object_size(files) > 10000) {
        refuse(r, "", "files", "must be an object of at most 10000 files");
        return;
    }
    b->files = calloc(json_object_size(files) + 1, sizeof *b->files);
    if (!b->files) {
        r->status = fi_fail_memory(json_object_size(files) * sizeof *b->files);
        return;
    }
    const char *name;
    json_t *value;
    json_object_foreach(files, name, value) {
        if (!fi_manifest_name_ok(name) || strcmp(name, "manifest.json") == 0) {
            refuse(r, "files", name, "is not a plain relative file name");
            return;
        }
        fi_bundle_file *file = &b->files[b->file_count];
        char *hash = string(r, value, name, "sha256");
        file->bytes = (uint64_t)integer(r, value, name, "bytes", 0, INT64_MAX);
        if (!r->status && !is_sha256(hash))
            refuse(r, name, "sha256", "must be 64 lower-case hex digits");
        if (!r->status && !(file->name = strdup(name)))
            r->status = fi_fail_memory(strlen(name));
        if (!r->status) {
            memcpy(file->sha256, hash, FI_HASH_TEXT);
            b->file_count++;
        }
        free(hash);
        if (r->status)
            return;
    }
}

static void read_backbone(reader *r, fi_bundle *b, json_t *root) {
    json_t *backbone = section(r, root, "backbone");
    if (!backbone)
        return;
    static const char *const heads[] = {"linear", "layernorm-linear", "none", NULL};
    static const char *const filters[] = {"bilinear", "bicubic", NULL};
    b->has_backbone = true;
    b->backbone_name = string(r, backbone, "backbone", "name");
    b->head = string(r, backbone, "backbone", "head");
    (void)choice(r, b->head, "backbone", "head", heads);
    json_t *input = member(r, backbone, "backbone", "input");
    if (!input)
        return;
    const char *where = "backbone.input";
    b->input_height = (int32_t)integer(r, input, where, "height", 1, 16384);
    b->input_width = (int32_t)integer(r, input, where, "width", 1, 16384);
    (void)integer(r, input, where, "channels", 3, 3);
    reals(r, b->mean, input, where, "mean", -1e6);
    reals(r, b->std, input, where, "std", 1e-6);
    b->crop = real(r, input, where, "crop", 0.01, 1.0);
    char *filter = string(r, input, where, "interpolation");
    b->interpolation = choice(r, filter, where, "interpolation", filters);
    free(filter);
}

static void read_features(reader *r, fi_bundle *b, json_t *root) {
    json_t *features = section(r, root, "features");
    if (!features)
        return;
    static const char *const layouts[] = {"nchw", "nhwc", "tokens", NULL};
    b->has_features = true;
    b->layout = string(r, features, "features", "layout");
    (void)choice(r, b->layout, "features", "layout", layouts);
    b->prefix_tokens = (int32_t)integer(r, features, "features", "prefix_tokens", 0, 65536);
    b->map[0] = (int32_t)integer(r, features, "features", "channels", 1, 1 << 20);
    b->map[1] = (int32_t)integer(r, features, "features", "height", 1, 65536);
    b->map[2] = (int32_t)integer(r, features, "features", "width", 1, 65536);
    b->layer = string(r, features, "features", "layer");
    json_t *pooled = member(r, features, "features", "pooled");
    if (pooled && !json_is_boolean(pooled))
        refuse(r, "features", "pooled", "must be true or false");
    b->pooled = json_is_true(pooled);
}

static void read_diffusion(reader *r, fi_bundle *b, json_t *root) {
    json_t *d = section(r, root, "diffusion");
    if (!d)
        return;
    static const char *const predictions[] = {"epsilon", "v", NULL};
    static const char *const schedules[] = {"scaled_linear", "linear", "cosine", NULL};
    const char *where = "diffusion";
    b->has_diffusion = true;
    b->prediction = string(r, d, where, "prediction");
    (void)choice(r, b->prediction, where, "prediction", predictions);
    b->timesteps = (int32_t)integer(r, d, where, "timesteps", 2, FI_MAX_TIMESTEPS);
    char *schedule = string(r, d, where, "beta_schedule");
    b->beta_schedule = (fi_beta_schedule)choice(r, schedule, where, "beta_schedule", schedules);
    free(schedule);
    if (!r->status && b->beta_schedule != FI_BETA_COSINE) {
        b->beta_start = real(r, d, where, "beta_start", 1e-12, 0.999);
        b->beta_end = real(r, d, where, "beta_end", 1e-12, 0.999);
    }
    b->latent_scale = real(r, d, where, "latent_scale", 1e-6, 1e6);
    extents(r, b->latent, d, where, "latent");
    extents(r, b->image, d, where, "image");
    if (!r->status && b->image[0] != 3)
        refuse(r, where, "image", "must have 3 channels");

    json_t *defaults = section(r, root, "defaults");
    if (!defaults) {
        refuse(r, "", "defaults", "is missing");
        return;
    }
    where = "defaults";
    b->steps = (int32_t)integer(r, defaults, where, "steps", 1, b->timesteps - 1);
    b->scale = real(r, defaults, where, "scale", -1000.0, 1000.0);
    b->hint_scale = real(r, defaults, where, "hint_scale", -1000.0, 1000.0);
    b->seed = (uint64_t)integer(r, defaults, where, "seed", 0, INT64_MAX);
    b->context = string(r, defaults, where, "context");
    b->uncontext = string(r, defaults, where, "uncontext");
}

static void read_base(reader *r, fi_bundle *b, json_t *root) {
    json_t *base = section(r, root, "base");
    if (!base)
        return;
    b->base_path = string(r, base, "base", "path");
    b->base_sha256 = string(r, base, "base", "manifest_sha256");
    if (!r->status && !is_sha256(b->base_sha256))
        refuse(r, "base", "manifest_sha256", "must be 64 lower-case hex digits");
}

static void read_identity(reader *r, fi_bundle *b, json_t *root) {
    char *format = string(r, root, "", "format");
    if (!r->status && strcmp(format, "featinv-bundle") != 0)
        refuse(r, "", "format", "is not \"featinv-bundle\"");
    free(format);
    int64_t version = integer(r, root, "", "version", 1, INT32_MAX);
    if (!r->status && version != 1)
        r->status = fi_fail(FEATINV_ERROR_VERSION,
                            "manifest.json: `version` is %lld, this library reads version 1",
                            (long long)version);
    char *backend = string(r, root, "", "backend");
    if (!r->status && strcmp(backend, "torchscript") != 0)
        r->status = fi_fail(
            FEATINV_ERROR_VERSION,
            "manifest.json: `backend` is \"%.60s\", this library has \"torchscript\"", backend);
    free(backend);
    b->name = string(r, root, "", "name");
}

featinv_status fi_manifest_parse(fi_bundle *bundle, const uint8_t *text, size_t size) {
    json_error_t error;
    json_t *root = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return fi_fail(FEATINV_ERROR_BUNDLE, "manifest.json: line %d: %s", error.line, error.text);
    reader r = {FEATINV_OK};
    if (!json_is_object(root))
        refuse(&r, "", "(the whole)", "must be an object");
    read_identity(&r, bundle, root);
    read_files(&r, bundle, root);
    read_base(&r, bundle, root);
    read_backbone(&r, bundle, root);
    read_features(&r, bundle, root);
    read_diffusion(&r, bundle, root);
    if (!bundle->has_features && (bundle->has_backbone || bundle->has_diffusion))
        refuse(&r, "", "features", "is missing");
    json_decref(root);
    return r.status;
}
