/* A start from what another bundle has learnt. */
#include "bundle.h"
#include "convert.h"
#include "error.h"
#include "safetensors.h"
#include "trainer.h"

#include <stdlib.h>
#include <string.h>

typedef struct warm {
    featinv_trainer *trainer;
    fi_bundle *bundle;
    bool *found; /* (trainer->count) */
    double *raw; /* room for a tensor as stored: the file need not align it */
    float *values;
} warm;

static bool begins_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The hint encoder belongs to a backbone and its layer; the rest of the ControlNet to the base. */
static bool is_taken(const char *key) {
    return !begins_with(key, "control_model.input_hint_block.");
}

static bool same_shape(const fi_trained *t, const fi_safetensors_entry *e) {
    return t->ndim == e->ndim &&
           (t->ndim == 0 || memcmp(t->shape, e->shape, (size_t)t->ndim * sizeof *t->shape) == 0);
}

/* Tensors of one file that the trainer trains. write: to the trainer, else only checks them. */
static featinv_status take_file(warm *w, const fi_bundle_file *listed, bool write) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    fi_safetensors header = {0};
    char *path = fi_bundle_file_path(w->bundle, listed->name);
    featinv_status status = path ? fi_safetensors_open(&header, path) : fi_fail_memory(1);
    if (!status && write)
        status = fi_bundle_read(&bytes, &size, w->bundle, listed->name);
    if (!status && write && size != header.file_bytes)
        status = fi_fail(FEATINV_ERROR_READ, "%s: changed while it was read", path);
    for (int64_t i = 0; !status && i < header.count; i++) {
        const fi_safetensors_entry *e = &header.entries[i];
        int64_t index = is_taken(e->key) ? fi_trainer_find(w->trainer, e->key) : -1;
        if (index < 0)
            continue;
        const fi_trained *t = &w->trainer->tensors[index];
        if (!same_shape(t, e) || !fi_can_convert(FEATINV_DTYPE_F32, e->dtype)) {
            status = fi_fail(FEATINV_ERROR_UNSUPPORTED,
                             "%s: %s has another shape than in %s: their bases differ", path,
                             e->key, w->trainer->session->model->bundle->path);
            continue;
        }
        w->found[index] = true;
        if (!write)
            continue;
        memcpy(w->raw, bytes + e->begin, (size_t)(e->end - e->begin));
        fi_convert(w->values, FEATINV_DTYPE_F32, w->raw, e->dtype, t->count);
        status = fi_trainer_write(w->trainer, FI_TRAINED_VALUE, index, w->values);
        if (!status && w->trainer->options.average > 0.0)
            status = fi_trainer_write(w->trainer, FI_TRAINED_AVERAGE, index, w->values);
    }
    free(bytes);
    fi_safetensors_close(&header);
    free(path);
    return status;
}

static featinv_status take_files(warm *w, bool write) {
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; !status && i < w->bundle->file_count; i++) {
        const char *end = strrchr(w->bundle->files[i].name, '.');
        if (end && strcmp(end, ".safetensors") == 0)
            status = take_file(w, &w->bundle->files[i], write);
    }
    return status;
}

/* All of the ControlNet but the hint encoder must be there; the UNet may come from elsewhere. */
static featinv_status check_found(const warm *w) {
    for (int64_t i = 0; i < w->trainer->count; i++) {
        const char *key = w->trainer->tensors[i].key;
        if (!w->found[i] && is_taken(key) && begins_with(key, "control_model."))
            return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: no start for this bundle, it lacks %s",
                           w->bundle->path, key);
    }
    return FEATINV_OK;
}

featinv_status featinv_trainer_warm_start(featinv_trainer *trainer, const char *path) {
    if (!trainer || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", trainer ? "path" : "trainer");
    if (trainer->step)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "a warm start after %lld steps: they would be lost",
                       (long long)trainer->step);
    const fi_backend *backend;
    warm w = {.trainer = trainer};
    featinv_status status = fi_backend_get(&backend);
    if (!status)
        status = fi_bundle_open(&w.bundle, path);
    if (status)
        return status;
    w.found = calloc((size_t)trainer->count + 1, sizeof *w.found);
    w.values = malloc(fi_trainer_largest(trainer) * sizeof *w.values + 1);
    w.raw = malloc((fi_trainer_largest(trainer) + 1) * sizeof *w.raw);
    if (!w.found || !w.values || !w.raw)
        status = fi_fail_memory(fi_trainer_largest(trainer) * sizeof *w.values);
    if (!status)
        status = take_files(&w, /*write=*/false);
    if (!status)
        status = check_found(&w);
    if (!status)
        status = take_files(&w, /*write=*/true);
    free(w.raw);
    free(w.values);
    free(w.found);
    fi_bundle_close(w.bundle);
    return status;
}
