#include "sample.h"

#include "error.h"
#include "noise.h"
#include "options.h"
#include "schedule.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static featinv_sample_options defaults(const featinv_model *model) {
    featinv_sample_options o = {.struct_size = sizeof o,
                                .samples = 1,
                                .steps = 50,
                                .spacing = FEATINV_SPACING_LEADING,
                                .scale = 1.75,
                                .hint_scale = 1.0,
                                .strength = 1.0,
                                .seed = 100};
    if (model && model->has_generator) {
        o.steps = model->bundle->steps;
        o.scale = model->bundle->scale;
        o.hint_scale = model->bundle->hint_scale;
        o.seed = model->bundle->seed;
    }
    return o;
}

featinv_status featinv_sample_options_init(featinv_sample_options *options, size_t size,
                                           const featinv_model *model) {
    featinv_sample_options all = defaults(model);
    return fi_options_init(options, size, &all, sizeof all);
}

static featinv_status check_real(double value, const char *name) {
    return isfinite(value) && fabs(value) <= 1e6
               ? FEATINV_OK
               : fi_fail(FEATINV_ERROR_ARGUMENT, "%s is %g: it must be from -1e6 to 1e6", name,
                         value);
}

static featinv_status options_read(featinv_sample_options *out, const featinv_model *model,
                                   const featinv_sample_options *options) {
    *out = defaults(model);
    featinv_status status = fi_options_read(out, sizeof *out, options);
    if (!status)
        status = check_real(out->scale, "scale");
    if (!status)
        status = check_real(out->hint_scale, "hint scale");
    if (!status)
        status = check_real(out->strength, "strength");
    if (!status && (out->samples < 1 || out->samples > 1 << 20))
        status =
            fi_fail(FEATINV_ERROR_ARGUMENT, "samples is %d: it must be 1 to 1048576", out->samples);
    if (!status && out->guess_mode && !(out->hint_scale <= 1.0 && out->hint_scale >= 1.0))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "guess mode goes with hint scale 1, not %g",
                         out->hint_scale);
    if (!status && out->completed)
        *out->completed = 0;
    return status;
}

/* A run: everything that is the same for all lanes. */
typedef struct run {
    featinv_session *session;
    const featinv_sample_options *options;
    fi_sampler *sampler;
    fi_schedule schedule;
    int64_t lanes, latent_size, map_size, image_size;
    const float *noise, *step_noise;
    int64_t noise_rows;
    float *trace_x, *trace_x0;
    void *owned[4]; /* packed copies of given tensors */
    float *scratch; /* noise of one chunk */
    int64_t *map_index;
} run;

static featinv_status input(run *r, const void **data, const featinv_tensor *tensor,
                            const char *what, int32_t ndim, const int64_t *shape) {
    void *owned = NULL;
    if (!tensor)
        return FEATINV_OK;
    featinv_status status =
        fi_tensor_input(data, &owned, tensor, what, FEATINV_DTYPE_F32, ndim, shape);
    for (size_t i = 0; owned && i < 4; i++)
        if (!r->owned[i]) {
            r->owned[i] = owned;
            owned = NULL;
        }
    return status;
}

/* A context by its name, or as given. */
static featinv_status context(run *r, const float **data, int64_t *rows, int64_t *dim,
                              const char *name, const featinv_tensor *tensor, const char *what,
                              const char *standard) {
    const featinv_model *model = r->session->model;
    const fi_context *stored = fi_model_context(model, tensor || !name ? standard : name);
    if (!stored)
        return FEATINV_ERROR_NOT_FOUND;
    *data = stored->data;
    *rows = stored->rows;
    *dim = stored->dim;
    if (!tensor)
        return FEATINV_OK;
    const void *given = NULL;
    int64_t shape[2] = {-1, stored->dim};
    featinv_status status = input(r, &given, tensor, what, 2, shape);
    *data = given;
    if (!status && tensor->shape[0] < 1)
        status = fi_fail(FEATINV_ERROR_SHAPE, "%s has no token", what);
    if (!status) {
        *rows = tensor->shape[0];
        status = fi_check_finite(given, (size_t)(*rows * *dim), what);
    }
    return status;
}

