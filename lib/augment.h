/* From a decoded picture to a training pair: what the backbone sees, and what the generator is to
 * draw (the paper's training: random resized crop, horizontal and vertical flips). */
#ifndef FI_AUGMENT_H
#define FI_AUGMENT_H

#include "featinv.h"
#include "fit_random.h"
#include "preprocess.h"

#include <stdbool.h>

typedef struct fi_augment {
    fi_preprocess view; /* size and filter of what the backbone sees; crop where `random` is off */
    int32_t image_height, image_width; /* of what the generator draws */
    bool random;                       /* false: the middle, as for extraction */
    double scale[2], ratio[2];         /* of the crop: share of the area, width over height */
    double mirror, upset;              /* probabilities of a horizontal and of a vertical flip */
    bool legacy_target;                /* the target without antialiasing */
} fi_augment;

/* A part of a picture in pixels, and how it is turned. */
typedef struct fi_crop {
    int32_t x, y, width, height;
    bool mirrored, upset;
} fi_crop;

/* Draws a crop of a width by height picture, as torchvision's RandomResizedCrop does: ten tries,
 * then the largest middle of an allowed ratio. Then the flips. */
fi_crop fi_augment_draw(const fi_augment *a, int32_t width, int32_t height, fi_random *random);

/* view: packed RGB of view.height x view.width, image: of image_height x image_width, made from the
 * view. random is not used where a->random is off. */
featinv_status fi_augment_apply(uint8_t *image, uint8_t *view, const fi_augment *a,
                                const featinv_image *picture, fi_random *random);

/* Bilinear without antialiasing, half-pixel centres, edges repeated: torch's interpolate on the
 * bytes, rounded half to even; in integers, so exact. Both packed RGB. */
void fi_resize_plain(uint8_t *out, int32_t width, int32_t height, const uint8_t *in,
                     int32_t in_width, int32_t in_height);

#endif
