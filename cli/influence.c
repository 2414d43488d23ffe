#include "influence.h"

#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- distance ------------------- */

/* Squared distance along one line: the lower envelope of parabolas that stand on the line's values
 * (Felzenszwalb, Huttenlocher 2012). work: 2 * count + 1 values; feet: count. */
static void envelope(double *line, int64_t count, int64_t stride, double *work, int64_t *feet) {
    double *from = work, *values = work + count + 1; /* where parabola k is the lowest from */
    int64_t k = -1;
    for (int64_t q = 0; q < count; q++) {
        values[q] = line[q * stride];
        if (isinf(values[q]))
            continue;
        double start = -INFINITY;
        while (k >= 0) {
            int64_t p = feet[k];
            start = (values[q] + (double)(q * q) - values[p] - (double)(p * p)) /
                    (2.0 * (double)(q - p));
            if (start > from[k])
                break;
            k--;
            start = -INFINITY;
        }
        feet[++k] = q;
        from[k] = start;
    }
    for (int64_t q = 0, at = 0; q < count && k >= 0; q++) {
        while (at < k && from[at + 1] < (double)q)
            at++;
        double away = (double)(q - feet[at]);
        line[q * stride] = away * away + values[feet[at]];
    }
}

/* Distance of each pixel to the region, 0 in it; infinite everywhere without one. */
static double *distances(const uint8_t *inside, int64_t height, int64_t width) {
    int64_t longer = height > width ? height : width;
    double *out = calloc((size_t)(height * width) + 1, sizeof *out);
    double *work = calloc((size_t)(2 * longer) + 2, sizeof *work);
    int64_t *feet = calloc((size_t)longer + 1, sizeof *feet);
    bool good = out && work && feet;
    for (int64_t i = 0; good && i < height * width; i++)
        out[i] = inside[i] ? 0.0 : INFINITY;
    for (int64_t x = 0; good && x < width; x++)
        envelope(out + x, height, width, work, feet);
    for (int64_t y = 0; good && y < height; y++)
        envelope(out + y * width, width, 1, work, feet);
    for (int64_t i = 0; good && i < height * width; i++)
        out[i] = sqrt(out[i]);
    free(work);
    free(feet);
    if (!good) {
        free(out);
        out = NULL;
    }
    return out;
}

/* ---------------------------------------------------------------- change --------------------- */

static double colour_distance(const uint8_t *a, const uint8_t *b) {
    double squares = 0.0;
    for (int c = 0; c < 3; c++)
        squares += (double)((a[c] - b[c]) * (a[c] - b[c]));
    return sqrt(squares) / 255.0;
}

/* Between the last distance above a tenth and the first below it. */
static double radius_of(const cli_influence *influence) {
    double tenth = 0.1 * influence->change[0], before = influence->change[0];
    int64_t last = 0;
    if (!(tenth > 0.0))
        return NAN;
    for (int64_t i = 1; i < influence->count; i++) {
        double now = influence->change[i];
        if (isnan(now))
            continue;
        if (now <= tenth)
            return (double)last + (double)(i - last) * (before - tenth) / (before - now);
        before = now;
        last = i;
    }
    return NAN;
}

int cli_influence_measure(cli_influence *out, const uint8_t *before, const uint8_t *after,
                          int64_t pictures, const uint8_t *inside, int64_t height, int64_t width) {
    int64_t pixels = height * width, count = height + width + 1;
    double *away = distances(inside, height, width);
    int64_t *seen = calloc((size_t)count, sizeof *seen);
    *out = (cli_influence){.change = calloc((size_t)count, sizeof(double)), .radius = NAN};
    int code = away && seen && out->change ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < pixels * pictures; i++) {
        double d = away[i % pixels];
        if (isinf(d))
            continue;
        int64_t bin = (int64_t)ceil(d - 0.5);
        out->change[bin] += colour_distance(before + 3 * i, after + 3 * i);
        seen[bin]++;
        out->count = bin + 1 > out->count ? bin + 1 : out->count;
    }
    for (int64_t i = 0; !code && i < out->count; i++)
        out->change[i] = seen[i] ? out->change[i] / (double)seen[i] : NAN;
    if (!code)
        out->radius = radius_of(out);
    free(away);
    free(seen);
    if (code)
        cli_influence_free(out);
    return code;
}

void cli_influence_free(cli_influence *influence) {
    free(influence->change);
    *influence = (cli_influence){0};
}
