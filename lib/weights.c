#include "weights.h"

#include "error.h"
#include "tensor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const program_files[FI_PROGRAM_COUNT] = {
    "backbone.ts", "head.ts", "hint.ts", "control.ts", "unet.ts", "encoder.ts", "decoder.ts"};

/* An external tensor of a program that waits for its weights. */
typedef struct want {
    const char *key;
    const int64_t *shape;
    int32_t ndim;
    const char *program;
    bool filled;
    bool settled; /* by the bundle itself: its base may hold the key as well */
} want;

typedef struct wants {
    want *items;
    int64_t count;
} wants;

static int by_key(const void *a, const void *b) {
    return strcmp(((const want *)a)->key, ((const want *)b)->key);
}

static featinv_status add_program(wants *list, fi_net *net, const fi_backend *backend,
                                  const fi_bundle *bundle, int32_t program) {
    const char *file = program_files[program];
    uint8_t *bytes = NULL;
    size_t size = 0;
    featinv_status status = fi_bundle_read(&bytes, &size, bundle, file);
    if (status)
        return status;
    int failed = backend->program_load(net, program, bytes, size);
    free(bytes);
    int64_t count = 0;
    if (!failed)
        failed = backend->program_tensor_count(net, program, &count);
    if (failed) {
        (void)fi_backend_fail(backend, failed, file);
        return fi_fail_prefix(failed == FEATINV_ERROR_MEMORY ? failed : FEATINV_ERROR_BUNDLE, "%s",
                              bundle->path);
    }
    want *grown = realloc(list->items, (size_t)(list->count + count + 1) * sizeof *grown);
    if (!grown)
        return fi_fail_memory((size_t)count * sizeof *grown);
    list->items = grown;
    for (int64_t i = 0; i < count; i++) {
        want *w = &list->items[list->count];
        *w = (want){.program = file};
        failed = backend->program_tensor(net, program, i, &w->key, &w->shape, &w->ndim);
        if (failed)
            return fi_backend_fail(backend, failed, file);
        list->count++;
    }
    return FEATINV_OK;
}

/* First index of the key among the sorted wants that are not settled, or -1. */
static int64_t find(const wants *list, const char *key) {
    int64_t low = 0, high = list->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (strcmp(list->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < list->count && strcmp(list->items[low].key, key) == 0;
    return found && !list->items[low].settled ? low : -1;
}

static bool same_shape(const want *w, const fi_safetensors_entry *entry) {
    return w->ndim == entry->ndim &&
           (entry->ndim == 0 ||
            memcmp(w->shape, entry->shape, (size_t)entry->ndim * sizeof *w->shape) == 0);
}

/* Reads so many bytes into memory (NULL: only hashes them). */
static featinv_status read_hashed(FILE *file, const char *path, uint8_t *memory, uint64_t bytes,
                                  fi_hash *hash, uint8_t *scratch, size_t scratch_size) {
    while (bytes) {
        size_t part = bytes < scratch_size ? (size_t)bytes : scratch_size;
        uint8_t *to = memory ? memory : scratch;
        if (fread(to, 1, part, file) != part)
            return fi_fail(FEATINV_ERROR_HASH, "%s: %s", path,
                           ferror(file) ? strerror(errno) : "shorter than its header says");
        fi_hash_update(hash, to, part);
        memory = memory ? memory + part : NULL;
        bytes -= part;
    }
    return FEATINV_OK;
}

/* One tensor of the file: into the backend's memory where a program waits for it. */
static featinv_status read_entry(const fi_safetensors_entry *entry, wants *list, FILE *file,
                                 const char *path, fi_net *net, const fi_backend *backend,
                                 fi_hash *hash, uint8_t *scratch, size_t scratch_size) {
    void *memory = NULL;
    uint64_t bytes = entry->end - entry->begin;
    int64_t first = find(list, entry->key);
    int failed = 0;
    if (first >= 0) {
        char expected[160], found[160];
        want *w = &list->items[first];
        for (int64_t i = first; i < list->count && strcmp(list->items[i].key, entry->key) == 0;
             i++) {
            if (!same_shape(&list->items[i], entry))
                return fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s is %s, %s wants %s", path, entry->key,
                               fi_shape_text(found, sizeof found, entry->shape, entry->ndim),
                               list->items[i].program,
                               fi_shape_text(expected, sizeof expected, w->shape, w->ndim));
            if (list->items[i].filled)
                return fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s stands in another file too", path,
                               entry->key);
            list->items[i].filled = true;
        }
        failed = backend->weight_memory(net, entry->key, entry->dtype, &memory, (size_t)bytes);
        if (failed)
            return fi_backend_fail(backend, failed, entry->key);
    }
    featinv_status status = read_hashed(file, path, memory, bytes, hash, scratch, scratch_size);
    if (!status && memory && (failed = backend->weight_done(net, entry->key)) != 0)
        status = fi_backend_fail(backend, failed, entry->key);
    return status;
}

