/* A heat map and an outline over an image. */
#include "error.h"
#include "image.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- colours -------------------- */

/* Black over purple and orange to light yellow, at equal steps: lightness rises all the way, so the
 * order shows in grey and to every kind of eye (after matplotlib's "inferno", CC0). */
static const uint8_t colours[][3] = {{0, 0, 4},      {27, 12, 65},   {74, 12, 107},  {120, 28, 109},
                                     {165, 44, 96},  {207, 68, 70},  {237, 105, 37}, {251, 155, 6},
                                     {247, 209, 61}, {252, 255, 164}};
enum { LAST_COLOUR = sizeof colours / sizeof *colours - 1 };

static void colour(double out[3], double heat) {
    double at = heat * LAST_COLOUR;
    int i = at < LAST_COLOUR ? (int)at : LAST_COLOUR - 1;
    for (int c = 0; c < 3; c++)
        out[c] = colours[i][c] + (at - i) * (colours[i + 1][c] - colours[i][c]);
}

/* ---------------------------------------------------------------- enlarging ------------------ */

/* Where the centre of pixel i of `to` lies among the centres of `from`: between `first` and the
 * next one, as a share of that step; the edge's value goes on outside. */
static void place(int64_t *first, int64_t *next, double *share, int64_t i, int64_t to,
                  int64_t from) {
    double at = ((double)i + 0.5) * (double)from / (double)to - 0.5;
    at = fmin(fmax(at, 0.0), (double)(from - 1));
    *first = (int64_t)at;
    *next = *first + 1 < from ? *first + 1 : *first;
    *share = at - (double)*first;
}

static void enlarge(float *out, int64_t width, int64_t height, const float *heat, int64_t w,
                    int64_t h) {
    for (int64_t y = 0; y < height; y++) {
        int64_t r0, r1, c0, c1;
        double v, u;
        place(&r0, &r1, &v, y, height, h);
        for (int64_t x = 0; x < width; x++) {
            place(&c0, &c1, &u, x, width, w);
            double top = (1.0 - u) * (double)heat[r0 * w + c0] + u * (double)heat[r0 * w + c1];
            double low = (1.0 - u) * (double)heat[r1 * w + c0] + u * (double)heat[r1 * w + c1];
            out[y * width + x] = (float)((1.0 - v) * top + v * low);
        }
    }
}

/* ---------------------------------------------------------------- outline -------------------- */

/* How much of each pixel lies under the outline, and under its dark rim. */
typedef struct outline {
    float *line, *rim;
    int64_t width, height;
    double half; /* half the line's width, pixels */
    double edge; /* what the rim adds to it */
} outline;

typedef struct point {
    double x, y;
} point;

static double distance(point p, point a, point b) {
    double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
    double t = length > 0.0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0.0;
    t = fmin(fmax(t, 0.0), 1.0);
    return hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/* Coverage falls from 1 to 0 over one pixel around the line's border. */
static void cover(float *at, double half, double away) {
    float share = (float)fmin(fmax(half + 0.5 - away, 0.0), 1.0);
    if (share > *at)
        *at = share;
}

static void draw(const outline *o, point a, point b) {
    double reach = o->half + o->edge + 0.5;
    int64_t left = (int64_t)fmax(0.0, floor(fmin(a.x, b.x) - reach));
    int64_t right = (int64_t)fmin((double)o->width - 1.0, ceil(fmax(a.x, b.x) + reach));
    int64_t top = (int64_t)fmax(0.0, floor(fmin(a.y, b.y) - reach));
    int64_t bottom = (int64_t)fmin((double)o->height - 1.0, ceil(fmax(a.y, b.y) + reach));
    for (int64_t y = top; y <= bottom; y++)
        for (int64_t x = left; x <= right; x++) {
            double away = distance((point){(double)x, (double)y}, a, b);
            cover(&o->line[y * o->width + x], o->half, away);
            cover(&o->rim[y * o->width + x], o->half + o->edge, away);
        }
}

/* Where the level is crossed between two neighbouring pixels. */
static point crossing(point a, point b, double at_a, double at_b, double level) {
    double t = (level - at_a) / (at_b - at_a);
    return (point){a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)};
}

/* Marching squares over the cell of pixels (x, y) to (x + 1, y + 1). In a saddle the mean of the
 * four decides which corners are joined. */
