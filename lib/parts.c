#include "error.h"
#include "extract.h"
#include "options.h"
#include "parts.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

featinv_status featinv_denoise_options_init(featinv_denoise_options *options, size_t size) {
    featinv_denoise_options all = {.struct_size = sizeof all};
    return fi_options_init(options, size, &all, sizeof all);
}

enum { MAX_RESIDUALS = 256, INPUTS = 4 };

/* Checked inputs and outputs of one denoising call. */
typedef struct denoise_call {
    const void *x, *t, *context, *map;
    void *owned[INPUTS];
    void *prediction, *hint;
    int64_t hint_size;
    float *residuals[MAX_RESIDUALS];
    int64_t residual_sizes[MAX_RESIDUALS];
    int64_t n, context_rows, context_dim, latent[3], map_extent[3];
} denoise_call;

static featinv_status read_inputs(denoise_call *c, const featinv_model *model,
                                  const featinv_tensor *x_t, const featinv_tensor *t,
                                  const featinv_tensor *context, const featinv_tensor *map) {
    const fi_bundle *b = model->bundle;
    int64_t map_shape[4] = {-1, b->map[0], b->map[1], b->map[2]};
    featinv_status status =
        fi_tensor_input(&c->map, &c->owned[0], map, "map", FEATINV_DTYPE_F32, 4, map_shape);
    if (status)
        return status;
    c->n = map->shape[0];
    if (c->n < 1)
        return fi_fail(FEATINV_ERROR_SHAPE, "map: holds nothing");
    for (int i = 0; i < 3; i++) {
        c->latent[i] = b->latent[i];
        c->map_extent[i] = b->map[i];
    }
    status = fi_check_finite(c->map, (size_t)(c->n * b->map[0] * b->map[1] * b->map[2]), "map");
    if (status || !x_t)
        return status;
    int64_t x_shape[4] = {c->n, b->latent[0], b->latent[1], b->latent[2]}, t_shape[1] = {c->n};
    const fi_context *standard = fi_model_context(model, b->context);
    int64_t context_shape[3] = {c->n, -1, standard->dim};
    status = fi_tensor_input(&c->x, &c->owned[1], x_t, "x_t", FEATINV_DTYPE_F32, 4, x_shape);
    if (!status)
        status = fi_tensor_input(&c->t, &c->owned[2], t, "t", FEATINV_DTYPE_I64, 1, t_shape);
    if (!status)
        status = fi_tensor_input(&c->context, &c->owned[3], context, "context", FEATINV_DTYPE_F32,
                                 3, context_shape);
    if (status)
        return status;
    c->context_rows = context->shape[1];
    c->context_dim = standard->dim;
    for (int64_t i = 0; i < c->n; i++) {
        int64_t value = ((const int64_t *)c->t)[i];
        if (value < 0 || value >= b->timesteps)
            return fi_fail(FEATINV_ERROR_ARGUMENT, "t[%lld] is %lld: it must be 0 to %d",
                           (long long)i, (long long)value, b->timesteps - 1);
    }
    return fi_check_finite(c->x, (size_t)(c->n * x_shape[1] * x_shape[2] * x_shape[3]), "x_t");
}

static featinv_status read_outputs(denoise_call *c, featinv_session *session, fi_net *net,
                                   const featinv_tensor *prediction,
                                   const featinv_denoise_options *o) {
    int64_t hint_shape[3], shapes[MAX_RESIDUALS][3];
    int32_t count = 0;
    featinv_status status = FEATINV_OK;
    int64_t out_shape[4] = {c->n, c->latent[0], c->latent[1], c->latent[2]};
    if (prediction)
        status = fi_tensor_data(&c->prediction, prediction, "prediction", FEATINV_DTYPE_F32, 4,
                                out_shape);
    if (status || (!o->hint && !o->residuals))
        return status;
    int failed = session->backend->residual_shapes(net, hint_shape, shapes, MAX_RESIDUALS, &count,
                                                   c->latent, c->map_extent);
    if (failed)
        return fi_backend_fail(session->backend, failed, "ControlNet");
    if (o->hint) {
        int64_t shape[4] = {c->n, hint_shape[0], hint_shape[1], hint_shape[2]};
        status = fi_tensor_data(&c->hint, o->hint, "hint", FEATINV_DTYPE_F32, 4, shape);
        c->hint_size = c->n * shape[1] * shape[2] * shape[3];
    }
    if (!status && o->residuals && o->residual_count != count)
        return fi_fail(FEATINV_ERROR_SHAPE, "%d residual outputs, the ControlNet has %d",
                       o->residual_count, count);
    for (int32_t i = 0; !status && o->residuals && i < count; i++) {
        int64_t shape[4] = {c->n, shapes[i][0], shapes[i][1], shapes[i][2]};
        void *data = NULL;
        status = fi_tensor_data(&data, &o->residuals[i], "residual", FEATINV_DTYPE_F32, 4, shape);
        c->residuals[i] = data;
        c->residual_sizes[i] = c->n * shape[1] * shape[2] * shape[3];
    }
    return status;
}

