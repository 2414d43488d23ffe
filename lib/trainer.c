#include "trainer.h"

#include "error.h"
#include "options.h"
#include "tensor.h"
#include "weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int64_t MOST_STEPS = UINT32_MAX - 1; /* a step's number is a counter of the draws */

/* ---------------------------------------------------------------- options -------------------- */

static featinv_trainer_options defaults(void) {
    return (featinv_trainer_options){.struct_size = sizeof(featinv_trainer_options),
                                     .mode = FEATINV_TRAIN_LOCKED,
                                     .rate = 1e-5,
                                     .decay_floor = 0.02,
                                     .beta1 = 0.9,
                                     .beta2 = 0.999,
                                     .epsilon = 1e-8,
                                     .weight_decay = 0.01,
                                     .hint_dropout = 0.1,
                                     .prompt_dropout = 0.1,
                                     .accumulation = 1,
                                     .precision = FEATINV_DTYPE_F32};
}

featinv_status featinv_trainer_options_init(featinv_trainer_options *options, size_t size) {
    featinv_trainer_options all = defaults();
    return fi_options_init(options, size, &all, sizeof all);
}

static featinv_status check_numbers(const featinv_trainer_options *o) {
    const struct {
        const char *name;
        double value, least, most;
    } ranges[] = {
        {"rate", o->rate, 0.0, 1e3},
        {"decay_floor", o->decay_floor, 0.0, 1.0},
        {"epsilon", o->epsilon, 1e-30, 1.0},
        {"weight_decay", o->weight_decay, 0.0, 1e3},
        {"clip", o->clip, 0.0, 1e30},
        {"min_snr", o->min_snr, 0.0, 1e30},
        {"hint_dropout", o->hint_dropout, 0.0, 1.0},
        {"prompt_dropout", o->prompt_dropout, 0.0, 1.0},
        {"joint_dropout", o->joint_dropout, 0.0, 1.0},
        {"warmup", (double)o->warmup, 0.0, (double)MOST_STEPS},
        {"decay_steps", (double)o->decay_steps, 0.0, (double)MOST_STEPS},
        {"accumulation", (double)o->accumulation, 1.0, 65536.0},
        {"mode", (double)o->mode, FEATINV_TRAIN_LOCKED, FEATINV_TRAIN_JOINT},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most))
            return fi_fail(FEATINV_ERROR_ARGUMENT, "%s is %g: it must be %g to %g", ranges[i].name,
                           ranges[i].value, ranges[i].least, ranges[i].most);
    const struct {
        const char *name;
        double value;
    } decays[] = {{"beta1", o->beta1}, {"beta2", o->beta2}, {"average", o->average}};
    for (size_t i = 0; i < sizeof decays / sizeof *decays; i++)
        if (!(decays[i].value >= 0.0 && decays[i].value < 1.0))
            return fi_fail(FEATINV_ERROR_ARGUMENT, "%s is %g: it must be 0 or more and below 1",
                           decays[i].name, decays[i].value);
    return FEATINV_OK;
}

static featinv_status check_options(const featinv_trainer_options *o,
                                    const featinv_session *session) {
    featinv_status status = check_numbers(o);
    if (status)
        return status;
    if (o->precision != FEATINV_DTYPE_F32 && o->precision != FEATINV_DTYPE_BF16)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "precision is %d: it must be fp32 or bf16",
                       o->precision);
    if (o->precision == FEATINV_DTYPE_BF16 && session->device_type != FI_DEVICE_CUDA)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "precision bf16 needs a CUDA device, not %s",
                       session->device_text);
    return FEATINV_OK;
}

/* Learning rate of the update after `step` others. */
static double rate_at(const featinv_trainer_options *o, int64_t step) {
    if (step < o->warmup)
        return o->rate * (double)(step + 1) / (double)o->warmup;
    if (!o->decay_steps)
        return o->rate;
    if (step >= o->decay_steps)
        return o->rate * o->decay_floor;
    double part = (double)(step - o->warmup) / (double)(o->decay_steps - o->warmup);
    return o->rate * (o->decay_floor + (1.0 - o->decay_floor) * 0.5 * (1.0 + cos(M_PI * part)));
}

/* ---------------------------------------------------------------- life ----------------------- */

