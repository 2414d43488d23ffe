#include "extract.h"

#include "error.h"
#include "options.h"
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

fi_preprocess fi_features_preprocess(const fi_bundle *b) {
    fi_preprocess p = {.height = b->input_height,
                       .width = b->input_width,
                       .filter = b->interpolation,
                       .crop = b->crop};
    memcpy(p.mean, b->mean, sizeof p.mean);
    memcpy(p.std, b->std, sizeof p.std);
    return p;
}

featinv_status fi_features_run(const featinv_run_options *options, featinv_run_options *out) {
    *out = (featinv_run_options){.struct_size = sizeof *out};
    featinv_status status = fi_options_read(out, sizeof *out, options);
    if (!status && out->completed)
        *out->completed = 0;
    return status;
}

static void map_shape(int64_t shape[3], const fi_bundle *b) {
    for (int i = 0; i < 3; i++)
        shape[i] = b->map[i];
}

/* Cropped bytes of a batch (n, h, w, 3) → maps and logits (NULL: none). */
static featinv_status forward(featinv_session *session, fi_net *net, float *maps, float *logits,
                              const fi_preprocess *p, const uint8_t *bytes, float *scratch,
                              int64_t n) {
    const fi_backend *backend = session->backend;
    int64_t map[3], image[3] = {3, p->height, p->width};
    map_shape(map, session->model->bundle);
    fi_preprocess_normalize(scratch, p, bytes, n);
    int failed =
        backend->backbone(net, maps, logits, scratch, n, image, map, session->model->class_count);
    return failed ? fi_backend_fail(backend, failed, "backbone") : FEATINV_OK;
}

/* Gets batches of prepared bytes from `fill` and runs the backbone over them. */
featinv_status fi_features_extract(featinv_session *session, fi_net *net, float *maps,
                                   float *logits, int64_t count, fi_features_fill fill,
                                   const void *source, fi_progress *progress, int64_t *completed) {
    const featinv_model *model = session->model;
    const fi_bundle *b = model->bundle;
    fi_preprocess p = fi_features_preprocess(b);
    size_t pixels = (size_t)p.height * (size_t)p.width * 3;
    size_t map = (size_t)b->map[0] * (size_t)b->map[1] * (size_t)b->map[2];
    size_t batch = (size_t)session->batch < (size_t)count ? (size_t)session->batch : (size_t)count;
    uint8_t *bytes = malloc(batch * pixels + 1);
    float *scratch = malloc(batch * pixels * sizeof *scratch + 1);
    featinv_status status =
        bytes && scratch ? FEATINV_OK : fi_fail_memory(batch * pixels * (1 + sizeof *scratch));
    for (int64_t first = 0; !status && first < count; first += (int64_t)batch) {
        int64_t n = count - first < (int64_t)batch ? count - first : (int64_t)batch;
        for (int64_t i = 0; !status && i < n; i++)
            status = fill(bytes + (size_t)i * pixels, &p, source, first + i);
        if (!status)
            status = forward(session, net, maps + (size_t)first * map,
                             logits ? logits + (size_t)first * (size_t)model->class_count : NULL,
                             &p, bytes, scratch, n);
        if (!status && completed)
            *completed = first + n;
        if (!status && progress)
            status = fi_session_tick(session, progress, n);
    }
    free(bytes);
    free(scratch);
    return status;
}

static featinv_status fill_photo(uint8_t *bytes, const fi_preprocess *p, const void *source,
                                 int64_t index) {
    const featinv_image *images = source;
    featinv_status status = fi_preprocess_crop(bytes, p, &images[index]);
    return status ? fi_fail_prefix(status, "image %lld", (long long)index) : FEATINV_OK;
}

featinv_status fi_features_photos(featinv_session *session, fi_net *net, float *maps, float *logits,
                                  const featinv_image *images, int64_t count, fi_progress *progress,
                                  int64_t *completed) {
    return fi_features_extract(session, net, maps, logits, count, fill_photo, images, progress,
                               completed);
}

featinv_status featinv_extract(const featinv_tensor *maps, const featinv_tensor *logits,
                               featinv_session *session, const featinv_image *images, int64_t count,
                               const featinv_run_options *options) {
    featinv_run_options run;
    fi_net *net = NULL;
    void *map_data = NULL, *logit_data = NULL;
    featinv_status status = fi_features_run(options, &run);
    if (!status && (count < 0 || (count && !images)))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the images are NULL or their count is %lld",
                         (long long)count);
    if (!status)
        status = fi_session_begin(session, FI_PART(FI_PROGRAM_BACKBONE), &net);
    if (status)
        return status;
    const fi_bundle *b = session->model->bundle;
    int64_t shape[4] = {count, b->map[0], b->map[1], b->map[2]};
    int64_t logit_shape[2] = {count, session->model->class_count};
    status = fi_tensor_data(&map_data, maps, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (!status && logits)
        status = fi_tensor_data(&logit_data, logits, "logits", FEATINV_DTYPE_F32, 2, logit_shape);
    fi_progress progress = {run.progress, run.user_data, 0, count};
    if (!status && count)
        status = fi_features_photos(session, net, map_data, logit_data, images, count, &progress,
                                    run.completed);
    return status;
}

featinv_status fi_features_head(featinv_session *session, fi_net *net, float *logits,
                                const float *maps, int64_t count, fi_progress *progress,
                                int64_t *completed) {
    int64_t map[3], classes = session->model->class_count;
    map_shape(map, session->model->bundle);
    size_t size = (size_t)(map[0] * map[1] * map[2]);
    featinv_status status = FEATINV_OK;
    for (int64_t first = 0; !status && first < count; first += session->batch) {
        int64_t n = count - first < session->batch ? count - first : session->batch;
        int failed = session->backend->head(net, logits + first * classes,
                                            maps + (size_t)first * size, n, map, classes);
        if (!failed && completed)
            *completed = first + n;
        status = failed ? fi_backend_fail(session->backend, failed, "head") : FEATINV_OK;
        if (!status && progress)
            status = fi_session_tick(session, progress, n);
    }
    return status;
}

featinv_status featinv_classify(const featinv_tensor *logits, featinv_session *session,
                                const featinv_tensor *maps, const featinv_run_options *options) {
    featinv_run_options run;
    fi_net *net = NULL;
    const void *map_data = NULL;
    void *owned = NULL, *logit_data = NULL;
    featinv_status status = fi_features_run(options, &run);
    if (!status)
        status = fi_session_begin(session, FI_PART(FI_PROGRAM_HEAD), &net);
    if (status)
        return status;
    int64_t shape[4] = {-1, 0, 0, 0}, map[3];
    map_shape(map, session->model->bundle);
    memcpy(shape + 1, map, sizeof map);
    status = fi_tensor_input(&map_data, &owned, maps, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (status)
        return status;
    int64_t count = maps->shape[0], classes = session->model->class_count;
    int64_t logit_shape[2] = {count, classes};
    status = fi_tensor_data(&logit_data, logits, "logits", FEATINV_DTYPE_F32, 2, logit_shape);
    if (!status)
        status = fi_check_finite(map_data, (size_t)(count * map[0] * map[1] * map[2]), "maps");
    fi_progress progress = {run.progress, run.user_data, 0, count};
    if (!status)
        status =
            fi_features_head(session, net, logit_data, map_data, count, &progress, run.completed);
    free(owned);
    return status;
}
