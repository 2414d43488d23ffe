#include "draw.h"

#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int cli_draw_begin(cli_job *job) {
    const featinv_model_details *info = &job->opened.info;
    job->source = job->verb; /* lanes belong to maps, not to photos */
    if (!info->has_generator)
        return cli_fail(CLI_FAILED, "%s: this bundle has no generator", info->path);
    int code = cli_job_settings(job);
    return code ? code : cli_outputs_check(job);
}

/* ---------------------------------------------------------------- drawing -------------------- */

static bool make_room(cli_drawn *out, const cli_job *job, int64_t map_size) {
    size_t n = (size_t)cli_job_lanes(job);
    out->lanes = (int64_t)n;
    out->images = calloc(n + 1, (size_t)cli_image_size(job));
    out->scores = calloc(n + 1, sizeof *out->scores);
    if (job->opened.info.has_backbone)
        out->maps = calloc(n + 1, (size_t)map_size * sizeof *out->maps);
    for (size_t i = 0; out->scores && i < n; i++)
        out->scores[i] = (featinv_score){NAN, NAN, NAN, -1, -1, -1, -1, NAN, {0}};
    return out->images && out->scores && (out->maps || !job->opened.info.has_backbone);
}

/* Scores and maps of the batch's whole maps. */
static featinv_status score(cli_drawn *out, const cli_batch *batch, cli_job *job, int64_t lane) {
    const featinv_model_details *info = &job->opened.info;
    int64_t samples = job->sampling.samples, count = batch->done / samples;
    int64_t map[3] = {info->channels, info->height, info->width};
    int64_t image_shape[4] = {count * samples, job->image[0], job->image[1], 3};
    int64_t map_shape[4] = {count, map[0], map[1], map[2]};
    int64_t lane_shape[4] = {count * samples, map[0], map[1], map[2]};
    if (!out->maps || !count)
        return FEATINV_OK;
    size_t size = (size_t)(map[0] * map[1] * map[2]);
    featinv_tensor images = featinv_tensor_view(batch->images, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor maps = featinv_tensor_view((float *)job->maps.data + (size_t)batch->first * size,
                                              FEATINV_DTYPE_F32, 4, map_shape);
    featinv_tensor seen =
        featinv_tensor_view(out->maps + (size_t)lane * size, FEATINV_DTYPE_F32, 4, lane_shape);
    return featinv_score_samples(out->scores + lane, &seen, job->opened.session, &images, &maps,
                                 NULL, NULL);
}

static int draw_batch(cli_drawn *out, cli_batch *batch, cli_job *job) {
    int64_t lane = batch->first * job->sampling.samples;
    size_t bytes = (size_t)cli_image_size(job);
    batch->good_count = batch->count;
    batch->good = calloc((size_t)batch->count + 1, sizeof *batch->good);
    if (!batch->good || !cli_batch_prepare(batch, job))
        return cli_fail_memory();
    for (int64_t i = 0; i < batch->count; i++)
        batch->good[i] = batch->first + i;
    featinv_status status = cli_batch_draw(batch, job);
    if (status && status != FEATINV_ERROR_CANCELLED) {
        const char *path = job->opened.info.path;
        return strncmp(featinv_last_error(), path, strlen(path)) == 0
                   ? cli_fail_bundle(status, NULL)
                   : cli_fail_status(status, NULL);
    }
    memcpy(out->images + (size_t)lane * bytes, batch->images, (size_t)batch->done * bytes);
    featinv_status scored = score(out, batch, job, lane);
    out->done = lane + batch->done;
    cli_outputs_keep(job, batch);
    if (scored)
        return cli_fail_status(scored, NULL);
    return status ? CLI_INTERRUPTED : CLI_DONE;
}

int cli_draw(cli_drawn *out, cli_job *job, float *maps, int64_t count) {
    const featinv_model_details *info = &job->opened.info;
    int64_t size = (int64_t)info->channels * info->height * info->width;
    *out = (cli_drawn){0};
    job->maps = (cli_array){.data = maps, .dtype = FEATINV_DTYPE_F32};
    job->count = count;
    int code = cli_job_check_arrays(job);
    if (!code)
        code = cli_outputs_prepare(job);
    if (!code && !make_room(out, job, size))
        code = cli_fail_memory();
    cli_progress_start(&job->progress, job->verb, "pictures", cli_job_lanes(job),
                       job->values->quiet);
    for (int64_t first = 0; !code && first < count; first += job->group) {
        cli_batch batch = {.first = first,
                           .count = job->group < count - first ? job->group : count - first};
        job->progress.first = first * job->sampling.samples;
        job->progress.count = batch.count * job->sampling.samples;
        code = cli_interrupted() ? CLI_INTERRUPTED : draw_batch(out, &batch, job);
        cli_batch_free(&batch);
    }
    cli_progress_clear();
    int written = code && code != CLI_INTERRUPTED ? CLI_DONE : cli_outputs_write(job);
    return written ? written : code;
}

void cli_drawn_free(cli_drawn *drawn) {
    free(drawn->images);
    free(drawn->scores);
    free(drawn->maps);
    *drawn = (cli_drawn){0};
}

featinv_sample_options cli_draw_options(cli_job *job, featinv_tensor contexts[2]) {
    featinv_sample_options o = job->sampling;
    if (job->context.data) {
        contexts[0] = cli_array_view(&job->context);
        o.context_data = &contexts[0];
    }
    if (job->uncontext.data) {
        contexts[1] = cli_array_view(&job->uncontext);
        o.uncontext_data = &contexts[1];
    }
    return o;
}

/* ---------------------------------------------------------------- figures -------------------- */

void cli_score_json(json_t *object, const featinv_score *score, const featinv_model *model) {
    const char *name = score->top1_sample < 0
                           ? NULL
                           : featinv_model_class_name(model, (int32_t)score->top1_sample);
    cli_json_set(object, "cosine_median", cli_json_number(score->cosine_median));
    cli_json_set(object, "cosine_centred", cli_json_number(score->cosine_centred));
    cli_json_set(object, "top1",
                 score->top1_sample < 0 ? json_null()
                                        : json_integer((json_int_t)score->top1_sample));
    cli_json_set(object, "class", cli_json_text(name));
}

const char *cli_cosine_text(char text[32], double cosine) {
    if (isnan(cosine))
        return "no score";
    (void)snprintf(text, 32, "cosine %.3f", cosine);
    return text;
}

void cli_score_lines(char *text, size_t capacity, const featinv_score *score,
                     const featinv_model *model) {
    const char *name = score->top1_sample < 0
                           ? NULL
                           : featinv_model_class_name(model, (int32_t)score->top1_sample);
    char centred[40] = "";
    if (!isnan(score->cosine_centred))
        (void)snprintf(centred, sizeof centred, "centred %.3f", score->cosine_centred);
    (void)snprintf(text, capacity, "%s%s%s", centred, *centred && name ? "\n" : "",
                   name ? name : "");
}

/* Tenths only where they tell the last percents apart. */
static void percent(char text[16], double value) {
    (void)snprintf(text, 16, value >= 98.0 && value < 100.0 ? "%.1f" : "%.0f", value);
}

void cli_scope_line(char *text, size_t capacity, double norm, double residual) {
    char first[16], second[16];
    *text = 0;
    if (isnan(norm) || isnan(residual))
        return;
    percent(first, norm);
    percent(second, residual);
    (void)snprintf(text, capacity, "norm %s %%, residual %s %%%s", first, second,
                   norm >= 99.0 || residual >= 99.0 ? ": out of scope" : "");
}

json_t *cli_draw_settings(const cli_job *job) {
    char seed[24];
    (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)job->sampling.seed);
    json_t *s = json_object();
    cli_json_set(s, "steps", json_integer(job->steps));
    cli_json_set(s, "scale", cli_json_number(job->sampling.scale));
    cli_json_set(s, "hint_scale", cli_json_number(job->sampling.hint_scale));
    cli_json_set(s, "seed", json_string(seed));
    cli_json_set(s, "device", cli_json_text(featinv_session_device(job->opened.session)));
    cli_json_set(s, "dtype", cli_json_text(featinv_session_dtype(job->opened.session)));
    cli_json_set(s, "bundle", cli_json_text(job->opened.info.name));
    cli_json_set(s, "bundle_sha256", cli_json_text(job->opened.info.sha256));
    cli_json_set(s, "version", json_string(featinv_version()));
    return s;
}
