/* Agreement of feature maps and spread of samples (paper, section 4.1; docs/numerics.md). */
#include "metrics.h"

#include "error.h"
#include "options.h"
#include "tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- medians -------------------- */

static void swap(double *a, double *b) {
    double t = *a;
    *a = *b;
    *b = t;
}

/* Hoare's selection: afterwards values[k] is the k-th smallest, smaller ones lie before it. */
static void select_kth(double *values, size_t count, size_t k) {
    size_t low = 0, high = count - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            swap(&values[i++], &values[j--]);
        }
        /* values[low..j] <= pivot <= values[j+1..high], and low <= j < high */
        if (k <= j)
            high = j;
        else
            low = j + 1;
    }
}

double fi_median(double *values, size_t count) {
    size_t middle = count / 2;
    select_kth(values, count, middle);
    if (count % 2)
        return values[middle];
    double below = values[0];
    for (size_t i = 1; i < middle; i++)
        below = fmax(below, values[i]);
    return 0.5 * (below + values[middle]);
}

/* ---------------------------------------------------------------- cosine --------------------- */

typedef struct maps {
    const float *a, *b; /* (images, channels, positions) */
    size_t images, channels, positions;
} maps;

/* A position whose norm is zero in one map agrees with nothing, in both with itself. */
static double cosine_of(double dot, double norm_a, double norm_b) {
    if (norm_a == 0.0 || norm_b == 0.0)
        return norm_a == norm_b ? 1.0 : 0.0;
    return dot / (sqrt(norm_a) * sqrt(norm_b));
}

/* Cosines at the positions of one image; centre NULL: nothing is removed. sums: 3 * positions. */
static void image_cosines(double *out, double *sums, const maps *m, size_t image,
                          const double *centre) {
    size_t p = m->positions;
    double *dot = sums, *norm_a = sums + p, *norm_b = sums + 2 * p;
    memset(sums, 0, 3 * p * sizeof *sums);
    for (size_t c = 0; c < m->channels; c++) {
        const float *a = m->a + (image * m->channels + c) * p;
        const float *b = m->b + (image * m->channels + c) * p;
        double shift = centre ? centre[c] : 0.0;
        for (size_t i = 0; i < p; i++) {
            double x = (double)a[i] - shift, y = (double)b[i] - shift;
            dot[i] += x * y;
            norm_a[i] += x * x;
            norm_b[i] += y * y;
        }
    }
    for (size_t i = 0; i < p; i++)
        out[i] = cosine_of(dot[i], norm_a[i], norm_b[i]);
}

static void channel_mean(double *mean, const maps *m) {
    double count = (double)m->images * (double)m->positions;
    for (size_t c = 0; c < m->channels; c++) {
        double sum = 0.0;
        for (size_t n = 0; n < m->images; n++) {
            const float *a = m->a + (n * m->channels + c) * m->positions;
            for (size_t i = 0; i < m->positions; i++)
                sum += (double)a[i];
        }
        mean[c] = sum / count;
    }
}

/* all: images * positions, in any order afterwards; work: 4 * positions; centre: channels. */
static void measure(featinv_cosine_result *result, double *per_image, double *per_image_centred,
                    double *all, double *work, const double *centre, const maps *m) {
    double sum = 0.0, medians = 0.0, centred = 0.0;
    for (size_t n = 0; n < m->images; n++) {
        double *cosines = all + n * m->positions;
        image_cosines(cosines, work + m->positions, m, n, NULL);
        for (size_t i = 0; i < m->positions; i++)
            sum += cosines[i];
        double median = fi_median(cosines, m->positions);
        image_cosines(work, work + m->positions, m, n, centre);
        double median_centred = fi_median(work, m->positions);
        medians += median;
        centred += median_centred;
        if (per_image)
            per_image[n] = median;
        if (per_image_centred)
            per_image_centred[n] = median_centred;
    }
    result->median_then_mean = medians / (double)m->images;
    result->centred = centred / (double)m->images;
    result->mean = sum / ((double)m->images * (double)m->positions);
    result->median_all = fi_median(all, m->images * m->positions);
}

