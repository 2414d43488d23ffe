/* The autoencoder's encoder over batches of images. */
#ifndef FI_PARTS_H
#define FI_PARTS_H

#include "session.h"

/* bytes (count, H, W, 3) at the generator's size → mean and logvar (count, C, h, w), unscaled;
 * either may be NULL, and so may progress and completed. net: with the encoder ready. */
featinv_status fi_encode(featinv_session *session, fi_net *net, float *mean, float *logvar,
                         const uint8_t *bytes, int64_t count, fi_progress *progress,
                         int64_t *completed);

#endif
