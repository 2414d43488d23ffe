/* Mixing and pasting feature maps (paper, section 4.2): each position on its own, float64
 * inside. */
#include "error.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Below this sine two directions span no arc that float32 values could tell: slerp then is lerp. */
static const double smallest_sine = 1e-4;

typedef struct maps {
    const float *a, *b;
    float *out;
    size_t images, channels, positions;
    void *owned[2];
} maps;

static featinv_status open_maps(maps *m, const featinv_tensor *out, const featinv_tensor *a,
                                const featinv_tensor *b) {
    const int64_t any[4] = {-1, -1, -1, -1};
    const void *first = NULL, *second = NULL;
    void *result = NULL;
    featinv_status status =
        fi_tensor_input(&first, &m->owned[0], a, "the first maps", FEATINV_DTYPE_F32, 4, any);
    if (!status)
        status = fi_tensor_input(&second, &m->owned[1], b, "the second maps", FEATINV_DTYPE_F32, 4,
                                 a->shape);
    if (!status)
        status = fi_tensor_data(&result, out, "the result", FEATINV_DTYPE_F32, 4, a->shape);
    if (status)
        return status;
    m->a = first;
    m->b = second;
    m->out = result;
    m->images = (size_t)a->shape[0];
    m->channels = (size_t)a->shape[1];
    m->positions = (size_t)a->shape[2] * (size_t)a->shape[3];
    size_t count = m->images * m->channels * m->positions;
    status = fi_check_finite(m->a, count, "the first maps");
    return status ? status : fi_check_finite(m->b, count, "the second maps");
}

static void close_maps(maps *m) {
    free(m->owned[0]);
    free(m->owned[1]);
}

/* ---------------------------------------------------------------- mix ------------------------ */

/* Factors of a and b at one position, from their squared lengths and inner product. */
static void arc(double *of_a, double *of_b, double aa, double bb, double ab, double weight) {
    double length_a = sqrt(aa), length_b = sqrt(bb);
    *of_a = 1.0 - weight;
    *of_b = weight;
    if (!(aa > 0.0 && bb > 0.0))
        return;
    double cosine = ab / (length_a * length_b);
    double sine = sqrt(fmax(0.0, 1.0 - cosine * cosine));
    if (sine < smallest_sine)
        return;
    double angle = atan2(sine, cosine);
    double length = (1.0 - weight) * length_a + weight * length_b;
    *of_a = length * sin((1.0 - weight) * angle) / (sine * length_a);
    *of_b = length * sin(weight * angle) / (sine * length_b);
}

/* The lerp's factors, both stretched so that its length, the square root of mm, is as wanted. */
static void stretch(double *of_a, double *of_b, double aa, double bb, double mm, double weight) {
    double wanted = (1.0 - weight) * sqrt(aa) + weight * sqrt(bb);
    double scale = mm > 0.0 ? wanted / sqrt(mm) : 0.0;
    *of_a = scale * (1.0 - weight);
    *of_b = scale * weight;
}

/* sums: 4 * positions, afterwards the factors of a and of b in its first two rows. */
static void position_factors(double *sums, const maps *m, size_t image, double weight,
                             featinv_mix_mode mode) {
    size_t p = m->positions;
    double *aa = sums, *bb = sums + p, *ab = sums + 2 * p, *mm = sums + 3 * p;
    memset(sums, 0, 4 * p * sizeof *sums);
    for (size_t c = 0; c < m->channels; c++) {
        const float *a = m->a + (image * m->channels + c) * p;
        const float *b = m->b + (image * m->channels + c) * p;
        for (size_t i = 0; i < p; i++) {
            double x = (double)a[i], y = (double)b[i], mixed = (1.0 - weight) * x + weight * y;
            aa[i] += x * x;
            bb[i] += y * y;
            ab[i] += x * y;
            mm[i] += mixed * mixed;
        }
    }
    for (size_t i = 0; i < p; i++) {
        double of_a, of_b;
        if (mode == FEATINV_MIX_SLERP)
            arc(&of_a, &of_b, aa[i], bb[i], ab[i], weight);
        else
            stretch(&of_a, &of_b, aa[i], bb[i], mm[i], weight);
        aa[i] = of_a;
        bb[i] = of_b;
    }
}

