/* The models of an evaluation and the network of --fid-features. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Hash of a file that the manifest lists, NULL where it lists none of that name. */
static const char *listed_hash(const json_t *manifest, const char *file) {
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), file);
    return json_string_value(json_object_get(entry, "sha256"));
}

/* A bundle with `base` draws with that bundle's UNet and decoder unless it has its own. */
static int read_manifest(evaluate_network *n) {
    json_t *manifest = json_loads(featinv_model_manifest(n->opened.model), 0, NULL);
    const char *backbone = listed_hash(manifest, "backbone.safetensors");
    const json_t *base = json_object_get(manifest, "base");
    const char *hash = json_string_value(json_object_get(base, "manifest_sha256"));
    bool is_own = !hash || listed_hash(manifest, "unet.safetensors") ||
                  listed_hash(manifest, "decoder.safetensors") ||
                  listed_hash(manifest, "contexts.npz");
    n->base = strdup(is_own ? n->opened.info.sha256 : hash);
    n->backbone = backbone ? strdup(backbone) : NULL;
    int code = manifest && n->base && (!backbone || n->backbone) ? CLI_DONE : cli_fail_memory();
    json_decref(manifest);
    return code;
}

int evaluate_network_open(evaluate_network *out, const cli_values *values, const char *path,
                          bool draws) {
    const featinv_model_details *info = &out->opened.info;
    out->values = *values;
    out->values.model = path;
    int code = cli_open(&out->opened, &out->values);
    if (code)
        return code;
    if (!info->has_backbone)
        return cli_fail(CLI_FAILED, "%s: this bundle has no backbone", info->path);
    if (draws && !info->has_generator)
        return cli_fail(CLI_FAILED, "%s: this bundle has no generator", info->path);
    out->channels = info->channels;
    out->positions = (int64_t)info->height * info->width;
    out->classes = info->classes;
    featinv_sample_options *o = &out->sampling;
    featinv_status status =
        draws ? featinv_sample_options_init(o, sizeof *o, out->opened.model) : FEATINV_OK;
    if (!status && draws && values->steps) {
        o->steps = values->steps;
        status = featinv_timesteps(NULL, 0, &(int32_t){0}, o->steps, o->spacing);
    }
    return status ? cli_fail_status(status, NULL) : read_manifest(out);
}

void evaluate_network_close(evaluate_network *network) {
    cli_close(&network->opened);
    free(network->base);
    free(network->backbone);
    *network = (evaluate_network){0};
}

/* Whether a context's name is "class:" and the class, with blanks for underscores. */
static bool names_class(const char *context, const char *class_name) {
    static const char start[] = "class:";
    if (strncmp(context, start, sizeof start - 1) != 0)
        return false;
    context += sizeof start - 1;
    while (*context && (*context == *class_name || (*context == ' ' && *class_name == '_'))) {
        context++;
        class_name++;
    }
    return *context == *class_name;
}

const char *evaluate_class_context(const evaluate_network *network, const char *class_name) {
    const char *context;
    for (int32_t i = 0; (context = featinv_model_context_name(network->opened.model, i)); i++)
        if (names_class(context, class_name))
            return context;
    return NULL;
}