static featinv_status make_plan(run *r, fi_sampler_plan *plan) {
    const featinv_sample_options *o = r->options;
    const fi_bundle *b = r->session->model->bundle;
    bool one_branch =
        o->scale <= 1.0 && o->scale >= 1.0 && o->hint_scale <= 1.0 && o->hint_scale >= 1.0;
    *plan = (fi_sampler_plan){.steps = r->schedule.steps,
                              .timesteps = r->schedule.timesteps,
                              .alpha = r->schedule.alpha,
                              .alpha_prev = r->schedule.alpha_prev,
                              .sigma = r->schedule.sigma,
                              .prediction = strcmp(b->prediction, "v") == 0,
                              .scale = o->scale,
                              .hint_scale = o->hint_scale,
                              .guess_mode = o->guess_mode != 0,
                              .strength = o->strength,
                              .pooled = b->pooled,
                              .latent_scale = b->latent_scale};
    for (int i = 0; i < 3; i++) {
        plan->latent[i] = b->latent[i];
        plan->map[i] = b->map[i];
    }
    int64_t dim = 0;
    featinv_status status = context(r, &plan->context, &plan->context_rows, &plan->context_dim,
                                    o->context, o->context_data, "context", b->context);
    if (!status && !one_branch)
        status = context(r, &plan->uncontext, &plan->uncontext_rows, &dim, o->uncontext,
                         o->uncontext_data, "uncontext", b->uncontext);
    if (!status && !one_branch && dim != plan->context_dim)
        status = fi_fail(FEATINV_ERROR_SHAPE, "context is %lld wide, uncontext %lld",
                         (long long)plan->context_dim, (long long)dim);
    return status;
}

static featinv_status check_noise(run *r) {
    const featinv_sample_options *o = r->options;
    const fi_bundle *b = r->session->model->bundle;
    int64_t shape[5] = {r->schedule.steps, r->lanes, b->latent[0], b->latent[1], b->latent[2]};
    int64_t any[4] = {-1, b->latent[0], b->latent[1], b->latent[2]};
    const void *noise = NULL, *step_noise = NULL;
    featinv_status status = input(r, &noise, o->noise, "noise", 4, any);
    if (!status && noise) {
        r->noise_rows = o->noise->shape[0];
        if (r->noise_rows != 1 && r->noise_rows != r->lanes)
            status = fi_fail(FEATINV_ERROR_SHAPE, "noise has %lld rows, %lld or 1 are wanted",
                             (long long)r->noise_rows, (long long)r->lanes);
        if (!status)
            status = fi_check_finite(noise, (size_t)(r->noise_rows * r->latent_size), "noise");
    }
    if (!status)
        status = input(r, &step_noise, o->step_noise, "step noise", 5, shape);
    if (!status && step_noise)
        status = fi_check_finite(step_noise, (size_t)(shape[0] * r->lanes * r->latent_size),
                                 "step noise");
    void *x = NULL, *x0 = NULL;
    if (!status && o->trace_x)
        status = fi_tensor_data(&x, o->trace_x, "trace of x", FEATINV_DTYPE_F32, 5, shape);
    if (!status && o->trace_x0)
        status = fi_tensor_data(&x0, o->trace_x0, "trace of x0", FEATINV_DTYPE_F32, 5, shape);
    r->noise = noise;
    r->step_noise = step_noise;
    r->trace_x = x;
    r->trace_x0 = x0;
    return status;
}

