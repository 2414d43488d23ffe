/* The backbone over batches of images. */
#ifndef FI_EXTRACT_H
#define FI_EXTRACT_H

#include "preprocess.h"
#include "session.h"

fi_preprocess fi_features_preprocess(const fi_bundle *bundle);

/* Defaults under a caller's run options; zeroes *completed. */
featinv_status fi_features_run(const featinv_run_options *options, featinv_run_options *out);

/* Writes the prepared bytes (h, w, 3) of image `index` of a source. */
typedef featinv_status (*fi_features_fill)(uint8_t *bytes, const fi_preprocess *p,
                                           const void *source, int64_t index);

/* Prepared images in batches through the backbone; logits may be NULL. */
featinv_status fi_features_extract(featinv_session *session, fi_net *net, float *maps,
                                   float *logits, int64_t count, fi_features_fill fill,
                                   const void *source, fi_progress *progress, int64_t *completed);

/* The same for photos of any size. */
featinv_status fi_features_photos(featinv_session *session, fi_net *net, float *maps, float *logits,
                                  const featinv_image *images, int64_t count, fi_progress *progress,
                                  int64_t *completed);

/* Maps (count, C, H, W) in batches through the head. */
featinv_status fi_features_head(featinv_session *session, fi_net *net, float *logits,
                                const float *maps, int64_t count, fi_progress *progress,
                                int64_t *completed);

#endif
