#include "job.h"

static int run_opened(cli_job *job) {
    const cli_values *v = job->values;
    const featinv_model_details *info = &job->opened.info;
    if (!info->has_backbone)
        return cli_fail(CLI_FAILED,
                        "%s: this bundle has no backbone: featinv sample draws from maps",
                        info->path);
    if (!info->has_generator)
        return cli_fail(CLI_FAILED, "%s: this bundle has no generator", info->path);
    int code = cli_job_settings(job);
    if (!code)
        code = cli_inputs_list(&job->inputs, v->arguments, v->argument_count);
    job->count = job->inputs.count;
    return code ? code : cli_job_run(job);
}

static int run(const cli_values *values) {
    cli_job job = {.values = values,
                   .verb = "reconstruct",
                   .title = "Images drawn from their own feature maps"};
    if (!values->argument_count)
        return cli_fail(CLI_USAGE,
                        "reconstruct: which images? featinv reconstruct IMAGE|DIR... -o DIR");
    if (!values->output)
        return cli_fail(CLI_USAGE, "reconstruct: -o DIR is missing");
    int code = cli_folder_check(values);
    if (!code)
        code = cli_open(&job.opened, values);
    if (!code)
        code = run_opened(&job);
    cli_job_free(&job);
    return code;
}

static const cli_option own[] = {{"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL,
                                  "DIR", "folder for the pictures, results.json and report.html"},
                                 {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_run_options,
                                           cli_sampling_options,
                                           cli_job_options,
                                           cli_image_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_reconstruct = {
    .name = "reconstruct",
    .usage = "reconstruct IMAGE|DIR... -o DIR",
    .summary = "images to maps to images, with the agreement of both (the main job)",
    .details = "Writes NAME-original.png, NAME-0.png, NAME-1.png ..., with several samples\n"
               "NAME-spread.png (bright: varies between samples), results.json and report.html.\n"
               "A folder stands for its image files, sorted. Ctrl-C finishes the running step and\n"
               "keeps what is done; a second one ends at once.",
    .tables = tables,
    .run = run};