static featinv_status load_net(featinv_trainer *trainer) {
    featinv_session *session = trainer->session;
    fi_placed_net placed = {.device_type = session->device_type,
                            .device_index = session->device_index,
                            .dtype = FEATINV_DTYPE_F32};
    int failed = session->backend->net_create(&placed.net, placed.device_type, placed.device_index,
                                              placed.dtype, /*training=*/1);
    if (failed)
        return fi_backend_fail(session->backend, failed, session->model->bundle->path);
    trainer->net = placed.net;
    return fi_weights_load(&placed, session->model, session->backend,
                           FI_PART(FI_PROGRAM_HINT) | FI_PART(FI_PROGRAM_CONTROL) |
                               FI_PART(FI_PROGRAM_UNET));
}

static featinv_status start(featinv_trainer *trainer) {
    const featinv_session *session = trainer->session;
    const fi_bundle *b = session->model->bundle;
    const featinv_trainer_options *o = &trainer->options;
    fi_trainer_plan plan = {.mode = o->mode,
                            .prediction = strcmp(b->prediction, "v") == 0,
                            .pooled = b->pooled,
                            .autocast = o->precision == FEATINV_DTYPE_BF16,
                            .average = o->average > 0.0,
                            .beta1 = o->beta1,
                            .beta2 = o->beta2,
                            .epsilon = o->epsilon,
                            .weight_decay = o->weight_decay};
    for (int i = 0; i < 3; i++) {
        plan.latent[i] = b->latent[i];
        plan.map[i] = b->map[i];
    }
    int failed = session->backend->trainer_create(&trainer->state, trainer->net, &plan);
    return failed ? fi_backend_fail(session->backend, failed, "trainer") : FEATINV_OK;
}

static featinv_status list_tensors(featinv_trainer *trainer) {
    const fi_backend *backend = trainer->session->backend;
    int failed = backend->trainer_count(trainer->state, &trainer->count);
    if (failed)
        return fi_backend_fail(backend, failed, "trainer");
    trainer->tensors = calloc((size_t)trainer->count + 1, sizeof *trainer->tensors);
    if (!trainer->tensors)
        return fi_fail_memory((size_t)trainer->count * sizeof *trainer->tensors);
    for (int64_t i = 0; i < trainer->count; i++) {
        fi_trained *t = &trainer->tensors[i];
        failed = backend->trainer_tensor(trainer->state, i, &t->key, &t->shape, &t->ndim);
        if (failed)
            return fi_backend_fail(backend, failed, "trainer");
        if (t->ndim > FEATINV_MAX_DIMS || !fi_checked_size(&t->count, t->shape, t->ndim, 1))
            return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: %s has %d dimensions",
                           trainer->session->model->bundle->path, t->key, t->ndim);
    }
    return FEATINV_OK;
}

static featinv_status find_prompts(featinv_trainer *trainer) {
    const featinv_model *model = trainer->session->model;
    featinv_trainer_options *o = &trainer->options;
    trainer->prompt = fi_model_context(model, o->context ? o->context : model->bundle->context);
    if (!trainer->prompt)
        return FEATINV_ERROR_NOT_FOUND;
    trainer->empty =
        fi_model_context(model, o->uncontext ? o->uncontext : model->bundle->uncontext);
    if (!trainer->empty)
        return FEATINV_ERROR_NOT_FOUND;
    o->context = trainer->prompt->name;
    o->uncontext = trainer->empty->name;
    return FEATINV_OK;
}

featinv_status featinv_trainer_create(featinv_trainer **out, featinv_session *session,
                                      const featinv_trainer_options *options) {
    featinv_trainer_options o = defaults();
    featinv_status status = out ? fi_options_read(&o, sizeof o, options)
                                : fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the trainer");
    if (!status)
        status = fi_session_begin(session, 0, NULL);
    if (status)
        return status;
    if (!session->model || !session->model->has_generator)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: nothing to train without a generator",
                       session->model ? session->model->bundle->path : "a session of no bundle");
    status = check_options(&o, session);
    if (status)
        return status;
    featinv_trainer *trainer = calloc(1, sizeof *trainer);
    if (!trainer)
        return fi_fail_memory(sizeof *trainer);
    trainer->session = session;
    trainer->options = o;
    static featinv_status (*const steps[])(featinv_trainer *) = {
        find_prompts, load_net, start, list_tensors, fi_trainer_ranks_prepare};
    for (size_t i = 0; !status && i < sizeof steps / sizeof *steps; i++)
        status = steps[i](trainer);
    if (status) {
        featinv_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return FEATINV_OK;
}

