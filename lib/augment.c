#include "augment.h"

#include "image.h"
#include "resize.h"

#include <math.h>
#include <string.h>

enum { TRIES = 10 };

static double between(fi_random *random, double low, double high) {
    return low + (high - low) * fi_random_unit(random);
}

/* The largest middle part whose ratio is allowed. */
static void central_crop(fi_crop *crop, const fi_augment *a, int32_t width, int32_t height) {
    const double ratio = (double)width / (double)height;
    crop->width = width;
    crop->height = height;
    if (ratio < a->ratio[0])
        crop->height = (int32_t)fmax(rint(width / a->ratio[0]), 1.0);
    else if (ratio > a->ratio[1])
        crop->width = (int32_t)fmax(rint(height * a->ratio[1]), 1.0);
    crop->x = (width - crop->width) / 2;
    crop->y = (height - crop->height) / 2;
}

fi_crop fi_augment_draw(const fi_augment *a, int32_t width, int32_t height, fi_random *random) {
    const double area = (double)width * (double)height;
    const double low = log(a->ratio[0]), high = log(a->ratio[1]);
    fi_crop crop = {0};
    for (int i = 0; i < TRIES && !crop.width; i++) {
        const double target = area * between(random, a->scale[0], a->scale[1]);
        const double ratio = exp(between(random, low, high));
        const double w = rint(sqrt(target * ratio)), h = rint(sqrt(target / ratio));
        if (w < 1 || w > width || h < 1 || h > height)
            continue;
        crop.width = (int32_t)w;
        crop.height = (int32_t)h;
        crop.y = (int32_t)fi_random_below(random, (uint64_t)(height - crop.height) + 1);
        crop.x = (int32_t)fi_random_below(random, (uint64_t)(width - crop.width) + 1);
    }
    if (!crop.width)
        central_crop(&crop, a, width, height);
    crop.mirrored = fi_random_unit(random) < a->mirror;
    crop.upset = fi_random_unit(random) < a->upset;
    return crop;
}

/* ---------------------------------------------------------------- flips ---------------------- */

static void mirror_rows(uint8_t *pixels, int32_t width, int32_t height) {
    for (int32_t y = 0; y < height; y++) {
        uint8_t *left = pixels + 3 * (size_t)width * (size_t)y, *right = left + 3 * (size_t)width;
        for (right -= 3; left < right; left += 3, right -= 3)
            for (int c = 0; c < 3; c++) {
                const uint8_t kept = left[c];
                left[c] = right[c];
                right[c] = kept;
            }
    }
}

static void upset_rows(uint8_t *pixels, int32_t width, int32_t height) {
    const size_t row = 3 * (size_t)width;
    for (int32_t y = 0; y < height / 2; y++) {
        uint8_t *upper = pixels + row * (size_t)y, *lower = pixels + row * (size_t)(height - 1 - y);
        for (size_t i = 0; i < row; i++) {
            const uint8_t kept = upper[i];
            upper[i] = lower[i];
            lower[i] = kept;
        }
    }
}

/* ---------------------------------------------------------------- target --------------------- */

/* Where output i of a side lies between two inputs: weight / whole of the second one. */
typedef struct between_two {
    int32_t first, second;
    int64_t weight, whole;
} between_two;

static between_two find_two(int32_t i, int32_t out, int32_t in) {
    const int64_t whole = 2 * (int64_t)out;
    int64_t at = (2 * (int64_t)i + 1) * in - out; /* (i + 1/2) in / out - 1/2, times whole */
    at = at < 0 ? 0 : at;
    const int32_t first = (int32_t)(at / whole);
    return (between_two){first, first + 1 < in ? first + 1 : first, at % whole, whole};
}

static uint8_t divide_to_even(int64_t sum, int64_t by) {
    const int64_t quotient = sum / by, twice = 2 * (sum % by);
    return (uint8_t)(quotient + (twice > by || (twice == by && quotient % 2)));
}

void fi_resize_plain(uint8_t *out, int32_t width, int32_t height, const uint8_t *in,
                     int32_t in_width, int32_t in_height) {
    for (int32_t i = 0; i < height; i++) {
        const between_two y = find_two(i, height, in_height);
        const uint8_t *upper = in + 3 * (size_t)in_width * (size_t)y.first;
        const uint8_t *lower = in + 3 * (size_t)in_width * (size_t)y.second;
        for (int32_t j = 0; j < width; j++) {
            const between_two x = find_two(j, width, in_width);
            const size_t left = 3 * (size_t)x.first, right = 3 * (size_t)x.second;
            for (size_t c = 0; c < 3; c++) {
                const int64_t above =
                    upper[left + c] * (x.whole - x.weight) + upper[right + c] * x.weight;
                const int64_t below =
                    lower[left + c] * (x.whole - x.weight) + lower[right + c] * x.weight;
                *out++ = divide_to_even(above * (y.whole - y.weight) + below * y.weight,
                                        x.whole * y.whole);
            }
        }
    }
}

static featinv_status make_target(uint8_t *image, const uint8_t *view, const fi_augment *a) {
    const featinv_image from = {view, a->view.width, a->view.height, 3 * (int64_t)a->view.width};
    if (a->legacy_target) {
        fi_resize_plain(image, a->image_width, a->image_height, view, from.width, from.height);
        return FEATINV_OK;
    }
    return fi_resize_part(image, (fi_resize_side){a->image_width, 0, a->image_width},
                          (fi_resize_side){a->image_height, 0, a->image_height}, &from,
                          FEATINV_FILTER_BILINEAR);
}

static featinv_status random_view(uint8_t *view, const fi_augment *a, const featinv_image *picture,
                                  fi_random *random) {
    featinv_image part;
    featinv_status status = fi_image_check(&part, picture);
    if (status)
        return status;
    const fi_crop crop = fi_augment_draw(a, part.width, part.height, random);
    part.pixels += crop.y * part.row_bytes + 3 * (int64_t)crop.x;
    part.width = crop.width;
    part.height = crop.height;
    status =
        fi_resize_part(view, (fi_resize_side){a->view.width, 0, a->view.width},
                       (fi_resize_side){a->view.height, 0, a->view.height}, &part, a->view.filter);
    if (!status && crop.mirrored)
        mirror_rows(view, a->view.width, a->view.height);
    if (!status && crop.upset)
        upset_rows(view, a->view.width, a->view.height);
    return status;
}

featinv_status fi_augment_apply(uint8_t *image, uint8_t *view, const fi_augment *a,
                                const featinv_image *picture, fi_random *random) {
    featinv_status status = a->random ? random_view(view, a, picture, random)
                                      : fi_preprocess_crop(view, &a->view, picture);
    return status ? status : make_target(image, view, a);
}
