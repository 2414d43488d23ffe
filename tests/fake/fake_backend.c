/* A backend of arithmetic that fits in the head, so that the core is tested without libtorch.
 *
 * A program file is text: one line `key dims...` for each external tensor. Sampling moves each
 * latent a fixed part of the way to the mean of its map, so results depend on noise, map, step and
 * lane but not on how lanes are batched. FAKE_FAIL names a function that fails; FAKE_TRACE counts
 * calls. */
#include "featinv.h"
#include "../../shim/backend.h"
#include "algebra.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAX_TENSORS = 32 };

typedef struct tensor {
    char key[128];
    int64_t shape[8];
    int32_t ndim, program, filled;
    float *data;
} tensor;

struct fi_net {
    tensor tensors[MAX_TENSORS];
    int count;
};

struct fi_sampler {
    fi_sampler_plan plan;
    float *means; /* of the maps whose hints are encoded */
    float *x;
    int64_t *map_index;
    int64_t lanes, size;
};

static _Thread_local char text[256];

static int fail(const char *name) {
    const char *wanted = getenv("FAKE_FAIL");
    if (!wanted || strcmp(wanted, name) != 0)
        return 0;
    (void)snprintf(text, sizeof text, "%s failed on request", name);
    return FEATINV_ERROR_COMPUTE;
}

static const char *error(void) {
    return text;
}

static int describe(char *out, size_t capacity) {
    (void)snprintf(out, capacity, "fake backend");
    return 0;
}

static int cuda_count(void) {
    return 0;
}

static int device_open(int32_t device_type, int32_t index) {
    if (device_type == FI_DEVICE_CPU)
        return 0;
    (void)snprintf(text, sizeof text, "no CUDA device %d", index);
    return FEATINV_ERROR_DEVICE;
}

static int set_number(int32_t number) {
    (void)number;
    return 0;
}

static int net_create(fi_net **out, int32_t device_type, int32_t index, int32_t dtype,
                      int32_t training) {
    (void)device_type, (void)index, (void)dtype, (void)training;
    *out = calloc(1, sizeof **out);
    return *out ? 0 : FEATINV_ERROR_MEMORY;
}

static void net_destroy(fi_net *net) {
    for (int i = 0; i < net->count; i++)
        free(net->tensors[i].data);
    free(net);
}

static int program_load(fi_net *net, int32_t program, const void *bytes, size_t size) {
    char *copy = strndup(bytes, size), *save = NULL;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        tensor *t = &net->tensors[net->count];
        int used = 0, step = 0;
        long long extent;
        if (net->count == MAX_TENSORS || sscanf(line, "%127s%n", t->key, &used) != 1)
            continue;
        for (t->ndim = 0; sscanf(line + used, "%lld%n", &extent, &step) == 1; used += step)
            t->shape[t->ndim++] = extent;
        t->program = program;
        net->count++;
    }
    free(copy);
    return fail("program_load");
}

static tensor *nth(fi_net *net, int32_t program, int64_t index) {
    for (int i = 0; i < net->count; i++)
        if (net->tensors[i].program == program && index-- == 0)
            return &net->tensors[i];
    return NULL;
}

static int program_tensor_count(fi_net *net, int32_t program, int64_t *count) {
    for (*count = 0; nth(net, program, *count);)
        ++*count;
    return 0;
}

static int program_tensor(fi_net *net, int32_t program, int64_t index, const char **key,
                          const int64_t **shape, int32_t *ndim) {
    tensor *t = nth(net, program, index);
    *key = t->key;
    *shape = t->shape;
    *ndim = t->ndim;
    return 0;
}

static int weight_memory(fi_net *net, const char *key, int32_t dtype, void **memory, size_t bytes) {
    (void)dtype;
    *memory = NULL;
    for (int i = 0; i < net->count; i++)
        if (strcmp(net->tensors[i].key, key) == 0 && !net->tensors[i].data)
            *memory = net->tensors[i].data = malloc(bytes + 1);
    return fail("weight_memory");
}

static int weight_done(fi_net *net, const char *key) {
    (void)net, (void)key;
    return fail("weight_done");
}

static int program_finish(fi_net *net, int32_t program) {
    (void)net, (void)program;
    return fail("program_finish");
}

static float mean(const float *values, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++)
        sum += values[i];
    return (float)(sum / (double)count);
}

static int64_t volume(const int64_t shape[3]) {
    return shape[0] * shape[1] * shape[2];
}

/* map value c = mean of the image + c; logit k = -|k - first channel|. */
static int backbone(fi_net *net, float *maps, float *logits, const float *images, int64_t n,
                    const int64_t image[3], const int64_t map[3], int64_t classes) {
    (void)net;
    for (int64_t i = 0; i < n; i++) {
        float level = mean(images + i * volume(image), volume(image));
        for (int64_t k = 0; k < volume(map); k++)
            maps[i * volume(map) + k] = level + (float)(k / (map[1] * map[2]));
        for (int64_t k = 0; logits && k < classes; k++)
            logits[i * classes + k] = -fabsf((float)k - level);
    }
    return fail("backbone");
}

