/* log.jsonl: a line of settings, then one for each step, validation and file left out. */
#include "json.h"
#include "train.h"
#include "writer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t train_step_count(const train *t) {
    return featinv_trainer_steps(t->trainer);
}

double train_mean_loss(const train *t) {
    int64_t count = train_step_count(t), first = count > 100 ? count - 100 : 0;
    double sum = 0.0;
    for (int64_t i = first; i < count; i++)
        sum += t->losses[i];
    return count > first ? sum / (double)(count - first) : NAN;
}

/* ---------------------------------------------------------------- settings ------------------- */

static json_t *seed_text(uint64_t seed) {
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_string(text);
}

/* What the weights depend on, but for the machine. */
static json_t *training_settings(const train *t) {
    static const char *const modes[] = {"locked", "unlocked", "joint"};
    const featinv_trainer_options *o = &t->options;
    const cli_values *v = t->values;
    json_t *s = json_object();
    cli_json_set(s, "bundle_sha256", cli_json_text(t->opened.info.sha256));
    cli_json_set(s, "warm_start_sha256", cli_json_text(t->warm_sha256));
    cli_json_set(s, "images", json_integer((json_int_t)t->data.trained_count));
    cli_json_set(s, "validation_images", json_integer((json_int_t)t->data.held_count));
    cli_json_set(s, "images_hash", cli_json_hash(t->data.hash));
    cli_json_set(s, "batch", json_integer((json_int_t)t->batch));
    cli_json_set(s, "mode", json_string(modes[o->mode]));
    cli_json_set(s, "seed", seed_text(o->seed));
    cli_json_set(s, "lr", cli_json_number(o->rate));
    cli_json_set(s, "warmup", json_integer((json_int_t)o->warmup));
    cli_json_set(s, "decay_steps", json_integer((json_int_t)o->decay_steps));
    cli_json_set(s, "decay_floor", cli_json_number(o->decay_floor));
    cli_json_set(s, "clip", cli_json_number(o->clip));
    cli_json_set(s, "ema", cli_json_number(o->average));
    cli_json_set(s, "min_snr", cli_json_number(o->min_snr));
    cli_json_set(s, "hint_dropout", cli_json_number(o->hint_dropout));
    cli_json_set(s, "prompt_dropout", cli_json_number(o->prompt_dropout));
    cli_json_set(s, "joint_dropout", cli_json_number(o->joint_dropout));
    cli_json_set(s, "accumulation", json_integer(o->accumulation));
    cli_json_set(s, "precision", json_string(o->precision == FEATINV_DTYPE_BF16 ? "bf16" : "fp32"));
    cli_json_set(s, "dtype", cli_json_text(featinv_session_dtype(t->opened.session)));
    cli_json_set(s, "augmentation", json_boolean(!v->no_augment));
    cli_json_set(s, "cache", json_boolean(v->cache));
    cli_json_set(s, "legacy", json_boolean(v->legacy));
    cli_json_set(s, "max_pixels", json_integer((json_int_t)v->max_pixels));
    return s;
}

json_t *train_settings(const train *t) {
    json_t *run = json_object(), *s = json_object();
    cli_json_set(run, "data", cli_json_text(t->values->data));
    cli_json_set(run, "bundle", cli_json_text(t->opened.info.name));
    cli_json_set(run, "output", cli_json_text(t->output));
    cli_json_set(run, "steps", json_integer((json_int_t)t->steps));
    cli_json_set(run, "validate_every", json_integer((json_int_t)t->validate_every));
    cli_json_set(run, "checkpoint_every", json_integer((json_int_t)t->checkpoint_every));
    cli_json_set(run, "device", cli_json_text(featinv_session_device(t->opened.session)));
    cli_json_set(run, "threads", json_integer(t->values->threads));
    cli_json_set(run, "workers", json_integer(t->values->workers));
    cli_json_set(run, "processes", json_integer(t->size));
    cli_json_set(run, "version", json_string(featinv_version()));
    cli_json_set(s, "training", training_settings(t));
    cli_json_set(s, "run", run);
    return s;
}

/* ---------------------------------------------------------------- lines ---------------------- */

static int fail_write(const train *t) {
    return cli_fail(CLI_FAILED, "%s/%s: cannot be written (%s)", t->state, TRAIN_LOG,
                    strerror(errno));
}