static void trace_cell(const outline *o, const float *heat, int64_t x, int64_t y, double level) {
    static const int8_t step[4][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 1}}; /* around the cell */
    point corner[4], cut[4];
    double value[4], mean = 0.0;
    int cuts = 0;
    for (int k = 0; k < 4; k++) {
        int64_t column = x + step[k][0], row = y + step[k][1];
        corner[k] = (point){(double)column, (double)row};
        value[k] = (double)heat[row * o->width + column];
        mean += value[k] / 4.0;
    }
    for (int k = 0; k < 4; k++) {
        int next = (k + 1) % 4;
        if ((value[k] >= level) != (value[next] >= level))
            cut[cuts++] = crossing(corner[k], corner[next], value[k], value[next], level);
    }
    if (cuts == 2)
        draw(o, cut[0], cut[1]);
    if (cuts == 4) { /* cut k lies between corners k and k + 1 */
        bool around_first = (value[0] >= level) != (mean >= level);
        draw(o, cut[around_first ? 3 : 0], cut[around_first ? 0 : 1]);
        draw(o, cut[around_first ? 1 : 2], cut[around_first ? 2 : 3]);
    }
}

static void trace(const outline *o, const float *heat, double level) {
    for (int64_t y = 0; y + 1 < o->height; y++)
        for (int64_t x = 0; x + 1 < o->width; x++)
            trace_cell(o, heat, x, y, level);
}

/* ---------------------------------------------------------------- blending ------------------- */

static void blend(double pixel[3], const double over[3], double share) {
    for (int c = 0; c < 3; c++)
        pixel[c] += share * (over[c] - pixel[c]);
}

/* o: NULL without an outline. out may be the image itself where that is packed. */
static void compose(uint8_t *out, const featinv_image *image, const float *heat, double opacity,
                    const outline *o) {
    static const double white[3] = {255.0, 255.0, 255.0}, black[3] = {0.0, 0.0, 0.0};
    for (int64_t y = 0; y < image->height; y++)
        for (int64_t x = 0; x < image->width; x++) {
            const uint8_t *from = image->pixels + y * image->row_bytes + 3 * x;
            int64_t i = y * image->width + x;
            double level = fmin(fmax((double)heat[i], 0.0), 1.0), hot[3];
            double pixel[3] = {from[0], from[1], from[2]};
            colour(hot, level);
            blend(pixel, hot, opacity * level);
            if (o) {
                blend(pixel, black, 0.7 * (double)o->rim[i]);
                blend(pixel, white, (double)o->line[i]);
            }
            for (int c = 0; c < 3; c++)
                out[3 * i + c] = (uint8_t)(pixel[c] + 0.5);
        }
}

static featinv_status check_heat(const featinv_tensor *heat, const float *data, double opacity,
                                 double contour) {
    if (!(opacity >= 0.0 && opacity <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "opacity is %g: it must be 0 to 1", opacity);
    if (isinf(contour))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "contour is %g: it must be a number, NaN for none",
                       contour);
    if (heat->shape[0] < 1 || heat->shape[1] < 1) {
        char text[64];
        return fi_fail(FEATINV_ERROR_SHAPE, "a heat map of shape %s holds nothing",
                       fi_shape_text(text, sizeof text, heat->shape, 2));
    }
    return fi_check_finite(data, (size_t)heat->shape[0] * (size_t)heat->shape[1], "heat");
}

featinv_status featinv_image_overlay(uint8_t *out, const featinv_image *image,
                                     const featinv_tensor *heat, double opacity, double contour) {
    const int64_t any[2] = {-1, -1};
    featinv_image checked;
    const void *data = NULL;
    void *owned = NULL;
    float *planes = NULL;
    featinv_status status = out ? fi_image_check(&checked, image)
                                : fi_fail(FEATINV_ERROR_ARGUMENT, "no memory given for the result");
    if (!status)
        status = fi_tensor_input(&data, &owned, heat, "heat", FEATINV_DTYPE_F32, 2, any);
    if (!status)
        status = check_heat(heat, data, opacity, contour);
    if (status)
        goto done;
    int64_t shape[3] = {3, checked.height, checked.width};
    size_t bytes = 0, pixels = (size_t)checked.height * (size_t)checked.width;
    if (!fi_checked_size(&bytes, shape, 3, sizeof *planes) || !(planes = calloc(1, bytes))) {
        status = fi_fail_memory(bytes);
        goto done;
    }
    double shorter = checked.width < checked.height ? checked.width : checked.height;
    double scale = fmax(1.0, shorter / 256.0); /* the line is 1.5 pixels wide up to 256 */
    outline o = {planes + pixels, planes + 2 * pixels, checked.width,
                 checked.height,  0.75 * scale,        0.75 * scale};
    enlarge(planes, o.width, o.height, data, heat->shape[1], heat->shape[0]);
    if (!isnan(contour))
        trace(&o, planes, contour);
    compose(out, &checked, planes, opacity, isnan(contour) ? NULL : &o);
done:
    free(planes);
    free(owned);
    return status;
}
