/* A trainer's state as one safetensors file. */
#include "trainer.h"

#include "error.h"
#include "file.h"
#include "safetensors_writer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names as in PyTorch's optimiser; keys are "NAME/KEY". The average is there if one is kept. */
static const struct {
    const char *name;
    int32_t what;
} parts[] = {{"value", FI_TRAINED_VALUE},
             {"exp_avg", FI_TRAINED_FIRST},
             {"exp_avg_sq", FI_TRAINED_SECOND},
             {"average", FI_TRAINED_AVERAGE}};

static const char *const format_name = "featinv-trainer", *const format_version = "1";

static int64_t part_count(const featinv_trainer *trainer) {
    return trainer->options.average > 0.0 ? 4 : 3;
}

static void set_text(json_t *object, const char *name, const char *value) {
    (void)json_object_set_new(object, name, json_string(value));
}

static void set_number(json_t *object, const char *name, double value) {
    char text[40];
    (void)snprintf(text, sizeof text, "%.17g", value);
    set_text(object, name, text);
}

static void set_integer(json_t *object, const char *name, long long value) {
    char text[40];
    (void)snprintf(text, sizeof text, "%lld", value);
    set_text(object, name, text);
}

/* Everything that the weights after a further step depend on, but for the batches and the machine:
 * all of it must be equal for a resume. Strings, as safetensors wants its metadata. */
static json_t *settings_of(const featinv_trainer *trainer) {
    static const char *const modes[] = {"locked", "unlocked", "joint"};
    const featinv_trainer_options *o = &trainer->options;
    char seed[40];
    json_t *s = json_object();
    if (!s)
        return NULL;
    set_text(s, "bundle", trainer->session->model->bundle->sha256);
    set_text(s, "mode", modes[o->mode]);
    (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    set_text(s, "seed", seed);
    set_number(s, "rate", o->rate);
    set_integer(s, "warmup", (long long)o->warmup);
    set_integer(s, "decay_steps", (long long)o->decay_steps);
    set_number(s, "decay_floor", o->decay_floor);
    set_number(s, "beta1", o->beta1);
    set_number(s, "beta2", o->beta2);
    set_number(s, "epsilon", o->epsilon);
    set_number(s, "weight_decay", o->weight_decay);
    set_number(s, "clip", o->clip);
    set_number(s, "average", o->average);
    set_number(s, "min_snr", o->min_snr);
    set_number(s, "hint_dropout", o->hint_dropout);
    set_number(s, "prompt_dropout", o->prompt_dropout);
    set_number(s, "joint_dropout", o->joint_dropout);
    set_integer(s, "accumulation", o->accumulation);
    set_text(s, "precision", o->precision == FEATINV_DTYPE_BF16 ? "bf16" : "fp32");
    set_text(s, "context", o->context);
    set_text(s, "uncontext", o->uncontext);
    return s;
}

/* ---------------------------------------------------------------- save ----------------------- */

/* The file's tensors in order: part by part, and the seal last. */
static featinv_status list_entries(fi_safetensors_entry **out, int64_t *count,
                                   const featinv_trainer *trainer) {
    *count = part_count(trainer) * trainer->count + 1;
    *out = calloc((size_t)*count, sizeof **out);
    if (!*out)
        return fi_fail_memory((size_t)*count * sizeof **out);
    for (int64_t i = 0; i < *count - 1; i++) {
        fi_safetensors_entry *e = &(*out)[i];
        const fi_trained *t = &trainer->tensors[i % trainer->count];
        const char *name = parts[i / trainer->count].name;
        size_t size = strlen(name) + strlen(t->key) + 2;
        e->key = malloc(size);
        if (!e->key)
            return fi_fail_memory(size);
        (void)snprintf(e->key, size, "%s/%s", name, t->key);
        e->dtype = FEATINV_DTYPE_F32;
        e->ndim = t->ndim;
        for (int32_t k = 0; k < t->ndim; k++)
            e->shape[k] = t->shape[k];
    }
    fi_safetensors_entry *seal = &(*out)[*count - 1];
    *seal = (fi_safetensors_entry){
        .key = strdup("sha256"), .dtype = FEATINV_DTYPE_U8, .ndim = 1, .shape = {FI_HASH_TEXT - 1}};
    return seal->key ? FEATINV_OK : fi_fail_memory(8);
}

static void free_entries(fi_safetensors_entry *entries, int64_t count) {
    for (int64_t i = 0; entries && i < count; i++)
        free(entries[i].key);
    free(entries);
}

featinv_status featinv_trainer_save(featinv_trainer *trainer, const char *path) {
    if (!trainer || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", trainer ? "path" : "trainer");
    const fi_backend *backend;
    fi_safetensors_entry *entries = NULL;
    fi_safetensors_writer *writer = NULL;
    int64_t count = 0;
    float *values = NULL;
    json_t *metadata = NULL;
    featinv_status status = fi_backend_get(&backend);
    if (!status)
        status = list_entries(&entries, &count, trainer);
    if (status)
        goto done;
    values = malloc(fi_trainer_largest(trainer) * sizeof *values + 1);
    metadata = settings_of(trainer);
    if (!values || !metadata) {
        status = fi_fail_memory(fi_trainer_largest(trainer) * sizeof *values);
        goto done;
    }
    set_text(metadata, "format", format_name);
    set_text(metadata, "version", format_version);
    set_integer(metadata, "step", (long long)trainer->step);
    status = fi_safetensors_writer_open(&writer, path, entries, count, metadata);
    for (int64_t i = 0; !status && i < count - 1; i++) {
        int64_t index = i % trainer->count;
        status = fi_trainer_read(trainer, parts[i / trainer->count].what, index, values);
        if (!status)
            fi_safetensors_writer_write(writer, values,
                                        trainer->tensors[index].count * sizeof *values);
    }
    if (!status)
        status = fi_safetensors_writer_seal(writer);
    if (!status) {
        status = fi_safetensors_writer_commit(NULL, NULL, writer);
        writer = NULL;
    }
done:
    fi_safetensors_writer_abort(writer);
    free_entries(entries, count);
    json_decref(metadata);
    free(values);
    return status;
}

/* ---------------------------------------------------------------- resume --------------------- */

static featinv_status check_settings(const featinv_trainer *trainer, const json_t *stored,
                                     const char *path) {
    json_t *own = settings_of(trainer);
    featinv_status status = own ? FEATINV_OK : fi_fail_memory(sizeof(json_t *));
    const char *name;
    json_t *value;
    if (status)
        return status;
    json_object_foreach(own, name, value) {
        const char *mine = json_string_value(value);
        const char *theirs = json_string_value(json_object_get(stored, name));
        if (theirs && strcmp(mine, theirs) == 0)
            continue;
        if (strcmp(name, "bundle") == 0)
            status = fi_fail(FEATINV_ERROR_UNSUPPORTED,
                             "%s: trained from another bundle (its manifest has SHA-256 %s, that "
                             "of %s has %s)",
                             path, theirs ? theirs : "unknown",
                             trainer->session->model->bundle->path, mine);
        else
            status =
                fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: trained with %s %s, the options say %s",
                        path, name, theirs ? theirs : "unknown", mine);
        break;
    }
    json_decref(own);
    return status;
}

static featinv_status read_step(int64_t *step, const json_t *stored, const char *path) {
    const char *text = json_string_value(json_object_get(stored, "step"));
    char *end = NULL;
    long long value = text && *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : -1;
    if (value < 0 || *end || value > (long long)UINT32_MAX)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: step is \"%.40s\"", path, text ? text : "");
    *step = value;
    return FEATINV_OK;
}

