/* How pictures are compared with originals, one image at a time. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>

void evaluate_pool(float *out, const float *map, int64_t channels, int64_t positions) {
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < positions; i++)
            sum += (double)map[c * positions + i];
        out[c] = (float)(sum / (double)positions);
    }
}

/* A view of one map as `count` maps of one position each: its positions, or its mean. */
static featinv_tensor columns(const float *values, int64_t count, int64_t shape[4],
                              int64_t strides[4], int64_t channels) {
    shape[0] = count;
    shape[1] = channels;
    shape[2] = shape[3] = 1;
    strides[0] = 1;
    strides[1] = count;
    strides[2] = strides[3] = 1;
    featinv_tensor view =
        featinv_tensor_view((void *)(uintptr_t)values, FEATINV_DTYPE_F32, 4, shape);
    view.strides = strides;
    return view;
}

/* Cosines of `count` vectors that stand side by side, and after the centre was removed. */
static featinv_status cosines(double *plain, double *centred, const float *a, const float *b,
                              int64_t count, const evaluate_network *network) {
    int64_t shape[4], strides[4];
    featinv_tensor view_a = columns(a, count, shape, strides, network->channels);
    featinv_tensor view_b = columns(b, count, shape, strides, network->channels);
    featinv_cosine_result result = {.struct_size = sizeof result};
    return featinv_cosine(&result, plain, centred, &view_a, &view_b,
                          network->opened.info.feature_mean);
}

static int compare_numbers(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Sorts the values. */
static double median(double *values, int64_t count) {
    qsort(values, (size_t)count, sizeof *values, compare_numbers);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

int evaluate_compare(evaluate_block *block, const evaluate_slot *slot, int32_t slot_index,
                     int64_t item, const evaluate_network *network, const float *a, const float *b,
                     const double matches[2]) {
    int64_t n = network->positions, channels = network->channels;
    double *work = malloc((size_t)(2 * n + 2) * sizeof *work);
    float *means = malloc((size_t)(2 * channels) * sizeof *means);
    double *figures = block->figures[slot_index] + item * EVALUATE_FIGURES;
    int code = work && means ? CLI_DONE : cli_fail_memory();
    featinv_status status = FEATINV_OK;
    if (!code)
        status = cosines(work, work + n, a, b, n, network);
    if (!code && !status) {
        for (int64_t i = 0; slot->positions && i < n; i++)
            block->positions[slot_index][item * n + i] = work[i];
        figures[EVALUATE_MEDIAN] = median(work, n);
        figures[EVALUATE_CENTRED] = network->opened.info.feature_mean ? median(work + n, n) : NAN;
        evaluate_pool(means, a, channels, n);
        evaluate_pool(means + channels, b, channels, n);
        status = cosines(work, work + 1, means, means + channels, 1, network);
    }
    if (!code && !status) {
        figures[EVALUATE_POOLED] = work[0];
        figures[EVALUATE_TOP1] = matches[0];
        figures[EVALUATE_TOP5] = matches[1];
    }
    free(work);
    free(means);
    return code ? code : status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* Whether class c is among the k largest; of equal values the lower index counts first. */
static bool is_among(const float *logits, int64_t classes, int64_t c, int64_t k) {
    int64_t before = 0;
    for (int64_t i = 0; i < classes; i++)
        before += logits[i] > logits[c] || (!(logits[i] < logits[c]) && i < c);
    return before < k;
}

void evaluate_matches(double matches[2], const float *a, const float *b, int64_t classes) {
    int64_t best = 0;
    matches[0] = matches[1] = NAN;
    for (int64_t i = 1; i < classes; i++)
        if (a[i] > a[best])
            best = i;
    if (classes < 1)
        return;
    matches[0] = is_among(b, classes, best, 1);
    matches[1] = is_among(b, classes, best, 5);
}

static double luminance(const uint8_t *p) {
    return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

double evaluate_gradient(const uint8_t *pixels, int32_t width, int32_t height) {
    double sum = 0.0;
    for (int64_t y = 0; y + 1 < height; y++)
        for (int64_t x = 0; x + 1 < width; x++) {
            const uint8_t *p = pixels + 3 * (y * width + x);
            double here = luminance(p), right = luminance(p + 3);
            double below = luminance(p + 3 * (int64_t)width);
            sum += hypot(right - here, below - here);
        }
    return width > 1 && height > 1 ? sum / ((double)(width - 1) * (double)(height - 1)) : NAN;
}