static int head(fi_net *net, float *logits, const float *maps, int64_t n, const int64_t map[3],
                int64_t classes) {
    (void)net;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < classes; k++)
            logits[i * classes + k] = -fabsf((float)k - maps[i * volume(map)]);
    return fail("head");
}

static int encode(fi_net *net, float *out, float *logvar, const float *images, int64_t n,
                  const int64_t image[3], const int64_t latent[3]) {
    (void)net;
    for (int64_t i = 0; i < n * volume(latent); i++) {
        if (out)
            out[i] = mean(images + i / volume(latent) * volume(image), volume(image));
        if (logvar)
            logvar[i] = -1.0f;
    }
    return fail("encode");
}

static int decode(fi_net *net, uint8_t *bytes, float *floats, int32_t legacy, const float *latents,
                  int64_t n, const int64_t latent[3], const int64_t image[3]) {
    (void)net, (void)legacy;
    for (int64_t i = 0; i < n * volume(image); i++) {
        float level = mean(latents + i / volume(image) * volume(latent), volume(latent));
        if (floats)
            floats[i] = level;
        if (bytes)
            bytes[i] = (uint8_t)fminf(255.0f, fmaxf(0.0f, 127.5f + 100.0f * level));
    }
    return fail("decode");
}

static int residual_shapes(fi_net *net, int64_t hint_shape[3], int64_t (*shapes)[3],
                           int32_t capacity, int32_t *count, const int64_t latent[3],
                           const int64_t map[3]) {
    (void)net, (void)map;
    *count = 2;
    for (int i = 0; i < 3; i++) {
        hint_shape[i] = latent[i];
        for (int32_t k = 0; shapes && k < 2 && k < capacity; k++)
            shapes[k][i] = latent[i];
    }
    return 0;
}

static int denoise(fi_net *net, float *prediction, float *hint, int64_t hint_size,
                   float *const *residuals, const int64_t *residual_sizes, int32_t residual_count,
                   const float *x, const int64_t *t, const float *context, int64_t context_rows,
                   int64_t context_dim, const float *maps, int64_t n, const int64_t latent[3],
                   const int64_t map[3], int32_t pooled, const double *strengths,
                   int32_t strength_count, int32_t no_control) {
    (void)net, (void)t, (void)context, (void)context_rows, (void)context_dim, (void)pooled;
    (void)strengths, (void)strength_count, (void)no_control;
    for (int64_t i = 0; prediction && i < n * volume(latent); i++)
        prediction[i] = 0.5f * x[i];
    for (int64_t i = 0; hint && i < hint_size; i++)
        hint[i] = mean(maps + i / (hint_size / n) * volume(map), volume(map));
    for (int32_t k = 0; residuals && k < residual_count; k++)
        for (int64_t i = 0; i < residual_sizes[k]; i++)
            residuals[k][i] = (float)k;
    return fail("denoise");
}

static int sampler_create(fi_sampler **out, fi_net *net, const fi_sampler_plan *plan) {
    (void)net;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return FEATINV_ERROR_MEMORY;
    (*out)->plan = *plan;
    (*out)->size = volume(plan->latent);
    return fail("sampler_create");
}

static int sampler_hints(fi_sampler *s, const float *maps, int64_t n) {
    free(s->means);
    s->means = malloc((size_t)n * sizeof *s->means);
    for (int64_t i = 0; i < n; i++)
        s->means[i] = mean(maps + i * volume(s->plan.map), volume(s->plan.map));
    return fail("sampler_hints");
}

static int sampler_start(fi_sampler *s, const float *noise, const int64_t *map_index,
                         int64_t lanes) {
    free(s->x);
    free(s->map_index);
    s->lanes = lanes;
    s->x = malloc((size_t)(lanes * s->size) * sizeof *s->x);
    s->map_index = malloc((size_t)lanes * sizeof *s->map_index);
    memcpy(s->x, noise, (size_t)(lanes * s->size) * sizeof *s->x);
    memcpy(s->map_index, map_index, (size_t)lanes * sizeof *s->map_index);
    return fail("sampler_start");
}

/* FAKE_DELAY: seconds a step, so that a signal finds one running. */
static void wait_a_while(void) {
    const char *delay = getenv("FAKE_DELAY");
    double seconds = delay ? strtod(delay, NULL) : 0.0;
    struct timespec left = {(time_t)seconds, (long)(1e9 * (seconds - floor(seconds)))};
    while (delay && nanosleep(&left, &left) != 0) /* a signal does not shorten it */
        continue;
}

static int sampler_step(fi_sampler *s, int32_t i, const float *step_noise, float *x, float *x0) {
    (void)i;
    wait_a_while();
    for (int64_t k = 0; k < s->lanes * s->size; k++) {
        float target = s->means[s->map_index[k / s->size]];
        s->x[k] += 0.125f * (target - s->x[k]) + (step_noise ? 0.01f * step_noise[k] : 0.0f);
        if (x)
            x[k] = s->x[k];
        if (x0)
            x0[k] = target;
    }
    return fail("sampler_step");
}

