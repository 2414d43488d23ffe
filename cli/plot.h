/* Plots as inline SVG that follow the page's light or dark look: lines with interval bands, and
 * bars between a floor and a ceiling. Series differ by colour (Okabe and Ito's, readable with
 * colour blindness), dash and marker. */
#ifndef CLI_PLOT_H
#define CLI_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { PLOT_LOOKS = 7 }; /* as many series tell apart by colour */

/* <style> that all plots need, once a page. */
extern const char plot_style[];

typedef struct plot_series {
    const char *name;
    const double *x, *y;      /* ascending x; a y that is NaN is left out */
    const double *low, *high; /* the band; NaN: none there; NULL: none at all */
    size_t count;
    size_t look; /* which colour, dash and marker */
} plot_series;

typedef struct plot {
    const char *title, *x_name, *y_name;
    const plot_series *series;
    size_t count;
    double least, most; /* values that the y axis holds in any case; NaN: none */
    bool counts;        /* x counts from 0: the axis begins there, its ticks are round */
} plot;

/* Writes nothing where no series has a point. Points have markers where they are few. */
void plot_lines(FILE *stream, const plot *plot);

typedef struct plot_bar {
    const char *name, *text; /* text: of the value */
    double value, low, high; /* low, high NaN: no whisker; value NaN: left out */
    size_t look;
} plot_bar;

/* Horizontal bars from 0, with lines at 0 and 1 that are named. */
void plot_bars(FILE *stream, const char *title, const char *zero, const char *one,
               const plot_bar *bars, size_t count);

/* Names of looks, in a line that wraps. */
void plot_legend(FILE *stream, const char *const *names, const size_t *looks, size_t count);

#endif