static featinv_status check_metadata(int64_t *step, const featinv_trainer *trainer,
                                     const char *metadata, const char *path) {
    json_t *stored = metadata ? json_loads(metadata, 0, NULL) : NULL;
    const char *format = json_string_value(json_object_get(stored, "format"));
    const char *version = json_string_value(json_object_get(stored, "version"));
    featinv_status status = FEATINV_OK;
    if (!format || strcmp(format, format_name) != 0)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: not the state of a trainer", path);
    else if (!version || strcmp(version, format_version) != 0)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: version \"%.20s\", this library reads %s", path,
                         version ? version : "", format_version);
    if (!status)
        status = check_settings(trainer, stored, path);
    if (!status)
        status = read_step(step, stored, path);
    json_decref(stored);
    return status;
}

/* The tensors must be those that save writes, in its order. */
static featinv_status check_entries(const fi_safetensors *header, const featinv_trainer *trainer,
                                    const char *path) {
    fi_safetensors_entry *wanted = NULL;
    int64_t count = 0;
    featinv_status status = list_entries(&wanted, &count, trainer);
    if (!status && header->count != count)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: %lld tensors, expected %lld", path,
                         (long long)header->count, (long long)count);
    for (int64_t i = 0; !status && i < count; i++) {
        const fi_safetensors_entry *a = &header->entries[i], *b = &wanted[i];
        if (strcmp(a->key, b->key) != 0 || a->dtype != b->dtype || a->ndim != b->ndim ||
            memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) != 0)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: tensor '%.200s' stands where '%s' should",
                             path, a->key, b->key);
    }
    free_entries(wanted, count);
    return status;
}

static featinv_status load(featinv_trainer *trainer, const fi_safetensors *header, int fd,
                           const char *path) {
    featinv_status status = FEATINV_OK;
    float *values = malloc(fi_trainer_largest(trainer) * sizeof *values + 1);
    if (!values)
        return fi_fail_memory(fi_trainer_largest(trainer) * sizeof *values);
    for (int64_t i = 0; !status && i < header->count - 1; i++) {
        const fi_safetensors_entry *e = &header->entries[i];
        status = fi_file_read_at(fd, values, (size_t)(e->end - e->begin), e->begin, path);
        if (!status)
            status = fi_trainer_write(trainer, parts[i / trainer->count].what, i % trainer->count,
                                      values);
    }
    free(values);
    return status;
}

featinv_status featinv_trainer_resume(featinv_trainer *trainer, const char *path) {
    if (!trainer || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", trainer ? "path" : "trainer");
    const fi_backend *backend;
    fi_safetensors header = {0};
    int64_t step = 0;
    uint64_t size = 0;
    int fd = -1;
    featinv_status status = fi_backend_get(&backend);
    if (!status)
        status = fi_file_open(&fd, &size, path);
    if (status)
        return status;
    status = fi_safetensors_open(&header, path);
    if (!status && size != header.file_bytes)
        status = fi_fail(FEATINV_ERROR_READ, "%s: changed while it was read", path);
    if (!status)
        status = check_metadata(&step, trainer, header.metadata, path);
    if (!status)
        status = check_entries(&header, trainer, path);
    if (!status)
        status = fi_safetensors_check_seal(&header, fd, path);
    if (!status)
        status = load(trainer, &header, fd, path);
    if (!status)
        trainer->step = step;
    fi_file_close(fd);
    fi_safetensors_close(&header);
    return status;
}
