/* A run of `featinv concepts show`: concepts_show.c computes, concepts_page.c shows. */
#ifndef CLI_CONCEPTS_SHOW_H
#define CLI_CONCEPTS_SHOW_H

#include "canvas.h"
#include "maps.h"

typedef struct cli_show {
    const cli_values *values;
    cli_opened opened; /* model NULL: no images, no class */
    cli_maps images;
    featinv_concepts *concepts;
    featinv_concepts_details info;
    int64_t parts;     /* K + 1 */
    float *activation; /* (K + 1, N, H, W), over the largest norm of the image's positions */
    float *relevance;  /* (N, K + 1) for the class of each image; NULL: unknown */
    float *relevance_map;
    double *global;           /* (K + 1) for class_index; NULL: unknown */
    double *distance, *angle; /* (K + 1, K + 1): Grassmann, and the smallest angle in radians */
    double *peak;             /* (K + 1): largest activation over all images */
    float *high, *mean;       /* (K + 1, N): largest and mean activation of an image */
    int64_t *order;           /* (K + 1, N): images, strongest first */
    int32_t class_index;      /* -1: unknown */
    cli_canvas canvas;
} cli_show;

/* Number of a part's concept, FEATINV_COMPLEMENT for the last. */
int32_t cli_show_index(const cli_show *show, int64_t part);
/* Name and path of an image; "NAME-concept-0.png". */
const char *cli_show_name(const cli_show *show, int64_t image);
const char *cli_show_path(const cli_show *show, int64_t image);
void cli_show_picture(char *text, size_t capacity, const cli_show *show, int64_t image,
                      int64_t part);
json_t *cli_show_json(const cli_show *show);
int cli_show_page(const cli_show *show);

#endif
