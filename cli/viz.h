/* A run of `featinv viz`: viz.c computes, viz_page.c shows. */
#ifndef CLI_VIZ_H
#define CLI_VIZ_H

#include "canvas.h"
#include "draw.h"
#include "maps.h"

typedef struct cli_viz_run {
    cli_job job; /* options and bundle */
    cli_maps images;
    featinv_concepts *concepts;
    featinv_concepts_details info;
    featinv_visualize_options options;
    int32_t *indices, count;       /* the concepts that are looked at */
    int64_t done;                  /* images finished */
    float *maps, *null_maps;       /* (N, count, H, W); null NULL: not asked for */
    uint8_t *masks;                /* (N, count, H, W), 1: unaffected */
    float *activation;             /* (N, count, h, w), over the image's largest norm */
    double *maxima;                /* (N, count): largest change in RGB, 0 to sqrt(3) */
    double *norms, *residuals;     /* (N, 1 + count): percentiles of the map and the altered ones */
    featinv_score *scores;         /* (N, pairs) */
    featinv_score *altered_scores; /* (N, count, pairs) */
    cli_canvas canvas;
} cli_viz_run;

/* "NAME-concept-1-viz.png"; place -1 for the image itself. number -1: none behind `what`. */
void cli_viz_name(char *text, size_t capacity, const cli_viz_run *run, int64_t image, int32_t place,
                  const char *what, int32_t number);
json_t *cli_viz_json(const cli_viz_run *run);
int cli_viz_page(const cli_viz_run *run);

#endif
