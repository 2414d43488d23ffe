#include "job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int cli_outputs_check(const cli_job *job) {
    const cli_values *v = job->values;
    if (v->resume && (v->latents_out || v->images_out || v->trace))
        return cli_fail(CLI_USAGE, "--resume: %s would lack what is done already",
                        v->latents_out  ? "--latents-out"
                        : v->images_out ? "--images-out"
                                        : "--trace");
    int code = cli_check_output_file("--latents-out", v->latents_out, ".npy", NULL);
    if (!code)
        code = cli_check_output_file("--images-out", v->images_out, ".npy", NULL);
    return code ? code : cli_check_output_file("--trace", v->trace, ".npz", NULL);
}

/* rows * size elements; NULL where they do not fit into memory. */
static void *block(int64_t rows, int64_t size, size_t element) {
    size_t count, bytes;
    if (__builtin_mul_overflow((size_t)rows, (size_t)size, &count) ||
        __builtin_mul_overflow(count, element, &bytes))
        return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

static float *unknown_floats(int64_t rows, int64_t size) {
    float *values = block(rows, size, sizeof *values);
    for (int64_t i = 0; values && i < rows * size; i++)
        values[i] = NAN;
    return values;
}

int cli_outputs_prepare(cli_job *job) {
    const cli_values *v = job->values;
    int64_t lanes = cli_job_lanes(job), size = cli_latent_size(job);
    if (v->latents_out)
        job->latents = unknown_floats(lanes, size);
    if (v->images_out)
        job->images = block(lanes, cli_image_size(job), 1);
    if (v->trace) {
        job->trace_x = unknown_floats(lanes, size * job->steps);
        job->trace_x0 = unknown_floats(lanes, size * job->steps);
    }
    if ((v->latents_out && !job->latents) || (v->images_out && !job->images) ||
        (v->trace && (!job->trace_x || !job->trace_x0)))
        return cli_fail_memory();
    return CLI_DONE;
}

void cli_outputs_keep(cli_job *job, const cli_batch *batch) {
    int64_t samples = job->sampling.samples, lanes = cli_job_lanes(job);
    size_t size = (size_t)cli_latent_size(job), bytes = (size_t)cli_image_size(job);
    for (int64_t j = 0; j < batch->done; j++) {
        size_t row = (size_t)(batch->good[j / samples] * samples + j % samples), from = (size_t)j;
        if (job->latents && batch->latents)
            memcpy(job->latents + row * size, batch->latents + from * size, size * sizeof(float));
        if (job->images)
            memcpy(job->images + row * bytes, batch->images + from * bytes, bytes);
        for (size_t i = 0; job->trace_x && i < (size_t)job->steps; i++) {
            size_t to = (i * (size_t)lanes + row) * size;
            size_t at = (i * (size_t)batch->lanes + from) * size;
            memcpy(job->trace_x + to, batch->trace_x + at, size * sizeof(float));
            memcpy(job->trace_x0 + to, batch->trace_x0 + at, size * sizeof(float));
        }
    }
}

int cli_outputs_write(cli_job *job) {
    const cli_values *v = job->values;
    int64_t lanes = cli_job_lanes(job);
    int64_t latent[4] = {lanes, job->latent[0], job->latent[1], job->latent[2]};
    int64_t image[4] = {lanes, job->image[0], job->image[1], 3};
    int64_t trace[5] = {job->steps, lanes, job->latent[0], job->latent[1], job->latent[2]};
    const char *const names[] = {"x", "x0"};
    featinv_status status = FEATINV_OK;
    if (job->latents) {
        featinv_tensor t = featinv_tensor_view(job->latents, FEATINV_DTYPE_F32, 4, latent);
        status = featinv_array_write(v->latents_out, &t, NULL, 1, 0);
    }
    if (!status && job->images) {
        featinv_tensor t = featinv_tensor_view(job->images, FEATINV_DTYPE_U8, 4, image);
        status = featinv_array_write(v->images_out, &t, NULL, 1, 0);
    }
    if (!status && job->trace_x) {
        featinv_tensor t[2] = {featinv_tensor_view(job->trace_x, FEATINV_DTYPE_F32, 5, trace),
                               featinv_tensor_view(job->trace_x0, FEATINV_DTYPE_F32, 5, trace)};
        status = featinv_array_write(v->trace, t, names, 2, 0);
    }
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}
