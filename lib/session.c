#include "session.h"

#include "error.h"
#include "options.h"
#include "tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static featinv_session_options defaults(void) {
    return (featinv_session_options){.struct_size = sizeof(featinv_session_options),
                                     .device = "auto",
                                     .dtype = FEATINV_DTYPE_F32};
}

featinv_status featinv_session_options_init(featinv_session_options *options, size_t size) {
    featinv_session_options all = defaults();
    return fi_options_init(options, size, &all, sizeof all);
}

featinv_status featinv_run_options_init(featinv_run_options *options, size_t size) {
    featinv_run_options all = {.struct_size = sizeof all};
    return fi_options_init(options, size, &all, sizeof all);
}

/* "auto", "cpu", "cuda", "cuda:K". */
static featinv_status parse_device(featinv_session *session, const char *text) {
    session->device_type = FI_DEVICE_CPU;
    if (strcmp(text, "cpu") == 0)
        return FEATINV_OK;
    if (strcmp(text, "auto") == 0) {
        if (session->backend->cuda_count() > 0)
            session->device_type = FI_DEVICE_CUDA;
        return FEATINV_OK;
    }
    char *end = NULL;
    long index = strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9'
                     ? strtol(text + 5, &end, 10)
                     : 0;
    if (strcmp(text, "cuda") != 0 && (!end || *end || index > 1023))
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "device is \"%.40s\": it must be auto, cpu, cuda or cuda:K", text);
    session->device_type = FI_DEVICE_CUDA;
    session->device_index = (int32_t)index;
    return FEATINV_OK;
}

static featinv_status place(featinv_session *session, const featinv_session_options *options) {
    featinv_status status = parse_device(session, options->device ? options->device : "auto");
    if (status)
        return status;
    session->dtype = options->dtype;
    if (session->dtype != FEATINV_DTYPE_F32 && session->dtype != FEATINV_DTYPE_BF16 &&
        session->dtype != FEATINV_DTYPE_F16)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "dtype is %d: it must be fp32, bf16 or fp16",
                       session->dtype);
    bool cuda = session->device_type == FI_DEVICE_CUDA;
    if (session->dtype == FEATINV_DTYPE_F16 && !cuda)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "dtype fp16 needs a CUDA device; the CPU has fp32 and bf16");
    if (options->batch < 0 || options->batch > 65536 || options->threads < 0 ||
        options->threads > 4096)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "batch is %d and threads is %d: they must be 0 to 65536 and 0 to 4096",
                       options->batch, options->threads);
    session->batch = options->batch ? options->batch : cuda ? 32 : 8;
    int failed = session->backend->device_open(session->device_type, session->device_index);
    if (!failed)
        failed = session->backend->set_threads(options->threads);
    if (!failed)
        failed = session->backend->set_deterministic(options->deterministic != 0);
    if (cuda)
        (void)snprintf(session->device_text, sizeof session->device_text, "cuda:%d",
                       session->device_index);
    else
        (void)snprintf(session->device_text, sizeof session->device_text, "cpu");
    return failed ? fi_backend_fail(session->backend, failed, session->device_text) : FEATINV_OK;
}

featinv_status featinv_session_create(featinv_session **out, featinv_model *model,
                                      const featinv_session_options *options) {
    featinv_session_options o = defaults();
    featinv_status status = out ? fi_options_read(&o, sizeof o, options)
                                : fi_fail(FEATINV_ERROR_ARGUMENT, "no place for the session");
    if (status)
        return status;
    featinv_session *session = calloc(1, sizeof *session);
    if (!session)
        return fi_fail_memory(sizeof *session);
    atomic_init(&session->cancelled, 0);
    status = fi_backend_get(&session->backend);
    if (!status)
        status = place(session, &o);
    if (status) {
        free(session);
        return status;
    }
    session->model = featinv_model_retain(model);
    *out = session;
    return FEATINV_OK;
}

void featinv_session_destroy(featinv_session *session) {
    if (!session)
        return;
    featinv_model_release(session->model);
    free(session);
}

void featinv_session_cancel(featinv_session *session) {
    if (session)
        atomic_store(&session->cancelled, 1);
}

const char *featinv_session_device(const featinv_session *session) {
    return session ? session->device_text : "";
}

const char *featinv_session_dtype(const featinv_session *session) {
    if (!session)
        return "";
    return session->dtype == FEATINV_DTYPE_F32    ? "fp32"
           : session->dtype == FEATINV_DTYPE_BF16 ? "bf16"
                                                  : "fp16";
}

const fi_backend *fi_session_backend(const featinv_session *session) {
    return session->backend;
}

/* Says which part a bundle lacks, in the words of someone who uses it. */
static featinv_status check_needs(const featinv_model *model, uint32_t needs) {
    const char *path = model->bundle->path;
    if ((needs & FI_PART(FI_PROGRAM_BACKBONE)) && !model->bundle->has_backbone)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%s: this bundle has no backbone: it draws from given maps only", path);
    if ((needs & FI_PART(FI_PROGRAM_HEAD)) && !model->has_head)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "%s: this bundle's logits are not a function of the spatial map", path);
    if ((needs & FI_PARTS_GENERATOR) && !model->has_generator)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: this bundle has no generator", path);
    if ((needs & FI_PART(FI_PROGRAM_ENCODER)) && !model->has_encoder)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: this bundle has no encoder", path);
    return FEATINV_OK;
}

featinv_status fi_session_begin(featinv_session *session, uint32_t needs, fi_net **net) {
    if (!session)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no session");
    const fi_backend *backend;
    featinv_status status = fi_backend_get(&backend);
    if (status)
        return status;
    atomic_store(&session->cancelled, 0);
    if (!needs)
        return FEATINV_OK;
    if (!session->model)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "this session has no model");
    status = check_needs(session->model, needs);
    return status ? status
                  : fi_model_net(net, session->model, backend, session->device_type,
                                 session->device_index, session->dtype, needs);
}

featinv_status fi_session_tick(featinv_session *session, fi_progress *progress, int64_t units) {
    progress->done += units;
    bool stop =
        progress->call && progress->call(progress->user_data, progress->done, progress->total) != 0;
    if (progress->done >= progress->total)
        return FEATINV_OK; /* nothing is left to stop */
    if (stop || atomic_load(&session->cancelled))
        return fi_fail(FEATINV_ERROR_CANCELLED, "cancelled after %lld of %lld units",
                       (long long)progress->done, (long long)progress->total);
    return FEATINV_OK;
}
