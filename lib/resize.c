#include "resize.h"

#include "error.h"
#include "image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Pillow 13's Image.resize on 8-bit pixels, bit for bit (libImaging/Resample.c): separable
 * convolution, weights in fixed point, rounding to bytes between the passes. A pass that would not
 * change the size is left out. */
enum { PRECISION = 32 - 8 - 2, HALF = 1 << (PRECISION - 1) };

typedef struct kernel {
    double (*weight)(double x);
    double support; /* weight is zero beyond */
} kernel;

static double bilinear(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static const kernel kernels[] = {
    [FEATINV_FILTER_BILINEAR] = {bilinear, 1.0},
    [FEATINV_FILTER_BICUBIC] = {bicubic, 2.0},
};

/* What one pass does to one side: output i is the sum of weights[i * taps + k] times input
 * low + first[i] + k, for k below count[i]. Inputs from low up to high are read. A pass that keeps
 * the size has no weights and is left out. */
typedef struct axis {
    int32_t *weights;
    int32_t *first, *count;
    size_t taps;
    int32_t low, high;
} axis;

static void free_axis(axis *a) {
    free(a->weights);
    free(a->first);
    free(a->count);
}

static int32_t fixed(double weight) {
    double scaled = weight * (1 << PRECISION);
    return (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

/* Weights of output `at`, into place i; exact: room for taps numbers. */
static void fill_weights(axis *a, int32_t i, double *exact, int32_t in, double at, double scale,
                         const kernel *filter) {
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = filter->support * stretch, inverse = 1.0 / stretch;
    double centre = (at + 0.5) * scale, sum = 0.0;
    double low = centre - support + 0.5, high = centre + support + 0.5;
    int32_t first = low < 0 ? 0 : (int32_t)low;
    int32_t count = (high > in ? in : (int32_t)high) - first;
    for (int32_t k = 0; k < count; k++) {
        exact[k] = filter->weight((k + first - centre + 0.5) * inverse);
        sum += exact[k];
    }
    for (int32_t k = 0; k < count; k++)
        a->weights[(size_t)i * a->taps + (size_t)k] = fixed(sum != 0.0 ? exact[k] / sum : exact[k]);
    a->first[i] = first;
    a->count[i] = count;
}

/* Counts the inputs from the first one that is needed. */
static void shift_axis(axis *a, int32_t outputs) {
    a->low = INT32_MAX;
    a->high = 0;
    for (int32_t i = 0; i < outputs; i++) {
        int32_t end = a->first[i] + a->count[i];
        a->low = a->first[i] < a->low ? a->first[i] : a->low;
        a->high = end > a->high ? end : a->high;
    }
    for (int32_t i = 0; i < outputs; i++)
        a->first[i] -= a->low;
}

static featinv_status make_axis(axis *a, int32_t in, fi_resize_side out, const kernel *filter) {
    if (out.whole == in) {
        a->low = (int32_t)out.begin;
        a->high = (int32_t)out.begin + out.count;
        return FEATINV_OK;
    }
    double scale = (double)in / (double)out.whole;
    a->taps = (size_t)ceil(filter->support * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    size_t rows = (size_t)out.count, bytes = a->taps * sizeof(int32_t);
    double *exact = malloc(a->taps * sizeof *exact);
    a->weights = rows <= PTRDIFF_MAX / bytes ? calloc(rows, bytes) : NULL;
    a->first = malloc(rows * sizeof *a->first);
    a->count = malloc(rows * sizeof *a->count);
    if (!exact || !a->weights || !a->first || !a->count) {
        free(exact);
        return fi_fail(FEATINV_ERROR_MEMORY, "out of memory: resize weights of %d to %lld pixels",
                       (int)in, (long long)out.whole);
    }
    for (int32_t i = 0; i < out.count; i++)
        fill_weights(a, i, exact, in, (double)(out.begin + i), scale, filter);
    shift_axis(a, out.count);
    free(exact);
    return FEATINV_OK;
}

static uint8_t clip(int32_t sum) {
    int32_t value = sum >> PRECISION;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void horizontal_row(uint8_t *restrict out, const uint8_t *restrict in, int32_t width,
                           const axis *a) {
    for (int32_t x = 0; x < width; x++) {
        const int32_t *weights = a->weights + (size_t)x * a->taps;
        const uint8_t *pixel = in + 3 * (size_t)a->first[x];
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int32_t k = 0; k < a->count[x]; k++) {
            red += pixel[3 * k] * weights[k];
            green += pixel[3 * k + 1] * weights[k];
            blue += pixel[3 * k + 2] * weights[k];
        }
        out[3 * (size_t)x] = clip(red);
        out[3 * (size_t)x + 1] = clip(green);
        out[3 * (size_t)x + 2] = clip(blue);
    }
}

/* One output row from count input rows; sums: one int for each of its bytes. */
static void vertical_row(uint8_t *restrict out, const uint8_t *in, ptrdiff_t row_bytes,
                         size_t bytes, int32_t *restrict sums, const int32_t *weights,
                         int32_t count) {
    for (size_t i = 0; i < bytes; i++)
        sums[i] = HALF;
    for (int32_t k = 0; k < count; k++, in += row_bytes) {
        const uint8_t *restrict row = in;
        const int32_t weight = weights[k];
        for (size_t i = 0; i < bytes; i++)
            sums[i] += row[i] * weight;
    }
    for (size_t i = 0; i < bytes; i++)
        out[i] = clip(sums[i]);
}

/* image with a new width, into rows of 3 * width bytes. */
static void resize_width(uint8_t *out, int32_t width, const featinv_image *image, const axis *a) {
    for (int32_t y = 0; y < image->height; y++)
        horizontal_row(out + 3 * (size_t)width * (size_t)y, image->pixels + y * image->row_bytes,
                       width, a);
}

static featinv_status resize_height(uint8_t *out, int32_t height, const featinv_image *image,
                                    const axis *a) {
    size_t bytes = 3 * (size_t)image->width;
    int32_t *sums = malloc(bytes * sizeof *sums);
    if (!sums)
        return fi_fail_memory(bytes * sizeof *sums);
    for (int32_t y = 0; y < height; y++)
        vertical_row(out + bytes * (size_t)y, image->pixels + a->first[y] * image->row_bytes,
                     (ptrdiff_t)image->row_bytes, bytes, sums, a->weights + (size_t)y * a->taps,
                     a->count[y]);
    free(sums);
    return FEATINV_OK;
}

static void copy_rows(uint8_t *out, const featinv_image *image) {
    size_t bytes = 3 * (size_t)image->width;
    for (int32_t y = 0; y < image->height; y++)
        memcpy(out + bytes * (size_t)y, image->pixels + y * image->row_bytes, bytes);
}

/* Pillow 13 runs the vertical pass first where the height shrinks by more than twice what the width
 * shrinks by; earlier releases never did. The order shows in the last bit, and where bicubic
 * weights overshoot. */
static bool vertical_first(int64_t width, int64_t height, const featinv_image *image) {
    int64_t narrower = image->width - width, lower = image->height - height;
    return lower > 0 && lower > 2 * narrower;
}

/* Both passes, through an image that has one of the old sides and one of the new. */
static featinv_status resize_both(uint8_t *out, int32_t width, int32_t height,
                                  const featinv_image *image, const axis *x, const axis *y,
                                  bool vertical) {
    featinv_image middle = {NULL, vertical ? image->width : width,
                            vertical ? height : image->height, 0};
    middle.row_bytes = 3 * (int64_t)middle.width;
    size_t bytes = (size_t)middle.row_bytes * (size_t)middle.height;
    uint8_t *between = malloc(bytes);
    if (!between)
        return fi_fail_memory(bytes);
    middle.pixels = between;
    featinv_status status = FEATINV_OK;
    if (vertical) {
        status = resize_height(between, height, image, y);
        if (!status)
            resize_width(out, width, &middle, x);
    } else {
        resize_width(between, width, image, x);
        status = resize_height(out, height, &middle, y);
    }
    free(between);
    return status;
}

featinv_status fi_resize_part(uint8_t *out, fi_resize_side columns, fi_resize_side rows,
                              const featinv_image *image, featinv_filter filter) {
    axis x = {0}, y = {0};
    featinv_image part = *image; /* the pixels that the wanted ones are made of */
    featinv_status status = make_axis(&x, image->width, columns, kernels + filter);
    if (!status)
        status = make_axis(&y, image->height, rows, kernels + filter);
    if (status)
        goto done;
    part.pixels += y.low * image->row_bytes + 3 * (int64_t)x.low;
    part.width = x.high - x.low;
    part.height = y.high - y.low;
    if (x.weights && y.weights)
        status = resize_both(out, columns.count, rows.count, &part, &x, &y,
                             vertical_first(columns.whole, rows.whole, image));
    else if (x.weights)
        resize_width(out, columns.count, &part, &x);
    else if (y.weights)
        status = resize_height(out, rows.count, &part, &y);
    else
        copy_rows(out, &part);
done:
    free_axis(&x);
    free_axis(&y);
    return status;
}

featinv_status featinv_image_resize(uint8_t *out, int32_t width, int32_t height,
                                    const featinv_image *image, featinv_filter filter) {
    featinv_image in;
    featinv_status status = fi_image_check(&in, image);
    if (status)
        return status;
    if (!out || width < 1 || height < 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "cannot resize to %d x %d pixels", (int)width,
                       (int)height);
    if (filter != FEATINV_FILTER_BILINEAR && filter != FEATINV_FILTER_BICUBIC)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "resize filter %d is unknown", (int)filter);
    return fi_resize_part(out, (fi_resize_side){width, 0, width},
                          (fi_resize_side){height, 0, height}, &in, filter);
}
