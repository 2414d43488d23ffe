#include "train.h"

#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- options -------------------- */

static int check_usage(const cli_values *v) {
    if (v->argument_count)
        return cli_fail(CLI_USAGE, "%s: train takes no arguments: images are --data DIR",
                        v->arguments[0]);
    if (!v->data)
        return cli_fail(CLI_USAGE, "train: --data DIR is missing");
    if (!v->output)
        return cli_fail(CLI_USAGE, "train: -o BUNDLE is missing");
    if (v->train_steps && v->epochs)
        return cli_fail(CLI_USAGE, "--steps and --epochs: give one of them");
    if (v->cache && !v->no_augment)
        return cli_fail(CLI_USAGE, "--cache: needs --no-augment, since an augmented image is "
                                   "another one in every epoch");
    return CLI_DONE;
}

static double or_else(double value, double otherwise) {
    return isnan(value) ? otherwise : value;
}

static int split_batch(train *t) {
    const int32_t parts = t->options.accumulation;
    t->batch = t->values->batch ? t->values->batch : 8;
    t->share = t->batch / t->size;
    if (t->size == 1 && parts > t->batch)
        return cli_fail(CLI_USAGE, "--accumulation %d: a batch has %lld images", parts,
                        (long long)t->batch);
    if (t->size > 1 && t->batch % ((int64_t)parts * t->size) != 0)
        return cli_fail(CLI_USAGE,
                        "--batch %lld: cannot be divided by %d processes and --accumulation %d",
                        (long long)t->batch, t->size, parts);
    return CLI_DONE;
}

static int read_options(train *t) {
    const cli_values *v = t->values;
    featinv_trainer_options *o = &t->options;
    featinv_status status = featinv_trainer_options_init(o, sizeof *o);
    if (status)
        return cli_fail_status(status, NULL);
    if (v->legacy) {
        o->joint_dropout = 0.15;
        o->hint_dropout = 0.0;
        o->prompt_dropout = 0.0;
    }
    o->seed = v->seed.given ? v->seed.value : 100;
    o->rate = or_else(v->rate, o->rate);
    o->warmup = v->warmup;
    o->decay_steps = v->decay_steps;
    o->decay_floor = or_else(v->decay_floor, o->decay_floor);
    o->clip = or_else(v->clip, o->clip);
    o->average = or_else(v->average, o->average);
    o->min_snr = or_else(v->min_snr, o->min_snr);
    o->hint_dropout = or_else(v->hint_dropout, o->hint_dropout);
    o->prompt_dropout = or_else(v->prompt_dropout, o->prompt_dropout);
    if (v->mode >= 0)
        o->mode = v->mode;
    if (v->accumulation)
        o->accumulation = v->accumulation;
    if (v->precision)
        o->precision = v->precision;
    o->ranks = t->ranks;
    return split_batch(t);
}

/* -o without slashes at its end, and the folder beside it. */
static int name_folders(train *t) {
    size_t length = strlen(t->values->output);
    while (length > 1 && t->values->output[length - 1] == '/')
        length--;
    t->output = strndup(t->values->output, length);
    t->state = malloc(length + sizeof ".training");
    if (!t->output || !t->state)
        return cli_fail_memory();
    (void)snprintf(t->state, length + sizeof ".training", "%s.training", t->output);
    return CLI_DONE;
}

/* How long, and what happens how often. */
static int plan(train *t) {
    const cli_values *v = t->values;
    const double images = (double)t->data.trained_count;
    const double epochs = v->epochs ? (double)v->epochs : 3.0; /* paper, section 3.2 */
    const double steps =
        v->train_steps ? (double)v->train_steps : ceil(images * epochs / (double)t->batch);
    if (steps > 4e9)
        return cli_fail(CLI_USAGE, "%s: %.0f steps, at most 4000000000 can be numbered",
                        v->epochs ? "--epochs" : "train", steps);
    t->steps = (int64_t)steps;
    t->validate_every = v->validate_every >= 0 ? v->validate_every : (t->steps + 19) / 20;
    t->checkpoint_every = v->checkpoint_every ? v->checkpoint_every : 500;
    return CLI_DONE;
}

/* ---------------------------------------------------------------- opening -------------------- */