/* The noise of lanes [first, first + n) at a step (0: x_T), given or generated. */
static const float *chunk_noise(run *r, int64_t first, int64_t n, int32_t step) {
    const featinv_sample_options *o = r->options;
    size_t size = (size_t)r->latent_size;
    if (step > 0 && r->step_noise)
        return r->step_noise + (size_t)((step - 1) * r->lanes + first) * size;
    if (step == 0 && r->noise && r->noise_rows == r->lanes)
        return r->noise + (size_t)first * size;
    for (int64_t j = 0; j < n; j++) {
        float *to = r->scratch + (size_t)j * size;
        if (step == 0 && r->noise)
            memcpy(to, r->noise, size * sizeof *to);
        else /* by sample, not by map: a result never depends on its neighbours */
            fi_noise(to, size, o->seed, (uint32_t)((first + j) % o->samples), (uint32_t)step, 0);
    }
    return r->scratch;
}

/* Runs lanes [first, first + n); the hints of their maps, from map `base` on, are encoded. */
static featinv_status run_chunk(run *r, const fi_sample_outputs *out, int64_t base, int64_t first,
                                int64_t n, fi_progress *progress) {
    const fi_backend *backend = r->session->backend;
    size_t offset = (size_t)(first * r->latent_size);
    for (int64_t j = 0; j < n; j++)
        r->map_index[j] = (first + j) / r->options->samples - base;
    int failed = backend->sampler_start(r->sampler, chunk_noise(r, first, n, 0), r->map_index, n);
    featinv_status status = FEATINV_OK;
    for (int32_t i = 0; !failed && !status && i < r->schedule.steps; i++) {
        size_t row = (size_t)(i * r->lanes * r->latent_size) + offset;
        const float *noise = r->schedule.sigma[i] > 0.0 ? chunk_noise(r, first, n, i + 1) : NULL;
        failed = backend->sampler_step(r->sampler, i, noise, r->trace_x ? r->trace_x + row : NULL,
                                       r->trace_x0 ? r->trace_x0 + row : NULL);
        if (!failed)
            status = fi_session_tick(r->session, progress, n);
    }
    if (!failed && !status && out->latents)
        failed = backend->sampler_latents(r->sampler, out->latents + offset);
    if (!failed && !status && out->images) {
        const fi_bundle *b = r->session->model->bundle;
        int64_t image[3] = {b->image[0], b->image[1], b->image[2]};
        failed = backend->sampler_decode(r->sampler, out->images + (size_t)(first * r->image_size),
                                         NULL, r->options->legacy_bytes != 0, image);
    }
    if (failed)
        return fi_backend_fail(backend, failed, "sampling");
    if (!status && r->options->completed)
        *r->options->completed = first + n;
    return status ? status : fi_session_tick(r->session, progress, n);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Whole maps together as far as a batch holds them; a map of many samples in several chunks. */
static featinv_status run_lanes(run *r, const fi_sample_outputs *out, const float *maps,
                                int64_t count, fi_progress *progress) {
    const fi_backend *backend = r->session->backend;
    int64_t samples = r->options->samples, batch = r->session->batch;
    int64_t group = batch > samples ? batch / samples : 1;
    featinv_status status = FEATINV_OK;
    for (int64_t base = 0; !status && base < count; base += group) {
        int64_t n = smaller(group, count - base), end = (base + n) * samples;
        int failed = backend->sampler_hints(r->sampler, maps + (size_t)(base * r->map_size), n);
        if (failed)
            return fi_backend_fail(backend, failed, "hint encoder");
        for (int64_t first = base * samples; !status && first < end; first += batch)
            status = run_chunk(r, out, base, first, smaller(batch, end - first), progress);
    }
    return status;
}

featinv_status fi_sample_units(int64_t *units, const featinv_model *model, int64_t count,
                               const featinv_sample_options *options) {
    int32_t steps = 0;
    featinv_status status =
        fi_timesteps(NULL, 0, &steps, options->steps, options->spacing, model->bundle->timesteps);
    *units = count * options->samples * (steps + 1);
    return status;
}

featinv_status fi_sample_run(featinv_session *session, fi_net *net,
                             const fi_sample_outputs *outputs, const float *maps, int64_t count,
                             const featinv_sample_options *options, fi_progress *progress) {
    const featinv_model *model = session->model;
    const fi_bundle *b = model->bundle;
    run r = {.session = session,
             .options = options,
             .lanes = count * options->samples,
             .latent_size = (int64_t)b->latent[0] * b->latent[1] * b->latent[2],
             .map_size = (int64_t)b->map[0] * b->map[1] * b->map[2],
             .image_size = (int64_t)b->image[0] * b->image[1] * b->image[2]};
    fi_sampler_plan plan;
    size_t chunk = (size_t)session->batch;
    featinv_status status = fi_schedule_make(&r.schedule, model->alphas, b->timesteps,
                                             options->steps, options->spacing, options->eta);
    if (!status)
        status = make_plan(&r, &plan);
    if (!status)
        status = check_noise(&r);
    r.scratch = malloc(chunk * (size_t)r.latent_size * sizeof *r.scratch);
    r.map_index = malloc(chunk * sizeof *r.map_index);
    if (!status && (!r.scratch || !r.map_index))
        status = fi_fail_memory(chunk * (size_t)r.latent_size * sizeof *r.scratch);
    if (!status && count) {
        int failed = session->backend->sampler_create(&r.sampler, net, &plan);
        status = failed ? fi_backend_fail(session->backend, failed, "sampling")
                        : run_lanes(&r, outputs, maps, count, progress);
    }
    if (r.sampler)
        session->backend->sampler_destroy(r.sampler);
    fi_schedule_free(&r.schedule);
    for (size_t i = 0; i < 4; i++)
        free(r.owned[i]);
    free(r.scratch);
    free(r.map_index);
    return status;
}

/* Everything that can be wrong with the options is said before any weights are loaded. */
featinv_status fi_sample_begin(featinv_session *session, featinv_sample_options *out,
                               const featinv_sample_options *options) {
    int64_t units;
    if (!session || !session->model || !session->model->has_generator)
        return fi_session_begin(session, FI_PARTS_GENERATOR, NULL);
    featinv_status status = options_read(out, session->model, options);
    return status ? status : fi_sample_units(&units, session->model, 0, out);
}

featinv_status featinv_sample(const featinv_tensor *images, const featinv_tensor *latents,
                              featinv_session *session, const featinv_tensor *maps,
                              const featinv_sample_options *options) {
    featinv_sample_options o;
    fi_net *net = NULL;
    featinv_status status = fi_sample_begin(session, &o, options);
    if (status)
        return status;
    const fi_bundle *b = session->model->bundle;
    int64_t shape[4] = {-1, b->map[0], b->map[1], b->map[2]};
    const void *map_data = NULL;
    void *owned = NULL, *image_data = NULL, *latent_data = NULL;
    status = fi_tensor_input(&map_data, &owned, maps, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (status)
        return status;
    int64_t count = maps->shape[0], lanes = count * o.samples;
    int64_t image_shape[4] = {lanes, b->image[1], b->image[2], 3};
    int64_t latent_shape[4] = {lanes, b->latent[0], b->latent[1], b->latent[2]};
    if (images)
        status = fi_tensor_data(&image_data, images, "images", FEATINV_DTYPE_U8, 4, image_shape);
    if (!status && latents)
        status =
            fi_tensor_data(&latent_data, latents, "latents", FEATINV_DTYPE_F32, 4, latent_shape);
    if (!status)
        status =
            fi_check_finite(map_data, (size_t)(count * shape[1] * shape[2] * shape[3]), "maps");
    fi_progress progress = {.call = o.progress, .user_data = o.user_data};
    if (!status)
        status = fi_sample_units(&progress.total, session->model, count, &o);
    if (!status)
        status = fi_session_begin(session, FI_PARTS_GENERATOR, &net);
    fi_sample_outputs outputs = {image_data, latent_data};
    if (!status)
        status = fi_sample_run(session, net, &outputs, map_data, count, &o, &progress);
    free(owned);
    return status;
}
