/* Writes a small bundle for the fake backend, whole or with one thing wrong. */
#ifndef BUNDLE_MAKER_H
#define BUNDLE_MAKER_H

#include "check.h"

#include "file.h"
#include "hash.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAP_C = 3, MAP_H = 2, MAP_W = 2, LATENT_C = 4, LATENT_HW = 3, IMAGE_HW = 6, CLASSES = 7 };

static char bundle_dir[PATH_MAX];

static const char *in_bundle(const char *name) {
    static char path[PATH_MAX + 256];
    (void)snprintf(path, sizeof path, "%s/%s", bundle_dir, name);
    return path;
}

static void put(const char *name, const void *bytes, size_t size) {
    CHECK_OK(fi_file_write(in_bundle(name), bytes, size));
}

/* One safetensors file of float32 tensors, each `key` (2, 2). */
static void put_weights(const char *name, const char *const *keys, int count) {
    char header[2048];
    size_t used = 0, n;
    used += (size_t)snprintf(header, sizeof header, "{");
    for (int i = 0; i < count; i++)
        used += (size_t)snprintf(
            header + used, sizeof header - used,
            "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[%d,%d]}", i ? "," : "",
            keys[i], 16 * i, 16 * i + 16);
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    n = 8 + used + 16 * (size_t)count;
    uint8_t *bytes = calloc(1, n);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(used >> 8 * i);
    memcpy(bytes + 8, header, used);
    put(name, bytes, n);
    free(bytes);
}

static const char *const bundle_files[] = {
    "backbone.ts", "head.ts",      "hint.ts",      "control.ts",   "unet.ts",         "encoder.ts",
    "decoder.ts",  "classes.json", "contexts.npz", "features.npz", "unet.safetensors"};

/* manifest.json over the files that are there. `edit` may change its text before it is written:
 * "old\1new" replaces the first occurrence. */
static void put_manifest(const char *edit) {
    static char text[16384];
    size_t used =
        (size_t)snprintf(text, sizeof text,
                         "{\"format\": \"featinv-bundle\", \"version\": 1, \"name\": \"fake\", "
                         "\"backend\": \"torchscript\", \"files\": {");
    bool first = true;
    for (size_t i = 0; i < sizeof bundle_files / sizeof *bundle_files; i++) {
        char hash[FI_HASH_TEXT];
        struct stat info;
        if (stat(in_bundle(bundle_files[i]), &info) != 0)
            continue;
        CHECK_OK(fi_hash_file(hash, in_bundle(bundle_files[i])));
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s\"%s\": {\"sha256\": \"%s\", \"bytes\": %lld}",
                                 first ? "" : ", ", bundle_files[i], hash, (long long)info.st_size);
        first = false;
    }
    used += (size_t)snprintf(
        text + used, sizeof text - used,
        "}, \"backbone\": {\"name\": \"mean\", \"head\": \"linear\", \"input\": {\"height\": 4, "
        "\"width\": 4, \"channels\": 3, \"mean\": [0, 0, 0], \"std\": [1, 1, 1], "
        "\"interpolation\": \"bilinear\", \"crop\": 1.0}}, "
        "\"features\": {\"layout\": \"nchw\", \"prefix_tokens\": 0, \"channels\": %d, \"height\": "
        "%d, \"width\": %d, \"layer\": \"last\", \"pooled\": false}, "
        "\"diffusion\": {\"prediction\": \"epsilon\", \"timesteps\": 1000, \"beta_start\": "
        "0.00085, "
        "\"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"latent\": [%d, %d, %d], "
        "\"latent_scale\": 0.5, \"image\": [3, %d, %d]}, "
        "\"defaults\": {\"steps\": 5, \"scale\": 2.5, \"hint_scale\": 1.0, \"seed\": 42, "
        "\"context\": \"default\", \"uncontext\": \"empty\"}, \"provenance\": {}}",
        MAP_C, MAP_H, MAP_W, LATENT_C, LATENT_HW, LATENT_HW, IMAGE_HW, IMAGE_HW);
    if (edit) {
        const char *sep = strchr(edit, '\1');
        size_t old = (size_t)(sep - edit), fresh = strlen(sep + 1);
        char wanted[256];
        (void)snprintf(wanted, sizeof wanted, "%.*s", (int)old, edit);
        char *at = strstr(text, wanted);
        if (!at)
            fail_msg("the manifest does not hold %s", wanted);
        memmove(at + fresh, at + old, strlen(at + old) + 1);
        memcpy(at, sep + 1, fresh);
        used = strlen(text);
    }
    put("manifest.json", text, used);
}

static void put_arrays(void) {
    float context[2 * 5] = {0}, other[2 * 5], mean[MAP_C] = {0};
    int64_t context_shape[2] = {2, 5}, mean_shape[1] = {MAP_C};
    for (int i = 0; i < 10; i++)
        other[i] = (float)i;
    featinv_tensor contexts[2] = {featinv_tensor_view(context, FEATINV_DTYPE_F32, 2, context_shape),
                                  featinv_tensor_view(other, FEATINV_DTYPE_F32, 2, context_shape)};
    featinv_tensor means = featinv_tensor_view(mean, FEATINV_DTYPE_F32, 1, mean_shape);
    const char *const context_names[] = {"empty", "default"}, *const mean_names[] = {"mean"};
    CHECK_OK(featinv_array_write(in_bundle("contexts.npz"), contexts, context_names, 2, 0));
    CHECK_OK(featinv_array_write(in_bundle("features.npz"), &means, mean_names, 1, 0));
}

/* A fresh, good bundle in a folder of its own; remove_bundle takes it away. */
static void make_bundle(void) {
    static const char *const keys[] = {"model.a", "model.b", "control.a"};
    const char *folder = getenv("TMPDIR");
    (void)snprintf(bundle_dir, sizeof bundle_dir, "%s/featinv-bundle-XXXXXX",
                   folder ? folder : "/tmp");
    assert_non_null(mkdtemp(bundle_dir));
    static const char *const programs[] = {"backbone.ts", "head.ts", "hint.ts", "encoder.ts",
                                           "decoder.ts"};
    for (size_t i = 0; i < 5; i++)
        put(programs[i], "\n", 1);
    put("unet.ts", "model.a 2 2\nmodel.b 2 2\n", 24);
    put("control.ts", "control.a 2 2\nmodel.a 2 2\n", 26);
    put("classes.json", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"]", 29);
    put_weights("unet.safetensors", keys, 3);
    put_arrays();
    put_manifest(NULL);
}

static void remove_bundle(void) {
    char command[PATH_MAX + 16];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", bundle_dir);
    assert_int_equal(system(command), 0);
}

#endif
