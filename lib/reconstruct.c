#include "error.h"
#include "options.h"
#include "sample.h"
#include "score.h"
#include "tensor.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

featinv_status featinv_reconstruct_options_init(featinv_reconstruct_options *options, size_t size,
                                                const featinv_model *model) {
    (void)model; /* the sampling options carry the bundle's defaults */
    featinv_reconstruct_options all = {.struct_size = sizeof all};
    return fi_options_init(options, size, &all, sizeof all);
}

/* Memory for a result that the caller did not ask for but a later stage needs. */
static featinv_status provide(void **data, const featinv_tensor *tensor, const char *what,
                              featinv_dtype dtype, int32_t ndim, const int64_t *shape, void **own) {
    size_t bytes = 0;
    if (tensor)
        return fi_tensor_data(data, tensor, what, dtype, ndim, shape);
    if (!fi_checked_size(&bytes, shape, ndim, fi_dtype_size(dtype)))
        return fi_fail(FEATINV_ERROR_LIMIT, "%s would be too large", what);
    *data = *own = malloc(bytes + 1);
    return *data ? FEATINV_OK : fi_fail_memory(bytes);
}

/* What a figure shows beside a sample: the cropped input at the generator's size. */
static featinv_status references(uint8_t *out, const fi_bundle *b, const featinv_image *photos,
                                 int64_t count) {
    fi_preprocess p = fi_features_preprocess(b);
    size_t size = (size_t)b->image[1] * (size_t)b->image[2] * 3;
    uint8_t *crop = malloc((size_t)p.height * (size_t)p.width * 3);
    featinv_status status =
        crop ? FEATINV_OK : fi_fail_memory((size_t)p.height * (size_t)p.width * 3);
    for (int64_t i = 0; !status && i < count; i++) {
        featinv_image image = {crop, p.width, p.height, 0};
        status = fi_preprocess_crop(crop, &p, &photos[i]);
        if (!status)
            status = featinv_image_resize(out + (size_t)i * size, b->image[2], b->image[1], &image,
                                          p.filter);
    }
    free(crop);
    return status;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

featinv_status featinv_reconstruct(const featinv_tensor *images, featinv_score *scores,
                                   featinv_session *session, const featinv_image *photos,
                                   int64_t count, const featinv_reconstruct_options *options) {
    double started = now();
    featinv_reconstruct_options r = {.struct_size = sizeof r};
    featinv_sample_options o;
    fi_net *net = NULL;
    featinv_status status = fi_options_read(&r, sizeof r, options);
    if (!status && (count < 0 || (count && !photos)))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the photos are NULL or their count is %lld",
                         (long long)count);
    if (!status)
        status = fi_sample_begin(session, &o, r.sampling);
    if (!status)
        status = fi_session_begin(session, FI_PART(FI_PROGRAM_BACKBONE) | FI_PARTS_GENERATOR, &net);
    if (status || !count)
        return status;
    const featinv_model *model = session->model;
    const fi_bundle *b = model->bundle;
    int64_t lanes = count * o.samples;
    int64_t map_shape[4] = {count, b->map[0], b->map[1], b->map[2]};
    int64_t logit_shape[2] = {count, model->class_count};
    int64_t image_shape[4] = {lanes, b->image[1], b->image[2], 3};
    int64_t latent_shape[4] = {lanes, b->latent[0], b->latent[1], b->latent[2]};
    int64_t drawn_shape[4] = {lanes, b->map[0], b->map[1], b->map[2]};
    int64_t photo_shape[4] = {count, b->image[1], b->image[2], 3};
    void *own[3] = {NULL}, *maps = NULL, *logits = NULL, *drawn = NULL;
    void *latents = NULL, *refs = NULL, *drawn_maps = NULL;
    status = provide(&maps, r.maps, "maps", FEATINV_DTYPE_F32, 4, map_shape, &own[0]);
    if (!status)
        status = provide(&logits, r.logits, "logits", FEATINV_DTYPE_F32, 2, logit_shape, &own[1]);
    if (!status)
        status = provide(&drawn, images, "images", FEATINV_DTYPE_U8, 4, image_shape, &own[2]);
    if (!status && r.latents)
        status = fi_tensor_data(&latents, r.latents, "latents", FEATINV_DTYPE_F32, 4, latent_shape);
    if (!status && r.references)
        status =
            fi_tensor_data(&refs, r.references, "references", FEATINV_DTYPE_U8, 4, photo_shape);
    if (!status && r.sample_maps)
        status = fi_tensor_data(&drawn_maps, r.sample_maps, "sample maps", FEATINV_DTYPE_F32, 4,
                                drawn_shape);
    if (!status && refs)
        status = references(refs, b, photos, count);

    bool score = scores || drawn_maps;
    int64_t steps = 0;
    fi_progress progress = {.call = o.progress, .user_data = o.user_data};
    if (!status)
        status = fi_sample_units(&steps, model, count, &o);
    progress.total = count + steps + (score ? lanes : 0);
    if (!status)
        status = fi_features_photos(session, net, maps, logits, photos, count, &progress, NULL);
    fi_sample_outputs outputs = {drawn, latents};
    if (!status)
        status = fi_sample_run(session, net, &outputs, maps, count, &o, &progress);
    fi_score_inputs inputs = {.images = drawn,
                              .height = b->image[1],
                              .width = b->image[2],
                              .maps = maps,
                              .logits = model->class_count ? logits : NULL,
                              .count = count,
                              .samples = o.samples};
    if (!status && score)
        status = fi_score_run(scores, drawn_maps, session, net, &inputs, &progress, NULL);
    for (int64_t i = 0; !status && scores && i < lanes; i++)
        scores[i].seconds = (now() - started) / (double)lanes;
    for (size_t i = 0; i < 3; i++)
        free(own[i]);
    return status;
}
