/* What the files of `featinv train` share. docs/train.md describes the command and its folder of
 * state. Functions that return int return an exit code, after an error. */
#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H

#include "cli.h"
#include "inputs.h"

#include <jansson.h>

/* Files of the state folder. */
#define TRAIN_CHECKPOINT "checkpoint.safetensors"
#define TRAIN_PREVIOUS "checkpoint-previous.safetensors"
#define TRAIN_NEXT "checkpoint-next.safetensors" /* whole, not yet turned into the first */
#define TRAIN_DAMAGED "checkpoint-damaged.safetensors"
#define TRAIN_LOG "log.jsonl"

enum {
    TRAIN_PICTURES = 4, /* held-out images that a validation draws */
    TRAIN_MOST_HELD = 64
};

/* ---------------------------------------------------------------- data ----------------------- */

/* The folder's images in the order of their paths, each either trained on or held out. */
typedef struct train_data {
    cli_inputs inputs;
    const char **trained, **held; /* paths, borrowed from inputs */
    int64_t trained_count, held_count;
    uint64_t hash; /* of all paths relative to the folder, and of the split */

    featinv_dataset *dataset;  /* of trained; NULL once the cache is filled */
    int64_t reported;          /* of its problems */
    int32_t image[2], view[2]; /* height, width */
    uint8_t *images, *views;   /* of the running batch */

    /* --cache: of each image that could be read, in the order of the paths */
    int64_t cached, order_epoch; /* epoch of order, -1: none */
    size_t latent_size, map_size;
    float *means, *logvars, *maps;
    int64_t *order;
    float *batch_latents, *batch_maps, *keys;
} train_data;

/* ---------------------------------------------------------------- validation ----------------- */

typedef struct train_check {
    int64_t step;
    double right, shuffled, cosine; /* NaN: unknown */
    int32_t pictures;
    double cosines[TRAIN_PICTURES];
} train_check;

/* The held-out images, read once. */
typedef struct train_held {
    int64_t count;                      /* that could be read */
    uint8_t *images, *views, *shuffled; /* shuffled: views rolled by one */
    float *maps;                        /* of the first `pictures` of them */
    int32_t pictures;
} train_held;

/* ---------------------------------------------------------------- training ------------------- */

typedef struct train {
    const cli_values *values;
    cli_opened opened;
    featinv_trainer_options options;
    featinv_trainer *trainer;
    train_data data;
    train_held held;
    float
        *mean; /* (C) of the training maps; NULL where the bundle has one, and but for process 0 */

    /* of several processes that train together; alone: NULL, 0 of 1. Process 0 keeps the state
     * folder, validates and writes the bundle. */
    featinv_ranks *ranks;
    int32_t rank, size;

    char *output, *state; /* -o without slashes at its end, and its folder of state */
    char *warm_sha256;    /* of the manifest of --warm-start; NULL without */
    size_t made_from;     /* the state folder was made by this run; 0: it was there */
    int lock;             /* descriptor; -1: none */
    FILE *log;

    int64_t batch, steps, validate_every, checkpoint_every;
    int64_t share;   /* images of a batch that this process takes */
    int64_t saved;   /* step of the newest checkpoint; -1: none */
    int64_t started; /* step at which this run began */
    double began;    /* cli_now() of this run */
    double earlier;  /* seconds of earlier runs' steps */
    double stepping; /* seconds of this run's steps */
    double *losses;  /* of each step so far */
    int64_t loss_room;
    train_check *checks;
    int64_t check_count, check_room;
    bool broken, unwritten; /* a loss that is not finite; a file that could not be written */
    json_t *problems;       /* texts of the files left out, each once */

    cli_progress progress;
    char unit[80];
} train;

int64_t train_step_count(const train *t); /* updates done */
double train_mean_loss(const train *t);   /* of the last 100 steps; NaN before any */
double train_speed(const train *t);       /* samples a second in this run's steps; NaN */

/* train_ranks.c: several processes. Collective functions are called by all, in one order. */
int train_ranks_join(train *t);
/* Collective: the largest of all processes' exit codes, so that all stop where one has to. */
int train_ranks_agree(const train *t, int code);
/* Collective: the weights of process 0 for all, and a check that all list the same images. */
int train_ranks_share(train *t);
/* Collective: that all hold the same weights. */
int train_ranks_compare(train *t);
/* Collective: fails unless all have the same value. */
int train_ranks_check_same(const train *t, int64_t value, const char *what);
/* Whether this process prints the failure of a collective call, which all have met: process 0, and
 * each where MPI itself has failed. */
bool train_ranks_speaks(const train *t, featinv_status status);
/* Collective. */
void train_ranks_leave(train *t);

/* train_data.c */
int train_data_list(train *t); /* files and split */
int train_data_open(train *t); /* dataset and memory; after the trainer */
/* The samples of update `step` (from 0), as tensors that stay valid until the next call. */
typedef struct train_batch {
    int64_t shapes[2][4];
    featinv_tensor tensors[2];
    featinv_trainer_batch batch;
} train_batch;
int train_data_batch(train_batch *out, train *t, int64_t step);
void train_data_free(train_data *data);

/* train_cache.c */
int train_cache_fill(train *t);
int train_cache_batch(train_batch *out, train *t, int64_t step);

/* train_mean.c: the channel mean of the training maps, for a bundle that has none. */
int train_mean_find(train *t);

/* train_state.c */
int train_state_check(train *t);        /* output and state, before anything is opened */
int train_state_check_source(train *t); /* the output is none of the bundles that are read */
int train_state_open(train *t);         /* folder, lock, checkpoint, log */
int train_state_save(train *t);         /* a checkpoint, keeping the one before */
void train_state_close(train *t);
void train_remove_tree(const char *path);
/* Writes the trained bundle with fp16 weights, or fp32 where one lies beyond fp16. name: in its
 * manifest; NULL keeps that of the bundle it was made from. */
featinv_status train_export(train *t, const char *path, const char *name, bool force);

/* train_log.c */
json_t *train_settings(const train *t); /* {"training": what a resume compares, "run": the rest} */
/* Whether the log belongs to a training of these settings. */
int train_log_check(const train *t);
/* Keeps the lines up to `step`, and reads them; -1: none. */
int train_log_open(train *t, int64_t step);
int train_log_step(train *t, const featinv_trainer_result *result, double seconds);
int train_log_check_line(train *t, const train_check *check);
/* Reports a file that is left out, unless it is known. */
int train_problem(train *t, const char *text);
int train_keep_loss(train *t, int64_t step, double loss);
int train_keep_check(train *t, const train_check *check);

/* train_check.c */
int train_check_prepare(train *t);
bool train_check_due(const train *t); /* of the current step, and not done yet */
int train_check_run(train *t);        /* CLI_INTERRUPTED: it was given up */
void train_held_free(train_held *held);

/* train_page.c: index.html; running: it reloads itself. */
int train_page_write(const train *t, bool running);

#endif