void featinv_trainer_destroy(featinv_trainer *trainer) {
    if (!trainer)
        return;
    const fi_backend *backend = trainer->session->backend;
    if (trainer->state)
        backend->trainer_destroy(trainer->state);
    if (trainer->net)
        backend->net_destroy(trainer->net);
    free(trainer->exchange);
    free(trainer->tensors);
    free(trainer);
}

/* ---------------------------------------------------------------- steps ---------------------- */

/* Samples [first, first + n) of the inputs through the backend. */
static featinv_status run_part(featinv_trainer *trainer, const fi_trainer_inputs *inputs,
                               int64_t first, int64_t n, bool backward) {
    const fi_backend *backend = trainer->session->backend;
    const fi_bundle *b = trainer->session->model->bundle;
    size_t latent = (size_t)b->latent[0] * (size_t)b->latent[1] * (size_t)b->latent[2];
    size_t map = (size_t)b->map[0] * (size_t)b->map[1] * (size_t)b->map[2];
    fi_trainer_batch batch = {.n = n,
                              .latents = inputs->latents + (size_t)first * latent,
                              .noise = inputs->noise + (size_t)first * latent,
                              .timesteps = inputs->timesteps + first,
                              .signal = inputs->signal + first,
                              .sigma = inputs->sigma + first,
                              .maps = inputs->maps + (size_t)first * map,
                              .contexts = inputs->contexts +
                                          first * inputs->context_rows * inputs->context_dim,
                              .context_rows = inputs->context_rows,
                              .context_dim = inputs->context_dim,
                              .weights = inputs->weights + first};
    int failed = backend->trainer_forward(trainer->state, inputs->losses + first, &batch, backward);
    if (failed)
        return fi_backend_fail(backend, failed, "training");
    for (int64_t i = first; i < first + n; i++)
        if (!isfinite(inputs->losses[i]))
            return fi_fail(FEATINV_ERROR_COMPUTE,
                           "step %lld: the loss of sample %lld (timestep %lld) is not finite",
                           (long long)trainer->step + 1, (long long)i,
                           (long long)inputs->timesteps[i]);
    return FEATINV_OK;
}

/* All samples in `parts` parts; *loss is these samples' share of what is minimised, the mean over
 * `total` samples. */
static featinv_status run_parts(double *loss, featinv_trainer *trainer, fi_trainer_inputs *inputs,
                                double total, bool backward) {
    int64_t parts = trainer->options.accumulation, size = (inputs->n + parts - 1) / parts;
    fi_progress progress = {.total = inputs->n + 1}; /* the update is a unit, too */
    featinv_status status = FEATINV_OK;
    for (int64_t i = 0; i < inputs->n; i++)
        inputs->weights[i] /= total;
    for (int64_t first = 0; !status && first < inputs->n; first += size) {
        int64_t n = inputs->n - first < size ? inputs->n - first : size;
        status = run_part(trainer, inputs, first, n, backward);
        if (!status)
            status = fi_session_tick(trainer->session, &progress, n);
    }
    *loss = 0.0;
    for (int64_t i = 0; !status && i < inputs->n; i++)
        *loss += inputs->weights[i] * inputs->losses[i];
    return status;
}

/* Of all gradients together: rank 0's value on every rank, since clipping by another one would part
 * the weights. */
static featinv_status find_norm(double *norm, featinv_trainer *trainer) {
    const fi_backend *backend = trainer->session->backend;
    int failed = backend->trainer_norm(trainer->state, norm);
    featinv_status status = failed ? fi_backend_fail(backend, failed, "training") : FEATINV_OK;
    status = fi_ranks_agree(trainer->options.ranks, status);
    if (!status)
        status = fi_ranks_share(trainer->options.ranks, norm, sizeof *norm);
    if (!status && !isfinite(*norm))
        return fi_fail(FEATINV_ERROR_COMPUTE, "step %lld: the gradient is not finite",
                       (long long)trainer->step + 1);
    return status;
}

