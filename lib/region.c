/* From pixels of an input image to the cells of its feature map: through the resize and the crop of
 * lib/preprocess.c, which in continuous coordinates is one scale and one shift per side. A cell is
 * its even share of what the backbone sees. */
#include "error.h"
#include "extract.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>

/* One side of the input image and the cells along it. */
typedef struct side {
    double size, whole, begin, seen; /* pixels: input, resized, where the crop begins, its extent */
    int32_t cells;
} side;

/* The input coordinate where cell `index` begins and the one before it ends. */
static double edge(const side *s, int64_t index) {
    return (s->begin + s->seen * (double)index / s->cells) * s->size / s->whole;
}

static double overlap(double begin, double end, double first, double last) {
    return fmax(0.0, fmin(end, last) - fmax(begin, first));
}

static side make_side(fi_resize_side part, int32_t size, int32_t cells) {
    return (side){(double)size, (double)part.whole, (double)part.begin, (double)part.count, cells};
}

/* Checks the model and the image's size, and gives the map's memory. */
static featinv_status begin(float **mask, side *x, side *y, const featinv_tensor *out,
                            const featinv_model *model, int64_t width, int64_t height) {
    if (!model)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no model");
    const fi_bundle *b = model->bundle;
    if (!b->has_backbone)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%s: this bundle has no backbone, so pixels have no place on its map",
                       b->path);
    if (width < 1 || height < 1 || width > INT32_MAX || height > INT32_MAX)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the image is %lld x %lld pixels", (long long)width,
                       (long long)height);
    const int64_t shape[2] = {b->map[1], b->map[2]};
    void *data = NULL;
    featinv_status status = fi_tensor_data(&data, out, "the mask", FEATINV_DTYPE_F32, 2, shape);
    fi_preprocess p = fi_features_preprocess(b);
    fi_resize_side columns, rows;
    fi_preprocess_sides(&columns, &rows, &p, (int32_t)width, (int32_t)height);
    *x = make_side(columns, (int32_t)width, b->map[2]);
    *y = make_side(rows, (int32_t)height, b->map[1]);
    *mask = data;
    return status;
}

featinv_status featinv_region_mask(const featinv_tensor *mask, const featinv_model *model,
                                   int32_t width, int32_t height, const double rectangle[4]) {
    side x, y;
    float *out;
    featinv_status status = begin(&out, &x, &y, mask, model, width, height);
    if (status)
        return status;
    if (!rectangle)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no rectangle");
    double x0 = rectangle[0], y0 = rectangle[1], x1 = rectangle[2], y1 = rectangle[3];
    if (!isfinite(x0) || !isfinite(y0) || !isfinite(x1) || !isfinite(y1) || x0 >= x1 || y0 >= y1)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "the rectangle %g,%g,%g,%g is empty: it must be x0 < x1 and y0 < y1", x0, y0,
                       x1, y1);
    double left = edge(&x, 0), right = edge(&x, x.cells);
    double top = edge(&y, 0), bottom = edge(&y, y.cells);
    if (!(overlap(x0, x1, left, right) > 0.0 && overlap(y0, y1, top, bottom) > 0.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "the rectangle %g,%g,%g,%g lies outside of what the backbone sees of the "
                       "image: x %g to %g, y %g to %g",
                       x0, y0, x1, y1, left, right, top, bottom);
    for (int32_t i = 0; i < y.cells; i++)
        for (int32_t j = 0; j < x.cells; j++) {
            double a = edge(&x, j), b = edge(&x, j + 1), c = edge(&y, i), d = edge(&y, i + 1);
            out[(size_t)i * (size_t)x.cells + (size_t)j] =
                (float)(overlap(x0, x1, a, b) / (b - a) * (overlap(y0, y1, c, d) / (d - c)));
        }
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- soft masks ----------------- */

/* Values in [0, 1] of an image of pixels, float32 or bytes. */
typedef struct soft_mask {
    const float *floats;
    const uint8_t *bytes;
    size_t width;
} soft_mask;

static double value_at(const soft_mask *m, int64_t row, int64_t column) {
    size_t at = (size_t)row * m->width + (size_t)column;
    return m->floats ? (double)m->floats[at] : (double)m->bytes[at] / 255.0;
}

/* First and last pixel that cell `index` touches. */
static void touched(int64_t *first, int64_t *last, const side *s, int64_t index) {
    *first = (int64_t)fmax(0.0, floor(edge(s, index)));
    *last = (int64_t)fmin(s->size, ceil(edge(s, index + 1))) - 1;
}

/* Mean over the pixels of one cell, each as far as the cell covers it. */
static double cell_mean(const soft_mask *m, const side *x, const side *y, int64_t i, int64_t j) {
    int64_t left, right, top, bottom;
    touched(&left, &right, x, j);
    touched(&top, &bottom, y, i);
    double sum = 0.0, area = 0.0;
    for (int64_t r = top; r <= bottom; r++) {
        double share = overlap((double)r, (double)r + 1.0, edge(y, i), edge(y, i + 1));
        for (int64_t c = left; c <= right; c++) {
            double part = share * overlap((double)c, (double)c + 1.0, edge(x, j), edge(x, j + 1));
            sum += part * value_at(m, r, c);
            area += part;
        }
    }
    return area > 0.0 ? fmin(1.0, sum / area) : 0.0;
}

static featinv_status check_values(const float *values, size_t count) {
    featinv_status status = fi_check_finite(values, count, "the pixel mask");
    for (size_t i = 0; !status && i < count; i++)
        if (values[i] < 0.0f || values[i] > 1.0f)
            status = fi_fail(FEATINV_ERROR_ARGUMENT,
                             "the pixel mask is %g at pixel %zu: it must be 0 to 1",
                             (double)values[i], i);
    return status;
}

featinv_status featinv_pixel_mask(const featinv_tensor *mask, const featinv_model *model,
                                  const featinv_tensor *pixels) {
    const int64_t any[2] = {-1, -1};
    const void *data = NULL;
    void *owned = NULL;
    side x, y;
    float *out;
    bool bytes = pixels && fi_tensor_dtype(pixels) == FEATINV_DTYPE_U8;
    featinv_status status = fi_tensor_input(&data, &owned, pixels, "the pixel mask",
                                            bytes ? FEATINV_DTYPE_U8 : FEATINV_DTYPE_F32, 2, any);
    if (status)
        return status;
    int64_t height = pixels->shape[0], width = pixels->shape[1];
    status = begin(&out, &x, &y, mask, model, width, height);
    if (!status && !bytes)
        status = check_values(data, (size_t)height * (size_t)width);
    soft_mask m = {bytes ? NULL : data, bytes ? data : NULL, (size_t)width};
    for (int64_t i = 0; !status && i < y.cells; i++)
        for (int64_t j = 0; j < x.cells; j++)
            out[(size_t)(i * x.cells + j)] = (float)cell_mean(&m, &x, &y, i, j);
    free(owned);
    return status;
}