/* One line, whole before the call returns. Steals value. */
static int put_line(const train *t, FILE *stream, json_t *value) {
    int failed = value ? json_dumpf(value, stream, JSON_COMPACT | JSON_REAL_PRECISION(17)) : -1;
    json_decref(value);
    if (failed && !ferror(stream))
        return cli_fail_memory();
    (void)fputc('\n', stream);
    return fflush(stream) != 0 || ferror(stream) ? fail_write(t) : CLI_DONE;
}

int train_log_step(train *t, const featinv_trainer_result *result, double seconds) {
    json_t *line = json_object();
    cli_json_set(line, "step", json_integer((json_int_t)result->step));
    cli_json_set(line, "loss", cli_json_number(result->loss));
    cli_json_set(line, "gradient_norm", cli_json_number(result->gradient_norm));
    cli_json_set(line, "rate", cli_json_number(result->rate));
    cli_json_set(line, "seconds", cli_json_number(seconds));
    cli_json_set(line, "samples_per_second",
                 cli_json_number(seconds > 0.0 ? (double)t->batch / seconds : NAN));
    int code = put_line(t, t->log, line);
    return code ? code : train_keep_loss(t, result->step, result->loss);
}

int train_log_check_line(train *t, const train_check *check) {
    json_t *line = json_object(), *cosines = json_array();
    for (int32_t i = 0; i < check->pictures; i++)
        (void)json_array_append_new(cosines, cli_json_number(check->cosines[i]));
    cli_json_set(line, "step", json_integer((json_int_t)check->step));
    cli_json_set(line, "right_loss", cli_json_number(check->right));
    cli_json_set(line, "shuffled_loss", cli_json_number(check->shuffled));
    cli_json_set(line, "cosine", cli_json_number(check->cosine));
    cli_json_set(line, "cosines", cosines);
    int code = put_line(t, t->log, line);
    return code ? code : train_keep_check(t, check);
}

static bool is_known(const train *t, const char *text) {
    size_t i;
    json_t *known;
    json_array_foreach(t->problems, i, known) {
        if (strcmp(json_string_value(known), text) == 0)
            return true;
    }
    return false;
}

int train_problem(train *t, const char *text) {
    json_t *value = text ? json_string(text) : NULL;
    if (!value) { /* a name that is not UTF-8: its bytes cannot stand in the log */
        char *plain = text ? strdup(text) : NULL;
        for (char *c = plain; c && *c; c++)
            if ((unsigned char)*c >= 0x80)
                *c = '?';
        value = plain ? json_string(plain) : NULL;
        free(plain);
    }
    if (!value)
        return cli_fail_memory();
    if (is_known(t, json_string_value(value))) {
        json_decref(value);
        return CLI_DONE;
    }
    if (!t->rank || !t->values->cache) /* a cache is every process's, and so are its problems */
        (void)cli_fail(CLI_DONE, "%s: left out", text);
    (void)json_array_append(t->problems, value);
    if (!t->log) {
        json_decref(value);
        return CLI_DONE;
    }
    json_t *line = json_object(); /* met on the way to the next step */
    cli_json_set(line, "step", json_integer((json_int_t)train_step_count(t)));
    cli_json_set(line, "problem", value);
    return put_line(t, t->log, line);
}

/* ---------------------------------------------------------------- memory --------------------- */

int train_keep_loss(train *t, int64_t step, double loss) {
    if (step > t->loss_room) {
        int64_t grown = step + t->loss_room + 1024;
        double *losses = realloc(t->losses, (size_t)grown * sizeof *losses);
        if (!losses)
            return cli_fail_memory();
        for (int64_t i = t->loss_room; i < grown; i++)
            losses[i] = NAN;
        t->losses = losses;
        t->loss_room = grown;
    }
    t->losses[step - 1] = loss;
    return CLI_DONE;
}

int train_keep_check(train *t, const train_check *check) {
    if (t->check_count == t->check_room) {
        int64_t grown = 2 * t->check_room + 16;
        train_check *checks = realloc(t->checks, (size_t)grown * sizeof *checks);
        if (!checks)
            return cli_fail_memory();
        t->checks = checks;
        t->check_room = grown;
    }
    t->checks[t->check_count++] = *check;
    return CLI_DONE;
}

/* ---------------------------------------------------------------- reading -------------------- */

/* The next line as an object, NULL at the end and for what is none (a torn last line). */
static json_t *next_line(char **line, size_t *room, FILE *stream) {
    while (getline(line, room, stream) >= 0) {
        json_t *value = json_loads(*line, 0, NULL);
        if (json_is_object(value))
            return value;
        json_decref(value);
    }
    return NULL;
}

