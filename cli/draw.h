/* Pictures of a few maps that a verb made, outside of a job with a journal. */
#ifndef CLI_DRAW_H
#define CLI_DRAW_H

#include "job.h"

/* Lane j is sample j mod samples of map j / samples. */
typedef struct cli_drawn {
    uint8_t *images;       /* (lanes, H, W, 3) */
    featinv_score *scores; /* (lanes): against the map that each was drawn from */
    float *maps;           /* (lanes, C, h, w): what the backbone sees in each; NULL without one */
    int64_t lanes, done;   /* done: how many were drawn */
} cli_drawn;

/* What has to hold before anything is computed: a generator, the options of sampling.
 * job->values, verb and opened are set; the rest is filled for the calls below. */
int cli_draw_begin(cli_job *job);

/* Draws maps (count, C, h, w), which go over to the job, and writes --latents-out and its like.
 * CLI_INTERRUPTED: out->done lanes are there. */
int cli_draw(cli_drawn *out, cli_job *job, float *maps, int64_t count);
void cli_drawn_free(cli_drawn *drawn);

/* The job's sampling options with its contexts; `contexts` must outlive them. */
featinv_sample_options cli_draw_options(cli_job *job, featinv_tensor contexts[2]);

/* Cosine, centred cosine and class of a lane as JSON and as lines of a caption. */
void cli_score_json(json_t *object, const featinv_score *score, const featinv_model *model);
void cli_score_lines(char *text, size_t capacity, const featinv_score *score,
                     const featinv_model *model);
/* "cosine 0.953", "no score" */
const char *cli_cosine_text(char text[32], double cosine);
/* "norm 41 %, residual 98.6 %" beside the training maps, with a word where out of scope; "" for
 * NaN. */
void cli_scope_line(char *text, size_t capacity, double norm, double residual);

/* Settings that pictures depend on: steps, scale, hint scale, seed. */
json_t *cli_draw_settings(const cli_job *job);

#endif
