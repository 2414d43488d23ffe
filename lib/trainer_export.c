/* A trained bundle: the session's files, with new weights where they were trained. */
#include "trainer.h"

#include "convert.h"
#include "error.h"
#include "file.h"
#include "folder.h"
#include "options.h"
#include "safetensors_writer.h"
#include "tensor.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One export on its way. */
typedef struct work {
    featinv_trainer *trainer;
    featinv_trainer_export_options options;
    int32_t what; /* FI_TRAINED_VALUE or FI_TRAINED_AVERAGE */
    fi_folder *folder;
    json_t *manifest;
    int64_t written;  /* trained tensors so far */
    float *values;    /* room for the largest of them */
    const void *mean; /* the options' feature_mean, (C) floats; NULL: none */
    void *packed;     /* a copy of it that is this export's own, or NULL */
} work;

featinv_status featinv_trainer_export_options_init(featinv_trainer_export_options *options,
                                                   size_t size) {
    featinv_trainer_export_options all = {.struct_size = sizeof all, .dtype = FEATINV_DTYPE_F32};
    return fi_options_init(options, size, &all, sizeof all);
}

/* ---------------------------------------------------------------- weights -------------------- */

/* Stored as the options say; F16 in place: half as wide, so never over what is still to be read. */
static featinv_status write_trained(work *w, fi_safetensors_writer *writer, int64_t index) {
    const fi_trained *t = &w->trainer->tensors[index];
    featinv_status status = fi_trainer_read(w->trainer, w->what, index, w->values);
    if (status)
        return status;
    w->written++;
    if (w->options.dtype == FEATINV_DTYPE_F32) {
        fi_safetensors_writer_write(writer, w->values, t->count * sizeof *w->values);
        return FEATINV_OK;
    }
    uint8_t *halves = (uint8_t *)w->values;
    for (size_t i = 0; i < t->count; i++) {
        uint16_t half = fi_float_to_half(w->values[i]);
        if (!isfinite(fi_half_to_float(half)))
            return fi_fail(FEATINV_ERROR_VALUE, "%s holds %g, which fp16 cannot", t->key,
                           (double)w->values[i]);
        memcpy(halves + 2 * i, &half, sizeof half);
    }
    fi_safetensors_writer_write(writer, halves, t->count * sizeof(uint16_t));
    return FEATINV_OK;
}

static featinv_status copy_entry(fi_safetensors_writer *writer, const fi_safetensors_entry *entry,
                                 int fd, const char *path) {
    enum { BLOCK = 1 << 20 };
    uint8_t *block = malloc(BLOCK);
    featinv_status status = block ? FEATINV_OK : fi_fail_memory(BLOCK);
    for (uint64_t at = entry->begin; !status && at < entry->end; at += BLOCK) {
        size_t part = entry->end - at < BLOCK ? (size_t)(entry->end - at) : BLOCK;
        status = fi_file_read_at(fd, block, part, at, path);
        if (!status)
            fi_safetensors_writer_write(writer, block, part);
    }
    free(block);
    return status;
}

/* Notes a file in the manifest. */
static featinv_status list_file(work *w, const char *name, const char *sha256, uint64_t bytes) {
    json_t *entry = json_pack("{s:s, s:I}", "sha256", sha256, "bytes", (json_int_t)bytes);
    if (!entry || json_object_set_new(json_object_get(w->manifest, "files"), name, entry) != 0)
        return fi_fail_memory(strlen(name));
    return FEATINV_OK;
}

/* Writes the weights file that `header` describes, with the trained tensors in place of its own. */
static featinv_status rewrite(work *w, const fi_safetensors *header, const fi_bundle_file *listed,
                              const char *path) {
    int fd = -1;
    uint64_t size = 0, bytes = 0;
    char sha256[FI_HASH_TEXT], *to = fi_folder_file(w->folder, listed->name);
    fi_safetensors_writer *writer = NULL;
    fi_safetensors_entry *entries = malloc((size_t)header->count * sizeof *entries + 1);
    featinv_status status = FEATINV_OK;
    if (!to || !entries) {
        status = FEATINV_ERROR_MEMORY;
        goto done;
    }
    for (int64_t i = 0; i < header->count; i++) {
        entries[i] = header->entries[i];
        if (fi_trainer_find(w->trainer, entries[i].key) >= 0)
            entries[i].dtype = w->options.dtype;
    }
    status = fi_file_open(&fd, &size, path);
    if (!status)
        status = fi_safetensors_writer_open(&writer, to, entries, header->count, NULL);
    for (int64_t i = 0; !status && i < header->count; i++) {
        int64_t index = fi_trainer_find(w->trainer, header->entries[i].key);
        status = index >= 0 ? write_trained(w, writer, index)
                            : copy_entry(writer, &header->entries[i], fd, path);
    }
    if (!status) {
        status = fi_safetensors_writer_commit(sha256, &bytes, writer);
        writer = NULL;
    }
    if (!status)
        status = list_file(w, listed->name, sha256, bytes);
done:
    fi_safetensors_writer_abort(writer);
    fi_file_close(fd);
    free(entries);
    free(to);
    return status;
}

