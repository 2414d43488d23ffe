#include "plot.h"

#include "../lib/markup.h"

#include <math.h>
#include <stdbool.h>

enum { LEFT = 58, TOP = 26, WIDE = 300, HIGH = 180, ROOM = 44, RIGHT = 18, TICKS = 4 };
enum { FEW = 60 }; /* points of a series that stay apart */

const char plot_style[] =
    "<style>:root{--p0:#0072b2;--p1:#d55e00;--p2:#00835f;--p3:#b3528a;--p4:#8a6a00;--p5:#2a8fc7;"
    "--p6:#55585f}\n"
    "@media(prefers-color-scheme:dark){:root{--p0:#5ab4e8;--p1:#f08a4b;--p2:#37c39b;--p3:#e39bc4;"
    "--p4:#e6b93d;--p5:#9ad4f5;--p6:#b4b8c0}}\n"
    ".plots{display:grid;gap:.4rem 1.4rem;"
    "grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr))}\n"
    "svg.plot{display:block;width:100%;max-width:29rem;height:auto;font:11px system-ui,sans-serif;"
    "color:var(--ink)}svg.plot .t{font-size:12px;font-weight:600}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.86rem;margin:0 0 .5rem}\n"
    ".legend span{display:inline-flex;align-items:center;gap:.4rem}.legend svg{flex:none}\n"
    "dl.says{margin:0;display:grid;gap:.15rem 1rem;grid-template-columns:minmax(9rem,14rem) 1fr;"
    "font-size:.9rem}dl.says dt{font-weight:600}dl.says dd{margin:0;color:var(--soft)}\n"
    "@media(max-width:600px){dl.says{grid-template-columns:1fr}}</style>\n";

static const char *const dashes[] = {"", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4"};

static void put_colour(FILE *stream, size_t look) {
    (void)fprintf(stream, "var(--p%zu)", look % PLOT_LOOKS);
}

/* A filled circle, square, triangle or diamond around (x, y). */
static void put_marker(FILE *stream, size_t look, double x, double y) {
    (void)fputs("<path fill=\"", stream);
    put_colour(stream, look);
    switch (look % 4) {
    case 0:
        (void)fprintf(stream, "\" d=\"M%.1f %.1fa3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0\"/>",
                      x - 3.2, y);
        break;
    case 1:
        (void)fprintf(stream, "\" d=\"M%.1f %.1fh6v6h-6z\"/>", x - 3.0, y - 3.0);
        break;
    case 2:
        (void)fprintf(stream, "\" d=\"M%.1f %.1fl4 7h-8z\"/>", x, y - 4.2);
        break;
    default:
        (void)fprintf(stream, "\" d=\"M%.1f %.1fl4 4l-4 4l-4 -4z\"/>", x, y - 4.0);
    }
}

/* ---------------------------------------------------------------- frame ---------------------- */

typedef struct frame {
    double left, right, low, high; /* of the axes */
    double step;                   /* between ticks of the y axis */
} frame;

static double across(const frame *f, double x) {
    return LEFT + WIDE * (f->right > f->left ? (x - f->left) / (f->right - f->left) : 0.5);
}

static double down(const frame *f, double y) {
    return TOP + HIGH * (f->high - y) / (f->high - f->low);
}

/* 1, 2 or 5 times a power of ten, at least `least`, which is positive. */
static double round_step(double least) {
    double power = pow(10.0, floor(log10(least)));
    static const double parts[] = {1.0, 2.0, 5.0};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i] * power >= least * (1.0 - 1e-9))
            return parts[i] * power;
    return 10.0 * power;
}

static void include(frame *f, double y) {
    if (!isfinite(y))
        return;
    f->low = fmin(f->low, y);
    f->high = fmax(f->high, y);
}

