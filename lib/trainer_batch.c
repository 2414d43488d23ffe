#include "trainer.h"

#include "error.h"
#include "extract.h"
#include "noise.h"
#include "parts.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Streams of the noise generator; the counter is (position of the sample, step, stream, element),
 * the key the trainer's seed. */
enum {
    STREAM_NOISE = 16, /* epsilon */
    STREAM_POSTERIOR,  /* of the latents of images */
    STREAM_CHOICES     /* timestep, hint, prompt, both: the four words of element 0 */
};

static size_t volume(const int32_t extent[3]) {
    return (size_t)extent[0] * (size_t)extent[1] * (size_t)extent[2];
}

void fi_trainer_inputs_free(fi_trainer_inputs *inputs) {
    void *const owned[] = {inputs->latents,   inputs->noise,  inputs->maps,
                           inputs->contexts,  inputs->signal, inputs->sigma,
                           inputs->timesteps, inputs->losses, inputs->weights};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    *inputs = (fi_trainer_inputs){0};
}

static featinv_status check_counts(const featinv_trainer_batch *batch) {
    if (batch->count < 1 || batch->count > 1 << 20)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "a batch of %lld samples: it must be 1 to %d",
                       (long long)batch->count, 1 << 20);
    if (batch->position < 0 || batch->position > (int64_t)UINT32_MAX - batch->count)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "a batch at position %lld",
                       (long long)batch->position);
    if (!batch->images == !batch->latents)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "give images or latents: one of them");
    if (!batch->views == !batch->maps)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "give views or maps: one of them");
    return FEATINV_OK;
}

static featinv_status allocate(fi_trainer_inputs *in, const fi_bundle *b, size_t n) {
    size_t latent = volume(b->latent), map = volume(b->map);
    in->latents = calloc(n, latent * sizeof *in->latents);
    in->noise = calloc(n, latent * sizeof *in->noise);
    in->maps = calloc(n, map * sizeof *in->maps);
    in->timesteps = calloc(n, sizeof *in->timesteps);
    in->signal = calloc(n, sizeof *in->signal);
    in->sigma = calloc(n, sizeof *in->sigma);
    in->weights = calloc(n, sizeof *in->weights);
    in->losses = calloc(n, sizeof *in->losses);
    if (!in->latents || !in->noise || !in->maps || !in->timesteps || !in->signal || !in->sigma ||
        !in->weights || !in->losses)
        return fi_fail_memory(n * (2 * latent + map) * sizeof(float));
    return FEATINV_OK;
}

/* Copies a given float32 tensor of n rows; all values must be finite. */
static featinv_status copy_floats(float *to, const featinv_tensor *tensor, const char *what,
                                  int64_t n, const int32_t extent[3]) {
    const void *data = NULL;
    void *owned = NULL;
    int64_t shape[4] = {n, extent[0], extent[1], extent[2]};
    size_t count = (size_t)n * volume(extent);
    featinv_status status =
        fi_tensor_input(&data, &owned, tensor, what, FEATINV_DTYPE_F32, 4, shape);
    if (!status)
        status = fi_check_finite(data, count, what);
    if (!status)
        memcpy(to, data, count * sizeof *to);
    free(owned);
    return status;
}

/* ---------------------------------------------------------------- latents and maps ----------- */

/* z = scale (mean + exp(logvar / 2) draw). */
static featinv_status encode_images(fi_trainer_inputs *in, const featinv_trainer *trainer,
                                    fi_net *net, const featinv_trainer_batch *batch,
                                    uint32_t step) {
    featinv_session *session = trainer->session;
    const fi_bundle *b = session->model->bundle;
    size_t size = volume(b->latent);
    const void *bytes = NULL;
    void *owned = NULL;
    int64_t shape[4] = {in->n, b->image[1], b->image[2], 3};
    float *logvar = malloc((size_t)in->n * size * sizeof *logvar);
    float *draw = malloc(size * sizeof *draw);
    featinv_status status =
        logvar && draw ? FEATINV_OK : fi_fail_memory((size_t)(in->n + 1) * size * sizeof *draw);
    if (!status)
        status =
            fi_tensor_input(&bytes, &owned, batch->images, "images", FEATINV_DTYPE_U8, 4, shape);
    if (!status)
        status = fi_encode(session, net, in->latents, logvar, bytes, in->n, NULL, NULL);
    for (int64_t i = 0; !status && i < in->n; i++) {
        float *z = in->latents + (size_t)i * size;
        fi_noise(draw, size, trainer->options.seed, (uint32_t)(batch->position + i), step,
                 STREAM_POSTERIOR);
        for (size_t k = 0; k < size; k++)
            z[k] = (float)b->latent_scale *
                   (z[k] + expf(0.5f * logvar[(size_t)i * size + k]) * draw[k]);
    }
    free(owned);
    free(draw);
    free(logvar);
    return status;
}

