/* What the parts of the `featinv` command share: exit codes, errors, the parsed options. */
#ifndef CLI_H
#define CLI_H

#include "featinv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CLI_DONE = 0,
    CLI_FAILED = 1, /* also an output that cannot be written */
    CLI_USAGE = 2,
    CLI_INPUT = 3,
    CLI_BUNDLE = 4,
    CLI_MEMORY = 5,
    CLI_DEVICE = 6, /* or backend */
    CLI_INTERRUPTED = 130
};

#define CLI_MAX_PIXELS ((int64_t)64 << 20)

typedef struct cli_seed {
    uint64_t value;
    bool given;
} cli_seed;

/* Values of an option that may be given several times. */
enum { CLI_MOST_TEXTS = 16 };
typedef struct cli_texts {
    const char *items[CLI_MOST_TEXTS];
    int32_t count;
} cli_texts;

/* All options of all verbs. What was not given: NULL, 0, false, or NaN for numbers. */
typedef struct cli_values {
    bool help, json, quiet, deterministic;
    const char *model, *device, *output;
    int32_t dtype, batch, threads;
    int64_t max_pixels;

    int32_t samples, steps, spacing; /* spacing -1: not given */
    double scale, hint_scale, strength, eta;
    cli_seed seed;
    bool guess_mode, legacy;
    const char *context, *uncontext, *noise, *step_noise;
    const char *latents_in, *latents_out, *images_out, *trace;

    bool resume;
    int32_t shard, shards; /* shards 0: the whole */

    const char *features, *centre;

    /* concepts and steering */
    const char *concepts, *bases, *offsets, *class_name, *coefficients_out, *mask, *region,
        *weights;
    int32_t method, count, max_count, basis, normalize, mode; /* choices: -1 where not given */
    int32_t concept_index, pairs;
    double gamma, tau, outlier_quantile, factor, threshold; /* threshold -1: from the null */
    int64_t max_rows, memory;
    bool orthogonalize, orthonormalize;

    /* training */
    const char *data, *warm_start;
    int64_t train_steps, warmup, decay_steps;
    int64_t validate_every, checkpoint_every; /* -1 and 0: not given */
    int32_t epochs, accumulation, workers, precision;
    double rate, decay_floor, clip, average, min_snr, hint_dropout, prompt_dropout, validation;
    bool no_augment, cache, force;

    /* evaluation */
    cli_texts models;
    const char *ood, *fid_features, *tables, *scales;
    int32_t per_class, bootstrap, pictures; /* -1: not given */
    bool ceiling;

    const char *const *arguments; /* what is no option */
    int argument_count;
} cli_values;

/* ---------------------------------------------------------------- errors --------------------- */

#define CLI_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* The exit code of a status. */
int cli_code(featinv_status status);

/* Prints "featinv: TEXT" as one line on stderr and returns code. */
int cli_fail(int code, const char *format, ...) CLI_PRINTF(2, 3);

/* The same with the library's last error; file (or NULL) is put in front where the text does not
 * begin with it. */
int cli_fail_status(featinv_status status, const char *file);

/* An error of a bundle: that a file of it is missing or damaged is the bundle's fault. */
int cli_fail_bundle(featinv_status status, const char *bundle);

int cli_fail_memory(void);

/* Which of several processes this is: from 1 on its errors name it. Those of usage are left to
 * process 0, since all have the same arguments. */
void cli_error_rank(int32_t rank);

/* Flushes stdout; exit code for a full disk or a closed pipe behind it, else code. */
int cli_close_output(int code);

/* ---------------------------------------------------------------- options -------------------- */

typedef enum {
    CLI_FLAG,    /* bool */
    CLI_TEXT,    /* const char * */
    CLI_TEXTS,   /* cli_texts */
    CLI_INTEGER, /* int32_t, in [low, high] */
    CLI_LARGE,   /* int64_t, in [low, high] */
    CLI_SIZE,    /* int64_t, bytes in [low, high], with K, M or G behind the number */
    CLI_NUMBER,  /* double, finite, in [low, high]; a low of CLI_ABOVE_ZERO: above 0 */
    CLI_CHOICE,  /* int32_t, one of choices */
    CLI_SEED,    /* cli_seed */
    CLI_SHARD    /* two int32_t: I/N */
} cli_kind;

typedef struct cli_choice {
    const char *name;
    int32_t value;
} cli_choice;

#define CLI_ABOVE_ZERO 0x1p-1074

