/* Positions of feature maps as columns of float64 matrices, a block at a time. */
#ifndef FI_POSITIONS_H
#define FI_POSITIONS_H

#include "featinv.h"

/* How many positions a block holds: a few rows of such a block stay in the nearest cache. */
enum { FI_POSITIONS = 64 };

/* Maps (N, C, H, W). Their positions count through image, row, column. */
typedef struct fi_maps {
    const float *data;
    void *owned; /* a copy of maps that were strided or on a device, or NULL */
    int64_t images, channels, height, width;
    int64_t each;  /* positions of an image */
    int64_t count; /* of all images */
} fi_maps;

/* Checks maps F32 of that many channels and looks for NaN and infinity. Errors: SHAPE, VALUE,
 * ARGUMENT, MEMORY. */
featinv_status fi_maps_open(fi_maps *maps, const featinv_tensor *tensor, int64_t channels);
void fi_maps_close(fi_maps *maps);

/* Positions first..first+n of maps (N, rows, H, W), n up to FI_POSITIONS, to or from a block (rows,
 * FI_POSITIONS); columns beyond n come as zeros. */
void fi_positions_gather(double *block, const float *maps, int64_t rows, int64_t each,
                         int64_t first, int64_t n);
void fi_positions_scatter(float *maps, const double *block, int64_t rows, int64_t each,
                          int64_t first, int64_t n);

#endif