static void mix_image(const maps *m, size_t image, const double *of_a, const double *of_b) {
    for (size_t c = 0; c < m->channels; c++) {
        size_t row = (image * m->channels + c) * m->positions;
        for (size_t i = 0; i < m->positions; i++)
            m->out[row + i] =
                (float)(of_a[i] * (double)m->a[row + i] + of_b[i] * (double)m->b[row + i]);
    }
}

static featinv_status mix(const maps *m, double weight, featinv_mix_mode mode) {
    size_t p = m->positions, bytes;
    int64_t extent = (int64_t)p;
    if (!fi_checked_size(&bytes, &extent, 1, 4 * sizeof(double)))
        return fi_fail(FEATINV_ERROR_LIMIT, "maps of %zu positions are too large", p);
    double *sums = malloc(bytes + 1);
    if (!sums)
        return fi_fail_memory(bytes);
    for (size_t i = 0; i < p; i++) {
        sums[i] = 1.0 - weight;
        sums[p + i] = weight;
    }
    for (size_t n = 0; n < m->images; n++) {
        if (mode != FEATINV_MIX_LERP)
            position_factors(sums, m, n, weight, mode);
        mix_image(m, n, sums, sums + p);
    }
    free(sums);
    return FEATINV_OK;
}

featinv_status featinv_features_mix(const featinv_tensor *out, const featinv_tensor *a,
                                    const featinv_tensor *b, double weight, featinv_mix_mode mode) {
    if (!(weight >= 0.0 && weight <= 1.0))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "weight is %g: it must be 0 to 1", weight);
    if (mode < FEATINV_MIX_LERP || mode > FEATINV_MIX_NORM)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "mix mode is %d: it must be lerp, slerp or norm",
                       mode);
    maps m = {0};
    featinv_status status = open_maps(&m, out, a, b);
    size_t bytes = m.images * m.channels * m.positions * sizeof *m.out;
    if (!status && bytes) {
        if (weight <= 0.0)
            memmove(m.out, m.a, bytes);
        else if (weight >= 1.0)
            memmove(m.out, m.b, bytes);
        else
            status = mix(&m, weight, mode);
    }
    close_maps(&m);
    return status;
}

/* ---------------------------------------------------------------- compose -------------------- */

/* One plane of one map. The ends are copies: a product with 0 or 1 would turn -0 into 0. */
static void compose_plane(float *out, const float *a, const float *b, const float *mask,
                          size_t positions) {
    for (size_t i = 0; i < positions; i++) {
        double w = (double)mask[i];
        out[i] = w <= 0.0   ? a[i]
                 : w >= 1.0 ? b[i]
                            : (float)((1.0 - w) * (double)a[i] + w * (double)b[i]);
    }
}

static featinv_status check_mask(const float *mask, size_t count) {
    featinv_status status = fi_check_finite(mask, count, "the mask");
    for (size_t i = 0; !status && i < count; i++)
        if (mask[i] < 0.0f || mask[i] > 1.0f)
            status =
                fi_fail(FEATINV_ERROR_ARGUMENT, "the mask is %g at element %zu: it must be 0 to 1",
                        (double)mask[i], i);
    return status;
}

featinv_status featinv_features_compose(const featinv_tensor *out, const featinv_tensor *a,
                                        const featinv_tensor *b, const featinv_tensor *mask) {
    maps m = {0};
    const void *data = NULL;
    void *owned = NULL;
    featinv_status status = open_maps(&m, out, a, b);
    if (status)
        goto done;
    bool each = mask && mask->ndim == 3;
    const int64_t shape[3] = {a->shape[0], a->shape[2], a->shape[3]};
    status = fi_tensor_input(&data, &owned, mask, "the mask", FEATINV_DTYPE_F32, each ? 3 : 2,
                             each ? shape : shape + 1);
    if (!status)
        status = check_mask(data, (each ? m.images : 1) * m.positions);
    for (size_t n = 0; !status && n < m.images; n++)
        for (size_t c = 0; c < m.channels; c++) {
            size_t row = (n * m.channels + c) * m.positions;
            compose_plane(m.out + row, m.a + row, m.b + row,
                          (const float *)data + (each ? n * m.positions : 0), m.positions);
        }
done:
    free(owned);
    close_maps(&m);
    return status;
}
