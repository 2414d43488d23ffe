#include "job.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- prompts -------------------- */

static bool is_file_name(const char *text) {
    size_t length = strlen(text);
    return length > 4 &&
           (strcmp(text + length - 4, ".npy") == 0 || strcmp(text + length - 4, ".npz") == 0);
}

/* A name in the bundle, else a file. */
static int set_context(const cli_job *job, const char *option, const char *text, const char **name,
                       cli_array *array) {
    const int64_t shape[2] = {-1, job->opened.info.context_width};
    const char *known;
    if (!text)
        return CLI_DONE;
    for (int32_t i = 0; (known = featinv_model_context_name(job->opened.model, i)); i++)
        if (strcmp(known, text) == 0) {
            *name = text;
            return CLI_DONE;
        }
    if (!is_file_name(text))
        return cli_fail(CLI_USAGE, "%s %s: the bundle has no such context", option, text);
    int code = cli_array_read(array, text, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(array, text, shape, 2, "(L, D):");
    return code ? code : cli_array_check_finite(array, text, "token");
}

/* ---------------------------------------------------------------- options -------------------- */

static void lay_over(featinv_sample_options *o, const cli_values *v) {
    o->samples = v->samples;
    if (v->steps)
        o->steps = v->steps;
    if (!isnan(v->scale))
        o->scale = v->scale;
    if (!isnan(v->hint_scale))
        o->hint_scale = v->hint_scale;
    else if (v->guess_mode)
        o->hint_scale = 1.0; /* the bundle's default is for runs with a hint in both branches */
    if (!isnan(v->strength))
        o->strength = v->strength;
    if (!isnan(v->eta))
        o->eta = v->eta;
    if (v->seed.given)
        o->seed = v->seed.value;
    o->guess_mode = v->guess_mode;
    o->legacy_bytes = v->legacy;
    if (v->legacy)
        o->spacing = FEATINV_SPACING_LEGACY;
    if (v->spacing >= 0)
        o->spacing = v->spacing;
}

static int check_options(cli_job *job) {
    const featinv_sample_options *o = &job->sampling;
    featinv_status status = featinv_timesteps(NULL, 0, &job->steps, o->steps, o->spacing);
    if (status)
        return cli_fail_status(status, NULL); /* names steps or spacing */
    if (o->guess_mode && (o->hint_scale < 1.0 || o->hint_scale > 1.0))
        return cli_fail(CLI_USAGE, "--guess-mode: needs a hint scale of 1, not %g", o->hint_scale);
    return CLI_DONE;
}

static int read_noise(cli_array *out, const char *path) {
    return path ? cli_array_read(out, path, NULL, FEATINV_DTYPE_F32) : CLI_DONE;
}

int cli_job_settings(cli_job *job) {
    const cli_values *v = job->values;
    featinv_sample_options *o = &job->sampling;
    const featinv_model_details *info = &job->opened.info;
    featinv_status status = featinv_sample_options_init(o, sizeof *o, job->opened.model);
    if (status)
        return cli_fail_status(status, NULL);
    lay_over(o, v);
    for (int i = 0; i < 3; i++)
        job->latent[i] = info->latent[i];
    job->image[0] = info->image[1];
    job->image[1] = info->image[2];
    int code = check_options(job);
    if (!code)
        code = set_context(job, "--context", v->context, &o->context, &job->context);
    if (!code)
        code = set_context(job, "--uncontext", v->uncontext, &o->uncontext, &job->uncontext);
    if (!code)
        code = read_noise(&job->noise, v->noise);
    if (!code)
        code = read_noise(&job->step_noise, v->step_noise);
    int64_t group = job->opened.batch / o->samples;
    job->group = group > 0 ? group : 1;
    return code;
}

int cli_job_check_arrays(cli_job *job) {
    int64_t lanes = cli_job_lanes(job);
    const cli_values *v = job->values;
    const int64_t noise[4] = {job->noise.data && job->noise.info.shape[0] == 1 ? 1 : lanes,
                              job->latent[0], job->latent[1], job->latent[2]};
    const int64_t steps[5] = {job->steps, lanes, job->latent[0], job->latent[1], job->latent[2]};
    int code = CLI_DONE;
    if (job->noise.data)
        code = cli_array_check(&job->noise, v->noise, noise, 4, "(N * samples or 1, C, h, w):");
    if (!code && job->noise.data)
        code = cli_array_check_finite(&job->noise, v->noise, "row");
    if (!code && job->step_noise.data)
        code = cli_array_check(&job->step_noise, v->step_noise, steps, 5,
                               "(steps, N * samples, C, h, w):");
    if (!code && job->step_noise.data)
        code = cli_array_check_finite(&job->step_noise, v->step_noise, "step");
    return code;
}

/* ---------------------------------------------------------------- for a resume --------------- */

static json_t *array_value(const cli_array *array) {
    uint64_t hash;
    if (!array->data)
        return json_null();
    cli_hash_start(&hash);
    cli_hash_add(&hash, array->data, (size_t)cli_array_count(array) * sizeof(float));
    return cli_json_hash(hash);
}

/* Which inputs there are: paths of images, content of maps. */
static json_t *inputs_value(const cli_job *job) {
    uint64_t hash = job->source_hash;
    if (cli_job_is_photos(job)) {
        cli_hash_start(&hash);
        for (int64_t i = 0; i < job->count; i++)
            cli_hash_add(&hash, job->inputs.items[i].path, strlen(job->inputs.items[i].path) + 1);
    }
    return cli_json_hash(hash);
}

/* The seed as text: JSON integers end at 2^63. */
static json_t *seed_value(uint64_t seed) {
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_string(text);
}

json_t *cli_job_settings_json(const cli_job *job) {
    const featinv_sample_options *o = &job->sampling;
    const cli_values *v = job->values;
    json_t *s = json_object();
    cli_json_set(s, "verb", json_string(job->verb));
    cli_json_set(s, "version", json_string(featinv_version()));
    cli_json_set(s, "bundle_sha256", cli_json_text(job->opened.info.sha256));
    cli_json_set(s, "inputs", json_integer((json_int_t)job->count));
    cli_json_set(s, "inputs_hash", inputs_value(job));
    cli_json_set(s, "device", cli_json_text(featinv_session_device(job->opened.session)));
    cli_json_set(s, "dtype", cli_json_text(featinv_session_dtype(job->opened.session)));
    cli_json_set(s, "batch", json_integer(job->opened.batch));
    cli_json_set(s, "threads", json_integer(v->threads));
    cli_json_set(s, "max_pixels", json_integer((json_int_t)v->max_pixels));
    cli_json_set(s, "samples", json_integer(o->samples));
    cli_json_set(s, "steps", json_integer(o->steps));
    cli_json_set(s, "spacing", json_integer(o->spacing));
    cli_json_set(s, "scale", cli_json_number(o->scale));
    cli_json_set(s, "hint_scale", cli_json_number(o->hint_scale));
    cli_json_set(s, "strength", cli_json_number(o->strength));
    cli_json_set(s, "eta", cli_json_number(o->eta));
    cli_json_set(s, "seed", seed_value(o->seed));
    cli_json_set(s, "guess_mode", json_boolean(o->guess_mode));
    cli_json_set(s, "legacy_bytes", json_boolean(o->legacy_bytes));
    cli_json_set(s, "context", o->context ? cli_json_text(o->context) : array_value(&job->context));
    cli_json_set(s, "uncontext",
                 o->uncontext ? cli_json_text(o->uncontext) : array_value(&job->uncontext));
    cli_json_set(s, "noise", array_value(&job->noise));
    cli_json_set(s, "step_noise", array_value(&job->step_noise));
    cli_json_set(s, "shards", json_integer(v->shards > 1 ? v->shards : 1));
    return s;
}