static int open_bundle(train *t) {
    cli_values values = *t->values;
    const featinv_model_details *info = &t->opened.info;
    /* no more memory for what is frozen than for what is trained */
    values.batch = (int32_t)((t->share + t->options.accumulation - 1) / t->options.accumulation);
    int code = cli_open(&t->opened, &values);
    if (code)
        return code;
    if (!info->has_generator)
        return cli_fail(CLI_FAILED, "%s: this bundle has no generator to be trained", info->path);
    if (!info->has_backbone)
        return cli_fail(CLI_FAILED, "%s: this bundle has no backbone to train for", info->path);
    if (!info->has_encoder)
        return cli_fail(CLI_FAILED,
                        "%s: this bundle has no encoder, so its generator cannot learn "
                        "from images",
                        info->path);
    code = train_state_check_source(t);
    if (code)
        return code;
    featinv_status status = featinv_trainer_create(&t->trainer, t->opened.session, &t->options);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* Which bundle it is, for the log: a resumed training must name the same. */
static int find_warm_start(train *t) {
    featinv_model *model = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    if (!t->values->warm_start)
        return CLI_DONE;
    featinv_status status = featinv_model_open(&model, t->values->warm_start, NULL);
    if (!status)
        status = featinv_model_info(&info, model);
    if (!status)
        t->warm_sha256 = strdup(info.sha256);
    featinv_model_release(model);
    if (status)
        return cli_fail_bundle(status, t->values->warm_start);
    return t->warm_sha256 ? CLI_DONE : cli_fail_memory();
}

static int warm_start(train *t) {
    if (!t->values->warm_start || t->saved >= 0)
        return CLI_DONE; /* a checkpoint holds it */
    featinv_status status = featinv_trainer_warm_start(t->trainer, t->values->warm_start);
    return status ? cli_fail_bundle(status, NULL) : CLI_DONE;
}

/* A folder without one good image is found here, before the validation reads its own. */
static int try_first_batch(train *t) {
    train_batch batch;
    return train_step_count(t) < t->steps ? train_data_batch(&batch, t, train_step_count(t))
                                          : CLI_DONE;
}

/* The state folder is process 0's. */
static int open_state(train *t) {
    if (t->rank) {
        t->problems = json_array();
        return t->problems ? CLI_DONE : cli_fail_memory();
    }
    int code = find_warm_start(t);
    if (!code)
        code = train_state_open(t);
    return code ? code : warm_start(t);
}

/* Where a training can be watched, also where no terminal shows its progress. */
static int announce(const train *t) {
    int code = train_page_write(t, /*running=*/true);
    if (!code && !t->values->quiet && !t->values->json)
        (void)cli_fail(CLI_DONE, "%s/index.html shows this training: %lld images, %lld held out",
                       t->state, (long long)t->data.trained_count, (long long)t->held.count);
    return code;
}

static int open_data(train *t) {
    int code = train_data_open(t);
    if (!code)
        code = try_first_batch(t);
    if (code || t->rank)
        return code;
    code = train_check_prepare(t);
    if (!code)
        code = train_mean_find(t);
    return code ? code : announce(t);
}

static int prepare(train *t) {
    static int (*const steps[])(train *) = {read_options,    name_folders, train_state_check,
                                            train_data_list, plan,         open_bundle,
                                            open_state};
    int code = CLI_DONE;
    for (size_t i = 0; !code && i < sizeof steps / sizeof *steps; i++)
        code = cli_interrupted() ? CLI_INTERRUPTED : steps[i](t);
    code = train_ranks_agree(t, code);
    if (!code)
        code = train_ranks_share(t);
    if (!code)
        code = train_ranks_agree(t, cli_interrupted() ? CLI_INTERRUPTED : open_data(t));
    return code ? code : train_ranks_check_same(t, t->data.cached, "the images that can be read");
}

/* ---------------------------------------------------------------- training ------------------- */

double train_speed(const train *t) {
    int64_t steps = train_step_count(t) - t->started;
    return steps > 0 && t->stepping > 0.0 ? (double)(steps * t->batch) / t->stepping : NAN;
}

static void show(train *t, const featinv_trainer_result *result, double seconds) {
    (void)snprintf(t->unit, sizeof t->unit, "steps, loss %.4f, %.1f samples/s", result->loss,
                   seconds > 0.0 ? (double)t->batch / seconds : 0.0);
    t->progress.unit = t->unit;
    t->progress.first = result->step;
    (void)cli_progress_call(&t->progress, 0, 1);
}

/* The library names the step; what is kept is the newest checkpoint, whatever this one's weights
 * hold. */
static int fail_step(const train *t, featinv_status status) {
    if (!train_ranks_speaks(t, status))
        return cli_code(status);
    if (status != FEATINV_ERROR_COMPUTE)
        return cli_fail_status(status, NULL);
    if (t->saved < 0)
        return cli_fail(CLI_FAILED, "%s; there is no checkpoint yet", featinv_last_error());
    return cli_fail(CLI_FAILED, "%s; the checkpoint of step %lld stays", featinv_last_error(),
                    (long long)t->saved);
}

/* began: when the batch was asked for. */
static int update(train *t, const train_batch *batch, double began) {
    featinv_trainer_result result = {.struct_size = sizeof result};
    featinv_status status = featinv_trainer_step(&result, t->trainer, &batch->batch);
    if (status) {
        t->broken = status == FEATINV_ERROR_COMPUTE;
        return fail_step(t, status);
    }
    double seconds = cli_now() - began;
    t->stepping += seconds;
    if (t->rank)
        return CLI_DONE;
    show(t, &result, seconds);
    int code = train_log_step(t, &result, seconds);
    t->unwritten = code != CLI_DONE;
    return code;
}

static int checkpoint(train *t) {
    int code = train_ranks_compare(t);
    if (code || t->rank)
        return code;
    code = train_state_save(t);
    t->unwritten = code != CLI_DONE;
    return code ? code : train_page_write(t, /*running=*/true);
}

static int run_steps(train *t) {
    train_batch batch;
    int code = CLI_DONE;
    for (;;) {
        const bool more = train_step_count(t) < t->steps;
        if (!code && more && train_check_due(t)) /* at step 0, and where a resumed run missed it */
            code = train_check_run(t);
        const double began = cli_now();
        if (!code && more)
            code = cli_interrupted() ? CLI_INTERRUPTED
                                     : train_data_batch(&batch, t, train_step_count(t));
        code = train_ranks_agree(t, code);
        if (code || !more)
            break;
        code = update(t, &batch, began);
        const bool due = train_step_count(t) % t->checkpoint_every == 0;
        if (due)
            code = train_ranks_agree(t, code);
        if (due && !code)
            code = checkpoint(t);
    }
    if (!code)
        code = checkpoint(t);
    if (!code && train_check_due(t))
        code = train_check_run(t);
    return train_ranks_agree(t, code);
}

/* Whatever stopped the training: its last good step is kept, but for weights that went wrong and a
 * disk that takes no more. */
static int stop(train *t, int code) {
    cli_progress_clear();
    const int64_t done = train_step_count(t);
    const bool moved = code && !t->broken && done > t->started;
    if (moved)
        (void)train_ranks_compare(t); /* says what it finds, and whether the weights are broken */
    if (t->unwritten || t->rank)
        return code;
    if (moved && !t->broken) {
        int failed = train_state_save(t);
        code = failed && code == CLI_INTERRUPTED ? failed : code;
    }
    int written = train_page_write(t, /*running=*/false);
    if (code == CLI_INTERRUPTED && !written)
        return cli_fail(code, "interrupted after step %lld of %lld; --resume goes on",
                        (long long)done, (long long)t->steps);
    return code ? code : written;
}

/* ---------------------------------------------------------------- result --------------------- */

static int print_json(const train *t, const char *sha256) {
    const train_check *last = t->check_count ? &t->checks[t->check_count - 1] : NULL;
    json_t *root = json_object();
    cli_json_set(root, "steps", json_integer((json_int_t)train_step_count(t)));
    cli_json_set(root, "loss", cli_json_number(train_mean_loss(t)));
    cli_json_set(root, "right_loss", cli_json_number(last ? last->right : NAN));
    cli_json_set(root, "shuffled_loss", cli_json_number(last ? last->shuffled : NAN));
    cli_json_set(root, "cosine", cli_json_number(last ? last->cosine : NAN));
    cli_json_set(root, "seconds", cli_json_number(cli_now() - t->began));
    cli_json_set(root, "samples_per_second", cli_json_number(train_speed(t)));
    cli_json_set(root, "output", cli_json_text(t->output));
    cli_json_set(root, "sha256", cli_json_text(sha256));
    cli_json_set(root, "training", cli_json_text(t->state));
    cli_json_set(root, "images", json_integer((json_int_t)t->data.trained_count));
    cli_json_set(root, "validation_images", json_integer((json_int_t)t->held.count));
    cli_json_set(root, "problems", json_incref(t->problems));
    return cli_json_print(root);
}

static void print_text(const train *t) {
    const train_check *last = t->check_count ? &t->checks[t->check_count - 1] : NULL;
    (void)printf("%s: %lld steps, loss %.4f", t->output, (long long)train_step_count(t),
                 train_mean_loss(t));
    if (last)
        (void)printf(", held out %.4f (with another's map %.4f), cosine %.3f", last->right,
                     last->shuffled, last->cosine);
    (void)printf("\n%s: checkpoints, log and index.html; delete the folder when no more training "
                 "is to follow\n",
                 t->state);
}

/* The last part of -o; NULL where that is no name: `.`, `..`, or not UTF-8. */
static const char *own_name(const train *t) {
    const char *slash = strrchr(t->output, '/'), *name = slash ? slash + 1 : t->output;
    json_t *text = json_string(name);
    const bool good = text && *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    json_decref(text);
    return good ? name : NULL;
}

static int finish(train *t) {
    featinv_model *made = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    if (t->rank)
        return json_array_size(t->problems) ? CLI_INPUT : CLI_DONE;
    featinv_status status = train_export(t, t->output, own_name(t), t->values->force);
    if (!status)
        status = featinv_model_open(&made, t->output, NULL);
    if (!status)
        status = featinv_model_info(&info, made);
    int code = status ? cli_fail_status(status, t->output) : CLI_DONE;
    if (!code && t->values->json)
        code = print_json(t, info.sha256);
    else if (!code && !t->values->quiet)
        print_text(t);
    featinv_model_release(made);
    return !code && json_array_size(t->problems) ? CLI_INPUT : code;
}

static int run(const cli_values *values) {
    train t = {.values = values, .lock = -1, .saved = -1, .began = cli_now()};
    int code = check_usage(values);
    cli_watch(NULL);
    if (!code)
        code = train_ranks_join(&t);
    if (!code)
        code = prepare(&t);
    if (!code) {
        cli_progress_start(&t.progress, "train", "steps", t.steps, values->quiet || t.rank);
        t.progress.started -= t.earlier;
        code = stop(&t, run_steps(&t));
    }
    if (!code)
        code = finish(&t);
    code = train_ranks_agree(&t, code);
    train_data_free(&t.data);
    train_held_free(&t.held);
    train_state_close(&t);
    featinv_trainer_destroy(t.trainer);
    train_ranks_leave(&t);
    cli_close(&t.opened);
    json_decref(t.problems);
    free(t.losses);
    free(t.checks);
    free(t.mean);
    free(t.output);
    free(t.state);
    free(t.warm_sha256);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

#define AT(field) offsetof(cli_values, field)
#define MOST 1.7976931348623157e308
static const cli_choice modes[] = {{"locked", FEATINV_TRAIN_LOCKED},
                                   {"unlocked", FEATINV_TRAIN_UNLOCKED},
                                   {"joint", FEATINV_TRAIN_JOINT},
                                   {NULL, 0}};
static const cli_choice precisions[] = {
    {"fp32", FEATINV_DTYPE_F32}, {"bf16", FEATINV_DTYPE_BF16}, {NULL, 0}};

static const cli_choice dtypes[] = {{"fp32", FEATINV_DTYPE_F32},
                                    {"bf16", FEATINV_DTYPE_BF16},
                                    {"fp16", FEATINV_DTYPE_F16},
                                    {NULL, 0}};

static const cli_option own[] = {
    {"data", 0, CLI_TEXT, AT(data), 0, 0, NULL, "DIR", "folder of images, and those in it"},
    {"output", 'o', CLI_TEXT, AT(output), 0, 0, NULL, "BUNDLE",
     "folder for the trained bundle; its state is BUNDLE.training"},
    {"force", 0, CLI_FLAG, AT(force), 0, 0, NULL, NULL, "replace an existing bundle"},
    {"resume", 0, CLI_FLAG, AT(resume), 0, 0, NULL, NULL, "go on from the newest checkpoint"},
    {"warm-start", 0, CLI_TEXT, AT(warm_start), 0, 0, NULL, "BUNDLE",
     "begin with the ControlNet of this trained bundle, all but its hint encoder"},
    {"steps", 0, CLI_LARGE, AT(train_steps), 1, 4e9, NULL, "N", "updates in all"},
    {"epochs", 0, CLI_INTEGER, AT(epochs), 1, 1e6, NULL, "N",
     "passes over the images, in place of --steps (3)"},
    {"batch", 0, CLI_INTEGER, AT(batch), 1, 65536, NULL, "N", "images of an update (8)"},
    {"accumulation", 0, CLI_INTEGER, AT(accumulation), 1, 65536, NULL, "N",
     "parts of a batch one after the other, to save memory (1)"},
    {"lr", 0, CLI_NUMBER, AT(rate), CLI_ABOVE_ZERO, 1e3, NULL, "X", "learning rate (1e-5)"},
    {"warmup", 0, CLI_LARGE, AT(warmup), 0, 4e9, NULL, "N", "steps of a linear rise to it (0)"},
    {"decay-steps", 0, CLI_LARGE, AT(decay_steps), 0, 4e9, NULL, "N",
     "step at which a half cosine has come down; 0: none (0)"},
    {"decay-floor", 0, CLI_NUMBER, AT(decay_floor), 0, 1, NULL, "X",
     "down to this share of the learning rate (0.02)"},
    {"mode", 0, CLI_CHOICE, AT(mode), 0, 0, modes, "KIND",
     "locked, unlocked (and the UNet's decoder) or joint (and all of it) (locked)"},
    {"hint-dropout", 0, CLI_NUMBER, AT(hint_dropout), 0, 1, NULL, "P",
     "probability of a zero map (0.1)"},
    {"prompt-dropout", 0, CLI_NUMBER, AT(prompt_dropout), 0, 1, NULL, "P",
     "probability of the empty prompt (0.1)"},
    {"legacy", 0, CLI_FLAG, AT(legacy), 0, 0, NULL, NULL,
     "as published: both dropped together (0.15), targets not antialiased"},
    {"clip", 0, CLI_NUMBER, AT(clip), 0, 1e30, NULL, "X",
     "largest norm of the gradient; 0: any (0)"},
    {"ema", 0, CLI_NUMBER, AT(average), 0, 0.9999999, NULL, "D",
     "decay of a moving average, which the bundle takes; 0: none (0)"},
    {"min-snr", 0, CLI_NUMBER, AT(min_snr), 0, 1e30, NULL, "G",
     "gamma of min-SNR weighting; 0: none (0)"},
    {"no-augment", 0, CLI_FLAG, AT(no_augment), 0, 0, NULL, NULL, "no random crops and flips"},
    {"cache", 0, CLI_FLAG, AT(cache), 0, 0, NULL, NULL,
     "with --no-augment: keep latents and maps in memory"},
    {"seed", 0, CLI_SEED, AT(seed), 0, 0, NULL, "N", "of all that is random (100)"},
    {"validation", 0, CLI_NUMBER, AT(validation), CLI_ABOVE_ZERO, 0.5, NULL, "X",
     "share of the images held out, at most 64 of them (0.05)"},
    {"validate-every", 0, CLI_LARGE, AT(validate_every), 0, 4e9, NULL, "N",
     "steps; 0: no validation (a twentieth of all)"},
    {"checkpoint-every", 0, CLI_LARGE, AT(checkpoint_every), 1, 4e9, NULL, "N", "steps (500)"},
    {"precision", 0, CLI_CHOICE, AT(precision), 0, 0, precisions, "TYPE",
     "fp32, or bf16 over fp32 weights (CUDA only) (fp32)"},
    {"workers", 0, CLI_INTEGER, AT(workers), 0, 1024, NULL, "N",
     "threads that read images; 0: one a processor (0)"},
    {"model", 'm', CLI_TEXT, AT(model), 0, 0, NULL, "BUNDLE",
     "folder of the bundle (FEATINV_MODEL, else the shipped one)"},
    {"device", 0, CLI_TEXT, AT(device), 0, 0, NULL, "DEVICE", "auto, cpu, cuda or cuda:K (auto)"},
    {"dtype", 0, CLI_CHOICE, AT(dtype), 0, 0, dtypes, "TYPE",
     "of the backbone and the encoder: fp32, bf16 or fp16 (fp32)"},
    {"threads", 0, CLI_INTEGER, AT(threads), 1, 4096, NULL, "N",
     "CPU threads (the backend's choice)"},
    {"deterministic", 0, CLI_FLAG, AT(deterministic), 0, 0, NULL, NULL,
     "deterministic kernels only on CUDA"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own, cli_image_options, cli_output_options,
                                           cli_help_options, NULL};

const cli_verb cli_train = {
    .name = "train",
    .usage = "train --data DIR -m BUNDLE -o BUNDLE2",
    .summary = "train a bundle's ControlNet on a folder of images",
    .details =
        "BUNDLE has a backbone and a diffusion base (python -m featinv.export backbone --base).\n"
        "Under mpirun -n N all N processes share each batch (docs/cluster.md).\n"
        "BUNDLE2.training holds checkpoints, log.jsonl and index.html with curves and pictures.\n"
        "Ctrl-C finishes the running step, saves and ends with exit code 130; a second one ends "
        "at\n"
        "once. Resumed with --resume, the weights become the same to the bit.",
    .tables = tables,
    .run = run};
