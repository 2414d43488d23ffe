/* Bars between a floor and a ceiling, as inline SVG (plot.h). */
#include "plot.h"

#include "../lib/markup.h"

#include <math.h>
#include <stdbool.h>

enum { LEFT = 12, WIDE = 440, PITCH = 40, TOP = 62, TALL = 14 };

typedef struct span {
    double low, high; /* of the axis; holds 0 and 1 */
} span;

static double along(const span *s, double value) {
    return LEFT + WIDE * (value - s->low) / (s->high - s->low);
}

static void include(span *s, double value) {
    if (!isfinite(value))
        return;
    s->low = fmin(s->low, value);
    s->high = fmax(s->high, value);
}

/* A dashed line across each bar, which leaves out their names, and its own name above it, on the
 * side where there is room. */
static void put_mark(FILE *stream, const span *s, double value, const char *name, int rows) {
    double x = along(s, value);
    bool right = x < LEFT + WIDE / 2.0;
    (void)fprintf(stream,
                  "<path stroke=\"currentColor\" stroke-opacity=\".6\" stroke-dasharray=\"3 3\" "
                  "d=\"M%.1f %dv8",
                  x, TOP - 22);
    for (int row = 0; row < rows; row++)
        (void)fprintf(stream, "M%.1f %dv%d", x, TOP + row * PITCH + 4, TALL + 4);
    (void)fprintf(stream,
                  "\"/><text fill=\"currentColor\" x=\"%.1f\" y=\"%d\" "
                  "text-anchor=\"%s\">%g: ",
                  x, TOP - 28, right ? "start" : "end", value);
    fi_markup_escape(stream, name);
    (void)fputs("</text>\n", stream);
}

static void put_bar(FILE *stream, const span *s, const plot_bar *bar, int top) {
    double from = along(s, fmin(bar->value, 0.0)), to = along(s, fmax(bar->value, 0.0));
    (void)fprintf(stream, "<text fill=\"currentColor\" x=\"%d\" y=\"%d\">", LEFT + 6, top);
    fi_markup_escape(stream, bar->name);
    (void)fprintf(stream,
                  " <tspan font-weight=\"600\">%s</tspan></text>"
                  "<path fill=\"var(--p%zu)\" d=\"M%.1f %dH%.1fv%dH%.1fz\"/>",
                  bar->text, bar->look % PLOT_LOOKS, from, top + 5, to, TALL, from);
    if (isfinite(bar->low) && isfinite(bar->high))
        (void)fprintf(stream,
                      "<path fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.5\" "
                      "d=\"M%.1f %dv8m0 -4H%.1fm0 -4v8\"/>",
                      along(s, bar->low), top + 8, along(s, bar->high));
    (void)fputc('\n', stream);
}

void plot_bars(FILE *stream, const char *title, const char *zero, const char *one,
               const plot_bar *bars, size_t count) {
    span s = {0.0, 1.0};
    int shown = 0;
    for (size_t i = 0; i < count; i++) {
        shown += isfinite(bars[i].value);
        include(&s, bars[i].value);
        include(&s, bars[i].low);
        include(&s, bars[i].high);
    }
    if (!shown)
        return;
    int bottom = TOP + shown * PITCH - 12;
    (void)fprintf(stream, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
                  2 * LEFT + WIDE, bottom + 8);
    fi_markup_escape(stream, title);
    (void)fprintf(stream, "\"><text class=\"t\" fill=\"currentColor\" x=\"%d\" y=\"14\">", LEFT);
    fi_markup_escape(stream, title);
    (void)fputs("</text>\n", stream);
    put_mark(stream, &s, 0.0, zero, shown);
    put_mark(stream, &s, 1.0, one, shown);
    for (size_t i = 0, row = 0; i < count; i++)
        if (isfinite(bars[i].value))
            put_bar(stream, &s, &bars[i], TOP + (int)row++ * PITCH);
    (void)fputs("</svg>\n", stream);
}