featinv_status featinv_denoise(const featinv_tensor *prediction, featinv_session *session,
                               const featinv_tensor *x_t, const featinv_tensor *t,
                               const featinv_tensor *context, const featinv_tensor *map,
                               const featinv_denoise_options *options) {
    featinv_denoise_options o = {.struct_size = sizeof o};
    fi_net *net = NULL;
    featinv_status status = fi_options_read(&o, sizeof o, options);
    if (!status && (o.strength_count < 0 || o.strength_count > MAX_RESIDUALS ||
                    (o.strength_count && !o.strengths)))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the strengths are NULL or their count is %d",
                         o.strength_count);
    for (int32_t i = 0; !status && i < o.strength_count; i++)
        if (!isfinite(o.strengths[i]))
            status = fi_fail(FEATINV_ERROR_ARGUMENT, "strength %d is %g: it must be finite", i,
                             o.strengths[i]);
    if (!status && !x_t && (prediction || o.residuals))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "a prediction needs x_t, t and context");
    if (!status)
        status = fi_session_begin(session, FI_PARTS_GENERATOR & ~FI_PART(FI_PROGRAM_DECODER), &net);
    if (status)
        return status;
    denoise_call *c = calloc(1, sizeof *c);
    if (!c)
        return fi_fail_memory(sizeof *c);
    status = read_inputs(c, session->model, x_t, t, context, map);
    if (!status)
        status = read_outputs(c, session, net, prediction, &o);
    if (!status) {
        int failed = session->backend->denoise(
            net, c->prediction, c->hint, c->hint_size, o.residuals ? c->residuals : NULL,
            c->residual_sizes, o.residuals ? o.residual_count : 0, c->x, c->t, c->context,
            c->context_rows, c->context_dim, c->map, c->n, c->latent, c->map_extent,
            session->model->bundle->pooled, o.strengths, o.strength_count, o.no_control != 0);
        status = failed ? fi_backend_fail(session->backend, failed, "denoiser") : FEATINV_OK;
    }
    for (int i = 0; i < INPUTS; i++)
        free(c->owned[i]);
    free(c);
    return status;
}

/* byte / 255 * 255 / 127.5 - 1 in float32, as published: the same as (b / 255 - 1/2) / (1/2) up to
 * rounding, but not to the bit. */
static void image_floats(float *floats, const uint8_t *bytes, int64_t count, size_t plane) {
    float table[256];
    for (int v = 0; v < 256; v++)
        table[v] = (float)v / 255.0f * 255.0f / 127.5f - 1.0f;
    for (size_t i = 0; i < (size_t)count * 3; i++) {
        const uint8_t *from = bytes + i / 3 * 3 * plane + i % 3;
        for (size_t k = 0; k < plane; k++)
            floats[i * plane + k] = table[from[3 * k]];
    }
}

featinv_status fi_encode(featinv_session *session, fi_net *net, float *mean, float *logvar,
                         const uint8_t *bytes, int64_t count, fi_progress *progress,
                         int64_t *completed) {
    const fi_bundle *b = session->model->bundle;
    int64_t image[3] = {3, b->image[1], b->image[2]};
    int64_t latent[3] = {b->latent[0], b->latent[1], b->latent[2]};
    size_t plane = (size_t)(image[1] * image[2]);
    size_t size = (size_t)(latent[0] * latent[1] * latent[2]);
    int64_t batch = count < session->batch ? count : session->batch;
    featinv_status status = FEATINV_OK;
    float *floats = malloc((size_t)batch * 3 * plane * sizeof *floats + 1);
    if (!floats)
        return fi_fail_memory((size_t)batch * 3 * plane * sizeof *floats);
    for (int64_t first = 0; !status && first < count; first += batch) {
        int64_t n = count - first < batch ? count - first : batch;
        size_t offset = (size_t)first * size;
        image_floats(floats, bytes + (size_t)first * 3 * plane, n, plane);
        int failed =
            session->backend->encode(net, mean ? mean + offset : NULL,
                                     logvar ? logvar + offset : NULL, floats, n, image, latent);
        if (!failed && completed)
            *completed = first + n;
        status = failed ? fi_backend_fail(session->backend, failed, "encoder") : FEATINV_OK;
        if (!status && progress)
            status = fi_session_tick(session, progress, n);
    }
    free(floats);
    return status;
}

