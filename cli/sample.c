#include "job.h"

#include <string.h>

static bool is_npz(const char *path) {
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".npz") == 0;
}

static int read_maps(cli_job *job) {
    const featinv_model_details *info = &job->opened.info;
    const char *path = job->values->features;
    const int64_t wanted[4] = {-1, info->channels, info->height, info->width};
    const int64_t any[4] = {-1, -1, -1, -1};
    int code = cli_array_read(&job->maps, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(&job->maps, path, any, 4, "maps (N, C, H, W):");
    if (!code)
        code = cli_array_check(&job->maps, path, wanted, 4, "by the bundle:");
    return code ? code : cli_array_check_finite(&job->maps, path, "map");
}

/* What the original was classified as, where the file knows and the bundle can compare. */
static int read_logits(cli_job *job) {
    const char *path = job->values->features;
    const int64_t wanted[2] = {job->maps.info.shape[0], job->opened.info.classes};
    bool found = false;
    if (!is_npz(path) || !job->opened.info.has_backbone || job->opened.info.classes < 1)
        return CLI_DONE;
    int code = cli_array_read_optional(&job->logits, &found, path, "logits", FEATINV_DTYPE_F32);
    if (!code && found)
        code =
            cli_array_check(&job->logits, path, wanted, 2, "by its maps and the bundle, logits:");
    return code || !found ? code : cli_array_check_finite(&job->logits, path, "logits of map");
}

static int read_latents(cli_job *job) {
    const cli_values *v = job->values;
    const featinv_model_details *info = &job->opened.info;
    const int64_t wanted[4] = {-1, info->latent[0], -1, -1};
    if (!v->latents_in)
        return CLI_DONE;
    int code = cli_array_read(&job->latents_in, v->latents_in, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code =
            cli_array_check(&job->latents_in, v->latents_in, wanted, 4, "(N * samples, C, h, w):");
    if (!code)
        code = cli_array_check_finite(&job->latents_in, v->latents_in, "latent");
    if (code)
        return code;
    const int64_t *shape = job->latents_in.info.shape;
    int64_t samples = job->sampling.samples;
    if (job->maps.data && shape[0] != job->count * samples)
        return cli_fail(CLI_INPUT, "%s: holds %lld latents, %s with --samples %lld wants %lld",
                        v->latents_in, (long long)shape[0], v->features, (long long)samples,
                        (long long)(job->count * samples));
    if (shape[0] % samples)
        return cli_fail(CLI_INPUT, "%s: holds %lld latents, no multiple of --samples %lld",
                        v->latents_in, (long long)shape[0], (long long)samples);
    job->count = shape[0] / samples;
    for (int i = 0; i < 3; i++)
        job->latent[i] = shape[i + 1];
    /* the decoder enlarges any grid by the same factor */
    job->image[0] = shape[2] * info->image[1] / info->latent[1];
    job->image[1] = shape[3] * info->image[2] / info->latent[2];
    return CLI_DONE;
}

static void hash_source(cli_job *job) {
    const cli_array *arrays[] = {&job->maps, &job->logits, &job->latents_in};
    cli_hash_start(&job->source_hash);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (arrays[i]->data)
            cli_hash_add(&job->source_hash, arrays[i]->data,
                         (size_t)cli_array_count(arrays[i]) * sizeof(float));
}

static int run_opened(cli_job *job) {
    const cli_values *v = job->values;
    if (!job->opened.info.has_generator)
        return cli_fail(CLI_FAILED, "%s: this bundle has no generator", job->opened.info.path);
    int code = cli_job_settings(job);
    if (!code && v->features)
        code = read_maps(job);
    if (!code && v->features) {
        job->count = job->maps.info.shape[0];
        code = read_logits(job);
    }
    if (!code)
        code = read_latents(job);
    job->source = v->features ? v->features : v->latents_in;
    hash_source(job);
    return code ? code : cli_job_run(job);
}

static int check_usage(const cli_values *v) {
    if (v->argument_count)
        return cli_fail(CLI_USAGE, "%s: sample takes no argument; --features F names the maps",
                        v->arguments[0]);
    if (!v->features && !v->latents_in)
        return cli_fail(CLI_USAGE, "sample: --features F is missing");
    if (!v->output)
        return cli_fail(CLI_USAGE, "sample: -o DIR is missing");
    if (v->latents_in && (v->noise || v->step_noise || v->trace))
        return cli_fail(CLI_USAGE, "--latents-in: only decodes; %s has no meaning then",
                        v->noise        ? "--noise"
                        : v->step_noise ? "--step-noise"
                                        : "--trace");
    return CLI_DONE;
}

static int run(const cli_values *values) {
    cli_job job = {.values = values, .verb = "sample", .title = "Images drawn from feature maps"};
    int code = check_usage(values);
    if (!code)
        code = cli_folder_check(values);
    if (!code)
        code = cli_open(&job.opened, values);
    if (!code)
        code = run_opened(&job);
    cli_job_free(&job);
    return code;
}

static const cli_option own[] = {
    {"features", 0, CLI_TEXT, offsetof(cli_values, features), 0, 0, NULL, "F",
     "maps (N, C, H, W): .npy, or .npz with `features` and perhaps `logits`"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "DIR",
     "folder for the pictures, results.json and report.html"},
    {"latents-in", 0, CLI_TEXT, offsetof(cli_values, latents_in), 0, 0, NULL, "F.npy",
     "decode these latents (N * samples, C, h, w) instead of sampling"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_run_options,
                                           cli_sampling_options,
                                           cli_job_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_sample = {
    .name = "sample",
    .usage = "sample --features F.npy|F.npz -o DIR",
    .summary = "feature maps from anywhere to images",
    .details =
        "Writes NAME-0.png ... for each map (NAME is the file's; with several maps their number\n"
        "follows), with several samples NAME-spread.png, results.json and report.html. Samples\n"
        "are scored where the bundle has a backbone.",
    .tables = tables,
    .run = run};