typedef struct views {
    const uint8_t *bytes;
    size_t pixels;
} views;

static featinv_status fill_view(uint8_t *bytes, const fi_preprocess *p, const void *source,
                                int64_t index) {
    (void)p;
    const views *all = source;
    memcpy(bytes, all->bytes + (size_t)index * all->pixels, all->pixels);
    return FEATINV_OK;
}

static featinv_status extract_views(fi_trainer_inputs *in, const featinv_trainer *trainer,
                                    fi_net *net, const featinv_tensor *tensor) {
    featinv_session *session = trainer->session;
    const fi_bundle *b = session->model->bundle;
    int64_t shape[4] = {in->n, b->input_height, b->input_width, 3};
    const void *bytes = NULL;
    void *owned = NULL;
    featinv_status status =
        fi_tensor_input(&bytes, &owned, tensor, "views", FEATINV_DTYPE_U8, 4, shape);
    views all = {bytes, (size_t)b->input_height * (size_t)b->input_width * 3};
    if (!status)
        status =
            fi_features_extract(session, net, in->maps, NULL, in->n, fill_view, &all, NULL, NULL);
    free(owned);
    return status;
}

static featinv_status read_pictures(fi_trainer_inputs *in, const featinv_trainer *trainer,
                                    fi_net *net, const featinv_trainer_batch *batch,
                                    uint32_t step) {
    const fi_bundle *b = trainer->session->model->bundle;
    featinv_status status =
        batch->images ? encode_images(in, trainer, net, batch, step)
                      : copy_floats(in->latents, batch->latents, "latents", in->n, b->latent);
    if (status)
        return status;
    return batch->views ? extract_views(in, trainer, net, batch->views)
                        : copy_floats(in->maps, batch->maps, "maps", in->n, b->map);
}

/* ---------------------------------------------------------------- prompts -------------------- */

/* Rows of a given context tensor: one (L, D) for all samples, or one for each. */
static featinv_status copy_contexts(fi_trainer_inputs *in, const featinv_tensor *tensor,
                                    int64_t dim) {
    const void *data = NULL;
    void *owned = NULL;
    bool shared = tensor->ndim == 2;
    int64_t shape[3] = {in->n, -1, dim};
    featinv_status status = fi_tensor_input(&data, &owned, tensor, "context_data",
                                            FEATINV_DTYPE_F32, shared ? 2 : 3, shape + shared);
    if (status)
        return status;
    in->context_rows = tensor->shape[shared ? 0 : 1];
    size_t each = (size_t)(in->context_rows * dim), n = (size_t)in->n;
    if (!each)
        status = fi_fail(FEATINV_ERROR_SHAPE, "context_data holds no tokens");
    if (!status)
        status = fi_check_finite(data, shared ? each : n * each, "context_data");
    if (!status && !(in->contexts = malloc(n * each * sizeof *in->contexts)))
        status = fi_fail_memory(n * each * sizeof *in->contexts);
    for (size_t i = 0; !status && i < n; i++)
        memcpy(in->contexts + i * each, (const float *)data + (shared ? 0 : i * each),
               each * sizeof *in->contexts);
    free(owned);
    return status;
}

static featinv_status read_contexts(fi_trainer_inputs *in, const featinv_trainer *trainer,
                                    const featinv_trainer_batch *batch) {
    const fi_context *prompt = trainer->prompt;
    in->context_dim = trainer->empty->dim;
    if (batch->context_data)
        return copy_contexts(in, batch->context_data, in->context_dim);
    if (prompt->dim != in->context_dim)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "context \"%s\" is %lld wide, \"%s\" is %lld",
                       prompt->name, (long long)prompt->dim, trainer->empty->name,
                       (long long)in->context_dim);
    size_t each = (size_t)(prompt->rows * prompt->dim);
    in->context_rows = prompt->rows;
    in->contexts = malloc((size_t)in->n * each * sizeof *in->contexts);
    if (!in->contexts)
        return fi_fail_memory((size_t)in->n * each * sizeof *in->contexts);
    for (size_t i = 0; i < (size_t)in->n; i++)
        memcpy(in->contexts + i * each, prompt->data, each * sizeof *in->contexts);
    return FEATINV_OK;
}

