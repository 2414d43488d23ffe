/* A job over many inputs: sample and reconstruct. Inputs are dealt in batches; each batch is drawn,
 * scored, written and committed to the journal before the next one begins. */
#ifndef CLI_JOB_H
#define CLI_JOB_H

#include "arrays.h"
#include "inputs.h"

#include <jansson.h>

typedef struct cli_job {
    const cli_values *values;
    const char *verb, *title;
    cli_opened opened;
    featinv_sample_options sampling;
    cli_array noise, step_noise, context, uncontext; /* what the options name */
    int32_t steps;                                   /* those that run; 0: decode only */
    int64_t count;                                   /* inputs */
    int64_t group;                                   /* inputs of a batch */

    /* reconstruct */
    cli_inputs inputs;
    cli_photos *ahead; /* the next batch, being read */

    /* sample; maps.data NULL: latents without maps */
    cli_array maps, logits, latents_in;
    const char *source; /* the file that the inputs are rows of */
    uint64_t source_hash;

    /* whole-job outputs, rows of what was not drawn are NaN or 0; NULL: not wanted */
    float *latents, *trace_x, *trace_x0; /* (lanes, C, h, w); (steps, lanes, C, h, w) */
    uint8_t *images;                     /* (lanes, H, W, 3) */
    int64_t latent[3], image[2];         /* C, h, w of a latent; height, width of an image */

    featinv_report *report;
    size_t made_from; /* the folder's path exists up to here; 0: it was there */
    cli_progress progress;
    bool any; /* the report holds an item */
    int code; /* 0, or that of bad inputs */
} cli_job;

/* One batch while it runs. Lane j is sample j mod samples of input good[j / samples]. */
typedef struct cli_batch {
    int64_t first, count;
    int64_t *good, good_count; /* inputs that can be drawn */
    char **errors;             /* of the others, by place in the batch: one line each */
    int64_t lanes, done;       /* done: lanes drawn */
    uint8_t *images, *references;
    float *latents, *maps, *logits, *noise, *step_noise, *trace_x, *trace_x0;
    featinv_score *scores;
    cli_photos *read; /* what photos and errors of inputs belong to */
    featinv_image *photos;
    char **written; /* files, taken back if the batch cannot be completed */
    size_t written_count;
} cli_batch;

/* job.c: runs all batches and writes the results. The caller has filled values, verb, title,
 * opened, count and its inputs. */
int cli_job_run(cli_job *job);
void cli_job_free(cli_job *job);
bool cli_job_is_photos(const cli_job *job);
int64_t cli_job_lanes(const cli_job *job); /* of all inputs */
int64_t cli_latent_size(const cli_job *job);
int64_t cli_image_size(const cli_job *job); /* bytes */

/* settings.c: options → sampling options and arrays; what a resume compares. */
int cli_job_settings(cli_job *job);
int cli_job_check_arrays(cli_job *job); /* against count */
json_t *cli_job_settings_json(const cli_job *job);

/* batch.c: draws and scores. Status CANCELLED: batch->done lanes are there, scored. */
featinv_status cli_batch_draw(cli_batch *batch, cli_job *job);
bool cli_batch_prepare(cli_batch *batch, const cli_job *job); /* memory; false: none left */
void cli_batch_free(cli_batch *batch);

/* pictures.c: writes the pictures of the drawn lanes and adds their items to the report. */
int cli_batch_write(cli_batch *batch, cli_job *job);
void cli_batch_take_back(cli_batch *batch);
/* How an input is called in results.json, and in file names: fresh memory. */
char *cli_input_text(const cli_job *job, int64_t input);
char *cli_input_name(const cli_job *job, int64_t input);

/* outputs.c: --latents-out, --images-out, --trace. */
int cli_outputs_check(const cli_job *job);
int cli_outputs_prepare(cli_job *job);
void cli_outputs_keep(cli_job *job, const cli_batch *batch);
int cli_outputs_write(cli_job *job);

/* folder.c: the output folder. */
/* Whether -o can be a folder of results, apart from the inputs. */
int cli_folder_check(const cli_values *values);
int cli_folder_make(const char *path, size_t *made_from);
void cli_folder_unmake(const char *path, size_t made_from);

#endif
