/* Maps to images: the sampling loop. Here are order, noise, progress and cancel; the coefficients
 * of a step are made in schedule.c, its arithmetic (branches, guidance, DDIM) is
  * shim/sampler.cpp. */
#ifndef FI_SAMPLE_H
#define FI_SAMPLE_H

#include "session.h"

/* Where a run's results go; each may be NULL. Lane n * samples + k is sample k of map n. */
typedef struct fi_sample_outputs {
    uint8_t *images; /* (lanes, H, W, 3) */
    float *latents;  /* (lanes, C, h, w) */
} fi_sample_outputs;

/* Lays a caller's options over the bundle's defaults and checks everything that does not depend on
 * the maps. Errors: UNSUPPORTED without a generator, ARGUMENT. */
featinv_status fi_sample_begin(featinv_session *session, featinv_sample_options *out,
                               const featinv_sample_options *options);

/* Draws samples of `count` checked maps. progress ticks once per step and chunk of lanes. */
featinv_status fi_sample_run(featinv_session *session, fi_net *net,
                             const fi_sample_outputs *outputs, const float *maps, int64_t count,
                             const featinv_sample_options *options, fi_progress *progress);

/* Units that fi_sample_run ticks: lanes * (steps + 1). */
featinv_status fi_sample_units(int64_t *units, const featinv_model *model, int64_t count,
                               const featinv_sample_options *options);

#endif