/* Clips and applies the gradients. */
static featinv_status update(double *rate, featinv_trainer *trainer, double norm) {
    const fi_backend *backend = trainer->session->backend;
    const featinv_trainer_options *o = &trainer->options;
    double factor = o->clip > 0.0 ? fmin(1.0, o->clip / (norm + 1e-6)) : 1.0;
    double decay = fmin(o->average, (double)(trainer->step + 1) / (double)(trainer->step + 10));
    *rate = rate_at(o, trainer->step);
    int failed = backend->trainer_update(trainer->state, *rate, factor, trainer->step + 1, decay);
    if (failed)
        return fi_backend_fail(backend, failed, "training");
    return FEATINV_OK;
}

static featinv_status begin(featinv_trainer_batch *read, fi_net **net, featinv_trainer *trainer,
                            const featinv_trainer_batch *batch) {
    if (!batch)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no batch");
    *read = (featinv_trainer_batch){.struct_size = sizeof *read};
    featinv_status status = fi_options_read(read, sizeof *read, batch);
    return status ? status : fi_session_begin(trainer->session, fi_trainer_inputs_need(read), net);
}

static featinv_status report(featinv_trainer_result *out, featinv_trainer_result result) {
    return out ? fi_options_init(out, out->struct_size, &result, sizeof result) : FEATINV_OK;
}

/* The samples of a step, and no gradient left of the one before. */
static featinv_status prepare(fi_trainer_inputs *inputs, featinv_trainer_batch *given,
                              featinv_trainer *trainer, const featinv_trainer_batch *batch) {
    const fi_backend *backend = trainer->session->backend;
    fi_net *net = NULL;
    featinv_status status = begin(given, &net, trainer, batch);
    if (status)
        return status;
    if (trainer->step >= MOST_STEPS)
        return fi_fail(FEATINV_ERROR_LIMIT, "%lld steps are done, and no more can be numbered",
                       (long long)trainer->step);
    status = fi_trainer_inputs_make(inputs, trainer, net, given, (uint32_t)trainer->step, true);
    if (status)
        return status;
    int failed = backend->trainer_clear(trainer->state);
    return failed ? fi_backend_fail(backend, failed, "training") : FEATINV_OK;
}

/* Among several ranks each has prepared its own samples. A failure that one of them alone may meet
 * is agreed on before the next exchange. */
static featinv_status run_step(featinv_trainer_result *r, featinv_trainer *trainer,
                               fi_trainer_inputs *inputs) {
    featinv_ranks *ranks = trainer->options.ranks;
    double total = (double)inputs->n;
    featinv_status status = fi_ranks_sum_double(ranks, &total);
    if (status)
        return status;
    status = run_parts(&r->loss, trainer, inputs, total, /*backward=*/true);
    status = fi_ranks_agree(ranks, status);
    if (!status)
        status = fi_ranks_sum_double(ranks, &r->loss);
    if (!status)
        status = fi_trainer_sum_gradients(trainer);
    if (!status)
        status = find_norm(&r->gradient_norm, trainer);
    if (status)
        return status;
    status = fi_ranks_agree(ranks, update(&r->rate, trainer, r->gradient_norm));
    if (!status)
        trainer->step++;
    return status;
}

featinv_status featinv_trainer_step(featinv_trainer_result *result, featinv_trainer *trainer,
                                    const featinv_trainer_batch *batch) {
    fi_trainer_inputs inputs = {0};
    featinv_trainer_batch given;
    featinv_trainer_result r = {.struct_size = sizeof r};
    if (!trainer)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no trainer");
    featinv_status status = prepare(&inputs, &given, trainer, batch);
    status = fi_ranks_agree(trainer->options.ranks, status);
    if (!status)
        status = run_step(&r, trainer, &inputs);
    if (!status && given.losses)
        memcpy(given.losses, inputs.losses, (size_t)inputs.n * sizeof *given.losses);
    r.step = trainer->step;
    fi_trainer_inputs_free(&inputs);
    return status ? status : report(result, r);
}

featinv_status featinv_trainer_loss(featinv_trainer_result *result, featinv_trainer *trainer,
                                    const featinv_trainer_batch *batch) {
    fi_trainer_inputs inputs;
    featinv_trainer_batch given;
    featinv_trainer_result r = {.struct_size = sizeof r};
    fi_net *net = NULL;
    if (!trainer)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no trainer");
    featinv_status status = begin(&given, &net, trainer, batch);
    if (status)
        return status;
    status = fi_trainer_inputs_make(&inputs, trainer, net, &given, FI_TRAINER_NO_STEP, false);
    if (!status)
        status = run_parts(&r.loss, trainer, &inputs, (double)inputs.n, /*backward=*/false);
    if (!status && given.losses)
        memcpy(given.losses, inputs.losses, (size_t)inputs.n * sizeof *given.losses);
    r.step = trainer->step;
    fi_trainer_inputs_free(&inputs);
    return status ? status : report(result, r);
}

