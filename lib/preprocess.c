#include "preprocess.h"

#include "image.h"

#include <math.h>

/* Size after the resize: the side that is shorter for its target gets it exactly, the other keeps
 * the aspect, truncated (torchvision's rule, also where the target is not square). */
static void resized_size(int64_t *height, int64_t *width, const fi_preprocess *p,
                         int32_t image_width, int32_t image_height) {
    int64_t h = (int64_t)floor(p->height / p->crop), w = (int64_t)floor(p->width / p->crop);
    if (image_width * h <= image_height * w) {
        *width = w;
        *height = w * image_height / image_width;
    } else {
        *height = h;
        *width = h * image_width / image_height;
    }
}

/* The middle of one side: torchvision rounds half the difference, halves to even. */
static fi_resize_side middle(int64_t whole, int32_t count) {
    int64_t difference = whole - count, begin = difference / 2;
    if (difference % 2 != 0 && begin % 2 != 0)
        begin++;
    return (fi_resize_side){whole, begin, count};
}

void fi_preprocess_sides(fi_resize_side *columns, fi_resize_side *rows, const fi_preprocess *p,
                         int32_t image_width, int32_t image_height) {
    int64_t height, width;
    resized_size(&height, &width, p, image_width, image_height);
    *columns = middle(width, p->width);
    *rows = middle(height, p->height);
}

featinv_status fi_preprocess_crop(uint8_t *out, const fi_preprocess *p,
                                  const featinv_image *image) {
    featinv_image checked;
    featinv_status status = fi_image_check(&checked, image);
    if (status)
        return status;
    fi_resize_side columns, rows;
    fi_preprocess_sides(&columns, &rows, p, checked.width, checked.height);
    return fi_resize_part(out, columns, rows, &checked, p->filter);
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