/* The smallest frame with round numbers at its ticks that holds all points and bands. */
static bool find_frame(frame *f, const plot *p) {
    *f = (frame){INFINITY, -INFINITY, INFINITY, -INFINITY, 0.0};
    for (size_t s = 0; s < p->count; s++)
        for (size_t i = 0; i < p->series[s].count; i++) {
            const plot_series *series = &p->series[s];
            if (!isfinite(series->y[i]))
                continue;
            f->left = fmin(f->left, series->x[i]);
            f->right = fmax(f->right, series->x[i]);
            include(f, series->y[i]);
            if (series->low && series->high) {
                include(f, series->low[i]);
                include(f, series->high[i]);
            }
        }
    if (!(f->low <= f->high))
        return false;
    if (p->counts)
        f->left = 0.0;
    include(f, p->least);
    include(f, p->most);
    double span = fmax(f->high - f->low, fmax(fabs(f->high), 1e-6) * 1e-3);
    f->step = round_step(span / TICKS);
    f->low = floor(f->low / f->step + 1e-9) * f->step;
    f->high = f->low + f->step * fmax(1.0, ceil((f->high - f->low) / f->step - 1e-9));
    return true;
}

/* ---------------------------------------------------------------- axes ----------------------- */

/* Ticks at these x, without labels that would run into the one before. */
static void put_x_labels(FILE *stream, const frame *f, const double *values, size_t count) {
    const double digit = 6.2, gap = 4.0; /* pixels */
    double end = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        char label[32];
        double x = across(f, values[i]);
        double half = 0.5 * digit * snprintf(label, sizeof label, "%.9g", values[i]);
        (void)fprintf(stream, "<path stroke=\"currentColor\" d=\"M%.1f %dv4\"/>", x, TOP + HIGH);
        if (x - half < end + gap)
            continue;
        end = x + half;
        (void)fprintf(stream, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", x,
                      TOP + HIGH + 17, label);
    }
}

/* Where x counts: 0 and multiples of a round whole number. */
static void put_counts(FILE *stream, const frame *f) {
    double values[2 * TICKS];
    const double step = fmax(round_step(f->right / TICKS), 1.0);
    size_t count = 0;
    for (; count < sizeof values / sizeof *values && (double)count * step <= f->right; count++)
        values[count] = (double)count * step;
    put_x_labels(stream, f, values, count);
}

/* Otherwise the ticks are those of the first series that spans the axis, else of the last one. */
static void put_x_axis(FILE *stream, const frame *f, const plot *p) {
    if (p->counts && f->right > 0.0) {
        put_counts(stream, f);
        return;
    }
    for (size_t s = 0; s < p->count; s++) {
        const plot_series *series = &p->series[s];
        bool whole =
            series->count && series->x[0] <= f->left && series->x[series->count - 1] >= f->right;
        if (whole || s + 1 == p->count) {
            put_x_labels(stream, f, series->x, series->count);
            return;
        }
    }
}

static void put_axes(FILE *stream, const frame *f, const plot *p) {
    int ticks = (int)lround((f->high - f->low) / f->step);
    for (int i = 0; i <= ticks; i++) {
        double value = f->low + f->step * i, y = down(f, value);
        (void)fprintf(stream,
                      "<path stroke=\"currentColor\" stroke-opacity=\".2\" d=\"M%d %.1fh%d\"/>"
                      "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>",
                      LEFT, y, WIDE, LEFT - 6, y + 4.0,
                      fabs(value) < 1e-9 * (f->high - f->low) ? 0.0 : value);
    }
    put_x_axis(stream, f, p);
    (void)fprintf(stream, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", LEFT + WIDE / 2,
                  TOP + HIGH + 36);
    fi_markup_escape(stream, p->x_name);
    (void)fprintf(stream,
                  "</text><text transform=\"rotate(-90)\" x=\"%d\" y=\"12\" "
                  "text-anchor=\"middle\">",
                  -(TOP + HIGH / 2));
    fi_markup_escape(stream, p->y_name);
    (void)fprintf(stream, "</text><text class=\"t\" x=\"%d\" y=\"14\">", LEFT);
    fi_markup_escape(stream, p->title);
    (void)fputs("</text>\n", stream);
}