/* Values of --count and --concept that are words. */
enum { CLI_COUNT_AUTO = 0, CLI_COUNT_COMPLETENESS = -1 };
enum { CLI_CONCEPT_ALL = -2, CLI_CONCEPT_MISSING = -3 }; /* beside FEATINV_COMPLEMENT */

typedef struct cli_option {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* 0: none */
    cli_kind kind;
    size_t offset; /* in cli_values */
    double low, high;
    const cli_choice *choices; /* of CLI_INTEGER and CLI_NUMBER: words that are taken, too */
    const char *value, *help;  /* value: its name in the help; NULL for flags */
} cli_option;

typedef struct cli_verb {
    const char *name, *usage, *summary;
    const char *details;             /* more lines for the help, or NULL */
    const cli_option *const *tables; /* NULL ends the list */
    int (*run)(const cli_values *values);
    const struct cli_verb *const *parts; /* verbs behind this one ("concepts fit"), or NULL */
} cli_verb;

extern const cli_option cli_help_options[];
extern const cli_option cli_run_options[];       /* model, device, dtype, batch, threads, ... */
#define cli_device_options (cli_run_options + 1) /* without the model */
extern const cli_option cli_image_options[];     /* limits of input images */
extern const cli_option cli_output_options[];    /* -o, --json, -q */
extern const cli_option cli_sampling_options[];
/* Its tail, for verbs that draw as they see fit: without --samples and the files of lanes. */
enum { CLI_LANE_OPTIONS = 6 };
#define cli_drawing_options (cli_sampling_options + CLI_LANE_OPTIONS)
extern const cli_option cli_concepts_options[]; /* --concepts */
extern const cli_option cli_job_options[];
extern const cli_option cli_shard_options[];

/* Parses argv behind the verb. Returns CLI_DONE or CLI_USAGE. `arguments` has room for argc. */
int cli_parse(cli_values *values, const cli_verb *verb, int argc, const char *const *argv,
              const char **arguments);
void cli_print_help(FILE *stream, const cli_verb *verb);

/* The numbers of a list such as "0,0.25,1", each finite and in [low, high]: fresh memory. */
int cli_numbers(double **out, int32_t *count, const char *option, const char *text, double low,
                double high);

/* ---------------------------------------------------------------- several processes --------- */

/* Whether a launcher started several processes, and which of them this is; else 0 of 1. */
bool cli_launched(int32_t *rank, int32_t *size);
/* Gives each of them its --shard, where the verb has that option. */
int cli_launch_shard(cli_values *values, const cli_verb *verb);

/* ---------------------------------------------------------------- interruption --------------- */

/* From now on the first Ctrl-C cancels the session's running call (session NULL: only notes it) and
 * the second ends the process. */
void cli_watch(featinv_session *session);
bool cli_interrupted(void);

/* ---------------------------------------------------------------- progress ------------------- */

/* A bar on a terminal; silent elsewhere. */
typedef struct cli_progress {
    bool shown;
    const char *label, *unit;
    int64_t first, count, total; /* the running call does units first to first + count */
    double started;
} cli_progress;

void cli_progress_start(cli_progress *progress, const char *label, const char *unit, int64_t total,
                        bool quiet);
/* A featinv_progress: draws, and cancels after Ctrl-C. */
int32_t cli_progress_call(void *progress, int64_t done, int64_t total);
/* Clears the line, so that other text may be printed. */
void cli_progress_clear(void);

double cli_now(void); /* seconds, monotonic */

/* ---------------------------------------------------------------- opening -------------------- */

typedef struct cli_opened {
    featinv_model *model;
    featinv_session *session;
    featinv_model_details info;
    int32_t batch; /* images or latents per forward, as the session takes them */
} cli_opened;

/* Opens the bundle and a session as the options say. Returns an exit code, after an error. */
int cli_open(cli_opened *out, const cli_values *values);
/* The same without a bundle: linear algebra only. */
int cli_open_algebra(cli_opened *out, const cli_values *values);
void cli_close(cli_opened *opened);

/* ---------------------------------------------------------------- verbs ---------------------- */

extern const cli_verb cli_doctor, cli_info, cli_extract, cli_sample, cli_reconstruct, cli_metrics;
extern const cli_verb cli_concepts, cli_attenuate, cli_viz, cli_mix, cli_compose, cli_train,
    cli_evaluate;
extern const cli_verb cli_concepts_fit, cli_concepts_show, cli_concepts_decompose,
    cli_concepts_import;

#endif