/* ---------------------------------------------------------------- tensors -------------------- */

int64_t featinv_trainer_steps(const featinv_trainer *trainer) {
    return trainer ? trainer->step : 0;
}

int64_t featinv_trainer_count(const featinv_trainer *trainer) {
    return trainer ? trainer->count : 0;
}

const char *featinv_trainer_key(const featinv_trainer *trainer, int64_t index) {
    return trainer && index >= 0 && index < trainer->count ? trainer->tensors[index].key : NULL;
}

int64_t fi_trainer_find(const featinv_trainer *trainer, const char *key) {
    for (int64_t i = 0; i < trainer->count; i++)
        if (strcmp(trainer->tensors[i].key, key) == 0)
            return i;
    return -1;
}

size_t fi_trainer_largest(const featinv_trainer *trainer) {
    size_t largest = 0;
    for (int64_t i = 0; i < trainer->count; i++)
        largest = trainer->tensors[i].count > largest ? trainer->tensors[i].count : largest;
    return largest;
}

static featinv_status find_tensor(int64_t *index, const featinv_trainer *trainer, const char *key) {
    if (!trainer || !key)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", trainer ? "key" : "trainer");
    *index = fi_trainer_find(trainer, key);
    return *index < 0 ? fi_fail(FEATINV_ERROR_NOT_FOUND, "no trained tensor is named \"%s\"", key)
                      : FEATINV_OK;
}

featinv_status featinv_trainer_shape(int64_t shape[FEATINV_MAX_DIMS], int32_t *ndim,
                                     const featinv_trainer *trainer, const char *key) {
    int64_t index;
    featinv_status status = shape && ndim
                                ? find_tensor(&index, trainer, key)
                                : fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the shape");
    if (status)
        return status;
    const fi_trained *t = &trainer->tensors[index];
    *ndim = t->ndim;
    for (int32_t i = 0; i < t->ndim; i++)
        shape[i] = t->shape[i];
    return FEATINV_OK;
}

featinv_status fi_trainer_read(featinv_trainer *trainer, int32_t what, int64_t index,
                               float *values) {
    const fi_backend *backend = trainer->session->backend;
    int failed = backend->trainer_read(trainer->state, what, index, values);
    return failed ? fi_backend_fail(backend, failed, trainer->tensors[index].key) : FEATINV_OK;
}

featinv_status fi_trainer_write(featinv_trainer *trainer, int32_t what, int64_t index,
                                const float *values) {
    const fi_backend *backend = trainer->session->backend;
    int failed = backend->trainer_write(trainer->state, what, index, values);
    return failed ? fi_backend_fail(backend, failed, trainer->tensors[index].key) : FEATINV_OK;
}

static featinv_status give(const featinv_tensor *out, featinv_trainer *trainer, const char *key,
                           int32_t what) {
    int64_t index;
    void *data = NULL;
    const fi_backend *backend;
    featinv_status status = find_tensor(&index, trainer, key);
    if (!status)
        status = fi_backend_get(&backend);
    if (status)
        return status;
    const fi_trained *t = &trainer->tensors[index];
    status = fi_tensor_data(&data, out, key, FEATINV_DTYPE_F32, t->ndim, t->shape);
    return status ? status : fi_trainer_read(trainer, what, index, data);
}

featinv_status featinv_trainer_parameter(const featinv_tensor *value, featinv_trainer *trainer,
                                         const char *key) {
    return give(value, trainer, key, FI_TRAINED_VALUE);
}

featinv_status featinv_trainer_average(const featinv_tensor *average, featinv_trainer *trainer,
                                       const char *key) {
    if (trainer && !(trainer->options.average > 0.0))
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "this trainer keeps no moving average");
    return give(average, trainer, key, FI_TRAINED_AVERAGE);
}

featinv_status featinv_trainer_gradient(const featinv_tensor *gradient, featinv_trainer *trainer,
                                        const char *key) {
    return give(gradient, trainer, key, FI_TRAINED_GRADIENT);
}