static featinv_status check_maps(maps *m, const featinv_tensor *a) {
    if (a->shape[0] < 1 || a->shape[1] < 1 || a->shape[2] < 1 || a->shape[3] < 1) {
        char text[128];
        return fi_fail(FEATINV_ERROR_SHAPE, "maps of shape %s hold nothing to compare",
                       fi_shape_text(text, sizeof text, a->shape, 4));
    }
    m->images = (size_t)a->shape[0];
    m->channels = (size_t)a->shape[1];
    m->positions = (size_t)(a->shape[2] * a->shape[3]);
    size_t count = m->images * m->channels * m->positions;
    featinv_status status = fi_check_finite(m->a, count, "the first maps");
    return status ? status : fi_check_finite(m->b, count, "the second maps");
}

featinv_status featinv_cosine(featinv_cosine_result *result, double *per_image,
                              double *per_image_centred, const featinv_tensor *a,
                              const featinv_tensor *b, const float *centre) {
    /* the caller's struct may be of any age: filled whole here, copied as far as it goes */
    featinv_cosine_result all = {.struct_size = sizeof all};
    featinv_status status =
        fi_options_init(result, result ? result->struct_size : 0, &all, sizeof all);
    if (status)
        return status;
    const int64_t any[4] = {-1, -1, -1, -1};
    const void *data_a = NULL, *data_b = NULL;
    void *owned_a = NULL, *owned_b = NULL;
    double *block = NULL;
    maps m = {0};

    status = fi_tensor_input(&data_a, &owned_a, a, "the first maps", FEATINV_DTYPE_F32, 4, any);
    if (status)
        goto done;
    status =
        fi_tensor_input(&data_b, &owned_b, b, "the second maps", FEATINV_DTYPE_F32, 4, a->shape);
    if (status)
        goto done;
    m.a = data_a;
    m.b = data_b;
    status = check_maps(&m, a);
    if (status)
        goto done;
    if (centre) {
        status = fi_check_finite(centre, m.channels, "the centre");
        if (status)
            goto done;
    }

    /* the maps lie in memory as float32, so these products cannot overflow as counts of doubles */
    size_t doubles = m.images * m.positions + 4 * m.positions + m.channels;
    block = malloc(doubles * sizeof *block);
    if (!block) {
        status = fi_fail_memory(doubles * sizeof *block);
        goto done;
    }
    double *work = block + m.images * m.positions;
    double *shift = work + 4 * m.positions;
    if (!centre)
        channel_mean(shift, &m);
    for (size_t c = 0; centre && c < m.channels; c++)
        shift[c] = (double)centre[c];
    measure(&all, per_image, per_image_centred, block, work, shift, &m);
    status = fi_options_init(result, result->struct_size, &all, sizeof all);
done:
    free(block);
    free(owned_a);
    free(owned_b);
    return status;
}

/* ---------------------------------------------------------------- spread --------------------- */

/* Sums over samples are integers below 2^53: exact, whatever the order. */
static double variance(const uint8_t *value, size_t stride, size_t samples) {
    uint64_t sum = 0, squares = 0;
    for (size_t s = 0; s < samples; s++) {
        uint64_t v = value[s * stride];
        sum += v;
        squares += v * v;
    }
    double n = (double)samples, mean = (double)sum / n;
    return fmax((double)squares / n - mean * mean, 0.0);
}

featinv_status featinv_spread(float *spread, const featinv_tensor *samples) {
    const int64_t shape[4] = {-1, -1, -1, 3};
    const void *data = NULL;
    void *owned = NULL;
    featinv_status status =
        fi_tensor_input(&data, &owned, samples, "the samples", FEATINV_DTYPE_U8, 4, shape);
    if (status)
        goto done;
    if (!spread) {
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "the memory for the spread is NULL");
        goto done;
    }
    if (samples->shape[0] < 1 || samples->shape[0] > INT32_MAX) {
        status = fi_fail(FEATINV_ERROR_SHAPE, "%lld samples: a spread needs 1 to %d",
                         (long long)samples->shape[0], INT32_MAX);
        goto done;
    }
    size_t count = (size_t)samples->shape[0];
    size_t pixels = (size_t)(samples->shape[1] * samples->shape[2]);
    const uint8_t *bytes = data;
    for (size_t i = 0; i < pixels; i++) {
        double sum = 0.0;
        for (size_t c = 0; c < 3; c++)
            sum += variance(bytes + 3 * i + c, 3 * pixels, count);
        spread[i] = (float)sqrt(sum / 3.0);
    }
done:
    free(owned);
    return status;
}
