/* A and B of mix and compose: an image, or a file with one map. */
#ifndef CLI_SIDE_H
#define CLI_SIDE_H

#include "maps.h"

typedef struct cli_side {
    const char *path, *name; /* name: without its folder */
    float *map;              /* (C, H, W) of the bundle */
    uint8_t *picture;        /* what the backbone sees, at the generator's size; NULL: a map file */
    int32_t width, height;   /* of the image file; 0: a map file */
} cli_side;

/* Both; usage errors name the verb. The bundle has a generator. */
int cli_sides_read(cli_side sides[2], const cli_opened *opened, const cli_values *values,
                   const char *verb);
void cli_sides_free(cli_side sides[2]);
/* The side as one map (1, C, H, W); shape is filled. */
featinv_tensor cli_side_view(const cli_side *side, const cli_opened *opened, int64_t shape[4]);

/* Median cosine over positions of two maps (C, H, W). NaN where it fails. */
double cli_map_cosine(float *a, float *b, const int64_t map[3]);

#endif
