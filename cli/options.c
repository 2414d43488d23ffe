#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- tables --------------------- */

#define AT(field) offsetof(cli_values, field)
#define FLAG(n, l, f, h)                                                                           \
    { n, l, CLI_FLAG, AT(f), 0, 0, NULL, NULL, h }
#define TEXT(n, l, f, v, h)                                                                        \
    { n, l, CLI_TEXT, AT(f), 0, 0, NULL, v, h }
#define INTEGER(n, f, lo, hi, h)                                                                   \
    { n, 0, CLI_INTEGER, AT(f), lo, hi, NULL, "N", h }
#define NUMBER(n, f, lo, hi, h)                                                                    \
    { n, 0, CLI_NUMBER, AT(f), lo, hi, NULL, "X", h }
#define END                                                                                        \
    { NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL }

static const cli_choice dtypes[] = {{"fp32", FEATINV_DTYPE_F32},
                                    {"bf16", FEATINV_DTYPE_BF16},
                                    {"fp16", FEATINV_DTYPE_F16},
                                    {NULL, 0}};
static const cli_choice spacings[] = {{"leading", FEATINV_SPACING_LEADING},
                                      {"trailing", FEATINV_SPACING_TRAILING},
                                      {"legacy", FEATINV_SPACING_LEGACY},
                                      {NULL, 0}};

const cli_option cli_help_options[] = {FLAG("help", 'h', help, "this text"), END};

const cli_option cli_output_options[] = {
    FLAG("json", 0, json, "machine-readable results on standard output"),
    FLAG("quiet", 'q', quiet, "errors only"), END};

/* The model first: see cli_device_options. */
const cli_option cli_run_options[] = {
    TEXT("model", 'm', model, "BUNDLE",
         "folder of the bundle (FEATINV_MODEL, else the shipped one)"),
    TEXT("device", 0, device, "DEVICE", "auto, cpu, cuda or cuda:K (auto)"),
    {"dtype", 0, CLI_CHOICE, AT(dtype), 0, 0, dtypes, "TYPE", "fp32, bf16 or fp16 (fp32)"},
    INTEGER("batch", batch, 1, 65536, "images or latents per forward (8, on CUDA 32)"),
    INTEGER("threads", threads, 1, 4096, "CPU threads (the backend's choice)"),
    FLAG("deterministic", 0, deterministic, "deterministic kernels only on CUDA"),
    END};

const cli_option cli_image_options[] = {{"max-pixels", 0, CLI_LARGE, AT(max_pixels), 1, 1e12, NULL,
                                         "N", "refuse larger images (67108864)"},
                                        END};

/* The first CLI_LANE_OPTIONS name files of lanes, or how many there are: see cli.h. */
const cli_option cli_sampling_options[] = {
    INTEGER("samples", samples, 1, 1000000, "samples per map (1)"),
    TEXT("noise", 0, noise, "F.npy", "start (N * samples or 1, C, h, w) in place of the seed's"),
    TEXT("step-noise", 0, step_noise, "F.npy", "noise (steps, N * samples, C, h, w) for eta > 0"),
    TEXT("latents-out", 0, latents_out, "F.npy", "write the latents (N * samples, C, h, w)"),
    TEXT("images-out", 0, images_out, "F.npy", "write the images (N * samples, H, W, 3), uint8"),
    TEXT("trace", 0, trace, "F.npz", "write x and x0 (steps, N * samples, C, h, w) of each step"),
    INTEGER("steps", steps, 1, 999, "sampling steps (the bundle's, else 50)"),
    NUMBER("scale", scale, -DBL_MAX, DBL_MAX, "guidance scale (the bundle's, else 1.75)"),
    NUMBER("hint-scale", hint_scale, -DBL_MAX, DBL_MAX, "weight of the map (the bundle's, else 1)"),
    NUMBER("strength", strength, -DBL_MAX, DBL_MAX, "factor on the control residuals (1)"),
    {"seed", 0, CLI_SEED, AT(seed), 0, 0, NULL, "N", "seed of the noise (the bundle's, else 100)"},
    NUMBER("eta", eta, 0, 1, "0: DDIM; 1: fresh noise at each step (0)"),
    FLAG("guess-mode", 0, guess_mode, "no ControlNet in the negative branch"),
    {"spacing", 0, CLI_CHOICE, AT(spacing), 0, 0, spacings, "KIND",
     "leading, trailing (for few steps) or legacy (leading)"},
    FLAG("legacy", 0, legacy,
         "truncated bytes and, without --spacing, legacy spacing, as published"),
    TEXT("context", 0, context, "NAME|F.npy", "prompt: a name in the bundle, or an array (L, D)"),
    TEXT("uncontext", 0, uncontext, "NAME|F.npy", "prompt of the negative branch"),
    END};

