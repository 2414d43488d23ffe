#include "schedule.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double beta(int32_t k, int32_t total, double start, double end, fi_beta_schedule schedule) {
    if (schedule == FI_BETA_COSINE) { /* Nichol and Dhariwal 2021, equation 17 */
        const double half_pi = 1.5707963267948966;
        double now = cos(((double)k / total + 0.008) / 1.008 * half_pi);
        double next = cos(((double)(k + 1) / total + 0.008) / 1.008 * half_pi);
        return fmin(1.0 - (next * next) / (now * now), 0.999);
    }
    double w = total > 1 ? (double)k / (double)(total - 1) : 0.0;
    if (schedule == FI_BETA_LINEAR)
        return start + w * (end - start);
    double root = sqrt(start) + w * (sqrt(end) - sqrt(start));
    return root * root;
}

void fi_alphas(float *alphas, int32_t timesteps, double beta_start, double beta_end,
               fi_beta_schedule schedule) {
    double product = 1.0;
    for (int32_t k = 0; k < timesteps; k++) {
        product *= 1.0 - beta(k, timesteps, beta_start, beta_end, schedule);
        alphas[k] = (float)product;
    }
}

static int32_t legacy_count(int32_t steps, int32_t total, int32_t *last) {
    int32_t stride = total / steps;
    int32_t count = (total - 1) / stride + 1; /* the multiples of stride below total */
    *last = 1 + stride * (count - 1);
    return count;
}

featinv_status fi_timesteps(int32_t *timesteps, int32_t capacity, int32_t *count, int32_t steps,
                            featinv_spacing spacing, int32_t total) {
    if (steps < 1 || steps >= total)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "steps is %d: it must be 1 to %d", steps, total - 1);
    int32_t n = steps, last;
    if (spacing == FEATINV_SPACING_LEGACY) {
        n = legacy_count(steps, total, &last);
        if (last >= total)
            return fi_fail(
                FEATINV_ERROR_ARGUMENT,
                "steps is %d: with legacy spacing its last timestep would be %d, past the "
                "schedule's %d",
                steps, last, total - 1);
    } else if (spacing != FEATINV_SPACING_LEADING && spacing != FEATINV_SPACING_TRAILING) {
        return fi_fail(FEATINV_ERROR_ARGUMENT, "spacing is %d: it must be 0, 1 or 2", spacing);
    }
    *count = n;
    for (int32_t i = 0; timesteps && i < n && i < capacity; i++) {
        if (spacing == FEATINV_SPACING_LEGACY)
            timesteps[i] = 1 + (total / steps) * i;
        else if (spacing == FEATINV_SPACING_LEADING)
            timesteps[i] = 1 + (int32_t)((int64_t)total * i / steps);
        else
            timesteps[i] = (int32_t)rint((double)total * (i + 1) / steps) - 1;
    }
    return FEATINV_OK;
}

featinv_status featinv_timesteps(int32_t *timesteps, int32_t capacity, int32_t *count,
                                 int32_t steps, featinv_spacing spacing) {
    int32_t n;
    featinv_status status = fi_timesteps(timesteps, capacity, &n, steps, spacing, 1000);
    if (!status && count)
        *count = n;
    return status;
}

featinv_status fi_schedule_make(fi_schedule *out, const float *alphas, int32_t total, int32_t steps,
                                featinv_spacing spacing, double eta) {
    memset(out, 0, sizeof *out);
    if (!(eta >= 0.0) || eta > 1e6)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "eta is %g: it must be 0 or more", eta);
    int32_t n = 0;
    featinv_status status = fi_timesteps(NULL, 0, &n, steps, spacing, total);
    if (status)
        return status;
    int32_t *ascending = malloc((size_t)n * sizeof *ascending);
    out->timesteps = malloc((size_t)n * sizeof *out->timesteps);
    out->alpha = malloc((size_t)n * sizeof *out->alpha);
    out->alpha_prev = malloc((size_t)n * sizeof *out->alpha_prev);
    out->sigma = malloc((size_t)n * sizeof *out->sigma);
    if (!ascending || !out->timesteps || !out->alpha || !out->alpha_prev || !out->sigma) {
        free(ascending);
        fi_schedule_free(out);
        return fi_fail_memory((size_t)n * 40);
    }
    (void)fi_timesteps(ascending, n, &n, steps, spacing, total);
    out->steps = n;
    for (int32_t i = 0; i < n; i++) {
        int32_t t = ascending[n - 1 - i];
        /* the step below the last is the schedule's first entry, not 1 (as published) */
        double a = alphas[t], previous = alphas[i + 1 < n ? ascending[n - 2 - i] : 0];
        out->timesteps[i] = t;
        out->alpha[i] = a;
        out->alpha_prev[i] = previous;
        out->sigma[i] = eta * sqrt((1.0 - previous) / (1.0 - a) * (1.0 - a / previous));
    }
    free(ascending);
    for (int32_t i = 0; i < n; i++)
        if (!(1.0 - out->alpha_prev[i] - out->sigma[i] * out->sigma[i] >= -1e-6)) {
            fi_schedule_free(out);
            return fi_fail(FEATINV_ERROR_ARGUMENT,
                           "eta is %g: the noise of a step would exceed its variance", eta);
        }
    return FEATINV_OK;
}

void fi_schedule_free(fi_schedule *schedule) {
    free(schedule->timesteps);
    free(schedule->alpha);
    free(schedule->alpha_prev);
    free(schedule->sigma);
    memset(schedule, 0, sizeof *schedule);
}
