#include "inputs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct cli_photos {
    const cli_inputs *inputs;
    int64_t first, count, max_pixels;
    featinv_image *images;
    char **errors;
    int *codes;
    pthread_t thread;
    bool running;
};

static uint8_t *read_pixels(featinv_image *image, const char *path, int64_t max_pixels,
                            featinv_status *status) {
    int32_t width, height;
    *status = featinv_image_read(NULL, 0, &width, &height, path, max_pixels);
    if (*status)
        return NULL;
    size_t bytes = (size_t)width * (size_t)height * 3; /* within max_pixels */
    uint8_t *pixels = malloc(bytes);
    *status = FEATINV_ERROR_MEMORY;
    if (pixels)
        *status = featinv_image_read(pixels, bytes, &width, &height, path, max_pixels);
    if (!*status && (size_t)width * (size_t)height * 3 == bytes) {
        *image = (featinv_image){pixels, width, height, 0};
        return pixels;
    }
    free(pixels);
    return NULL;
}

static void read_one(cli_photos *p, int64_t i) {
    const cli_input *input = &p->inputs->items[p->first + i];
    featinv_status status = FEATINV_OK;
    if (input->error) {
        p->errors[i] = strdup(input->error);
        p->codes[i] = input->code;
        return;
    }
    if (read_pixels(&p->images[i], input->path, p->max_pixels, &status))
        return;
    const char *text = status == FEATINV_ERROR_MEMORY ? "too large for the memory"
                       : status                       ? featinv_last_error()
                                                      : "changed while it was read";
    size_t length = strlen(input->path), size = length + strlen(text) + 3;
    p->codes[i] = status ? cli_code(status) : CLI_INPUT;
    p->errors[i] = malloc(size);
    if (!p->errors[i])
        return;
    if (strncmp(text, input->path, length) == 0)
        (void)snprintf(p->errors[i], size, "%s", text);
    else
        (void)snprintf(p->errors[i], size, "%s: %s", input->path, text);
}

/* The library's functions on images keep no state; its last error belongs to this thread. */
static void *read_all(void *photos) {
    cli_photos *p = photos;
    for (int64_t i = 0; i < p->count && !cli_interrupted(); i++)
        read_one(p, i);
    return NULL;
}

cli_photos *cli_photos_start(const cli_inputs *inputs, int64_t first, int64_t count,
                             int64_t max_pixels) {
    cli_photos *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (cli_photos){.inputs = inputs, .first = first, .count = count, .max_pixels = max_pixels};
    p->images = calloc((size_t)count + 1, sizeof *p->images);
    p->errors = calloc((size_t)count + 1, sizeof *p->errors);
    p->codes = calloc((size_t)count + 1, sizeof *p->codes);
    if (!p->images || !p->errors || !p->codes) {
        cli_photos_free(p);
        return NULL;
    }
    p->running = pthread_create(&p->thread, NULL, read_all, p) == 0;
    if (!p->running)
        (void)read_all(p);
    return p;
}

const featinv_image *cli_photos_wait(cli_photos *photos) {
    if (photos->running)
        (void)pthread_join(photos->thread, NULL);
    photos->running = false;
    return photos->images;
}

const char *cli_photos_error(const cli_photos *photos, int64_t i, int *code) {
    *code = photos->codes[i];
    if (photos->codes[i] && !photos->errors[i])
        return "out of memory";
    return photos->errors[i];
}

void cli_photos_free(cli_photos *photos) {
    if (!photos)
        return;
    if (photos->running)
        (void)pthread_join(photos->thread, NULL);
    for (int64_t i = 0; photos->images && i < photos->count; i++)
        free((void *)(uintptr_t)photos->images[i].pixels);
    for (int64_t i = 0; photos->errors && i < photos->count; i++)
        free(photos->errors[i]);
    free(photos->images);
    free(photos->errors);
    free(photos->codes);
    free(photos);
}
