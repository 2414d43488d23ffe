#include "head.h"

#include "array.h"
#include "convert.h"
#include "dense.h"
#include "error.h"
#include "file.h"
#include "safetensors.h"
#include "tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The head's tensors as float64, for all classes. */
typedef struct tensors {
    int64_t channels, classes;
    double *weight; /* (classes, channels) */
    double *bias;   /* (classes) or NULL */
    double *gain;   /* (channels) or NULL */
    double *shift;  /* (channels) or NULL */
    bool normalizes;
    double eps;
} tensors;

static void close_tensors(tensors *t) {
    free(t->weight);
    free(t->bias);
    free(t->gain);
    free(t->shift);
}

/* ---------------------------------------------------------------- reading -------------------- */

static featinv_status read_entry(double **out, const fi_safetensors_entry *entry,
                                 const char *path) {
    size_t element = fi_dtype_size(entry->dtype), bytes = (size_t)(entry->end - entry->begin);
    uint64_t size;
    int fd = -1;
    if (!fi_can_convert(FEATINV_DTYPE_F64, entry->dtype))
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: %s is %s", path, entry->key,
                       fi_dtype_name(entry->dtype));
    size_t count = bytes / element;
    void *stored = malloc(bytes + 1);
    double *values = malloc(count * sizeof *values + 1);
    featinv_status status =
        stored && values ? fi_file_open(&fd, &size, path) : fi_fail_memory(bytes);
    if (!status)
        status = fi_file_read_at(fd, stored, bytes, entry->begin, path);
    if (!status)
        fi_convert(values, FEATINV_DTYPE_F64, stored, entry->dtype, count);
    for (size_t i = 0; i < count && !status; i++)
        if (!isfinite(values[i]))
            status = fi_fail(FEATINV_ERROR_VALUE, "%s: %s holds NaN or infinity", path, entry->key);
    fi_file_close(fd);
    free(stored);
    if (status)
        free(values);
    else
        *out = values;
    return status;
}

/* Looks for the key in one weights file; *out stays NULL where it is not there. */
static featinv_status search_file(double **out, const char *path, const char *key, int64_t count) {
    fi_safetensors header = {0};
    featinv_status status = fi_safetensors_open(&header, path);
    for (int64_t i = 0; i < header.count && !status && !*out; i++) {
        const fi_safetensors_entry *entry = &header.entries[i];
        size_t size;
        if (strcmp(entry->key, key) != 0)
            continue;
        if (!fi_checked_size(&size, entry->shape, entry->ndim, 1) || size != (size_t)count)
            status =
                fi_fail(FEATINV_ERROR_BUNDLE, "%s: %s has not the %lld values that head.ts wants",
                        path, key, (long long)count);
        else
            status = read_entry(out, entry, path);
    }
    fi_safetensors_close(&header);
    return status;
}

static featinv_status read_tensor(double **out, const featinv_model *model, const char *key,
                                  int64_t count) {
    const fi_bundle *const bundles[2] = {model->bundle, model->base};
    featinv_status status = FEATINV_OK;
    for (int b = 0; b < 2 && !status && !*out; b++)
        for (int64_t i = 0; bundles[b] && i < bundles[b]->file_count && !status && !*out; i++) {
            const char *name = bundles[b]->files[i].name;
            if (!fi_path_has_suffix(name, ".safetensors"))
                continue;
            char *path = fi_bundle_file_path(bundles[b], name);
            status = path ? search_file(out, path, key, count) : fi_fail_memory(strlen(name));
            free(path);
        }
    if (!status && !*out)
        status = fi_fail(FEATINV_ERROR_BUNDLE, "%s: the weights lack %s", model->bundle->path, key);
    return status;
}

static bool ends_in(const char *key, const char *end) {
    size_t length = strlen(key), tail = strlen(end);
    return length >= tail && strcmp(key + length - tail, end) == 0;
}

/* Whether key is the bias of the layer whose weight is named. */
static bool same_layer(const char *weight, const char *key) {
    size_t stem = strlen(weight) - strlen("weight");
    return strlen(key) > stem && strncmp(weight, key, stem) == 0 && strcmp(key + stem, "bias") == 0;
}

static bool is_matrix(const int64_t *shape, int32_t ndim, const tensors *t) {
    bool fits = ndim >= 2 && shape[0] == t->classes && shape[1] == t->channels;
    for (int32_t i = 2; fits && i < ndim; i++) /* a convolution of one position is as good */
        fits = shape[i] == 1;
    return fits;
}

/* Where the tensor of that key and shape belongs, or NULL. */
static double **place_of(tensors *t, const char *matrix, const char *key, const int64_t *shape,
                         int32_t ndim) {
    if (strcmp(key, matrix) == 0)
        return &t->weight;
    if (ndim != 1)
        return NULL;
    if (same_layer(matrix, key))
        return shape[0] == t->classes ? &t->bias : NULL;
    if (!t->normalizes || shape[0] != t->channels)
        return NULL;
    return ends_in(key, ".weight") ? &t->gain : ends_in(key, ".bias") ? &t->shift : NULL;
}