static FILE *open_log(const train *t) {
    char *path = cli_path(t->state, TRAIN_LOG);
    FILE *stream = path ? fopen(path, "re") : NULL;
    free(path);
    return stream;
}

static int compare_settings(const train *t, json_t *theirs) {
    json_t *own = training_settings(t), *mine;
    const char *name;
    int code = CLI_DONE;
    if (!json_is_object(theirs))
        code = cli_fail(CLI_INPUT, "%s/%s: does not begin with the settings of a training",
                        t->state, TRAIN_LOG);
    json_object_foreach(own, name, mine) {
        json_t *other = json_object_get(theirs, name);
        if (code || (other && json_equal(mine, other)))
            continue;
        char *a = other ? json_dumps(other, JSON_ENCODE_ANY) : NULL;
        char *b = json_dumps(mine, JSON_ENCODE_ANY);
        code = cli_fail(CLI_USAGE, "%s: cannot be resumed: %s was %s, now it is %s", t->state, name,
                        a ? a : "unknown", b ? b : "unknown");
        free(a);
        free(b);
    }
    json_decref(own);
    return code;
}

int train_log_check(const train *t) {
    char *text = NULL;
    size_t room = 0;
    FILE *stream = open_log(t);
    if (!stream)
        return cli_fail(CLI_INPUT, "%s/%s: cannot be read (%s)", t->state, TRAIN_LOG,
                        strerror(errno));
    json_t *line = next_line(&text, &room, stream);
    int code = compare_settings(t, json_object_get(json_object_get(line, "settings"), "training"));
    json_decref(line);
    free(text);
    (void)fclose(stream);
    return code;
}

static double number(const json_t *line, const char *name) {
    const json_t *value = json_object_get(line, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Takes a kept line into memory. */
static int take_line(train *t, const json_t *line, int64_t step) {
    const json_t *cosines = json_object_get(line, "cosines");
    json_t *problem = json_object_get(line, "problem");
    if (json_is_string(problem)) {
        (void)json_array_append(t->problems, problem);
        return CLI_DONE;
    }
    if (!cosines) {
        const double seconds = number(line, "seconds");
        t->earlier += isfinite(seconds) ? seconds : 0.0;
        return step > 0 ? train_keep_loss(t, step, number(line, "loss")) : CLI_DONE;
    }
    train_check check = {.step = step,
                         .right = number(line, "right_loss"),
                         .shuffled = number(line, "shuffled_loss"),
                         .cosine = number(line, "cosine")};
    size_t count = json_array_size(cosines);
    check.pictures = count < TRAIN_PICTURES ? (int32_t)count : TRAIN_PICTURES;
    for (int32_t i = 0; i < check.pictures; i++) {
        const json_t *value = json_array_get(cosines, (size_t)i);
        check.cosines[i] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    return train_keep_check(t, &check);
}

/* Copies the lines up to a step from the log that is there. */
static int keep_lines(train *t, FILE *to, int64_t last) {
    char *text = NULL;
    size_t room = 0;
    FILE *stream = last >= 0 ? open_log(t) : NULL;
    int code = CLI_DONE;
    json_t *line;
    while (!code && stream && (line = next_line(&text, &room, stream))) {
        const json_t *value = json_object_get(line, "step");
        int64_t step = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
        bool problem = json_object_get(line, "problem") != NULL;
        /* a problem is met before the step that it precedes */
        if (step >= 0 && (problem ? step < last || step == 0 : step <= last)) {
            code = take_line(t, line, step);
            if (!code)
                code = put_line(t, to, json_incref(line));
        }
        json_decref(line);
    }
    free(text);
    if (stream)
        (void)fclose(stream);
    return code;
}

int train_log_open(train *t, int64_t step) {
    cli_writer writer = {0};
    char *path = cli_path(t->state, TRAIN_LOG);
    t->problems = json_array();
    int code = path && t->problems ? cli_writer_open(&writer, path) : cli_fail_memory();
    if (!code) {
        json_t *line = json_object();
        cli_json_set(line, "settings", train_settings(t));
        code = put_line(t, writer.stream, line);
        if (!code)
            code = keep_lines(t, writer.stream, step);
        if (code)
            cli_writer_abort(&writer);
        else
            code = cli_writer_commit(&writer);
    }
    if (!code) {
        t->log = fopen(path, "ae");
        code = t->log ? CLI_DONE : fail_write(t);
    }
    free(path);
    return code;
}
