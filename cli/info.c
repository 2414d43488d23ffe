#include "cli.h"
#include "json.h"

static json_t *names(const featinv_model *model,
                     const char *(*name_of)(const featinv_model *, int32_t)) {
    json_t *list = json_array();
    const char *name;
    for (int32_t i = 0; (name = name_of(model, i)); i++)
        (void)json_array_append_new(list, cli_json_text(name));
    return list;
}

static json_t *triple(const int32_t values[3]) {
    return values[0] ? json_pack("[i, i, i]", values[0], values[1], values[2]) : json_null();
}

static json_t *backbone(const featinv_model_details *i) {
    if (!i->has_backbone)
        return json_null();
    json_t *b = json_object();
    cli_json_set(b, "name", cli_json_text(i->backbone));
    cli_json_set(b, "head", cli_json_text(i->head));
    cli_json_set(b, "layer", cli_json_text(i->layer));
    cli_json_set(b, "layout", cli_json_text(i->layout));
    cli_json_set(b, "input", json_pack("[i, i]", i->input_height, i->input_width));
    cli_json_set(b, "interpolation",
                 json_string(i->interpolation == FEATINV_FILTER_BICUBIC ? "bicubic" : "bilinear"));
    cli_json_set(b, "crop", cli_json_number(i->crop));
    cli_json_set(b, "mean", json_pack("[f, f, f]", i->mean[0], i->mean[1], i->mean[2]));
    cli_json_set(b, "std", json_pack("[f, f, f]", i->std[0], i->std[1], i->std[2]));
    return b;
}

static json_t *generator(const featinv_model_details *i) {
    if (!i->has_generator)
        return json_null();
    json_t *g = json_object(), *d = json_object();
    cli_json_set(g, "latent", triple(i->latent));
    cli_json_set(g, "image", triple(i->image));
    cli_json_set(g, "prediction", cli_json_text(i->prediction));
    cli_json_set(g, "timesteps", json_integer(i->timesteps));
    cli_json_set(g, "latent_scale", cli_json_number(i->latent_scale));
    cli_json_set(g, "encoder", json_boolean(i->has_encoder));
    cli_json_set(d, "steps", json_integer(i->steps));
    cli_json_set(d, "scale", cli_json_number(i->scale));
    cli_json_set(d, "hint_scale", cli_json_number(i->hint_scale));
    cli_json_set(d, "seed", json_integer((json_int_t)i->seed));
    cli_json_set(d, "context", cli_json_text(i->context));
    cli_json_set(d, "uncontext", cli_json_text(i->uncontext));
    cli_json_set(g, "defaults", d);
    return g;
}

static int print_json(const featinv_model *model, const featinv_model_details *i) {
    const int32_t map[3] = {i->channels, i->height, i->width};
    json_t *root = json_object();
    cli_json_set(root, "name", cli_json_text(i->name));
    cli_json_set(root, "path", cli_json_text(i->path));
    cli_json_set(root, "sha256", cli_json_text(i->sha256));
    cli_json_set(root, "map", triple(map));
    cli_json_set(root, "pooled", json_boolean(i->pooled));
    cli_json_set(root, "feature_mean", json_boolean(i->feature_mean != NULL));
    cli_json_set(root, "backbone", backbone(i));
    cli_json_set(root, "generator", generator(i));
    cli_json_set(root, "classes", names(model, featinv_model_class_name));
    cli_json_set(root, "contexts", names(model, featinv_model_context_name));
    cli_json_set(root, "concepts", cli_concept_sets(model));
    cli_json_set(root, "manifest", json_loads(featinv_model_manifest(model), 0, NULL));
    return cli_json_print(root);
}

static const char *or_none(const char *text) {
    return text ? text : "none";
}

static void print_backbone(const featinv_model_details *i) {
    if (!i->has_backbone) {
        (void)puts("backbone   none: draws from given maps only");
        return;
    }
    (void)printf("backbone   %s, layer %s (%s), head %s\n", or_none(i->backbone), or_none(i->layer),
                 or_none(i->layout), or_none(i->head));
    (void)printf("input      %d x %d, %s, crop %g, mean %g %g %g, std %g %g %g\n", i->input_height,
                 i->input_width,
                 i->interpolation == FEATINV_FILTER_BICUBIC ? "bicubic" : "bilinear", i->crop,
                 i->mean[0], i->mean[1], i->mean[2], i->std[0], i->std[1], i->std[2]);
}

static void print_generator(const featinv_model_details *i) {
    if (!i->has_generator) {
        (void)puts("generator  none");
        return;
    }
    (void)printf("generator  image %d x %d, latent %d x %d x %d, scale %g, %s, %d timesteps%s\n",
                 i->image[1], i->image[2], i->latent[0], i->latent[1], i->latent[2],
                 i->latent_scale, i->prediction, i->timesteps,
                 i->has_encoder ? "" : ", no encoder");
    (void)printf("defaults   %d steps, guidance scale %g, hint scale %g, seed %llu, context %s, "
                 "uncontext %s\n",
                 i->steps, i->scale, i->hint_scale, (unsigned long long)i->seed,
                 or_none(i->context), or_none(i->uncontext));
}

static void print_names(const featinv_model *model, const char *label, int32_t count,
                        const char *(*name_of)(const featinv_model *, int32_t)) {
    enum { SHOWN = 8 };
    if (count < 1)
        return;
    (void)printf("%-9s  %d:", label, count);
    for (int32_t i = 0; i < count && i < SHOWN; i++)
        (void)printf("%s %s", i ? "," : "", name_of(model, i));
    (void)puts(count > SHOWN ? ", ..." : "");
}

static void print_concept_sets(const featinv_model *model) {
    json_t *sets = cli_concept_sets(model), *set;
    size_t i;
    if (json_array_size(sets))
        (void)printf("concepts   %zu:", json_array_size(sets));
    json_array_foreach(sets, i, set)(void) printf("%s %s", i ? "," : "", json_string_value(set));
    if (json_array_size(sets))
        (void)puts("");
    json_decref(sets);
}

static void print_text(const featinv_model *model, const featinv_model_details *i) {
    (void)printf("bundle     %s\npath       %s\nsha256     %s\n", i->name, i->path, i->sha256);
    print_backbone(i);
    (void)printf("map        %d channels, %d x %d%s\n", i->channels, i->height, i->width,
                 i->pooled ? ", pooled" : "");
    print_generator(i);
    print_names(model, "classes", i->classes, featinv_model_class_name);
    print_names(model, "contexts", i->contexts, featinv_model_context_name);
    print_concept_sets(model);
}

static int run(const cli_values *values) {
    if (values->argument_count)
        return cli_fail(CLI_USAGE, "%s: info takes no argument; -m names the bundle",
                        values->arguments[0]);
    featinv_model *model = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    featinv_status status = featinv_model_open(&model, values->model, NULL);
    if (!status)
        status = featinv_model_info(&info, model);
    int code = CLI_DONE;
    if (status)
        code = cli_fail_bundle(status, values->model);
    else if (values->json)
        code = print_json(model, &info);
    else if (!values->quiet)
        print_text(model, &info);
    featinv_model_release(model);
    return code;
}

static const cli_option own[] = {{"model", 'm', CLI_TEXT, offsetof(cli_values, model), 0, 0, NULL,
                                  "BUNDLE",
                                  "folder of the bundle (FEATINV_MODEL, else the shipped one)"},
                                 {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own, cli_output_options, cli_help_options, NULL};

const cli_verb cli_info = {.name = "info",
                           .usage = "info [-m BUNDLE]",
                           .summary = "what a bundle holds",
                           .tables = tables,
                           .run = run};