static featinv_status fail_head(const featinv_model *model, const char *what) {
    return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: the head is not the \"%s\" it is called: %s",
                   model->bundle->path, model->bundle->head, what);
}

static featinv_status find_matrix(const char **out, const tensors *t, const featinv_model *model,
                                  const fi_backend *backend, fi_net *net, int64_t count) {
    *out = NULL;
    for (int64_t i = 0; i < count; i++) {
        const char *key;
        const int64_t *shape;
        int32_t ndim;
        int failed = backend->program_tensor(net, FI_PROGRAM_HEAD, i, &key, &shape, &ndim);
        if (failed)
            return fi_backend_fail(backend, failed, "head.ts");
        if (is_matrix(shape, ndim, t) && ends_in(key, ".weight") && !*out)
            *out = key;
    }
    return *out ? FEATINV_OK
                : fail_head(model, "it has no weight of that many classes and channels");
}

static featinv_status read_tensors(tensors *t, const featinv_model *model,
                                   const fi_backend *backend, fi_net *net) {
    int64_t count = 0;
    const char *matrix;
    int failed = backend->program_tensor_count(net, FI_PROGRAM_HEAD, &count);
    if (failed)
        return fi_backend_fail(backend, failed, "head.ts");
    featinv_status status = find_matrix(&matrix, t, model, backend, net, count);
    for (int64_t i = 0; i < count && !status; i++) {
        const char *key;
        const int64_t *shape;
        int32_t ndim;
        size_t size;
        failed = backend->program_tensor(net, FI_PROGRAM_HEAD, i, &key, &shape, &ndim);
        if (failed)
            return fi_backend_fail(backend, failed, "head.ts");
        double **place = place_of(t, matrix, key, shape, ndim);
        if (!place || *place)
            return fail_head(model, key);
        if (!fi_checked_size(&size, shape, ndim, 1))
            return fail_head(model, "the shape of a tensor overflows");
        status = read_tensor(place, model, key, (int64_t)size);
    }
    return status;
}

/* ---------------------------------------------------------------- the formula ---------------- */

static void moments(double *mean, double *variance, const double *x, int64_t n) {
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *variance = squares / (double)n;
}

/* out = weight of the class, normalisation's gain and centring taken in; returns the constant. */
static double class_weight(double *out, const tensors *t, int64_t index) {
    const double *row = t->weight + index * t->channels;
    double constant = t->bias ? t->bias[index] : 0.0, mean = 0.0;
    for (int64_t c = 0; c < t->channels; c++) {
        out[c] = t->gain ? row[c] * t->gain[c] : row[c];
        constant += t->shift ? row[c] * t->shift[c] : 0.0;
        mean += out[c] / (double)t->channels;
    }
    for (int64_t c = 0; c < t->channels && t->normalizes; c++)
        out[c] -= mean;
    return constant;
}

double fi_head_spread(const fi_head *head, const double *x) {
    double mean, variance;
    if (!head->normalizes)
        return 1.0;
    moments(&mean, &variance, x, head->channels);
    return sqrt(variance + head->eps);
}

/* ---------------------------------------------------------------- probes --------------------- */

/* Maps that differ at every position, in scale (so that eps shows) and in sign. */
enum { PROBES = 4 };
static const float probe_scale[PROBES] = {1e-3f, 0.1f, 1.0f, 10.0f};

typedef struct probes {
    float *maps;   /* (PROBES, C, H, W) */
    double *means; /* (PROBES, C) */
    float *logits; /* (PROBES, classes), the program's */
    double
        *linear; /* (PROBES, classes): the formula's, divided by nothing and without the constant */
    double *constants; /* (classes) */
} probes;

static void close_probes(probes *p) {
    free(p->maps);
    free(p->means);
    free(p->logits);
    free(p->linear);
    free(p->constants);
}

static featinv_status open_probes(probes *p, const tensors *t, const int64_t map[3]) {
    int64_t each = map[1] * map[2], size = map[0] * each;
    p->maps = malloc((size_t)(PROBES * size) * sizeof *p->maps);
    p->means = calloc((size_t)(PROBES * map[0]), sizeof *p->means);
    p->logits = malloc((size_t)(PROBES * t->classes) * sizeof *p->logits);
    p->linear = malloc((size_t)(PROBES * t->classes) * sizeof *p->linear);
    p->constants = malloc((size_t)t->classes * sizeof *p->constants);
    if (!p->maps || !p->means || !p->logits || !p->linear || !p->constants)
        return fi_fail_memory((size_t)(PROBES * size) * sizeof *p->maps);
    for (int64_t n = 0; n < PROBES; n++) {
        float *maps = p->maps + n * size;
        featinv_status status = featinv_noise(maps, (size_t)size, 1, (uint32_t)n, 0);
        if (status)
            return status;
        for (int64_t i = 0; i < size; i++) {
            int64_t c =
                i / each; /* an offset of its own for each channel, that survives the mean */
            float offset = (float)((c * 7 + n * 3) % 11) / 5.0f - 1.0f;
            maps[i] = probe_scale[n] * (maps[i] + offset);
            p->means[n * map[0] + c] += (double)maps[i] / (double)each;
        }
    }
    return FEATINV_OK;
}