static bool holds_trained(const fi_safetensors *header, const featinv_trainer *trainer) {
    for (int64_t i = 0; i < header->count; i++)
        if (fi_trainer_find(trainer, header->entries[i].key) >= 0)
            return true;
    return false;
}

static featinv_status fail_hash(const char *path, const char *found, const char *listed) {
    return fi_fail(FEATINV_ERROR_HASH, "%s: SHA-256 %s, the manifest says %s", path, found, listed);
}

/* A weights file of a bundle, if it holds what was trained. */
static featinv_status take_weights(work *w, const fi_bundle *bundle, const fi_bundle_file *listed,
                                   bool *taken) {
    fi_safetensors header = {0};
    char sha256[FI_HASH_TEXT], *path = fi_bundle_file_path(bundle, listed->name);
    featinv_status status = path ? fi_safetensors_open(&header, path) : fi_fail_memory(PATH_MAX);
    *taken = !status && holds_trained(&header, w->trainer);
    if (!status && *taken) {
        /* some of its tensors may be copied: none of them unchecked */
        status = fi_hash_file(sha256, path);
        if (!status && strcmp(sha256, listed->sha256) != 0)
            status = fail_hash(path, sha256, listed->sha256);
        if (!status)
            status = rewrite(w, &header, listed, path);
    }
    fi_safetensors_close(&header);
    free(path);
    return status;
}

/* Any other file, as it is. */
static featinv_status take_file(work *w, const fi_bundle *bundle, const fi_bundle_file *listed) {
    char sha256[FI_HASH_TEXT], *from = fi_bundle_file_path(bundle, listed->name);
    char *to = from ? fi_folder_file(w->folder, listed->name) : NULL;
    featinv_status status = to     ? fi_file_copy(sha256, to, from)
                            : from ? FEATINV_ERROR_WRITE
                                   : fi_fail_memory(PATH_MAX);
    if (!status && strcmp(sha256, listed->sha256) != 0)
        status = fail_hash(from, sha256, listed->sha256);
    if (!status)
        status = list_file(w, listed->name, sha256, listed->bytes);
    free(from);
    free(to);
    return status;
}

static bool is_weights(const fi_bundle_file *file) {
    return fi_path_has_suffix(file->name, ".safetensors");
}

static featinv_status take_bundle(work *w, const fi_bundle *bundle) {
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; !status && i < bundle->file_count; i++) {
        bool taken = false;
        if (is_weights(&bundle->files[i]))
            status = take_weights(w, bundle, &bundle->files[i], &taken);
        if (!status && !taken)
            status = take_file(w, bundle, &bundle->files[i]);
    }
    return status;
}

/* A UNet that was trained no longer is its base's: its program and weights become the bundle's
 * own. */
static featinv_status take_base(work *w, const fi_bundle *base) {
    const fi_bundle_file *program = base ? fi_bundle_find(base, "unet.ts") : NULL;
    featinv_status status = FEATINV_OK;
    bool taken = false;
    if (!program || w->written == w->trainer->count)
        return FEATINV_OK;
    for (int64_t i = 0; !status && i < base->file_count; i++) {
        if (!is_weights(&base->files[i]))
            continue;
        if (fi_bundle_find(w->trainer->session->model->bundle, base->files[i].name))
            continue; /* of a ControlNet that the bundle replaces */
        status = take_weights(w, base, &base->files[i], &taken);
    }
    return status ? status : take_file(w, base, program);
}

/* ---------------------------------------------------------------- statistics ----------------- */

