#include "job.h"
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool cli_job_is_photos(const cli_job *job) {
    return !job->source;
}

int64_t cli_job_lanes(const cli_job *job) {
    return job->count * job->sampling.samples;
}

int64_t cli_latent_size(const cli_job *job) {
    return job->latent[0] * job->latent[1] * job->latent[2];
}

int64_t cli_image_size(const cli_job *job) {
    return job->image[0] * job->image[1] * 3;
}

/* ---------------------------------------------------------------- batches -------------------- */

static int64_t batch_count(const cli_job *job) {
    return (job->count + job->group - 1) / job->group;
}

static int64_t inputs_of(const cli_job *job, int64_t batch) {
    int64_t left = job->count - batch * job->group;
    return left < job->group ? left : job->group;
}

static bool is_mine(const cli_job *job, int64_t batch) {
    int32_t shards = job->values->shards;
    return shards < 2 || batch % shards == job->values->shard;
}

/* Batches are committed whole, so one item speaks for all. */
static bool is_held(cli_job *job, int64_t batch, bool *failed) {
    if (!job->values->resume)
        return false;
    char *text = cli_input_text(job, batch * job->group);
    *failed = !text;
    bool held = text && featinv_report_has(job->report, text, 0);
    job->any = job->any || held;
    free(text);
    return held;
}

/* The first batch from `from` on that is this shard's and not done yet; batch_count where none is.
 */
static int64_t next_batch(cli_job *job, int64_t from, bool *failed) {
    int64_t batch = from;
    *failed = false;
    while (batch < batch_count(job) && !*failed &&
           (!is_mine(job, batch) || is_held(job, batch, failed)))
        batch++;
    return batch;
}

static int read_ahead(cli_job *job, int64_t batch) {
    job->ahead = NULL;
    if (!cli_job_is_photos(job) || batch >= batch_count(job))
        return CLI_DONE;
    job->ahead = cli_photos_start(&job->inputs, batch * job->group, inputs_of(job, batch),
                                  job->values->max_pixels);
    return job->ahead ? CLI_DONE : cli_fail_memory();
}

/* Prints and keeps the error of a batch's i-th input. */
static int note_error(cli_job *job, cli_batch *batch, int64_t i, int code, const char *error) {
    (void)cli_fail(code, "%s", error);
    job->code = job->count == 1 ? code : CLI_INPUT;
    batch->errors[i] = strdup(error);
    return batch->errors[i] ? CLI_DONE : cli_fail_memory();
}

/* Which inputs of the batch can be drawn. */
static int find_good(cli_batch *batch, cli_job *job) {
    size_t n = (size_t)batch->count;
    int code = CLI_DONE;
    batch->good = calloc(n + 1, sizeof *batch->good);
    batch->photos = calloc(n + 1, sizeof *batch->photos);
    batch->errors = calloc(n + 1, sizeof *batch->errors);
    if (!batch->good || !batch->photos || !batch->errors)
        return cli_fail_memory();
    const featinv_image *images = batch->read ? cli_photos_wait(batch->read) : NULL;
    for (int64_t i = 0; !code && i < batch->count; i++) {
        int error_code;
        const char *error = batch->read ? cli_photos_error(batch->read, i, &error_code) : NULL;
        if (error) {
            code = note_error(job, batch, i, error_code, error);
        } else if (!images || images[i].pixels) { /* without pixels: interrupted */
            if (images)
                batch->photos[batch->good_count] = images[i];
            batch->good[batch->good_count++] = batch->first + i;
        }
    }
    return code;
}

/* What begins with the bundle's path is the bundle's fault. */
static int draw_failed(const cli_job *job, featinv_status status) {
    const char *path = job->opened.info.path;
    bool bundle = strncmp(featinv_last_error(), path, strlen(path)) == 0;
    return bundle ? cli_fail_bundle(status, NULL) : cli_fail_status(status, NULL);
}

/* Draws, writes and commits. *whole: nothing of the batch is missing. */
static int run_batch(cli_job *job, cli_batch *batch, bool *whole) {
    *whole = false;
    if (batch->good_count) {
        if (!cli_batch_prepare(batch, job))
            return cli_fail_memory();
        featinv_status status = cli_batch_draw(batch, job);
        if (status && status != FEATINV_ERROR_CANCELLED)
            return draw_failed(job, status);
    }
    cli_outputs_keep(job, batch);
    int code = cli_batch_write(batch, job);
    *whole = !code && batch->done == batch->lanes;
    if (*whole) {
        featinv_status status = featinv_report_commit(job->report);
        if (status)
            code = cli_fail_status(status, NULL);
    }
    if (code)
        cli_batch_take_back(batch);
    return code;
}

