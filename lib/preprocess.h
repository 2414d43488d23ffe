/* From an image of any size to what a backbone sees (docs/numerics.md, "Image to map"). */
#ifndef FI_PREPROCESS_H
#define FI_PREPROCESS_H

#include "featinv.h"
#include "resize.h"

typedef struct fi_preprocess {
    int32_t height, width; /* what comes out */
    featinv_filter filter;
    double crop;
    double mean[3], std[3];
} fi_preprocess;

/* How long both sides are after the resize, and the part of each that the crop keeps. */
void fi_preprocess_sides(fi_resize_side *columns, fi_resize_side *rows, const fi_preprocess *p,
                         int32_t image_width, int32_t image_height);

/* Shorter side to floor(size / crop), then the centre of height x width: bytes, packed. */
featinv_status fi_preprocess_crop(uint8_t *out, const fi_preprocess *p, const featinv_image *image);

/* Bytes (n, h, w, 3) to floats (n, 3, h, w): (b / 255 - mean) / std. */
void fi_preprocess_normalize(float *out, const fi_preprocess *p, const uint8_t *bytes, int64_t n);

#endif
