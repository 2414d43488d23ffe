/* A run of `featinv compose`: compose.c computes, compose_page.c shows. */
#ifndef CLI_COMPOSE_H
#define CLI_COMPOSE_H

#include "influence.h"
#include "pair.h"

/* The maps that are drawn; lane j shows map j / samples. */
enum { CLI_A, CLI_B, CLI_COMPOSITE, CLI_MAPS };

extern const char *const cli_composition_maps[CLI_MAPS]; /* their names */

/* Agreement of one picture with A's and B's map, apart for the region and the rest. */
typedef struct cli_fidelity {
    double inside_a, inside_b, outside_a, outside_b;
} cli_fidelity;

typedef struct cli_composition {
    cli_pair pair;         /* first */
    double *rectangle;     /* x0, y0, x1, y1 in pixels of the image; NULL: a mask */
    float *grey;           /* of --mask, (height, width) */
    int32_t width, height; /* of the image that the region is in */
    float *mask;           /* (h, w) */
    uint8_t *inside;       /* (H, W) of a picture: 1 in the region */
    double norms[CLI_MAPS], residuals[CLI_MAPS];
    cli_fidelity *fidelities; /* (lanes) */
    cli_influence influence;
} cli_composition;

/* "composite-0-outline.png"; suffix "" for the picture itself. */
void cli_composition_name(char text[48], const cli_composition *composition, int64_t lane,
                          const char *suffix);
/* Over the samples of a map. */
cli_fidelity cli_fidelity_mean(const cli_composition *composition, int map);
json_t *cli_composition_json(const cli_composition *composition);
/* whole: all pictures are drawn and measured. */
int cli_composition_page(const cli_composition *composition, bool whole);

#endif