static featinv_status check_mean(work *w) {
    const int64_t channels = w->trainer->session->model->bundle->map[0];
    if (!w->options.feature_mean)
        return FEATINV_OK;
    featinv_status status = fi_tensor_input(&w->mean, &w->packed, w->options.feature_mean,
                                            "feature_mean", FEATINV_DTYPE_F32, 1, &channels);
    return status ? status : fi_check_finite(w->mean, (size_t)channels, "feature_mean");
}

/* Statistics of the training maps, for a bundle that has none: the mean alone. */
static featinv_status add_features(work *w) {
    static const char *const file = "features.npz", *const name = "mean";
    const fi_bundle *bundle = w->trainer->session->model->bundle;
    int64_t channels = bundle->map[0];
    char sha256[FI_HASH_TEXT];
    struct stat info;
    if (!w->mean || fi_bundle_find(bundle, file))
        return FEATINV_OK;
    featinv_tensor mean =
        featinv_tensor_view((void *)(uintptr_t)w->mean, FEATINV_DTYPE_F32, 1, &channels);
    char *path = fi_folder_file(w->folder, file);
    if (!path)
        return FEATINV_ERROR_WRITE;
    featinv_status status = featinv_array_write(path, &mean, &name, 1, /*compress=*/0);
    if (!status)
        status = fi_hash_file(sha256, path);
    if (!status && stat(path, &info) != 0)
        status = fi_fail(FEATINV_ERROR_READ, "%s: cannot be read (%s)", path, strerror(errno));
    if (!status)
        status = list_file(w, file, sha256, (uint64_t)info.st_size);
    free(path);
    return status;
}

/* ---------------------------------------------------------------- manifest ------------------- */

/* `to`, an absolute path, as seen from the folder `from`, another. */
static char *relative_path(const char *from, const char *to) {
    size_t common = 0, ups = 0;
    for (size_t i = 0;; i++) {
        bool from_ends = from[i] == '\0' || from[i] == '/', to_ends = to[i] == '\0' || to[i] == '/';
        if (from_ends && to_ends)
            common = i;
        if (from[i] != to[i] || from[i] == '\0')
            break;
    }
    for (const char *p = from + common; *p; p++)
        ups += *p == '/';
    const char *rest = to + common + (to[common] == '/');
    size_t size = 3 * ups + strlen(rest) + 2;
    char *path = malloc(size);
    if (!path)
        return NULL;
    *path = '\0';
    for (size_t i = 0; i < ups; i++)
        memcpy(path + 3 * i, "../", 4);
    memcpy(path + 3 * ups, rest, strlen(rest) + 1);
    size_t length = strlen(path);
    if (length && path[length - 1] == '/')
        path[length - 1] = '\0';
    if (!*path)
        memcpy(path, ".", 2);
    return path;
}

static featinv_status refer_to_base(work *w) {
    const featinv_model *model = w->trainer->session->model;
    if (!model->base || *model->bundle->base_path == '/')
        return FEATINV_OK;
    char *path = relative_path(fi_folder_path(w->folder), model->base->path);
    json_t *text = path ? json_string(path) : NULL;
    free(path);
    if (json_object_set_new(json_object_get(w->manifest, "base"), "path", text) != 0)
        return fi_fail_memory(PATH_MAX);
    return FEATINV_OK;
}

/* What was done to the bundle that this one was made of. */
static featinv_status note_training(work *w) {
    static const char *const modes[] = {"locked", "unlocked", "joint"};
    const featinv_trainer *t = w->trainer;
    json_t *provenance = json_object_get(w->manifest, "provenance");
    if (!json_is_object(provenance)) {
        provenance = json_object();
        if (json_object_set_new(w->manifest, "provenance", provenance) != 0)
            return fi_fail_memory(sizeof *provenance);
    }
    json_t *training =
        json_pack("{s:s, s:s, s:I, s:f, s:b}", "from", t->session->model->bundle->sha256, "mode",
                  modes[t->options.mode], "steps", (json_int_t)t->step, "rate", t->options.rate,
                  "average", w->what == FI_TRAINED_AVERAGE);
    if (json_object_set_new(provenance, "training", training) != 0)
        return fi_fail_memory(sizeof *provenance);
    return FEATINV_OK;
}

/* The shortest of the texts whose numbers are the same to the bit. */
static char *dump(const json_t *manifest) {
    for (size_t digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(manifest, JSON_INDENT(1) | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, 0, NULL) : NULL;
        bool same = again && json_equal(manifest, again);
        json_decref(again);
        if (same)
            return text;
        free(text);
    }
    return NULL;
}

