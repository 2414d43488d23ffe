#include "model.h"

#include "array.h"
#include "error.h"
#include "file.h"
#include "options.h"
#include "tensor.h"
#include "weights.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const fi_bundle *fi_model_owner(const featinv_model *model, const char *file) {
    if (fi_bundle_find(model->bundle, file))
        return model->bundle;
    bool shared = strcmp(file, "unet.ts") == 0 || strcmp(file, "encoder.ts") == 0 ||
                  strcmp(file, "decoder.ts") == 0 || strcmp(file, "contexts.npz") == 0;
    return shared && model->base && fi_bundle_find(model->base, file) ? model->base : NULL;
}

static bool has(const featinv_model *model, const char *file) {
    return fi_model_owner(model, file) != NULL;
}

static featinv_status open_base(featinv_model *model) {
    fi_bundle *bundle = model->bundle;
    if (!bundle->base_path)
        return FEATINV_OK;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s%s%s", *bundle->base_path == '/' ? "" : bundle->path,
                   *bundle->base_path == '/' ? "" : "/", bundle->base_path);
    featinv_status status = fi_bundle_open(&model->base, path);
    if (status)
        return fi_fail_prefix(status == FEATINV_ERROR_NOT_FOUND ? FEATINV_ERROR_BUNDLE : status,
                              "%s: its base", bundle->path);
    if (strcmp(model->base->sha256, bundle->base_sha256) != 0)
        return fi_fail(FEATINV_ERROR_HASH,
                       "%s: its base %s has manifest SHA-256 %s, the manifest says %s",
                       bundle->path, model->base->path, model->base->sha256, bundle->base_sha256);
    return FEATINV_OK;
}

/* What the manifest promises and what the files hold must agree. */
static featinv_status check_parts(featinv_model *model) {
    const fi_bundle *bundle = model->bundle;
    static const char *const generator[] = {"hint.ts", "control.ts", "unet.ts", "decoder.ts"};
    int found = 0;
    for (size_t i = 0; i < 4; i++)
        found += has(model, generator[i]);
    model->has_generator = found == 4 && bundle->has_diffusion;
    model->has_encoder = has(model, "encoder.ts") && bundle->has_diffusion;
    model->has_head = has(model, "head.ts");
    if (has(model, "hint.ts") && found < 4)
        return fi_fail(
            FEATINV_ERROR_BUNDLE,
            "%s: a generator needs hint.ts, control.ts, unet.ts and decoder.ts, %d of them "
            "are there",
            bundle->path, found);
    if (found && !bundle->has_diffusion)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: manifest.json: `diffusion` is missing",
                       bundle->path);
    if (bundle->has_backbone != has(model, "backbone.ts"))
        return fi_fail(FEATINV_ERROR_BUNDLE,
                       "%s: `backbone` in the manifest and backbone.ts: one "
                       "is there without the other",
                       bundle->path);
    if (model->has_head && !bundle->has_backbone)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: head.ts without a backbone", bundle->path);
    if (bundle->has_backbone && model->has_head == (strcmp(bundle->head, "none") == 0))
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: `backbone.head` is \"%s\", head.ts is %s",
                       bundle->path, bundle->head, model->has_head ? "there" : "missing");
    if (!bundle->has_backbone && !model->has_generator)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: neither a backbone nor a generator",
                       bundle->path);
    return FEATINV_OK;
}

static featinv_status read_classes(featinv_model *model) {
    if (!fi_bundle_find(model->bundle, "classes.json"))
        return FEATINV_OK;
    uint8_t *bytes = NULL;
    size_t size = 0;
    featinv_status status = fi_bundle_read(&bytes, &size, model->bundle, "classes.json");
    if (status)
        return status;
    json_error_t error;
    json_t *list = json_loadb((const char *)bytes, size, 0, &error);
    size_t count = json_array_size(list);
    free(bytes);
    bool good = json_is_array(list) && count <= 1000000;
    model->classes = calloc(count + 1, sizeof *model->classes);
    for (size_t i = 0; good && model->classes && i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        good = name && (model->classes[i] = strdup(name));
        model->class_count += good;
    }
    json_decref(list);
    return good && model->classes
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_BUNDLE, "%s/classes.json: not a list of names",
                         model->bundle->path);
}

