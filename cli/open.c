#include "cli.h"

#include <string.h>

static int open_session(cli_opened *out, const cli_values *values) {
    featinv_session_options o;
    featinv_status status = featinv_session_options_init(&o, sizeof o);
    if (status)
        return cli_fail_status(status, NULL);
    if (values->device)
        o.device = values->device;
    if (values->dtype)
        o.dtype = values->dtype;
    o.threads = values->threads;
    o.deterministic = values->deterministic;
    o.batch = values->batch;
    status = featinv_session_create(&out->session, out->model, &o);
    if (status)
        return cli_fail_status(status, NULL);
    bool cuda = strncmp(featinv_session_device(out->session), "cuda", 4) == 0;
    out->batch = values->batch ? values->batch : cuda ? 32 : 8;
    return CLI_DONE;
}

int cli_open(cli_opened *out, const cli_values *values) {
    *out = (cli_opened){.info = {.struct_size = sizeof out->info}};
    featinv_status status = featinv_model_open(&out->model, values->model, NULL);
    if (status)
        return cli_fail_bundle(status, values->model);
    status = featinv_model_info(&out->info, out->model);
    int code = status ? cli_fail_status(status, values->model) : open_session(out, values);
    if (code)
        cli_close(out);
    return code;
}

int cli_open_algebra(cli_opened *out, const cli_values *values) {
    *out = (cli_opened){.info = {.struct_size = sizeof out->info}};
    return open_session(out, values);
}

void cli_close(cli_opened *opened) {
    cli_watch(NULL);
    featinv_session_destroy(opened->session);
    featinv_model_release(opened->model);
    opened->session = NULL;
    opened->model = NULL;
}
