#include "job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_NAME = 180 }; /* bytes, so that suffixes fit behind it */

/* ---------------------------------------------------------------- names ---------------------- */

static int digits(int64_t count) {
    int n = 1;
    for (int64_t last = count - 1; last >= 10; last /= 10)
        n++;
    return n;
}

char *cli_input_text(const cli_job *job, int64_t input) {
    if (cli_job_is_photos(job))
        return strdup(job->inputs.items[input].path);
    if (job->count == 1)
        return strdup(job->source);
    size_t size = strlen(job->source) + 32;
    char *text = malloc(size);
    if (text)
        (void)snprintf(text, size, "%s[%lld]", job->source, (long long)input);
    return text;
}

char *cli_input_name(const cli_job *job, int64_t input) {
    if (cli_job_is_photos(job))
        return strdup(job->inputs.items[input].name);
    const char *slash = strrchr(job->source, '/'), *base = slash ? slash + 1 : job->source;
    const char *dot = strrchr(base, '.');
    int length = (int)(dot && dot > base ? dot - base : (ptrdiff_t)strlen(base));
    if (length > MOST_NAME)
        length = MOST_NAME;
    size_t size = (size_t)length + 32;
    char *name = malloc(size);
    if (name && job->count == 1)
        (void)snprintf(name, size, "%.*s", length, base);
    else if (name)
        (void)snprintf(name, size, "%.*s-%0*lld", length, base, digits(job->count),
                       (long long)input);
    return name;
}

/* ---------------------------------------------------------------- files ---------------------- */

/* Writes DIR/name-suffix.png and remembers it. *relative: the name without the folder, inside the
 * remembered path. */
static int write_picture(cli_batch *batch, const cli_job *job, const char *name, const char *suffix,
                         const uint8_t *pixels, const char **relative) {
    const char *folder = job->values->output;
    size_t size = strlen(folder) + strlen(name) + strlen(suffix) + 8;
    char *path = malloc(size);
    if (!path)
        return cli_fail_memory();
    (void)snprintf(path, size, "%s/%s-%s.png", folder, name, suffix);
    featinv_image image = {pixels, (int32_t)job->image[1], (int32_t)job->image[0], 0};
    featinv_status status = featinv_image_write(path, &image);
    if (status) {
        int code = cli_fail_status(status, path);
        free(path);
        return code;
    }
    batch->written[batch->written_count++] = path;
    *relative = path + strlen(folder) + 1;
    return CLI_DONE;
}

void cli_batch_take_back(cli_batch *batch) {
    for (size_t i = 0; i < batch->written_count; i++)
        (void)unlink(batch->written[i]);
}

/* Grey levels of a spread picture: white is a standard deviation of 64 of 255 levels or more. One
 * fixed scale, so that pictures compare. */
static int write_spread(cli_batch *batch, const cli_job *job, const char *name, int64_t first,
                        const char **relative) {
    int64_t shape[4] = {job->sampling.samples, job->image[0], job->image[1], 3};
    size_t pixels = (size_t)(job->image[0] * job->image[1]);
    float *spread = malloc(pixels * sizeof *spread);
    uint8_t *grey = malloc(pixels * 3);
    int code = spread && grey ? CLI_DONE : cli_fail_memory();
    if (!code) {
        featinv_tensor samples = featinv_tensor_view(
            batch->images + (size_t)(first * cli_image_size(job)), FEATINV_DTYPE_U8, 4, shape);
        featinv_status status = featinv_spread(spread, &samples);
        if (status)
            code = cli_fail_status(status, NULL);
    }
    for (size_t i = 0; !code && i < pixels; i++)
        memset(grey + 3 * i, (int)fminf(255.0f, rintf(spread[i] * (255.0f / 64.0f))), 3);
    if (!code)
        code = write_picture(batch, job, name, "spread", grey, relative);
    free(spread);
    free(grey);
    return code;
}

/* ---------------------------------------------------------------- items ---------------------- */

static void print_line(const cli_job *job, const featinv_report_item *item) {
    const featinv_score *s = item->score;
    if (job->values->quiet || job->values->json)
        return;
    cli_progress_clear();
    for (const char *c = item->image; *c; c++) /* names may hold newlines and escapes */
        (void)putchar((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c);
    if (!isnan(s->cosine_median))
        (void)printf("  cosine %.3f", s->cosine_median);
    if (!isnan(s->cosine_centred))
        (void)printf("  centred %.3f", s->cosine_centred);
    if (item->class_original && item->class_sample)
        (void)printf("  %s%s%s", item->class_original, s->match_top1 == 1 ? "" : " -> ",
                     s->match_top1 == 1 ? "" : item->class_sample);
    (void)putchar('\n');
}

static int add_item(cli_job *job, const featinv_report_item *item) {
    featinv_status status = featinv_report_add(job->report, item);
    job->any = true;
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

static const char *class_of(const cli_job *job, int64_t index) {
    return index < 0 ? NULL : featinv_model_class_name(job->opened.model, (int32_t)index);
}

/* The samples of the g-th good input, as far as they were drawn. */
static int write_input(cli_batch *batch, cli_job *job, int64_t g, const char *text,
                       const char *name) {
    int64_t samples = job->sampling.samples, first = g * samples;
    int64_t end = first + samples < batch->done ? first + samples : batch->done;
    const char *reference = NULL, *spread = NULL;
    int code = CLI_DONE;
    if (batch->references && first < end)
        code = write_picture(batch, job, name, "original",
                             batch->references + (size_t)(g * cli_image_size(job)), &reference);
    if (!code && samples > 1 && end == first + samples)
        code = write_spread(batch, job, name, first, &spread);
    for (int64_t j = first; !code && j < end; j++) {
        char suffix[24];
        featinv_score *score = &batch->scores[j];
        featinv_report_item item = {.struct_size = sizeof item,
                                    .sample = (int32_t)(j - first),
                                    .input = text,
                                    .seed = job->sampling.seed,
                                    .reference = reference,
                                    .spread = spread,
                                    .score = score,
                                    .class_original = class_of(job, score->top1_original),
                                    .class_sample = class_of(job, score->top1_sample)};
        (void)snprintf(suffix, sizeof suffix, "%lld", (long long)(j - first));
        code = write_picture(batch, job, name, suffix,
                             batch->images + (size_t)(j * cli_image_size(job)), &item.image);
        if (!code)
            code = add_item(job, &item);
        if (!code)
            print_line(job, &item);
    }
    return code;
}

/* An error without the path that it may begin with: items name their input apart. */
static const char *without_path(const char *error, const char *path) {
    size_t length = strlen(path);
    bool prefixed = strncmp(error, path, length) == 0 && strncmp(error + length, ": ", 2) == 0;
    return prefixed ? error + length + 2 : error;
}

/* Items in the order of the inputs, bad ones among them. */
int cli_batch_write(cli_batch *batch, cli_job *job) {
    int code = CLI_DONE;
    int64_t g = 0;
    for (int64_t i = batch->first; !code && i < batch->first + batch->count; i++) {
        char *text = cli_input_text(job, i), *name = cli_input_name(job, i);
        bool good = g < batch->good_count && batch->good[g] == i;
        if (!text || !name) {
            code = cli_fail_memory();
        } else if (good) {
            code = write_input(batch, job, g++, text, name);
        } else {
            featinv_report_item item = {.struct_size = sizeof item,
                                        .input = text,
                                        .seed = job->sampling.seed,
                                        .error =
                                            without_path(batch->errors[i - batch->first], text)};
            code = add_item(job, &item);
        }
        free(text);
        free(name);
    }
    return code;
}