/* ---------------------------------------------------------------- lines ---------------------- */

static bool has_band(const plot_series *s, size_t i) {
    return s->low && s->high && isfinite(s->y[i]) && isfinite(s->low[i]) && isfinite(s->high[i]);
}

/* One area for each run of points that have an interval. */
static void put_band(FILE *stream, const frame *f, const plot_series *s) {
    for (size_t i = 0, end; i < s->count; i = end + 1) {
        for (end = i; end < s->count && has_band(s, end); end++)
            ;
        if (end - i < 2)
            continue;
        (void)fputs("<path fill=\"", stream);
        put_colour(stream, s->look);
        (void)fputs("\" fill-opacity=\".16\" d=\"", stream);
        for (size_t k = i; k < end; k++)
            (void)fprintf(stream, "%c%.1f %.1f", k == i ? 'M' : 'L', across(f, s->x[k]),
                          down(f, s->high[k]));
        for (size_t k = end; k-- > i;)
            (void)fprintf(stream, "L%.1f %.1f", across(f, s->x[k]), down(f, s->low[k]));
        (void)fputs("z\"/>\n", stream);
    }
}

static void put_line(FILE *stream, const frame *f, const plot_series *s) {
    bool pen = false;
    (void)fputs("<path fill=\"none\" stroke-width=\"2\" stroke=\"", stream);
    put_colour(stream, s->look);
    (void)fprintf(stream, "\" stroke-dasharray=\"%s\" d=\"",
                  dashes[s->look % (sizeof dashes / sizeof *dashes)]);
    for (size_t i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i]))
            continue;
        (void)fprintf(stream, "%c%.1f %.1f", pen ? 'L' : 'M', across(f, s->x[i]), down(f, s->y[i]));
        pen = true;
    }
    (void)fputs("\"/>", stream);
    for (size_t i = 0; s->count <= FEW && i < s->count; i++)
        if (isfinite(s->y[i]))
            put_marker(stream, s->look, across(f, s->x[i]), down(f, s->y[i]));
    (void)fputc('\n', stream);
}

void plot_lines(FILE *stream, const plot *p) {
    frame f;
    if (!find_frame(&f, p))
        return;
    (void)fprintf(stream, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
                  LEFT + WIDE + RIGHT, TOP + HIGH + ROOM);
    fi_markup_escape(stream, p->title);
    (void)fputs("\"><g fill=\"currentColor\">", stream);
    put_axes(stream, &f, p);
    (void)fputs("</g>", stream);
    for (size_t s = 0; s < p->count; s++)
        put_band(stream, &f, &p->series[s]);
    for (size_t s = 0; s < p->count; s++)
        put_line(stream, &f, &p->series[s]);
    (void)fputs("</svg>\n", stream);
}

/* ---------------------------------------------------------------- legend --------------------- */

void plot_legend(FILE *stream, const char *const *names, const size_t *looks, size_t count) {
    (void)fputs("<div class=legend>", stream);
    for (size_t i = 0; i < count; i++) {
        (void)fputs("<span><svg width=\"34\" height=\"12\" aria-hidden=\"true\"><path "
                    "stroke-width=\"2\" stroke=\"",
                    stream);
        put_colour(stream, looks[i]);
        (void)fprintf(stream, "\" stroke-dasharray=\"%s\" d=\"M0 6h34\"/>",
                      dashes[looks[i] % (sizeof dashes / sizeof *dashes)]);
        put_marker(stream, looks[i], 17.0, 6.0);
        (void)fputs("</svg>", stream);
        fi_markup_escape(stream, names[i]);
        (void)fputs("</span>", stream);
    }
    (void)fputs("</div>\n", stream);
}
