/* Lines over steps, as inline SVG. */
#include "train.h"

#include <math.h>
#include <stdlib.h>

enum { LEFT = 60, TOP = 10, WIDE = 460, HIGH = 170, ROOM = 44, LEGEND = 20, TICKS = 4 };

typedef struct frame {
    double right, low, high; /* of the axes; the left end is step 0 */
} frame;

static double across(const frame *f, double x) {
    return LEFT + WIDE * (f->right > 0.0 ? x / f->right : 0.0);
}

static double down(const frame *f, double y) {
    return TOP + HIGH * (f->high > f->low ? (f->high - y) / (f->high - f->low) : 0.5);
}

/* 1, 2 or 5 times a power of ten, at least `least`. */
static double round_step(double least) {
    double power = pow(10.0, floor(log10(least)));
    static const double parts[] = {1.0, 2.0, 5.0, 10.0};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i] * power >= least * (1.0 - 1e-9))
            return parts[i] * power;
    return 10.0 * power;
}

/* The smallest frame with round numbers at its ticks that holds all points. */
static bool find_frame(frame *f, const train_series *series, size_t count) {
    double low = INFINITY, high = -INFINITY;
    *f = (frame){0};
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].count; i++) {
            if (!isfinite(series[s].y[i]))
                continue;
            f->right = fmax(f->right, series[s].x[i]);
            low = fmin(low, series[s].y[i]);
            high = fmax(high, series[s].y[i]);
        }
    if (!(low <= high))
        return false;
    double span = fmax(high - low, fmax(fabs(high), 1e-6) * 1e-3);
    double step = round_step(span / TICKS);
    f->low = floor(low / step) * step;
    if (f->low + TICKS * step < high) {
        step = round_step(step * 1.01);
        f->low = floor(low / step) * step;
    }
    f->high = f->low + TICKS * step;
    while (f->high < high)
        f->high += step;
    return true;
}

static void put_axes(FILE *stream, const frame *f, const char *y_name) {
    (void)fputs("<g stroke=\"currentColor\" stroke-opacity=\".25\">", stream);
    for (int i = 0; i <= TICKS; i++)
        (void)fprintf(stream, "<path d=\"M%d %.1fh%d\"/>", LEFT, TOP + HIGH * i / (double)TICKS,
                      WIDE);
    (void)fputs("</g><g fill=\"currentColor\">", stream);
    for (int i = 0; i <= TICKS; i++) {
        double y = f->high + (f->low - f->high) * i / (double)TICKS;
        (void)fprintf(stream, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", LEFT - 6,
                      TOP + HIGH * i / (double)TICKS + 4.0,
                      fabs(y) < 1e-9 * (f->high - f->low) ? 0.0 : y);
    }
    const double step = fmax(round_step(f->right / TICKS), 1.0); /* there are no half steps */
    for (int i = 0; f->right > 0.0 && i * step <= f->right; i++)
        (void)fprintf(stream, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>",
                      across(f, i * step), TOP + HIGH + 16, i * step);
    (void)fprintf(stream,
                  "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>"
                  "<text transform=\"rotate(-90)\" x=\"%d\" y=\"12\" text-anchor=\"middle\">%s"
                  "</text></g>\n",
                  LEFT + WIDE / 2, TOP + HIGH + 34, -(TOP + HIGH / 2), y_name);
}

static void put_line(FILE *stream, const frame *f, const train_series *s) {
    bool pen = false;
    (void)fprintf(stream, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", s->colour);
    for (size_t i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i]))
            continue;
        (void)fprintf(stream, "%c%.1f %.1f", pen ? 'L' : 'M', across(f, s->x[i]), down(f, s->y[i]));
        pen = true;
    }
    (void)fputs("\"/>", stream);
    enum { FEW = 60 }; /* points that stay apart */
    for (size_t i = 0; s->count <= FEW && i < s->count; i++)
        if (isfinite(s->y[i]))
            (void)fprintf(stream, "<circle r=\"2.5\" cx=\"%.1f\" cy=\"%.1f\" fill=\"%s\"/>",
                          across(f, s->x[i]), down(f, s->y[i]), s->colour);
    (void)fputc('\n', stream);
}

static void put_legend(FILE *stream, const train_series *series, size_t count) {
    for (size_t s = 0; s < count; s++) {
        int x = LEFT + (int)s * (WIDE / 2), y = TOP + HIGH + ROOM + 4;
        (void)fprintf(stream,
                      "<path stroke=\"%s\" stroke-width=\"2\" d=\"M%d %dh18\"/>"
                      "<text fill=\"currentColor\" x=\"%d\" y=\"%d\">%s</text>\n",
                      series[s].colour, x, y, x + 24, y + 4, series[s].name);
    }
}

void train_curve_write(FILE *stream, const char *y_name, const train_series *series, size_t count) {
    frame f;
    if (!find_frame(&f, series, count))
        return;
    (void)fprintf(stream,
                  "<svg class=\"curve\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                  "role=\"img\" aria-label=\"%s\">",
                  LEFT + WIDE + 16, TOP + HIGH + ROOM + (count > 1 ? LEGEND : 0), y_name);
    put_axes(stream, &f, y_name);
    for (size_t s = 0; s < count; s++)
        put_line(stream, &f, &series[s]);
    if (count > 1)
        put_legend(stream, series, count);
    (void)fputs("</svg>\n", stream);
}
