#include "score.h"

#include "error.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A sample goes back as its 8-bit image, resized directly to the backbone's size, no crop. */
static featinv_status fill_sample(uint8_t *bytes, const fi_preprocess *p, const void *source,
                                  int64_t index) {
    const fi_score_inputs *in = source;
    size_t size = (size_t)in->height * (size_t)in->width * 3;
    featinv_image image = {in->images + (size_t)index * size, in->width, in->height, 0};
    return featinv_image_resize(bytes, p->width, p->height, &image, FEATINV_FILTER_BILINEAR);
}

static int64_t best(const float *logits, int64_t classes) {
    int64_t top = 0;
    for (int64_t i = 1; i < classes; i++)
        if (logits[i] > logits[top])
            top = i;
    return top;
}

/* Whether class c is among the k largest; of equal values the lower index counts first. */
static int32_t among(const float *logits, int64_t classes, int64_t c, int64_t k) {
    int64_t before = 0;
    for (int64_t i = 0; i < classes; i++)
        before += logits[i] > logits[c] || (!(logits[i] < logits[c]) && i < c);
    return before < k;
}

static featinv_status score_one(featinv_score *score, const featinv_model *model, const float *map,
                                const float *sample_map, const float *logits,
                                const float *sample_logits) {
    const fi_bundle *b = model->bundle;
    int64_t shape[4] = {1, b->map[0], b->map[1], b->map[2]}, classes = model->class_count;
    featinv_tensor a = featinv_tensor_view((void *)(uintptr_t)map, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor c =
        featinv_tensor_view((void *)(uintptr_t)sample_map, FEATINV_DTYPE_F32, 4, shape);
    featinv_cosine_result cosine = {.struct_size = sizeof cosine};
    featinv_status status = featinv_cosine(&cosine, NULL, NULL, &a, &c, model->feature_mean);
    if (status)
        return status;
    *score = (featinv_score){.cosine_median = cosine.median_then_mean,
                             .cosine_mean = cosine.mean,
                             .cosine_centred = model->feature_mean ? cosine.centred : NAN,
                             .top1_original = -1,
                             .top1_sample = -1,
                             .match_top1 = -1,
                             .match_top5 = -1};
    if (!logits || !sample_logits || classes < 1)
        return FEATINV_OK;
    score->top1_original = best(logits, classes);
    score->top1_sample = best(sample_logits, classes);
    score->match_top1 = score->top1_original == score->top1_sample;
    score->match_top5 = among(sample_logits, classes, score->top1_original, 5);
    return FEATINV_OK;
}

featinv_status fi_score_run(featinv_score *scores, float *sample_maps, featinv_session *session,
                            fi_net *net, const fi_score_inputs *inputs, fi_progress *progress,
                            int64_t *completed) {
    const featinv_model *model = session->model;
    const fi_bundle *b = model->bundle;
    size_t map = (size_t)b->map[0] * (size_t)b->map[1] * (size_t)b->map[2];
    size_t lanes = (size_t)(inputs->count * inputs->samples), classes = (size_t)model->class_count;
    float *own = sample_maps ? NULL : malloc(lanes * map * sizeof *own + 1);
    float *logits = malloc(lanes * classes * sizeof *logits + 1);
    featinv_status status = FEATINV_OK;
    if ((!own && !sample_maps) || !logits)
        status = fi_fail_memory(lanes * (map + classes) * sizeof *own);
    float *drawn = sample_maps ? sample_maps : own;
    if (!status)
        status = fi_features_extract(session, net, drawn, inputs->logits ? logits : NULL,
                                     (int64_t)lanes, fill_sample, inputs, progress, completed);
    for (size_t lane = 0; !status && scores && lane < lanes; lane++) {
        size_t n = lane / (size_t)inputs->samples;
        status = score_one(&scores[lane], model, inputs->maps + n * map, drawn + lane * map,
                           inputs->logits ? inputs->logits + n * classes : NULL,
                           logits + lane * classes);
    }
    free(own);
    free(logits);
    return status;
}

/* Logits of given maps through the head: fresh memory. */
static featinv_status head_logits(float **out, featinv_session *session, fi_net *net,
                                  const float *maps, int64_t count) {
    size_t size = (size_t)(count * session->model->class_count) * sizeof **out;
    *out = malloc(size + 1);
    return *out ? fi_features_head(session, net, *out, maps, count, NULL, NULL)
                : fi_fail_memory(size);
}

featinv_status featinv_score_samples(featinv_score *scores, const featinv_tensor *sample_maps,
                                     featinv_session *session, const featinv_tensor *samples,
                                     const featinv_tensor *maps, const featinv_tensor *logits,
                                     const featinv_run_options *options) {
    featinv_run_options run;
    fi_net *net = NULL;
    const void *image_data = NULL, *map_data = NULL, *logit_data = NULL;
    void *owned[3] = {NULL}, *sample_map_data = NULL;
    float *own_logits = NULL;
    featinv_status status = fi_features_run(options, &run);
    if (!status && !scores)
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the scores");
    const featinv_model *model = session ? session->model : NULL;
    bool through_head = !logits && model && model->has_head && model->class_count;
    if (!status)
        status = fi_session_begin(
            session, FI_PART(FI_PROGRAM_BACKBONE) | (through_head ? FI_PART(FI_PROGRAM_HEAD) : 0),
            &net);
    if (status)
        return status;
    const fi_bundle *b = model->bundle;
    int64_t map_shape[4] = {-1, b->map[0], b->map[1], b->map[2]}, image_shape[4] = {-1, -1, -1, 3};
    status = fi_tensor_input(&map_data, &owned[0], maps, "maps", FEATINV_DTYPE_F32, 4, map_shape);
    if (!status)
        status = fi_tensor_input(&image_data, &owned[1], samples, "samples", FEATINV_DTYPE_U8, 4,
                                 image_shape);
    if (status)
        goto done;
    int64_t count = maps->shape[0], lanes = samples->shape[0];
    int64_t logit_shape[2] = {count, model->class_count};
    int64_t lane_shape[4] = {lanes, b->map[0], b->map[1], b->map[2]};
    if (count < 1 || lanes % count != 0 || lanes < count) {
        status = fi_fail(FEATINV_ERROR_SHAPE, "%lld samples do not share out over %lld maps",
                         (long long)lanes, (long long)count);
        goto done;
    }
    if (logits)
        status = fi_tensor_input(&logit_data, &owned[2], logits, "logits", FEATINV_DTYPE_F32, 2,
                                 logit_shape);
    else if (through_head)
        status = head_logits(&own_logits, session, net, map_data, count);
    if (!status && sample_maps)
        status = fi_tensor_data(&sample_map_data, sample_maps, "sample maps", FEATINV_DTYPE_F32, 4,
                                lane_shape);
    fi_progress progress = {run.progress, run.user_data, 0, lanes};
    fi_score_inputs inputs = {.images = image_data,
                              .height = (int32_t)samples->shape[1],
                              .width = (int32_t)samples->shape[2],
                              .maps = map_data,
                              .logits = logits ? logit_data : own_logits,
                              .count = count,
                              .samples = lanes / count};
    if (!status)
        status =
            fi_score_run(scores, sample_map_data, session, net, &inputs, &progress, run.completed);
done:
    for (size_t i = 0; i < 3; i++)
        free(owned[i]);
    free(own_logits);
    return status;
}