const cli_option cli_concepts_options[] = {
    TEXT("concepts", 0, concepts, "C",
         "concepts: a file of `concepts fit` or `import`, or a set in the bundle"),
    END};

const cli_option cli_shard_options[] = {
    {"shard", 0, CLI_SHARD, AT(shard), 0, 0, NULL, "I/N",
     "do part I (from 0) of N: batch b belongs to part b mod N"},
    END};

const cli_option cli_job_options[] = {
    FLAG("resume", 0, resume, "go on with an interrupted job of the same settings"),
    {"shard", 0, CLI_SHARD, AT(shard), 0, 0, NULL, "I/N",
     "do part I (from 0) of N: batch b belongs to part b mod N"},
    END};

/* ---------------------------------------------------------------- values --------------------- */

static int bad_value(const cli_option *o, const char *text, const char *expected) {
    return cli_fail(CLI_USAGE, "--%s %s: must be %s", o->name, text, expected);
}

/* The whole text as a number: no blanks, no trailing junk. */
static bool whole_number(long long *out, const char *text) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return !isspace((unsigned char)*text) && end != text && !*end && errno == 0;
}

/* The words that an option takes beside numbers, behind text. */
static void add_words(char *text, size_t capacity, const cli_choice *choices) {
    for (const cli_choice *c = choices; c && c->name; c++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, capacity - used, "%s%s", c[1].name ? ", " : " or ", c->name);
    }
}

static const cli_choice *find_word(const cli_choice *choices, const char *text) {
    for (const cli_choice *c = choices; c && c->name; c++)
        if (strcmp(c->name, text) == 0)
            return c;
    return NULL;
}

static int set_integer(const cli_option *o, const char *text, void *to) {
    long long value;
    char range[96];
    const cli_choice *word = find_word(o->choices, text);
    bool good = whole_number(&value, text) && (double)value >= o->low && (double)value <= o->high;
    (void)snprintf(range, sizeof range, "a whole number from %.0f to %.0f", o->low, o->high);
    add_words(range, sizeof range, o->choices);
    if (!good && !word)
        return bad_value(o, text, range);
    if (word)
        value = word->value;
    if (o->kind == CLI_LARGE)
        *(int64_t *)to = value;
    else
        *(int32_t *)to = (int32_t)value;
    return CLI_DONE;
}

/* A finite number from text to *end, which is text where there is none. */
static double read_number(const char *text, char **end) {
    errno = 0;
    double value = strtod(text, end);
    bool tiny = errno == ERANGE && fabs(value) < 1.0; /* underflow is no error */
    if (isspace((unsigned char)*text) || (errno && !tiny) || !isfinite(value))
        *end = (char *)(uintptr_t)text;
    return value;
}

static void number_range(char *text, size_t capacity, double low, double high) {
    bool open = low > 0.0 && low <= CLI_ABOVE_ZERO;
    if (open && high < DBL_MAX)
        (void)snprintf(text, capacity, "a number above 0, at most %g", high);
    else if (open)
        (void)snprintf(text, capacity, "a finite number above 0");
    else if (high < DBL_MAX)
        (void)snprintf(text, capacity, "a number from %g to %g", low, high);
    else if (low > -DBL_MAX)
        (void)snprintf(text, capacity, "a finite number, at least %g", low);
    else
        (void)snprintf(text, capacity, "a finite number");
}

static int set_number(const cli_option *o, const char *text, double *to) {
    char *end, range[96];
    double value = read_number(text, &end);
    const cli_choice *word = find_word(o->choices, text);
    number_range(range, sizeof range, o->low, o->high);
    add_words(range, sizeof range, o->choices);
    if (!word && (end == text || *end || value < o->low || value > o->high))
        return bad_value(o, text, range);
    *to = word ? (double)word->value : value;
    return CLI_DONE;
}