static featinv_status drop_prompt(fi_trainer_inputs *in, const featinv_trainer *trainer,
                                  int64_t i) {
    const fi_context *empty = trainer->empty;
    if (empty->rows != in->context_rows)
        return fi_fail(FEATINV_ERROR_SHAPE,
                       "the prompt has %lld tokens, the empty one (\"%s\") %lld: it cannot be "
                       "dropped",
                       (long long)in->context_rows, empty->name, (long long)empty->rows);
    size_t each = (size_t)(in->context_rows * in->context_dim);
    memcpy(in->contexts + (size_t)i * each, empty->data, each * sizeof *in->contexts);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- draws ---------------------- */

static bool happens(uint32_t draw, double probability) {
    return ((double)draw + 0.5) / 4294967296.0 < probability;
}

/* Timestep and dropout of every sample. The map is zeroed as it enters the hint encoder, whose own
 * biases stay, as in the published code. */
static featinv_status choose(fi_trainer_inputs *in, const featinv_trainer *trainer,
                             const featinv_trainer_batch *batch, uint32_t step, bool dropout) {
    const featinv_trainer_options *o = &trainer->options;
    const fi_bundle *b = trainer->session->model->bundle;
    const uint32_t key[2] = {(uint32_t)o->seed, (uint32_t)(o->seed >> 32)};
    size_t map = volume(b->map);
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; !status && i < in->n; i++) {
        uint32_t draw[4] = {(uint32_t)(batch->position + i), step, STREAM_CHOICES, 0};
        fi_philox(draw, draw, key);
        if (!batch->timesteps)
            in->timesteps[i] = (int64_t)(((uint64_t)draw[0] * (uint64_t)b->timesteps) >> 32);
        bool both = dropout && happens(draw[3], o->joint_dropout);
        bool hint = batch->drop_hint ? batch->drop_hint[i] != 0
                                     : both || (dropout && happens(draw[1], o->hint_dropout));
        bool prompt = batch->drop_prompt ? batch->drop_prompt[i] != 0
                                         : both || (dropout && happens(draw[2], o->prompt_dropout));
        if (hint)
            memset(in->maps + (size_t)i * map, 0, map * sizeof *in->maps);
        if (prompt)
            status = drop_prompt(in, trainer, i);
    }
    return status;
}

static featinv_status read_timesteps(fi_trainer_inputs *in, const featinv_tensor *tensor,
                                     int32_t total) {
    const void *data = NULL;
    void *owned = NULL;
    int64_t shape[1] = {in->n};
    featinv_status status =
        fi_tensor_input(&data, &owned, tensor, "timesteps", FEATINV_DTYPE_I64, 1, shape);
    if (status)
        return status;
    memcpy(in->timesteps, data, (size_t)in->n * sizeof *in->timesteps);
    free(owned);
    for (int64_t i = 0; i < in->n; i++)
        if (in->timesteps[i] < 0 || in->timesteps[i] >= total)
            return fi_fail(FEATINV_ERROR_ARGUMENT, "timestep %lld: it must be 0 to %d",
                           (long long)in->timesteps[i], total - 1);
    return FEATINV_OK;
}

/* Coefficients and weight of each sample's timestep, the weight not yet divided by the batch. */
static void weigh(fi_trainer_inputs *in, const featinv_trainer *trainer) {
    const featinv_model *model = trainer->session->model;
    bool v = strcmp(model->bundle->prediction, "v") == 0;
    double gamma = trainer->options.min_snr;
    for (int64_t i = 0; i < in->n; i++) {
        double alpha = model->alphas[in->timesteps[i]], snr = alpha / (1.0 - alpha);
        in->signal[i] = sqrt(alpha);
        in->sigma[i] = sqrt(1.0 - alpha);
        in->weights[i] = gamma > 0.0 ? fmin(snr, gamma) / (v ? snr + 1.0 : snr) : 1.0;
    }
}

uint32_t fi_trainer_inputs_need(const featinv_trainer_batch *batch) {
    return (batch->images ? FI_PART(FI_PROGRAM_ENCODER) : 0) |
           (batch->views ? FI_PART(FI_PROGRAM_BACKBONE) : 0);
}

featinv_status fi_trainer_inputs_make(fi_trainer_inputs *out, const featinv_trainer *trainer,
                                      fi_net *net, const featinv_trainer_batch *batch,
                                      uint32_t step, bool dropout) {
    const fi_bundle *b = trainer->session->model->bundle;
    *out = (fi_trainer_inputs){.n = batch->count};
    featinv_status status = check_counts(batch);
    if (!status)
        status = allocate(out, b, (size_t)out->n);
    if (!status && batch->timesteps)
        status = read_timesteps(out, batch->timesteps, b->timesteps);
    if (!status)
        status = read_contexts(out, trainer, batch);
    if (!status)
        status = read_pictures(out, trainer, net, batch, step);
    if (!status)
        status = choose(out, trainer, batch, step, dropout);
    if (status)
        return status;
    weigh(out, trainer);
    if (batch->noise)
        return copy_floats(out->noise, batch->noise, "noise", out->n, b->latent);
    size_t size = volume(b->latent);
    for (int64_t i = 0; i < out->n; i++)
        fi_noise(out->noise + (size_t)i * size, size, trainer->options.seed,
                 (uint32_t)(batch->position + i), step, STREAM_NOISE);
    return FEATINV_OK;
}
