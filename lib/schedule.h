/* Diffusion schedules and the timesteps of a run (paper, section 3.2; docs/numerics.md). */
#ifndef FI_SCHEDULE_H
#define FI_SCHEDULE_H

#include "featinv.h"

#define FI_MAX_TIMESTEPS 100000

typedef enum { FI_BETA_SCALED_LINEAR, FI_BETA_LINEAR, FI_BETA_COSINE } fi_beta_schedule;

/* Cumulative products of 1 - beta: computed in double, rounded to float32 as published. */
void fi_alphas(float *alphas, int32_t timesteps, double beta_start, double beta_end,
               fi_beta_schedule schedule);

/* The rows of one run, largest timestep first. */
typedef struct fi_schedule {
    int32_t steps;
    int64_t *timesteps;
    double *alpha, *alpha_prev, *sigma;
} fi_schedule;

/* Ascending timesteps, at most `total` of them; *count is how many the spacing gives. */
featinv_status fi_timesteps(int32_t *timesteps, int32_t capacity, int32_t *count, int32_t steps,
                            featinv_spacing spacing, int32_t total);

featinv_status fi_schedule_make(fi_schedule *out, const float *alphas, int32_t total, int32_t steps,
                                featinv_spacing spacing, double eta);
void fi_schedule_free(fi_schedule *schedule);

#endif