static featinv_status read_contexts(featinv_model *model) {
    const fi_bundle *owner = fi_model_owner(model, "contexts.npz");
    if (!model->has_generator)
        return FEATINV_OK;
    if (!owner)
        return fi_fail(FEATINV_ERROR_BUNDLE, "%s: a generator needs contexts.npz",
                       model->bundle->path);
    char *path = fi_bundle_file_path(owner, "contexts.npz");
    char **names = NULL;
    int64_t count = 0;
    featinv_status status = path ? fi_array_names(&names, &count, path) : fi_fail_memory(PATH_MAX);
    if (!status && !(model->contexts = calloc((size_t)count + 1, sizeof *model->contexts)))
        status = fi_fail_memory((size_t)count * sizeof *model->contexts);
    for (int64_t i = 0; !status && i < count; i++) {
        fi_context *context = &model->contexts[i];
        featinv_array_info info;
        model->context_count++;
        void *data = NULL;
        status = fi_array_load(&data, &info, path, names[i], FEATINV_DTYPE_F32);
        context->data = data;
        if (!status && (info.ndim != 2 || info.shape[0] < 1 || info.shape[1] < 1))
            status =
                fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s must be (tokens, width)", path, names[i]);
        if (status)
            break;
        context->rows = info.shape[0];
        context->dim = info.shape[1];
        context->name = strdup(names[i]);
        if (!context->name)
            status = fi_fail_memory(strlen(names[i]));
    }
    free(names);
    free(path);
    const fi_bundle *b = model->bundle;
    if (!status && (!fi_model_context(model, b->context) || !fi_model_context(model, b->uncontext)))
        status = fi_fail_prefix(FEATINV_ERROR_BUNDLE, "%s: `defaults`", b->path);
    return status;
}

static featinv_status read_features(featinv_model *model) {
    if (!fi_bundle_find(model->bundle, "features.npz"))
        return FEATINV_OK;
    featinv_array_info info;
    char *path = fi_bundle_file_path(model->bundle, "features.npz");
    void *mean = NULL;
    featinv_status status = path ? fi_array_load(&mean, &info, path, "mean", FEATINV_DTYPE_F32)
                                 : fi_fail_memory(PATH_MAX);
    model->feature_mean = mean;
    if (!status && (info.ndim != 1 || info.shape[0] != model->bundle->map[0]))
        status = fi_fail(FEATINV_ERROR_BUNDLE, "%s: mean must hold %d values", path,
                         model->bundle->map[0]);
    if (!status && fi_check_finite(mean, (size_t)info.shape[0], "mean"))
        status = fi_fail_prefix(FEATINV_ERROR_BUNDLE, "%s", path);
    if (!status)
        status = fi_scope_open(&model->scope, path, model->bundle->map[0]);
    free(path);
    return status;
}

static featinv_status make_alphas(featinv_model *model) {
    const fi_bundle *b = model->bundle;
    if (!model->has_generator)
        return FEATINV_OK;
    model->alphas = malloc((size_t)b->timesteps * sizeof *model->alphas);
    if (!model->alphas)
        return fi_fail_memory((size_t)b->timesteps * sizeof *model->alphas);
    fi_alphas(model->alphas, b->timesteps, b->beta_start, b->beta_end, b->beta_schedule);
    return FEATINV_OK;
}

featinv_status featinv_model_open(featinv_model **out, const char *path, const void *options) {
    if (!out || options)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s",
                       out ? "model options are reserved: pass NULL" : "no place for the model");
    char standard[PATH_MAX];
    featinv_status status = FEATINV_OK;
    if (!path) {
        status = featinv_model_default(standard, sizeof standard);
        path = standard;
    }
    if (status)
        return status;
    featinv_model *model = calloc(1, sizeof *model);
    if (!model)
        return fi_fail_memory(sizeof *model);
    atomic_init(&model->references, 1);
    pthread_mutex_init(&model->lock, NULL);
    status = fi_bundle_open(&model->bundle, path);
    static featinv_status (*const steps[])(featinv_model *) = {
        open_base, check_parts, read_classes, read_contexts, read_features, make_alphas};
    for (size_t i = 0; !status && i < sizeof steps / sizeof *steps; i++)
        status = steps[i](model);
    if (status) {
        featinv_model_release(model);
        /* whatever was wrong inside it, it is the bundle that is refused */
        bool specific = status == FEATINV_ERROR_NOT_FOUND || status == FEATINV_ERROR_MEMORY ||
                        status <= FEATINV_ERROR_BUNDLE;
        return specific ? status : fi_fail_prefix(FEATINV_ERROR_BUNDLE, "the bundle is refused");
    }
    *out = model;
    return FEATINV_OK;
}

featinv_model *featinv_model_retain(featinv_model *model) {
    if (model)
        atomic_fetch_add(&model->references, 1);
    return model;
}

void featinv_model_release(featinv_model *model) {
    if (!model || atomic_fetch_sub(&model->references, 1) > 1)
        return;
    while (model->nets) {
        fi_placed_net *next = model->nets->next;
        model->backend->net_destroy(model->nets->net);
        free(model->nets);
        model->nets = next;
    }
    for (int32_t i = 0; i < model->class_count; i++)
        free(model->classes[i]);
    for (int32_t i = 0; i < model->context_count; i++) {
        free(model->contexts[i].name);
        free(model->contexts[i].data);
    }
    free(model->classes);
    free(model->contexts);
    free(model->feature_mean);
    fi_scope_close(&model->scope);
    free(model->alphas);
    fi_bundle_close(model->base);
    fi_bundle_close(model->bundle);
    pthread_mutex_destroy(&model->lock);
    free(model);
}

