/* A session: a model on a device, and the running call's cancellation. */
#ifndef FI_SESSION_H
#define FI_SESSION_H

#include "featinv.h"
#include "model.h"

#include <stdatomic.h>

struct featinv_session {
    featinv_model *model; /* NULL: linear algebra only */
    const fi_backend *backend;
    int32_t device_type, device_index;
    featinv_dtype dtype;
    int32_t batch;
    char device_text[32];
    atomic_int cancelled;
};

const fi_backend *fi_session_backend(const featinv_session *session);

/* Starts a public call, once and never from inside of another one: checks the process (fork),
 * forgets earlier cancels. needs: programs (FI_PART) that must be ready in *net; 0 leaves net
 * alone. Errors: UNSUPPORTED without the model's part. */
featinv_status fi_session_begin(featinv_session *session, uint32_t needs, fi_net **net);

/* Progress of a call. */
typedef struct fi_progress {
    featinv_progress call;
    void *user_data;
    int64_t done, total;
} fi_progress;

/* Units are done: reports them, and says CANCELLED if anyone asked to stop while some are left. */
featinv_status fi_session_tick(featinv_session *session, fi_progress *progress, int64_t units);

#endif