/* How many samples this run has to draw. */
static int64_t lanes_to_draw(cli_job *job) {
    bool failed = false;
    int64_t inputs = 0;
    for (int64_t b = next_batch(job, 0, &failed); b < batch_count(job) && !failed;
         b = next_batch(job, b + 1, &failed))
        inputs += inputs_of(job, b);
    return inputs * job->sampling.samples;
}

static int run_batches(cli_job *job, bool *complete) {
    bool failed, going = true;
    int64_t b = next_batch(job, 0, &failed);
    cli_progress_start(&job->progress, job->verb, "images", lanes_to_draw(job), job->values->quiet);
    int code = failed ? cli_fail_memory() : read_ahead(job, b);
    while (!code && going && b < batch_count(job) && !cli_interrupted()) {
        cli_batch batch = {.first = b * job->group, .count = inputs_of(job, b), .read = job->ahead};
        job->progress.count = batch.count * job->sampling.samples;
        job->ahead = NULL;
        code = find_good(&batch, job);
        b = next_batch(job, b + 1, &failed);
        if (!code)
            code = failed ? cli_fail_memory() : read_ahead(job, b);
        if (!code && !cli_interrupted())
            code = run_batch(job, &batch, &going);
        else
            going = false;
        if (going && !code)
            job->progress.first += job->progress.count;
        cli_batch_free(&batch);
    }
    *complete = !code && going && b >= batch_count(job);
    return code;
}

/* ---------------------------------------------------------------- report --------------------- */

/* Of one input given twice a journal could not say which is done. */
static int check_resume(const cli_job *job) {
    json_t *seen = json_object();
    int code = seen ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < job->count && cli_job_is_photos(job); i++) {
        const char *path = job->inputs.items[i].path;
        if (json_object_get(seen, path))
            code = cli_fail(CLI_USAGE, "--resume: %s is given twice", path);
        else
            (void)json_object_set_new(seen, path, json_true());
    }
    json_decref(seen);
    return code;
}