static featinv_status run_probes(probes *p, const tensors *t, const fi_backend *backend,
                                 fi_net *net, const int64_t map[3]) {
    double *weight = malloc((size_t)t->channels * sizeof *weight);
    if (!weight)
        return fi_fail_memory((size_t)t->channels * sizeof *weight);
    for (int64_t k = 0; k < t->classes; k++) {
        p->constants[k] = class_weight(weight, t, k);
        for (int64_t n = 0; n < PROBES; n++)
            p->linear[n * t->classes + k] =
                fi_dense_dot(weight, p->means + n * t->channels, t->channels);
    }
    free(weight);
    int failed = backend->head(net, p->logits, p->maps, PROBES, map, t->classes);
    return failed ? fi_backend_fail(backend, failed, "head") : FEATINV_OK;
}

/* Epsilon from the probe of the smallest spread: the logits there are `linear` over the spread. A
 * value within 3 percent of a power of ten is that power. */
static double find_eps(const probes *p, const tensors *t) {
    double up = 0.0, down = 0.0, mean, variance;
    for (int64_t k = 0; k < t->classes; k++) {
        double seen = (double)p->logits[k] - p->constants[k];
        up += p->linear[k] * p->linear[k];
        down += p->linear[k] * seen;
    }
    moments(&mean, &variance, p->means, t->channels);
    double spread = up / down, eps = spread * spread - variance;
    if (!(eps > 1e-3 * variance))
        return 0.0;
    double power = pow(10.0, round(log10(eps)));
    return fabs(eps / power - 1.0) < 0.03 ? power : eps;
}

/* The largest deviation of the formula from the program, over the logits' own scale. */
static double deviation(const probes *p, const tensors *t) {
    double worst = 0.0, mean, variance;
    for (int64_t n = 0; n < PROBES; n++) {
        const double *linear = p->linear + n * t->classes;
        double scale = 1e-30, off = 0.0, spread = 1.0;
        moments(&mean, &variance, p->means + n * t->channels, t->channels);
        if (t->normalizes)
            spread = sqrt(variance + t->eps);
        for (int64_t k = 0; k < t->classes; k++) {
            double seen = (double)p->logits[n * t->classes + k];
            scale = fmax(scale, fmax(fabs(seen), fabs(p->constants[k])));
            off = fmax(off, fabs(linear[k] / spread + p->constants[k] - seen));
            worst = isfinite(seen) ? worst : INFINITY;
        }
        worst = fmax(worst, off / scale);
    }
    return worst;
}

/* The reading is believed only where it predicts the head program on maps it was not fitted to. */
static featinv_status verify(tensors *t, const featinv_model *model, const fi_backend *backend,
                             fi_net *net) {
    const double most = 1e-4;
    const int32_t *shape = model->bundle->map;
    const int64_t map[3] = {shape[0], shape[1], shape[2]};
    probes p = {0};
    featinv_status status = open_probes(&p, t, map);
    if (!status)
        status = run_probes(&p, t, backend, net, map);
    if (!status && t->normalizes)
        t->eps = find_eps(&p, t);
    double off = status ? 0.0 : deviation(&p, t);
    if (!status && !(off <= most)) {
        char what[96];
        (void)snprintf(what, sizeof what, "its logits deviate by %.2g of their scale, more than %g",
                       off, most);
        status = fail_head(model, what);
    }
    close_probes(&p);
    return status;
}

/* ---------------------------------------------------------------- the head ------------------- */

featinv_status fi_head_open(fi_head *head, featinv_session *session, int32_t class_index) {
    const fi_backend *backend = session->backend;
    featinv_model *model = session->model;
    fi_net *net = NULL;
    *head = (fi_head){0};
    if (class_index < 0 || class_index >= model->class_count)
        return fi_fail(FEATINV_ERROR_NOT_FOUND, "class %d: this bundle has classes 0 to %d",
                       class_index, model->class_count - 1);
    tensors t = {.channels = model->bundle->map[0],
                 .classes = model->class_count,
                 .normalizes = strcmp(model->bundle->head, "layernorm-linear") == 0};
    /* in float32 whatever the session computes in: a reading is checked, not its rounding */
    featinv_status status =
        fi_model_net(&net, model, backend, session->device_type, session->device_index,
                     FEATINV_DTYPE_F32, FI_PART(FI_PROGRAM_HEAD));
    if (!status)
        status = read_tensors(&t, model, backend, net);
    if (!status)
        status = verify(&t, model, backend, net);
    if (!status && !(head->weight = malloc((size_t)t.channels * sizeof *head->weight)))
        status = fi_fail_memory((size_t)t.channels * sizeof *head->weight);
    if (!status) {
        head->channels = t.channels;
        head->normalizes = t.normalizes;
        head->eps = t.eps;
        head->constant = class_weight(head->weight, &t, class_index);
    }
    close_tensors(&t);
    return status;
}

void fi_head_close(fi_head *head) {
    free(head->weight);
    *head = (fi_head){0};
}
