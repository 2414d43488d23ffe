/* Pictures that a model makes. */
#include "evaluate.h"

#include <stdlib.h>
#include <string.h>

int evaluate_fail(const evaluate_network *network, featinv_status status) {
    const char *path = network->opened.info.path;
    bool bundle = strncmp(featinv_last_error(), path, strlen(path)) == 0;
    return bundle ? cli_fail_bundle(status, NULL) : cli_fail_status(status, NULL);
}

int evaluate_extract(float *maps, float *logits, const evaluate_network *network,
                     const featinv_image *photos, int64_t count) {
    const featinv_model_details *info = &network->opened.info;
    int64_t shape[4] = {count, info->channels, info->height, info->width};
    int64_t logit_shape[2] = {count, network->classes};
    featinv_tensor map_view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor logit_view = featinv_tensor_view(logits, FEATINV_DTYPE_F32, 2, logit_shape);
    featinv_status status = featinv_extract(&map_view, network->classes > 0 ? &logit_view : NULL,
                                            network->opened.session, photos, count, NULL);
    return status ? evaluate_fail(network, status) : CLI_DONE;
}

/* A part that has begun is finished: Ctrl-C stops before the next one. */
static int32_t show_progress(void *progress, int64_t done, int64_t total) {
    (void)cli_progress_call(progress, done, total);
    return 0;
}

static size_t image_bytes(const featinv_model_details *info) {
    return (size_t)info->image[1] * (size_t)info->image[2] * 3;
}

/* Each image has its own noise: one that all share would correlate the pictures. */
static int make_noise(float **out, const featinv_model_details *info,
                      const evaluate_image *const *images, int64_t count) {
    size_t size = (size_t)info->latent[0] * (size_t)info->latent[1] * (size_t)info->latent[2];
    featinv_status status = FEATINV_OK;
    *out = malloc((size_t)count * size * sizeof **out + 1);
    if (!*out)
        return cli_fail_memory();
    for (int64_t i = 0; !status && i < count; i++)
        status = featinv_noise(*out + (size_t)i * size, size, images[i]->noise, 0, 0);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

static int sample(uint8_t *pictures, evaluate *e, const evaluate_network *network,
                  const featinv_sample_options *options, float *maps,
                  const evaluate_image *const *images, int64_t count) {
    const featinv_model_details *info = &network->opened.info;
    int64_t map_shape[4] = {count, info->channels, info->height, info->width};
    int64_t noise_shape[4] = {count, info->latent[0], info->latent[1], info->latent[2]};
    int64_t image_shape[4] = {count, info->image[1], info->image[2], 3};
    float *noise = NULL;
    int code = make_noise(&noise, info, images, count);
    if (!code) {
        featinv_tensor map_view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
        featinv_tensor noise_view = featinv_tensor_view(noise, FEATINV_DTYPE_F32, 4, noise_shape);
        featinv_tensor image_view = featinv_tensor_view(pictures, FEATINV_DTYPE_U8, 4, image_shape);
        featinv_sample_options o = *options;
        o.noise = &noise_view;
        o.progress = show_progress;
        o.user_data = &e->progress;
        featinv_status status =
            featinv_sample(&image_view, NULL, network->opened.session, &map_view, &o);
        code = status ? evaluate_fail(network, status) : CLI_DONE;
    }
    free(noise);
    return code;
}

int evaluate_draw(uint8_t *pictures, evaluate *e, int32_t model, const evaluate_task *task,
                  float *maps, const evaluate_image *const *images, int64_t count) {
    const evaluate_network *network = &e->networks[model];
    featinv_sample_options o = network->sampling;
    if (task->kind == EVALUATE_SCALE) {
        o.scale = task->value;
        o.hint_scale = 1.0; /* the paper's sampling, which has no hint scale */
    }
    return sample(pictures, e, network, &o, maps, images, count);
}

/* With a strength of 0 the map does not matter. */
int evaluate_draw_classes(uint8_t *pictures, evaluate *e, int32_t model,
                          const evaluate_image *const *images, int64_t count) {
    const evaluate_network *network = &e->networks[model];
    const featinv_model_details *info = &network->opened.info;
    featinv_sample_options o = network->sampling;
    size_t size = (size_t)network->channels * (size_t)network->positions;
    float *maps = calloc((size_t)count * size + 1, sizeof *maps);
    int code = maps ? CLI_DONE : cli_fail_memory();
    o.strength = 0.0;
    o.hint_scale = 1.0;
    o.scale = EVALUATE_CLASS_SCALE;
    for (int64_t first = 0, end; !code && first < count; first = end) {
        int32_t class_index = images[first]->class_index;
        for (end = first + 1; end < count && images[end]->class_index == class_index; end++)
            ;
        o.context = evaluate_class_context(network, e->set.classes[class_index]);
        code = sample(pictures + (size_t)first * image_bytes(info), e, network, &o, maps,
                      images + first, end - first);
    }
    free(maps);
    return code;
}

int evaluate_round_trip(uint8_t *pictures, evaluate *e, int32_t model, const uint8_t *originals,
                        int64_t count) {
    const evaluate_network *network = &e->networks[model];
    const featinv_model_details *info = &network->opened.info;
    int64_t image_shape[4] = {count, info->image[1], info->image[2], 3};
    int64_t shape[4] = {count, info->latent[0], info->latent[1], info->latent[2]};
    size_t n = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]);
    float *latents = malloc(n * sizeof *latents + 1);
    if (!latents)
        return cli_fail_memory();
    featinv_tensor from =
        featinv_tensor_view((void *)(uintptr_t)originals, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor to = featinv_tensor_view(pictures, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor view = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status = featinv_encode(&view, NULL, network->opened.session, &from, NULL);
    for (size_t i = 0; !status && i < n; i++)
        latents[i] = (float)(info->latent_scale * (double)latents[i]);
    if (!status)
        status = featinv_decode(&to, network->opened.session, &view, 0, NULL);
    free(latents);
    return status ? evaluate_fail(network, status) : CLI_DONE;
}
