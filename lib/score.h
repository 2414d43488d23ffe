/* Agreement of samples with the maps they were drawn from (paper, section 4.1). */
#ifndef FI_SCORE_H
#define FI_SCORE_H

#include "extract.h"

/* What a score is made of, all borrowed. Lane n * samples + k is sample k of map n. */
typedef struct fi_score_inputs {
    const uint8_t *images; /* (lanes, height, width, 3) */
    int32_t height, width;
    const float *maps;   /* (count, C, H, W) */
    const float *logits; /* (count, classes), or NULL */
    int64_t count, samples;
} fi_score_inputs;

/* scores, sample_maps (lanes, C, H, W): outputs, each may be NULL. */
featinv_status fi_score_run(featinv_score *scores, float *sample_maps, featinv_session *session,
                            fi_net *net, const fi_score_inputs *inputs, fi_progress *progress,
                            int64_t *completed);

#endif
