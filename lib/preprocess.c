#include "preprocess.h"

#include "error.h"
#include "image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Size after the resize: the side that is shorter for its target gets it exactly, the other keeps the
 * aspect, truncated (torchvision's rule, also where the target is not square). */
static void resized_size(int32_t *height, int32_t *width, const fi_preprocess *p,
                         const featinv_image *image) {
    int64_t h = (int64_t)floor(p->height / p->crop), w = (int64_t)floor(p->width / p->crop);
    if (image->width * h <= image->height * w) {
        *width = (int32_t)w;
        *height = (int32_t)(w * image->height / image->width);
    } else {
        *height = (int32_t)h;
        *width = (int32_t)(h * image->width / image->height);
    }
}

/* Rows of the resized picture that are not inside the crop are still made: Pillow's arithmetic of a
 * pixel does not depend on them, but the whole picture is what backbones were trained on. */
featinv_status fi_preprocess_crop(uint8_t *out, const fi_preprocess *p, const featinv_image *image) {
    featinv_image checked;
    featinv_status status = fi_image_check(&checked, image);
    if (status)
        return status;
    int32_t height, width;
    resized_size(&height, &width, p, image);
    if ((int64_t)height * width > (int64_t)1 << 28)
        return fi_fail(FEATINV_ERROR_LIMIT,
                       "an image of %d x %d pixels would be resized to %d x %d before the crop",
                       image->width, image->height, width, height);
    uint8_t *resized = malloc((size_t)height * (size_t)width * 3);
    if (!resized)
        return fi_fail_memory((size_t)height * (size_t)width * 3);
    status = featinv_image_resize(resized, width, height, image, p->filter);
    /* torchvision's centre crop: round half to even of the half difference */
    int32_t top = (int32_t)nearbyint((height - p->height) / 2.0);
    int32_t left = (int32_t)nearbyint((width - p->width) / 2.0);
    size_t row = (size_t)p->width * 3;
    for (int32_t y = 0; !status && y < p->height; y++)
        memcpy(out + (size_t)y * row,
               resized + ((size_t)(y + top) * (size_t)width + (size_t)left) * 3, row);
    free(resized);
    return status;
}

void fi_preprocess_normalize(float *out, const fi_preprocess *p, const uint8_t *bytes, int64_t n) {
    float table[3][256];
    for (int c = 0; c < 3; c++)
        for (int b = 0; b < 256; b++)
            table[c][b] = ((float)b / 255.0f - (float)p->mean[c]) / (float)p->std[c];
    size_t plane = (size_t)p->height * (size_t)p->width;
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) {
            const uint8_t *from = bytes + (size_t)i * plane * 3 + c;
            float *to = out + ((size_t)i * 3 + (size_t)c) * plane;
            for (size_t k = 0; k < plane; k++)
                to[k] = table[c][from[3 * k]];
        }
}
