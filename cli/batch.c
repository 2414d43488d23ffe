#include "job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- memory --------------------- */

static void *room(size_t count, int64_t size, size_t element, bool *good) {
    size_t values, bytes;
    void *memory = NULL;
    if (!__builtin_mul_overflow(count, (size_t)size, &values) &&
        !__builtin_mul_overflow(values, element, &bytes))
        memory = calloc(bytes ? bytes : 1, 1);
    *good = *good && memory;
    return memory;
}

static const featinv_score unknown_score = {.cosine_median = NAN,
                                            .cosine_mean = NAN,
                                            .cosine_centred = NAN,
                                            .top1_original = -1,
                                            .top1_sample = -1,
                                            .match_top1 = -1,
                                            .match_top5 = -1,
                                            .seconds = NAN};

bool cli_batch_prepare(cli_batch *batch, const cli_job *job) {
    const featinv_model_details *info = &job->opened.info;
    int64_t samples = job->sampling.samples, latent = cli_latent_size(job);
    int64_t map = (int64_t)info->channels * info->height * info->width;
    size_t lanes = (size_t)(batch->good_count * samples), n = (size_t)batch->good_count;
    bool good = true;
    batch->lanes = (int64_t)lanes;
    batch->images = room(lanes, cli_image_size(job), 1, &good);
    batch->scores = room(lanes, 1, sizeof *batch->scores, &good);
    batch->written = room(lanes + 2 * n, 1, sizeof *batch->written, &good);
    batch->latents = room(lanes, latent, sizeof(float), &good);
    if (cli_job_is_photos(job)) {
        batch->references = room(n, cli_image_size(job), 1, &good);
        batch->maps = room(n, map, sizeof(float), &good);
        batch->logits = room(n, info->classes, sizeof(float), &good);
    }
    if (job->noise.data && job->noise.info.shape[0] > 1)
        batch->noise = room(lanes, latent, sizeof(float), &good);
    if (job->step_noise.data)
        batch->step_noise = room(lanes, latent * job->steps, sizeof(float), &good);
    if (job->trace_x) {
        batch->trace_x = room(lanes, latent * job->steps, sizeof(float), &good);
        batch->trace_x0 = room(lanes, latent * job->steps, sizeof(float), &good);
    }
    for (size_t j = 0; good && j < lanes; j++)
        batch->scores[j] = unknown_score;
    return good;
}

void cli_batch_free(cli_batch *batch) {
    void *blocks[] = {batch->good,    batch->photos, batch->written,    batch->images,
                      batch->maps,    batch->logits, batch->references, batch->latents,
                      batch->noise,   batch->scores, batch->step_noise, batch->trace_x,
                      batch->trace_x0};
    for (size_t i = 0; i < batch->written_count; i++)
        free(batch->written[i]);
    for (int64_t i = 0; batch->errors && i < batch->count; i++)
        free(batch->errors[i]);
    free(batch->errors);
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    cli_photos_free(batch->read);
    *batch = (cli_batch){0};
}

/* ---------------------------------------------------------------- given noise ---------------- */

/* The rows of whole-job arrays that belong to the batch's lanes. */
static void gather_noise(cli_batch *batch, const cli_job *job) {
    int64_t samples = job->sampling.samples;
    size_t size = (size_t)cli_latent_size(job), all = (size_t)cli_job_lanes(job);
    const float *noise = job->noise.data, *steps = job->step_noise.data;
    for (int64_t j = 0; j < batch->lanes; j++) {
        size_t row = (size_t)(batch->good[j / samples] * samples + j % samples), to = (size_t)j;
        if (batch->noise)
            memcpy(batch->noise + to * size, noise + row * size, size * sizeof *noise);
        for (size_t i = 0; batch->step_noise && i < (size_t)job->steps; i++)
            memcpy(batch->step_noise + (i * (size_t)batch->lanes + to) * size,
                   steps + (i * all + row) * size, size * sizeof *steps);
    }
}

/* ---------------------------------------------------------------- drawing -------------------- */

/* Views over the batch's memory, and the shapes that they point to. */
typedef struct views {
    int64_t lane_latent[4], lane_image[4], step_latent[5], map_shape[4], logit_shape[2], photo[4];
    featinv_tensor images, latents, maps, logits, references, noise, step_noise, trace_x, trace_x0;
    featinv_tensor context, uncontext;
    featinv_sample_options sampling;
} views;

static void set_shapes(views *w, const cli_batch *batch, const cli_job *job) {
    const featinv_model_details *info = &job->opened.info;
    const int64_t *z = job->latent;
    memcpy(w->lane_latent, (int64_t[]){batch->lanes, z[0], z[1], z[2]}, sizeof w->lane_latent);
    memcpy(w->step_latent, (int64_t[]){job->steps, batch->lanes, z[0], z[1], z[2]},
           sizeof w->step_latent);
    memcpy(w->lane_image, (int64_t[]){batch->lanes, job->image[0], job->image[1], 3},
           sizeof w->lane_image);
    memcpy(w->photo, (int64_t[]){batch->good_count, job->image[0], job->image[1], 3},
           sizeof w->photo);
    memcpy(w->map_shape, (int64_t[]){batch->good_count, info->channels, info->height, info->width},
           sizeof w->map_shape);
    memcpy(w->logit_shape, (int64_t[]){batch->good_count, info->classes}, sizeof w->logit_shape);
}