static featinv_status write_manifest(work *w) {
    featinv_status status = refer_to_base(w);
    if (!status)
        status = note_training(w);
    if (!status && w->options.name &&
        json_object_set_new(w->manifest, "name", json_string(w->options.name)) != 0)
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the bundle's name is not UTF-8");
    if (status)
        return status;
    char *text = dump(w->manifest), *path = fi_folder_file(w->folder, "manifest.json");
    status = text && path ? fi_file_write(path, text, strlen(text)) : fi_fail_memory(PATH_MAX);
    free(text);
    free(path);
    return status;
}

/* ---------------------------------------------------------------- export --------------------- */

/* An existing path may be replaced only on demand, and only if it is a bundle that is not in use
 * here. */
static featinv_status check_place(const char *path, const featinv_model *model, bool force) {
    struct stat info;
    char manifest[PATH_MAX];
    if (lstat(path, &info) != 0)
        return FEATINV_OK;
    if (!force)
        return fi_fail(FEATINV_ERROR_WRITE, "%s: exists, and is replaced only by force", path);
    (void)snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
    if (!S_ISDIR(info.st_mode) || access(manifest, F_OK) != 0)
        return fi_fail(FEATINV_ERROR_WRITE, "%s: exists, and is not a bundle", path);
    char *real = realpath(path, NULL);
    bool own = real && (strcmp(real, model->bundle->path) == 0 ||
                        (model->base && strcmp(real, model->base->path) == 0));
    free(real);
    return own ? fi_fail(FEATINV_ERROR_WRITE, "%s: is the bundle that was trained from", path)
               : FEATINV_OK;
}

static featinv_status check_export(work *w, const char *path) {
    const featinv_trainer_export_options *o = &w->options;
    if (o->dtype != FEATINV_DTYPE_F32 && o->dtype != FEATINV_DTYPE_F16)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "dtype is %d: it must be fp32 or fp16", o->dtype);
    if (o->name && !*o->name)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the bundle's name is empty");
    featinv_status status = check_mean(w);
    return status ? status : check_place(path, w->trainer->session->model, o->force != 0);
}

/* Every file, the manifest last; then the reader's own checks. */
static featinv_status fill(work *w) {
    const featinv_model *model = w->trainer->session->model;
    fi_bundle *made = NULL;
    w->values = malloc(fi_trainer_largest(w->trainer) * sizeof *w->values + 1);
    w->manifest = json_loads(model->bundle->manifest, 0, NULL);
    if (!w->values || !w->manifest)
        return fi_fail_memory(fi_trainer_largest(w->trainer) * sizeof *w->values);
    featinv_status status = take_bundle(w, model->bundle);
    if (!status)
        status = take_base(w, model->base);
    if (!status)
        status = add_features(w);
    if (!status && w->written != w->trainer->count)
        status = fi_fail(FEATINV_ERROR_INTERNAL, "%lld of %lld trained tensors were written",
                         (long long)w->written, (long long)w->trainer->count);
    if (!status)
        status = write_manifest(w);
    if (!status)
        status = fi_bundle_open(&made, fi_folder_path(w->folder));
    fi_bundle_close(made);
    return status;
}

featinv_status featinv_trainer_export(featinv_trainer *trainer, const char *path,
                                      const featinv_trainer_export_options *options) {
    if (!trainer || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", trainer ? "path" : "trainer");
    work w = {.trainer = trainer};
    const fi_backend *backend;
    featinv_status status = featinv_trainer_export_options_init(&w.options, sizeof w.options);
    if (!status)
        status = fi_options_read(&w.options, sizeof w.options, options);
    if (!status)
        status = fi_backend_get(&backend);
    if (!status)
        status = check_export(&w, path);
    if (status)
        goto done;
    w.what =
        trainer->options.average > 0.0 && !w.options.latest ? FI_TRAINED_AVERAGE : FI_TRAINED_VALUE;
    status = fi_folder_open(&w.folder, path);
    if (!status)
        status = fill(&w);
    if (!status) {
        status = fi_folder_commit(w.folder, w.options.force != 0);
        w.folder = NULL;
    }
done:
    fi_folder_abort(w.folder);
    json_decref(w.manifest);
    free(w.values);
    free(w.packed);
    return status;
}