static bool holds_wanted(const fi_safetensors *header, const wants *list) {
    for (int64_t i = 0; i < header->count; i++)
        if (find(list, header->entries[i].key) >= 0)
            return true;
    return false;
}

static featinv_status read_weights_file(const fi_bundle *bundle, const fi_bundle_file *listed,
                                        wants *list, fi_net *net, const fi_backend *backend) {
    enum { SCRATCH = 4 << 20 };
    fi_safetensors header = {0};
    fi_hash *hash = NULL;
    FILE *file = NULL;
    char text[FI_HASH_TEXT], *path = fi_bundle_file_path(bundle, listed->name);
    uint8_t *scratch = malloc(SCRATCH);
    featinv_status status =
        path && scratch ? fi_safetensors_open(&header, path) : fi_fail_memory(SCRATCH);
    if (status == FEATINV_ERROR_FORMAT)
        status = fi_fail_prefix(FEATINV_ERROR_BUNDLE, "the bundle is refused");
    if (status || !holds_wanted(&header, list))
        goto done;
    if (!(file = fopen(path, "rbe"))) {
        status = fi_fail(FEATINV_ERROR_READ, "%s: %s", path, strerror(errno));
        goto done;
    }
    (void)setvbuf(file, NULL, _IONBF, 0); /* straight into place */
    status = fi_hash_create(&hash);
    if (!status)
        status = read_hashed(file, path, NULL, header.header_bytes, hash, scratch, SCRATCH);
    for (int64_t i = 0; !status && i < header.count; i++)
        status =
            read_entry(&header.entries[i], list, file, path, net, backend, hash, scratch, SCRATCH);
    if (!status) {
        fi_hash_finish(text, hash);
        hash = NULL;
        if (strcmp(text, listed->sha256) != 0)
            status = fi_fail(FEATINV_ERROR_HASH, "%s: SHA-256 %s, the manifest says %s", path, text,
                             listed->sha256);
    }
done:
    if (file)
        (void)fclose(file);
    fi_hash_destroy(hash);
    fi_safetensors_close(&header);
    free(scratch);
    free(path);
    return status;
}

static featinv_status read_bundle_weights(const fi_bundle *bundle, wants *list, fi_net *net,
                                          const fi_backend *backend) {
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; bundle && !status && i < bundle->file_count; i++) {
        const char *end = strrchr(bundle->files[i].name, '.');
        if (end && strcmp(end, ".safetensors") == 0)
            status = read_weights_file(bundle, &bundle->files[i], list, net, backend);
    }
    return status;
}

static featinv_status check_filled(const wants *list, const featinv_model *model) {
    int64_t missing = 0;
    const want *first = NULL;
    for (int64_t i = 0; i < list->count; i++)
        if (!list->items[i].filled) {
            first = first ? first : &list->items[i];
            missing++;
        }
    if (!missing)
        return FEATINV_OK;
    return fi_fail(FEATINV_ERROR_BUNDLE, "%s: the weights lack %lld tensors of %s, the first is %s",
                   model->bundle->path, (long long)missing, first->program, first->key);
}

featinv_status fi_weights_load(fi_placed_net *placed, featinv_model *model,
                               const fi_backend *backend, uint32_t parts) {
    wants list = {0};
    featinv_status status = FEATINV_OK;
    parts &= ~placed->ready;
    for (int32_t p = 0; !status && p < FI_PROGRAM_COUNT; p++) {
        if (!(parts & FI_PART(p)))
            continue;
        const fi_bundle *owner = fi_model_owner(model, program_files[p]);
        status = owner ? add_program(&list, placed->net, backend, owner, p)
                       : fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: this bundle has no %s",
                                 model->bundle->path, program_files[p]);
    }
    if (!status && list.count) {
        qsort(list.items, (size_t)list.count, sizeof *list.items, by_key);
        status = read_bundle_weights(model->bundle, &list, placed->net, backend);
        for (int64_t i = 0; i < list.count; i++)
            list.items[i].settled = list.items[i].filled;
        if (!status)
            status = read_bundle_weights(model->base, &list, placed->net, backend);
        if (!status)
            status = check_filled(&list, model);
    }
    for (int32_t p = 0; !status && p < FI_PROGRAM_COUNT; p++) {
        if (!(parts & FI_PART(p)))
            continue;
        int failed = backend->program_finish(placed->net, p);
        if (failed)
            status = fi_backend_fail(backend, failed, program_files[p]);
        else
            placed->ready |= FI_PART(p);
    }
    free(list.items);
    return status;
}