static void set_noise(views *w, cli_batch *batch, cli_job *job) {
    featinv_sample_options *s = &w->sampling;
    gather_noise(batch, job);
    if (batch->noise) {
        w->noise = featinv_tensor_view(batch->noise, FEATINV_DTYPE_F32, 4, w->lane_latent);
        s->noise = &w->noise;
    } else if (job->noise.data) {
        w->noise = cli_array_view(&job->noise);
        s->noise = &w->noise;
    }
    if (batch->step_noise) {
        w->step_noise =
            featinv_tensor_view(batch->step_noise, FEATINV_DTYPE_F32, 5, w->step_latent);
        s->step_noise = &w->step_noise;
    }
    if (batch->trace_x) {
        w->trace_x = featinv_tensor_view(batch->trace_x, FEATINV_DTYPE_F32, 5, w->step_latent);
        w->trace_x0 = featinv_tensor_view(batch->trace_x0, FEATINV_DTYPE_F32, 5, w->step_latent);
        s->trace_x = &w->trace_x;
        s->trace_x0 = &w->trace_x0;
    }
}

static void set_views(views *w, cli_batch *batch, cli_job *job) {
    const featinv_model_details *info = &job->opened.info;
    memset(w, 0, sizeof *w);
    set_shapes(w, batch, job);
    w->sampling = job->sampling;
    w->sampling.progress = cli_progress_call;
    w->sampling.user_data = &job->progress;
    w->sampling.completed = &batch->done;
    if (job->context.data) {
        w->context = cli_array_view(&job->context);
        w->sampling.context_data = &w->context;
    }
    if (job->uncontext.data) {
        w->uncontext = cli_array_view(&job->uncontext);
        w->sampling.uncontext_data = &w->uncontext;
    }
    set_noise(w, batch, job);
    w->images = featinv_tensor_view(batch->images, FEATINV_DTYPE_U8, 4, w->lane_image);
    w->latents = featinv_tensor_view(batch->latents, FEATINV_DTYPE_F32, 4, w->lane_latent);

    size_t map = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
    float *maps = batch->maps, *logits = batch->logits;
    if (!maps && job->maps.data)
        maps = (float *)job->maps.data + (size_t)batch->first * map;
    if (!logits && job->logits.data)
        logits = (float *)job->logits.data + (size_t)batch->first * (size_t)info->classes;
    w->maps = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, w->map_shape);
    w->logits = featinv_tensor_view(logits, FEATINV_DTYPE_F32, 2, w->logit_shape);
    w->references = featinv_tensor_view(batch->references, FEATINV_DTYPE_U8, 4, w->photo);
}

/* Scores the lanes that were drawn: those of whole inputs, or the first ones of a batch's only
 * input. */
static featinv_status score(views *w, cli_batch *batch, const cli_job *job) {
    int64_t samples = job->sampling.samples;
    if (batch->good_count > 1)
        batch->done -= batch->done % samples;
    if (!job->opened.info.has_backbone || !w->maps.data || batch->done == 0)
        return FEATINV_OK;
    w->lane_image[0] = batch->done;
    w->map_shape[0] = w->logit_shape[0] = (batch->done + samples - 1) / samples;
    bool logits = w->logits.data && job->opened.info.classes > 0;
    return featinv_score_samples(batch->scores, NULL, job->opened.session, &w->images, &w->maps,
                                 logits ? &w->logits : NULL, NULL);
}

static featinv_status reconstruct(views *w, cli_batch *batch, cli_job *job) {
    featinv_reconstruct_options r;
    featinv_status status = featinv_reconstruct_options_init(&r, sizeof r, job->opened.model);
    if (status)
        return status;
    r.sampling = &w->sampling;
    r.maps = &w->maps;
    r.logits = job->opened.info.classes > 0 ? &w->logits : NULL;
    r.references = &w->references;
    r.latents = &w->latents;
    status = featinv_reconstruct(&w->images, batch->scores, job->opened.session, batch->photos,
                                 batch->good_count, &r);
    if (!status)
        batch->done = batch->lanes;
    return status;
}

static featinv_status decode(views *w, cli_batch *batch, cli_job *job) {
    featinv_run_options run;
    featinv_status status = featinv_run_options_init(&run, sizeof run);
    if (status)
        return status;
    size_t size = (size_t)cli_latent_size(job), first = (size_t)batch->first;
    size_t lanes = (size_t)batch->lanes, samples = (size_t)job->sampling.samples;
    memcpy(batch->latents, (const float *)job->latents_in.data + first * samples * size,
           lanes * size * sizeof(float));
    run.progress = cli_progress_call;
    run.user_data = &job->progress;
    run.completed = &batch->done;
    return featinv_decode(&w->images, job->opened.session, &w->latents, job->sampling.legacy_bytes,
                          &run);
}

featinv_status cli_batch_draw(cli_batch *batch, cli_job *job) {
    views w;
    double started = cli_now();
    featinv_status status;
    set_views(&w, batch, job);
    if (cli_job_is_photos(job))
        status = reconstruct(&w, batch, job);
    else if (job->latents_in.data)
        status = decode(&w, batch, job);
    else
        status = featinv_sample(&w.images, &w.latents, job->opened.session, &w.maps, &w.sampling);
    if (!status)
        batch->done = batch->lanes;
    if (status && status != FEATINV_ERROR_CANCELLED)
        return status;
    /* what is done is kept, with its scores, also after Ctrl-C */
    if (!cli_job_is_photos(job) || (status && batch->done)) {
        featinv_status scored = score(&w, batch, job);
        if (scored)
            return scored;
    }
    double seconds = (cli_now() - started) / (double)batch->lanes;
    for (int64_t j = 0; j < batch->done; j++)
        batch->scores[j].seconds = seconds;
    return status;
}