static int set_size(const cli_option *o, const char *text, int64_t *to) {
    static const char letters[] = "KMG";
    char *end;
    double value = read_number(text, &end);
    const char *letter = end != text && *end ? strchr(letters, *end) : NULL;
    if (letter) {
        value *= (double)((int64_t)1 << (10 * (letter - letters + 1)));
        end++;
    }
    if (end == text || *end || value < o->low || value > o->high)
        return bad_value(o, text, "a number of bytes, as 500M or 2G");
    *to = (int64_t)value;
    return CLI_DONE;
}

int cli_numbers(double **out, int32_t *count, const char *option, const char *text, double low,
                double high) {
    size_t most = 1;
    for (const char *c = text; *c; c++)
        most += *c == ',';
    *out = most < INT32_MAX ? calloc(most, sizeof **out) : NULL;
    *count = 0;
    if (!*out)
        return cli_fail_memory();
    for (const char *at = text;; at++) {
        char *end, range[96];
        double value = read_number(at, &end);
        if (end == at || (*end && *end != ',') || value < low || value > high) {
            number_range(range, sizeof range, low, high);
            free(*out);
            *out = NULL;
            return cli_fail(CLI_USAGE, "%s %s: value %d must be %s", option, text, *count + 1,
                            range);
        }
        (*out)[(*count)++] = value;
        at = end;
        if (!*at)
            return CLI_DONE;
    }
}

static int set_seed(const cli_option *o, const char *text, cli_seed *to) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        return bad_value(o, text, "a whole number from 0 to 18446744073709551615");
    to->value = value;
    to->given = true;
    return CLI_DONE;
}

static int set_shard(const cli_option *o, const char *text, int32_t to[2]) {
    char *slash, *end;
    errno = 0;
    long index = strtol(text, &slash, 10);
    long count =
        *slash == '/' && isdigit((unsigned char)slash[1]) ? strtol(slash + 1, &end, 10) : 0;
    if (!isdigit((unsigned char)*text) || count < 1 || *end || errno || count > 100000 ||
        index >= count)
        return bad_value(o, text, "I/N with I from 0 to N - 1");
    to[0] = (int32_t)index;
    to[1] = (int32_t)count;
    return CLI_DONE;
}

static int set_choice(const cli_option *o, const char *text, int32_t *to) {
    char all[96] = "";
    const cli_choice *word = find_word(o->choices, text);
    if (word) {
        *to = word->value;
        return CLI_DONE;
    }
    for (const cli_choice *c = o->choices; c->name; c++) {
        size_t used = strlen(all);
        (void)snprintf(all + used, sizeof all - used, "%s%s",
                       !used       ? ""
                       : c[1].name ? ", "
                                   : " or ",
                       c->name);
    }
    return bad_value(o, text, all);
}

static int add_text(const cli_option *o, const char *text, cli_texts *to) {
    if (to->count == CLI_MOST_TEXTS)
        return cli_fail(CLI_USAGE, "--%s %s: is given more than %d times", o->name, text,
                        CLI_MOST_TEXTS);
    to->items[to->count++] = text;
    return *text ? CLI_DONE : cli_fail(CLI_USAGE, "--%s: is empty", o->name);
}

static int set_value(cli_values *values, const cli_option *o, const char *text) {
    void *to = (char *)values + o->offset;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)to = true;
        return CLI_DONE;
    case CLI_TEXT:
        *(const char **)to = text;
        return *text ? CLI_DONE : cli_fail(CLI_USAGE, "--%s: is empty", o->name);
    case CLI_TEXTS:
        return add_text(o, text, to);
    case CLI_INTEGER:
    case CLI_LARGE:
        return set_integer(o, text, to);
    case CLI_SIZE:
        return set_size(o, text, to);
    case CLI_NUMBER:
        return set_number(o, text, to);
    case CLI_CHOICE:
        return set_choice(o, text, to);
    case CLI_SEED:
        return set_seed(o, text, to);
    case CLI_SHARD:
        return set_shard(o, text, to);
    }
    return CLI_FAILED;
}

/* ---------------------------------------------------------------- parsing -------------------- */