static int sampler_latents(fi_sampler *s, float *latents) {
    memcpy(latents, s->x, (size_t)(s->lanes * s->size) * sizeof *latents);
    return fail("sampler_latents");
}

static int sampler_decode(fi_sampler *s, uint8_t *bytes, float *floats, int32_t legacy,
                          const int64_t image[3]) {
    (void)decode(NULL, bytes, floats, legacy, s->x, s->lanes, s->plan.latent, image);
    return fail("sampler_decode");
}

static void sampler_destroy(fi_sampler *s) {
    free(s->means);
    free(s->x);
    free(s->map_index);
    free(s);
}

#include "trainer.h"

struct fi_operand {
    const float *rows;
    int64_t d;
};

static int threads = 1; /* as asked for last */

static int set_threads(int32_t number) {
    threads = number > 0 ? number : threads;
    return 0;
}

static int thread_count(void) {
    return threads;
}

static int gemm(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                int32_t transpose_a, int32_t transpose_b) {
    (void)algebra_gemm(c, a, b, m, n, k, transpose_a, transpose_b);
    return fail("gemm");
}

static int eigh(double *values, double *vectors, const double *a, int64_t n) {
    (void)algebra_eigh(values, vectors, a, n);
    return fail("eigh");
}

static int singular_values(double *values, const double *a, int64_t m, int64_t n) {
    (void)algebra_singular_values(values, a, m, n);
    return fail("singular_values");
}

static int cholesky(double *factor, int32_t *ok, const double *a, int64_t n) {
    (void)algebra_cholesky(factor, ok, a, n);
    return fail("cholesky");
}

static int operand_create(fi_operand **out, int32_t device_type, int32_t index, const float *rows,
                          int64_t n, int64_t d) {
    (void)device_type, (void)index, (void)n;
    *out = malloc(sizeof **out);
    if (!*out)
        return FEATINV_ERROR_MEMORY;
    **out = (fi_operand){rows, d};
    return fail("operand_create");
}

static int operand_multiply(fi_operand *operand, float *out, int64_t stride, const float *a,
                            int64_t a_first, int64_t m, int64_t first, int64_t count) {
    const int64_t d = operand->d;
    const float *left = a ? a : operand->rows + a_first * d;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < count; j++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < d; k++)
                sum += left[i * d + k] * operand->rows[(first + j) * d + k];
            out[i * stride + j] = sum;
        }
    return fail("operand_multiply");
}

static void operand_destroy(fi_operand *operand) {
    free(operand);
}

static int download(void *host, const void *device, size_t bytes, int32_t device_index) {
    (void)device_index;
    memcpy(host, device, bytes);
    return fail("download");
}

EXPORT const fi_backend *fi_backend_table(char *message, size_t capacity);
const fi_backend *fi_backend_table(char *message, size_t capacity) {
    static const fi_backend table = {
        .abi = FI_BACKEND_ABI,
        .size = sizeof table,
        .error = error,
        .describe = describe,
        .cuda_count = cuda_count,
        .device_open = device_open,
        .set_threads = set_threads,
        .set_deterministic = set_number,
        .net_create = net_create,
        .net_destroy = net_destroy,
        .program_load = program_load,
        .program_tensor_count = program_tensor_count,
        .program_tensor = program_tensor,
        .weight_memory = weight_memory,
        .weight_done = weight_done,
        .program_finish = program_finish,
        .backbone = backbone,
        .head = head,
        .encode = encode,
        .decode = decode,
        .denoise = denoise,
        .residual_shapes = residual_shapes,
        .sampler_create = sampler_create,
        .sampler_hints = sampler_hints,
        .sampler_start = sampler_start,
        .sampler_step = sampler_step,
        .sampler_latents = sampler_latents,
        .sampler_decode = sampler_decode,
        .sampler_destroy = sampler_destroy,
        .trainer_create = trainer_create,
        .trainer_count = trainer_count,
        .trainer_tensor = trainer_tensor,
        .trainer_forward = trainer_forward,
        .trainer_norm = trainer_norm,
        .trainer_update = trainer_update,
        .trainer_clear = trainer_clear,
        .trainer_read = trainer_read,
        .trainer_write = trainer_write,
        .trainer_destroy = trainer_destroy,
        .gemm = gemm,
        .eigh = eigh,
        .singular_values = singular_values,
        .cholesky = cholesky,
        .operand_create = operand_create,
        .operand_multiply = operand_multiply,
        .operand_destroy = operand_destroy,
        .thread_count = thread_count,
        .download = download,
    };
    if (getenv("FAKE_REFUSE")) {
        (void)snprintf(message, capacity, "the fake backend refuses");
        return NULL;
    }
    return &table;
}