featinv_status featinv_model_info(featinv_model_details *info, const featinv_model *model) {
    if (!model)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no model");
    const fi_bundle *b = model->bundle;
    const fi_bundle *g = model->has_generator ? b : NULL;
    featinv_model_details all = {
        .struct_size = sizeof all,
        .has_backbone = b->has_backbone,
        .has_head = model->has_head,
        .has_generator = model->has_generator,
        .has_encoder = model->has_encoder,
        .name = b->name,
        .path = b->path,
        .sha256 = b->sha256,
        .backbone = b->backbone_name,
        .head = b->head,
        .layer = b->layer,
        .layout = b->layout,
        .input_height = b->input_height,
        .input_width = b->input_width,
        .interpolation = b->interpolation,
        .crop = b->crop,
        .mean = b->mean,
        .std = b->std,
        .channels = b->map[0],
        .height = b->map[1],
        .width = b->map[2],
        .pooled = b->pooled,
        .feature_mean = model->feature_mean,
        .classes = model->class_count,
        .contexts = model->context_count,
        .prediction = g ? b->prediction : NULL,
        .timesteps = b->timesteps,
        .latent_scale = b->latent_scale,
        .steps = b->steps,
        .scale = b->scale,
        .hint_scale = b->hint_scale,
        .seed = b->seed,
        .context = b->context,
        .uncontext = b->uncontext,
        .context_width = g ? model->contexts[0].dim : 0,
    };
    memcpy(all.latent, b->latent, sizeof all.latent);
    memcpy(all.image, b->image, sizeof all.image);
    return fi_options_init(info, info ? info->struct_size : 0, &all, sizeof all);
}

const char *featinv_model_class_name(const featinv_model *model, int32_t index) {
    return model && index >= 0 && index < model->class_count ? model->classes[index] : NULL;
}

const char *featinv_model_context_name(const featinv_model *model, int32_t index) {
    return model && index >= 0 && index < model->context_count ? model->contexts[index].name : NULL;
}

const char *featinv_model_manifest(const featinv_model *model) {
    return model ? model->bundle->manifest : NULL;
}

const fi_context *fi_model_context(const featinv_model *model, const char *name) {
    char names[400] = "";
    size_t used = 0;
    for (int32_t i = 0; i < model->context_count; i++) {
        const char *each = model->contexts[i].name;
        if (strcmp(each, name) == 0)
            return &model->contexts[i];
        if (used + strlen(each) + 8 < sizeof names)
            used +=
                (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", each);
    }
    (void)fi_fail(FEATINV_ERROR_NOT_FOUND, "no context is named \"%s\"; there are %d: %s", name,
                  model->context_count, names);
    return NULL;
}

featinv_status fi_model_net(fi_net **out, featinv_model *model, const fi_backend *backend,
                            int32_t device_type, int32_t device_index, featinv_dtype dtype,
                            uint32_t parts) {
    featinv_status status = FEATINV_OK;
    pthread_mutex_lock(&model->lock);
    fi_placed_net *placed = model->nets;
    while (placed && (placed->device_type != device_type || placed->device_index != device_index ||
                      placed->dtype != dtype))
        placed = placed->next;
    if (!placed) {
        placed = calloc(1, sizeof *placed);
        int failed =
            placed ? backend->net_create(&placed->net, device_type, device_index, dtype, 0) : 0;
        if (!placed || failed) {
            status = placed ? fi_backend_fail(backend, failed, model->bundle->path)
                            : fi_fail_memory(sizeof *placed);
            free(placed);
            goto done;
        }
        placed->device_type = device_type;
        placed->device_index = device_index;
        placed->dtype = dtype;
        placed->next = model->nets;
        model->nets = placed;
        model->backend = backend;
    }
    if (parts & ~placed->ready)
        status = fi_weights_load(placed, model, backend, parts);
    *out = placed->net;
done:
    pthread_mutex_unlock(&model->lock);
    return status;
}

featinv_status featinv_model_default(char *path, size_t capacity) {
    static const char *const places[] = {"../share/featinv/models/scenes", "../models/scenes"};
    const char *given = getenv("FEATINV_MODEL");
    char folder[PATH_MAX], place[PATH_MAX + 64], real[PATH_MAX];
    if (!path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the path");
    if (given && *given) {
        if (strlen(given) + 1 > capacity)
            return fi_fail(FEATINV_ERROR_CAPACITY, "FEATINV_MODEL is longer than %zu bytes",
                           capacity);
        memcpy(path, given, strlen(given) + 1);
        return FEATINV_OK;
    }
    featinv_status status = fi_library_folder(folder, sizeof folder);
    for (size_t i = 0; !status && i < 2; i++) {
        (void)snprintf(place, sizeof place, "%s/%s/manifest.json", folder, places[i]);
        if (access(place, R_OK) != 0 || !realpath(place, real))
            continue;
        *strrchr(real, '/') = '\0';
        if (strlen(real) + 1 > capacity)
            return fi_fail(FEATINV_ERROR_CAPACITY, "%s is longer than %zu bytes", real, capacity);
        memcpy(path, real, strlen(real) + 1);
        return FEATINV_OK;
    }
    return status ? status
                  : fi_fail(FEATINV_ERROR_NOT_FOUND,
                            "no default bundle: neither FEATINV_MODEL nor models/scenes near %s",
                            folder);
}
