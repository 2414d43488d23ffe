/* Pictures that verbs make themselves: overlays, masks, strips. All are packed RGB. */
#ifndef CLI_CANVAS_H
#define CLI_CANVAS_H

#include "cli.h"

typedef struct cli_canvas {
    const char *folder;    /* where the PNGs go */
    int32_t width, height; /* of the pictures */
} cli_canvas;

/* FOLDER/name as it is. */
int cli_canvas_write(const cli_canvas *canvas, const char *name, const uint8_t *pixels);

/* The same, enlarged to at least 256 pixels, with a heat map (rows, columns) in [0, 1] over it
 * and its contour at a level (NaN: none). scale: what the heat is divided by. */
int cli_canvas_overlay(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                       const float *heat, int64_t rows, int64_t columns, double scale,
                       double opacity, double contour);

/* The picture where mask (of its size) is 0, dimmed grey where it is 1. */
int cli_canvas_mask(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                    const uint8_t *mask);

/* Pictures side by side, `rows` of `columns` with a thin gap. pixels: (rows * columns) of them. */
int cli_canvas_strip(const cli_canvas *canvas, const char *name, const uint8_t *pixels,
                     int64_t rows, int64_t columns);

/* A grey-level file as shares of white, (height, width): fresh memory. */
int cli_grey_read(float **out, int32_t *width, int32_t *height, const char *path,
                  int64_t max_pixels);
/* Mean over the share of each cell: (height, width) to (rows, columns). */
void cli_area_mean(float *out, int64_t rows, int64_t columns, const float *values, int64_t height,
                   int64_t width);

#endif
