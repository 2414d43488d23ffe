#include "canvas.h"

#include "writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEGIBLE = 256, GAP = 4 };

static int write_png(const char *folder, const char *name, const uint8_t *pixels, int32_t width,
                     int32_t height) {
    char *path = cli_path(folder, name);
    if (!path)
        return cli_fail_memory();
    featinv_image image = {pixels, width, height, 0};
    featinv_status status = featinv_image_write(path, &image);
    int code = status ? cli_fail_status(status, path) : CLI_DONE;
    free(path);
    return code;
}

int cli_canvas_write(const cli_canvas *canvas, const char *name, const uint8_t *pixels) {
    return write_png(canvas->folder, name, pixels, canvas->width, canvas->height);
}

/* ---------------------------------------------------------------- overlays ------------------- */

static float *scaled(const float *heat, size_t count, double scale) {
    float *out = malloc((count + 1) * sizeof *out);
    for (size_t i = 0; out && i < count; i++)
        out[i] = scale > 0.0 ? (float)fmin(fmax(heat[i] / scale, 0.0), 1.0) : 0.0f;
    return out;
}

int cli_canvas_overlay(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                       const float *heat, int64_t rows, int64_t columns, double scale,
                       double opacity, double contour) {
    int32_t shorter = canvas->width < canvas->height ? canvas->width : canvas->height;
    int32_t factor = (LEGIBLE + shorter - 1) / shorter;
    int32_t width = canvas->width * factor, height = canvas->height * factor;
    size_t bytes = (size_t)width * (size_t)height * 3;
    int64_t shape[2] = {rows, columns};
    featinv_image image = {pixels, canvas->width, canvas->height, 0};
    uint8_t *large = malloc(bytes), *out = malloc(bytes);
    float *shares = scaled(heat, (size_t)(rows * columns), scale);
    int code = large && out && shares ? CLI_DONE : cli_fail_memory();
    if (!code) {
        featinv_tensor view = featinv_tensor_view(shares, FEATINV_DTYPE_F32, 2, shape);
        featinv_image under = {large, width, height, 0};
        featinv_status status =
            featinv_image_resize(large, width, height, &image, FEATINV_FILTER_BILINEAR);
        if (!status)
            status = featinv_image_overlay(out, &under, &view, opacity, contour);
        code = status ? cli_fail_status(status, NULL)
                      : write_png(canvas->folder, name, out, width, height);
    }
    free(large);
    free(out);
    free(shares);
    return code;
}

int cli_canvas_mask(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                    const uint8_t *mask) {
    size_t count = (size_t)canvas->width * (size_t)canvas->height;
    uint8_t *out = malloc(count * 3);
    if (!out)
        return cli_fail_memory();
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = pixels + 3 * i;
        int grey = (299 * p[0] + 587 * p[1] + 114 * p[2]) / 1000;
        if (mask[i])
            memset(out + 3 * i, 150 + grey * 2 / 5, 3); /* pale: at most 252 */
        else
            memcpy(out + 3 * i, p, 3);
    }
    int code = cli_canvas_write(canvas, name, out);
    free(out);
    return code;
}

int cli_canvas_strip(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                     int64_t rows, int64_t columns) {
    int64_t width = columns * (canvas->width + GAP) - GAP;
    int64_t height = rows * (canvas->height + GAP) - GAP;
    if (width > INT32_MAX || height > INT32_MAX || width * height > INT32_MAX)
        return cli_fail(CLI_FAILED, "%s/%s: a strip of %lld x %lld pictures is too large",
                        canvas->folder, name, (long long)columns, (long long)rows);
    uint8_t *out = malloc((size_t)(width * height) * 3);
    if (!out)
        return cli_fail_memory();
    memset(out, 255, (size_t)(width * height) * 3);
    size_t row_bytes = (size_t)canvas->width * 3;
    for (int64_t i = 0; i < rows * columns; i++)
        for (int64_t y = 0; y < canvas->height; y++) {
            int64_t to = (i / columns * (canvas->height + GAP) + y) * width +
                         i % columns * (canvas->width + GAP);
            memcpy(out + 3 * to, pixels + (size_t)(i * canvas->height + y) * row_bytes, row_bytes);
        }
    int code = write_png(canvas->folder, name, out, (int32_t)width, (int32_t)height);
    free(out);
    return code;
}

/* ---------------------------------------------------------------- grey levels ---------------- */

int cli_grey_read(float **out, int32_t *width, int32_t *height, const char *path,
                  int64_t max_pixels) {
    *out = NULL;
    uint8_t *pixels = NULL;
    featinv_status status = featinv_image_read(NULL, 0, width, height, path, max_pixels);
    if (status)
        return cli_fail_status(status, path);
    size_t count = (size_t)*width * (size_t)*height; /* within max_pixels */
    pixels = malloc(count * 3);
    *out = malloc(count * sizeof **out);
    int code = pixels && *out ? CLI_DONE : cli_fail_memory();
    if (!code) {
        int32_t w = *width, h = *height;
        status = featinv_image_read(pixels, count * 3, width, height, path, max_pixels);
        if (status)
            code = cli_fail_status(status, path);
        else if (w != *width || h != *height)
            code = cli_fail(CLI_INPUT, "%s: changed while it was read", path);
    }
    for (size_t i = 0; !code && i < count; i++)
        (*out)[i] = (float)(pixels[3 * i] + pixels[3 * i + 1] + pixels[3 * i + 2]) / 765.0f;
    free(pixels);
    if (code) {
        free(*out);
        *out = NULL;
    }
    return code;
}

void cli_area_mean(float *out, int64_t rows, int64_t columns, const float *values, int64_t height,
                   int64_t width) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double top = (double)(i * height) / (double)rows;
            double bottom = (double)((i + 1) * height) / (double)rows;
            double left = (double)(j * width) / (double)columns;
            double right = (double)((j + 1) * width) / (double)columns, sum = 0.0;
            for (int64_t y = (int64_t)top; y < height && (double)y < bottom; y++)
                for (int64_t x = (int64_t)left; x < width && (double)x < right; x++) {
                    double high = fmin((double)y + 1.0, bottom) - fmax((double)y, top);
                    double wide = fmin((double)x + 1.0, right) - fmax((double)x, left);
                    sum += high * wide * (double)values[y * width + x];
                }
            double share = sum / ((bottom - top) * (right - left));
            out[i * columns + j] = (float)fmin(fmax(share, 0.0), 1.0); /* rounding */
        }
}