/* The option of that name (length bytes long) or letter. */
static const cli_option *find(const cli_verb *verb, const char *name, size_t length, char letter) {
    for (const cli_option *const *table = verb->tables; *table; table++)
        for (const cli_option *o = *table; o->name; o++)
            if (letter ? o->letter == letter
                       : strlen(o->name) == length && strncmp(o->name, name, length) == 0)
                return o;
    return NULL;
}

/* Parses the option at argv[*at], and steps over a value that stands apart. */
static int parse_option(cli_values *values, const cli_verb *verb, int argc, const char *const *argv,
                        int *at) {
    const char *word = argv[*at], *text = NULL;
    bool is_long = word[1] == '-';
    const char *name = word + (is_long ? 2 : 1);
    size_t length = is_long ? strcspn(name, "=") : 1;
    const cli_option *o = find(verb, name, length, is_long ? 0 : *name);
    if (!o)
        return cli_fail(CLI_USAGE, "%s: no such option of %s; featinv %s --help lists them", word,
                        verb->name, verb->name);
    if (name[length])
        text = name + length + (is_long ? 1 : 0);
    if (o->kind == CLI_FLAG && text)
        return cli_fail(CLI_USAGE, "%s: --%s takes no value", word, o->name);
    if (o->kind != CLI_FLAG && !text) {
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return cli_fail(CLI_USAGE, "%s: needs a value (%s)", word, o->value);
        text = argv[++*at];
    }
    return set_value(values, o, text);
}

static int check_device(const char *device) {
    const char *index = device && strncmp(device, "cuda:", 5) == 0 ? device + 5 : NULL;
    bool good = !device || strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0 ||
                strcmp(device, "cuda") == 0;
    if (index)
        good = *index && strlen(index) <= 3 && strspn(index, "0123456789") == strlen(index);
    return good ? CLI_DONE
                : cli_fail(CLI_USAGE, "--device %s: must be auto, cpu, cuda or cuda:K", device);
}

int cli_parse(cli_values *values, const cli_verb *verb, int argc, const char *const *argv,
              const char **arguments) {
    *values = (cli_values){.max_pixels = CLI_MAX_PIXELS,
                           .samples = 1,
                           .spacing = -1,
                           .scale = NAN,
                           .hint_scale = NAN,
                           .strength = NAN,
                           .eta = NAN,
                           .gamma = NAN,
                           .tau = NAN,
                           .outlier_quantile = NAN,
                           .factor = NAN,
                           .threshold = NAN,
                           .method = -1,
                           .basis = -1,
                           .normalize = -1,
                           .mode = -1,
                           .concept_index = CLI_CONCEPT_MISSING,
                           .validate_every = -1,
                           .rate = NAN,
                           .decay_floor = NAN,
                           .clip = NAN,
                           .average = NAN,
                           .min_snr = NAN,
                           .hint_dropout = NAN,
                           .prompt_dropout = NAN,
                           .validation = NAN,
                           .per_class = -1,
                           .bootstrap = -1,
                           .pictures = -1,
                           .arguments = arguments};
    bool options = true;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options && strcmp(word, "--") == 0) {
            options = false;
        } else if (options && word[0] == '-' && word[1]) {
            int code = parse_option(values, verb, argc, argv, &i);
            if (code)
                return code;
        } else if (!*word) {
            return cli_fail(CLI_USAGE, "an argument of %s is empty", verb->name);
        } else {
            arguments[values->argument_count++] = word;
        }
    }
    return values->help ? CLI_DONE : check_device(values->device);
}

/* ---------------------------------------------------------------- help ----------------------- */

enum { HELP_COLUMN = 26 };

void cli_print_help(FILE *stream, const cli_verb *verb) {
    (void)fprintf(stream, "usage: featinv %s\n\n%s\n", verb->usage, verb->summary);
    if (verb->details)
        (void)fprintf(stream, "\n%s\n", verb->details);
    (void)fputs("\noptions:\n", stream);
    for (const cli_option *const *table = verb->tables; *table; table++)
        for (const cli_option *o = *table; o->name; o++) {
            char left[64], letter[8] = "";
            if (o->letter)
                (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
            (void)snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                           o->value ? o->value : "");
            (void)fprintf(stream, "  %-*s", HELP_COLUMN, left);
            if (strlen(left) > HELP_COLUMN - 1)
                (void)fprintf(stream, "\n  %-*s", HELP_COLUMN, "");
            (void)fprintf(stream, "%s\n", o->help);
        }
}