featinv_status featinv_encode(const featinv_tensor *mean, const featinv_tensor *logvar,
                              featinv_session *session, const featinv_tensor *images,
                              const featinv_run_options *options) {
    featinv_run_options run;
    fi_net *net = NULL;
    const void *bytes = NULL;
    void *owned = NULL, *mean_data = NULL, *logvar_data = NULL;
    featinv_status status = fi_features_run(options, &run);
    if (!status)
        status = fi_session_begin(session, FI_PART(FI_PROGRAM_ENCODER), &net);
    if (status)
        return status;
    const fi_bundle *b = session->model->bundle;
    int64_t shape[4] = {-1, b->image[1], b->image[2], 3};
    status = fi_tensor_input(&bytes, &owned, images, "images", FEATINV_DTYPE_U8, 4, shape);
    if (status)
        return status;
    int64_t count = images->shape[0];
    int64_t out_shape[4] = {count, b->latent[0], b->latent[1], b->latent[2]};
    if (mean)
        status = fi_tensor_data(&mean_data, mean, "mean", FEATINV_DTYPE_F32, 4, out_shape);
    if (!status && logvar)
        status = fi_tensor_data(&logvar_data, logvar, "logvar", FEATINV_DTYPE_F32, 4, out_shape);
    fi_progress progress = {run.progress, run.user_data, 0, count};
    if (!status)
        status =
            fi_encode(session, net, mean_data, logvar_data, bytes, count, &progress, run.completed);
    free(owned);
    return status;
}

/* Shape of the decoded images for latents (n, c, h, w): the decoder's factor is the manifest's. */
static featinv_status decoded_shape(int64_t image[3], int64_t latent[3], const fi_bundle *b,
                                    const featinv_tensor *latents) {
    image[0] = 3;
    for (int i = 0; i < 3; i++)
        latent[i] = latents->shape[i + 1];
    for (int i = 1; i < 3; i++) {
        if (latent[i] < 1 || latent[i] > 4096)
            return fi_fail(FEATINV_ERROR_SHAPE, "latents are %lld x %lld: each must be 1 to 4096",
                           (long long)latent[1], (long long)latent[2]);
        image[i] = latent[i] * b->image[i] / b->latent[i];
    }
    return FEATINV_OK;
}

featinv_status featinv_decode(const featinv_tensor *images, featinv_session *session,
                              const featinv_tensor *latents, int32_t legacy_bytes,
                              const featinv_run_options *options) {
    featinv_run_options run;
    fi_net *net = NULL;
    const void *z = NULL;
    void *owned = NULL, *out = NULL;
    float *unscaled = NULL;
    featinv_status status = fi_features_run(options, &run);
    if (!status)
        status = fi_session_begin(session, FI_PART(FI_PROGRAM_DECODER), &net);
    if (status)
        return status;
    const fi_bundle *b = session->model->bundle;
    int64_t shape[4] = {-1, b->latent[0], -1, -1}, latent[3], image[3];
    status = fi_tensor_input(&z, &owned, latents, "latents", FEATINV_DTYPE_F32, 4, shape);
    if (!status)
        status = decoded_shape(image, latent, b, latents);
    if (status) {
        free(owned);
        return status;
    }
    int64_t count = latents->shape[0];
    size_t size = (size_t)(latent[0] * latent[1] * latent[2]);
    size_t pixels = (size_t)(image[0] * image[1] * image[2]);
    bool bytes = images && fi_tensor_dtype(images) == FEATINV_DTYPE_U8;
    int64_t byte_shape[4] = {count, image[1], image[2], 3};
    int64_t float_shape[4] = {count, 3, image[1], image[2]};
    status = fi_tensor_data(&out, images, "images", bytes ? FEATINV_DTYPE_U8 : FEATINV_DTYPE_F32, 4,
                            bytes ? byte_shape : float_shape);
    if (!status)
        status = fi_check_finite(z, (size_t)count * size, "latents");
    unscaled = malloc((size_t)session->batch * size * sizeof *unscaled);
    if (!status && !unscaled)
        status = fi_fail_memory((size_t)session->batch * size * sizeof *unscaled);
    float inverse = (float)(1.0 / b->latent_scale); /* as published: 1 / 0.18215 * z */
    fi_progress progress = {run.progress, run.user_data, 0, count};
    for (int64_t first = 0; !status && first < count; first += session->batch) {
        int64_t n = count - first < session->batch ? count - first : session->batch;
        for (size_t i = 0; i < (size_t)n * size; i++)
            unscaled[i] = inverse * ((const float *)z)[(size_t)first * size + i];
        int failed =
            session->backend->decode(net, bytes ? (uint8_t *)out + (size_t)first * pixels : NULL,
                                     bytes ? NULL : (float *)out + (size_t)first * pixels,
                                     legacy_bytes != 0, unscaled, n, latent, image);
        if (!failed && run.completed)
            *run.completed = first + n;
        status = failed ? fi_backend_fail(session->backend, failed, "decoder")
                        : fi_session_tick(session, &progress, n);
    }
    free(unscaled);
    free(owned);
    return status;
}
