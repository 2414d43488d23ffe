/* tables.json from the parts. */
#include "evaluate.h"

#include "../json.h"

#include <math.h>
#include <string.h>

json_t *evaluate_figure_json(evaluate_figure figure) {
    if (isnan(figure.value))
        return json_null();
    json_t *value = json_object();
    cli_json_set(value, "value", cli_json_number(figure.value));
    cli_json_set(value, "low", cli_json_number(figure.low));
    cli_json_set(value, "high", cli_json_number(figure.high));
    return value;
}

json_t *evaluate_numbers_json(const double *values, int32_t count) {
    json_t *list = json_array();
    for (int32_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_real(values[i]));
    return list;
}

json_t *evaluate_device_json(const evaluate *e) {
    const char *device = featinv_session_device(e->networks[0].opened.session);
    return json_stringn(device, strcspn(device, ":"));
}

static json_t *settings_json(const evaluate *e) {
    const cli_values *v = e->values;
    const featinv_session *session = e->networks[0].opened.session;
    const int64_t dimension = e->networks[evaluate_frechet_network(e, 0)].channels;
    json_t *s = json_object();
    cli_json_set(s, "data", cli_json_text(v->data));
    cli_json_set(s, "images", json_integer((json_int_t)e->set.count));
    cli_json_set(s, "classes", json_integer(e->set.class_count));
    cli_json_set(s, "per_class", json_integer(e->per_class));
    cli_json_set(s, "seed", json_integer((json_int_t)e->seed));
    cli_json_set(s, "tables", evaluate_tables_json(e->tables));
    cli_json_set(s, "scales", evaluate_numbers_json(e->scales, e->scale_count));
    cli_json_set(s, "weights", evaluate_numbers_json(e->weights, e->weight_count));
    cli_json_set(s, "class_prompt_scale", json_real(EVALUATE_CLASS_SCALE));
    cli_json_set(s, "device", evaluate_device_json(e));
    cli_json_set(s, "dtype", cli_json_text(featinv_session_dtype(session)));
    cli_json_set(s, "threads", json_integer(v->threads));
    cli_json_set(s, "batch", json_integer((json_int_t)e->batch));
    cli_json_set(s, "bootstrap", json_integer(e->bootstrap));
    cli_json_set(s, "bootstrap_frechet",
                 json_integer(evaluate_frechet_resamples(e->bootstrap, dimension)));
    return s;
}

static json_t *model_json(const evaluate_network *n) {
    const featinv_model_details *info = &n->opened.info;
    json_t *m = json_object();
    cli_json_set(m, "name", cli_json_text(info->name));
    cli_json_set(m, "backbone", cli_json_text(info->backbone));
    cli_json_set(m, "layer", cli_json_text(info->layer));
    cli_json_set(m, "pooled", json_boolean(info->pooled));
    cli_json_set(m, "channels", json_integer(info->channels));
    cli_json_set(m, "height", json_integer(info->height));
    cli_json_set(m, "width", json_integer(info->width));
    cli_json_set(m, "steps", json_integer(n->sampling.steps));
    cli_json_set(m, "scale", json_real(n->sampling.scale));
    cli_json_set(m, "hint_scale", json_real(n->sampling.hint_scale));
    cli_json_set(m, "sha256", cli_json_text(info->sha256));
    cli_json_set(m, "reads_classes", json_boolean(n->reads_classes));
    return m;
}

/* Its features, and how many; with own features of models that differ, null. */
static json_t *frechet_json(const evaluate *e) {
    const evaluate_network *network = &e->networks[evaluate_frechet_network(e, 0)];
    bool is_one = true;
    for (int32_t m = 1; m < e->model_count && e->reference < 0; m++)
        is_one = is_one && e->networks[m].channels == network->channels;
    json_t *f = json_object();
    cli_json_set(f, "features",
                 e->reference < 0 ? json_string("own")
                                  : cli_json_text(network->opened.info.backbone));
    cli_json_set(f, "dimension",
                 is_one ? json_integer((json_int_t)network->channels) : json_null());
    return f;
}

/* Figure 8: what a spatial and a pooled model make of the same backbone. */
static json_t *pairs_json(const evaluate *e) {
    json_t *pairs = json_array();
    for (int32_t i = 0; i < e->model_count; i++)
        for (int32_t j = 0; j < e->model_count; j++) {
            const evaluate_network *a = &e->networks[i], *b = &e->networks[j];
            if (a->opened.info.pooled || !b->opened.info.pooled || !a->backbone || !b->backbone ||
                strcmp(a->backbone, b->backbone) != 0)
                continue;
            json_t *pair = json_object();
            cli_json_set(pair, "spatial", json_integer(i));
            cli_json_set(pair, "pooled", json_integer(j));
            (void)json_array_append_new(pairs, pair);
        }
    return pairs;
}

static json_t *ood_json(const evaluate *e, json_t *rows) {
    json_t *ood = json_object();
    cli_json_set(ood, "folder", cli_json_text(e->values->ood));
    cli_json_set(ood, "images", json_integer((json_int_t)e->ood.count));
    cli_json_set(ood, "rows", rows);
    return ood;
}

/* The arrays that are filled from the parts, in the order they are in the file. */
typedef struct lists {
    json_t *rows, *cross, *sweep, *mix, *ood, *pictures, *problems;
} lists;

static int fill(const lists *l, const evaluate *e) {
    evaluate_resamples resamples;
    int code = evaluate_resamples_make(&resamples, e->set.count, e->bootstrap, e->seed);
    if (!code)
        code = evaluate_rows(l->rows, e, &resamples);
    if (!code)
        code = evaluate_cross(l->cross, e, &resamples);
    if (!code)
        code = evaluate_sweep(l->sweep, e, &resamples);
    if (!code)
        code = evaluate_mixes(l->mix, e);
    if (!code)
        code = evaluate_ood(l->ood, e);
    if (!code)
        code = evaluate_shown(l->pictures, l->problems, e);
    evaluate_resamples_free(&resamples);
    return code;
}

int evaluate_tables(json_t **out, evaluate *e) {
    lists l = {json_array(), json_array(), json_array(), json_array(),
               json_array(), json_array(), json_array()};
    json_t *root = json_object(), *models = json_array();
    int code = fill(&l, e);
    for (int32_t m = 0; m < e->model_count; m++)
        (void)json_array_append_new(models, model_json(&e->networks[m]));
    cli_json_set(root, "format", json_string("featinv-evaluation"));
    cli_json_set(root, "version", json_integer(1));
    cli_json_set(root, "library", json_string(featinv_version()));
    cli_json_set(root, "settings", settings_json(e));
    cli_json_set(root, "models", models);
    cli_json_set(root, "frechet", frechet_json(e));
    cli_json_set(root, "rows", l.rows);
    cli_json_set(root, "cross", l.cross);
    cli_json_set(root, "sweep", l.sweep);
    cli_json_set(root, "mix", l.mix);
    if (e->tables & EVALUATE_TABLE_OOD)
        cli_json_set(root, "ood", ood_json(e, l.ood));
    else
        json_decref(l.ood);
    cli_json_set(root, "pooled_pairs", pairs_json(e));
    cli_json_set(root, "pictures", l.pictures);
    cli_json_set(root, "problems", l.problems);
    if (code) {
        json_decref(root);
        root = NULL;
    }
    *out = root;
    return code;
}