static int start_report(cli_job *job) {
    const cli_values *v = job->values;
    featinv_report_options o;
    featinv_status status = featinv_report_options_init(&o, sizeof o);
    json_t *settings = cli_job_settings_json(job);
    char *text = settings ? json_dumps(settings, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    int code = text ? CLI_DONE : cli_fail_memory();
    if (!code && !status) {
        o.resume = v->resume;
        o.title = job->title;
        o.settings = text;
        o.device = featinv_session_device(job->opened.session);
        o.dtype = featinv_session_dtype(job->opened.session);
        o.bundle_sha256 = job->opened.info.sha256;
        o.bundle_name = job->opened.info.name;
        o.scale = job->latents_in.data ? NAN : job->sampling.scale;
        o.steps = job->latents_in.data ? 0 : job->steps;
        o.samples = job->sampling.samples;
        o.shard = v->shard;
        o.shards = v->shards;
        status = featinv_report_create(&job->report, v->output, &o);
    }
    if (!code && status)
        code = cli_fail_status(status, NULL);
    free(text);
    json_decref(settings);
    return code;
}

/* ---------------------------------------------------------------- results -------------------- */

static json_t *load_results(const cli_job *job) {
    size_t size = strlen(job->values->output) + 16;
    char *path = malloc(size);
    json_t *root = NULL;
    if (path) {
        (void)snprintf(path, size, "%s/results.json", job->values->output);
        root = json_load_file(path, 0, NULL);
    }
    free(path);
    return root;
}

static void print_share(const json_t *summary, const char *key, const char *label) {
    const json_t *value = json_object_get(summary, key);
    if (json_is_number(value))
        (void)printf(", %s %.0f %%", label, 100.0 * json_number_value(value));
}

static void print_mean(const json_t *summary, const char *key, const char *label) {
    const json_t *value = json_object_get(summary, key);
    if (json_is_number(value))
        (void)printf(", %s %.3f", label, json_number_value(value));
}

static int print_results(const cli_job *job) {
    if (job->values->quiet && !job->values->json)
        return CLI_DONE;
    json_t *root = load_results(job);
    if (!root)
        return cli_fail(CLI_FAILED, "%s/results.json: cannot be read back", job->values->output);
    if (job->values->json)
        return cli_json_print(root);
    const json_t *s = json_object_get(root, "summary");
    long long images = json_integer_value(json_object_get(s, "images"));
    (void)printf("%lld image%s in %.1f s", images, images == 1 ? "" : "s",
                 json_number_value(json_object_get(s, "seconds")));
    print_mean(s, "cosine_median", "cosine");
    print_mean(s, "cosine_centred", "centred");
    print_share(s, "match_top1", "top-1");
    print_share(s, "match_top5", "top-5");
    (void)printf("\n%s/report.html\n", job->values->output);
    json_decref(root);
    return CLI_DONE;
}

/* A resumed job lists the bad inputs that it met before, too. */
static bool lists_errors(const cli_job *job) {
    json_t *root = job->values->resume ? load_results(job) : NULL;
    const json_t *summary = json_object_get(root, "summary");
    bool found = json_integer_value(json_object_get(summary, "errors")) > 0;
    json_decref(root);
    return found;
}

static int interrupted(const cli_job *job) {
    int64_t samples = job->sampling.samples;
    return cli_fail(CLI_INTERRUPTED, "interrupted after %lld of %lld inputs; --resume goes on",
                    (long long)(job->progress.first / samples),
                    (long long)(job->progress.total / samples));
}

/* Everything behind the last batch. failed: the code that ended the job early, else 0. */
static int finish(cli_job *job, double started, bool complete, int failed) {
    featinv_status status = featinv_report_write(job->report, cli_now() - started, complete);
    if (failed)
        return failed;
    if (status)
        return cli_fail_status(status, NULL);
    int code = cli_outputs_write(job);
    if (!code)
        code = print_results(job);
    if (code)
        return code;
    if (!complete)
        return interrupted(job);
    return !job->code && lists_errors(job) ? CLI_INPUT : job->code;
}

/* ---------------------------------------------------------------- job ------------------------ */

/* An only input that cannot be read leaves nothing behind. */
static int check_only_input(cli_job *job) {
    if (!cli_job_is_photos(job) || job->count != 1)
        return CLI_DONE;
    int code;
    cli_photos *photos = cli_photos_start(&job->inputs, 0, 1, job->values->max_pixels);
    if (!photos)
        return cli_fail_memory();
    (void)cli_photos_wait(photos);
    const char *error = cli_photos_error(photos, 0, &code);
    if (error)
        (void)cli_fail(code, "%s", error);
    cli_photos_free(photos);
    return code;
}

static int prepare(cli_job *job) {
    int code = cli_outputs_check(job);
    if (!code && job->values->resume)
        code = check_resume(job);
    if (!code)
        code = cli_job_check_arrays(job);
    if (!code)
        code = check_only_input(job);
    if (!code)
        code = cli_outputs_prepare(job);
    if (!code)
        code = cli_folder_make(job->values->output, &job->made_from);
    if (!code)
        code = start_report(job);
    return code;
}

int cli_job_run(cli_job *job) {
    double started = cli_now();
    bool complete = false;
    cli_watch(job->opened.session);
    int code = prepare(job);
    if (!code) {
        code = run_batches(job, &complete);
        cli_progress_clear();
        if (job->any)
            code = finish(job, started, complete, code);
        else if (!code)
            code = complete ? CLI_DONE : interrupted(job);
    }
    featinv_report_destroy(job->report);
    job->report = NULL;
    if (code)
        cli_folder_unmake(job->values->output, job->made_from);
    return code;
}

void cli_job_free(cli_job *job) {
    cli_photos_free(job->ahead);
    featinv_report_destroy(job->report);
    cli_array_free(&job->noise);
    cli_array_free(&job->step_noise);
    cli_array_free(&job->context);
    cli_array_free(&job->uncontext);
    cli_array_free(&job->maps);
    cli_array_free(&job->logits);
    cli_array_free(&job->latents_in);
    cli_inputs_free(&job->inputs);
    free(job->latents);
    free(job->images);
    free(job->trace_x);
    free(job->trace_x0);
    cli_close(&job->opened);
    *job = (cli_job){0};
}
