/* Pictures on the way from one map to another (paper, section 4.2). */
#include "json.h"
#include "page.h"
#include "pair.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double usual_weights[] = {0.0, 0.25, 0.5, 0.75, 1.0};
enum { USUAL = sizeof usual_weights / sizeof *usual_weights };
static const char *const mode_names[] = {"lerp", "slerp", "norm"};

typedef struct mix {
    cli_pair pair; /* first */
    double *weights;
    int32_t count;
    featinv_mix_mode mode;
    double *norms, *residuals; /* (count) */
    double *to_a, *to_b;       /* (lanes): agreement with A's and B's map; NaN: unknown */
} mix;

/* ---------------------------------------------------------------- computing ------------------ */

static int read_weights(mix *m) {
    const char *text = m->pair.job.values->weights;
    if (text)
        return cli_numbers(&m->weights, &m->count, "--weights", text, 0.0, 1.0);
    m->count = USUAL;
    m->weights = malloc(sizeof usual_weights);
    if (!m->weights)
        return cli_fail_memory();
    memcpy(m->weights, usual_weights, sizeof usual_weights);
    return CLI_DONE;
}

static int mix_maps(cli_pair *pair) {
    mix *m = (mix *)pair;
    pair->count = m->count;
    int64_t size = m->pair.map[0] * m->pair.map[1] * m->pair.map[2], shape[4];
    size_t n = (size_t)m->count;
    m->pair.maps = calloc(n, (size_t)size * sizeof *m->pair.maps);
    m->norms = calloc(n, sizeof *m->norms);
    m->residuals = calloc(n, sizeof *m->residuals);
    if (!m->pair.maps || !m->norms || !m->residuals)
        return cli_fail_memory();
    featinv_tensor a = cli_side_view(&m->pair.sides[0], &m->pair.job.opened, shape);
    featinv_tensor b = cli_side_view(&m->pair.sides[1], &m->pair.job.opened, shape);
    featinv_status status = FEATINV_OK;
    for (int32_t i = 0; !status && i < m->count; i++) {
        featinv_tensor out =
            featinv_tensor_view(m->pair.maps + i * size, FEATINV_DTYPE_F32, 4, shape);
        status = featinv_features_mix(&out, &a, &b, m->weights[i], m->mode);
    }
    return status ? cli_fail_status(status, NULL)
                  : cli_scope(m->norms, m->residuals, m->pair.job.opened.model, m->pair.maps,
                              m->count, m->pair.map);
}

static int compare(mix *m) {
    const cli_drawn *drawn = &m->pair.drawn;
    int64_t size = m->pair.map[0] * m->pair.map[1] * m->pair.map[2];
    size_t n = (size_t)drawn->lanes + 1;
    m->to_a = calloc(n, sizeof *m->to_a);
    m->to_b = calloc(n, sizeof *m->to_b);
    if (!m->to_a || !m->to_b)
        return cli_fail_memory();
    for (int64_t j = 0; j < drawn->lanes; j++) {
        bool known = drawn->maps && j < drawn->done;
        float *seen = known ? drawn->maps + j * size : NULL;
        m->to_a[j] = known ? cli_map_cosine(m->pair.sides[0].map, seen, m->pair.map) : NAN;
        m->to_b[j] = known ? cli_map_cosine(m->pair.sides[1].map, seen, m->pair.map) : NAN;
    }
    return CLI_DONE;
}

/* ---------------------------------------------------------------- files ---------------------- */

static void picture_name(char text[48], const mix *m, int64_t lane) {
    int64_t samples = m->pair.job.sampling.samples;
    if (samples > 1)
        (void)snprintf(text, 48, "mix-%lld-%lld.png", (long long)(lane / samples),
                       (long long)(lane % samples));
    else
        (void)snprintf(text, 48, "mix-%lld.png", (long long)lane);
}

/* Lanes run sample by sample; a row of the strip is one sample at all weights. */
static int write_strip(const mix *m) {
    int64_t samples = m->pair.job.sampling.samples;
    size_t bytes = (size_t)cli_image_size(&m->pair.job);
    uint8_t *rows = malloc((size_t)m->pair.drawn.lanes * bytes + 1);
    if (!rows)
        return cli_fail_memory();
    for (int64_t j = 0; j < m->pair.drawn.lanes; j++)
        memcpy(rows + (size_t)(j % samples * m->count + j / samples) * bytes,
               m->pair.drawn.images + (size_t)j * bytes, bytes);
    int code = cli_canvas_strip(&m->pair.canvas, "strip.png", rows, samples, m->count);
    free(rows);
    return code;
}

static int write_pictures(const mix *m) {
    static const char *const names[] = {"a-original.png", "b-original.png"};
    size_t bytes = (size_t)cli_image_size(&m->pair.job);
    int code = CLI_DONE;
    for (int i = 0; !code && i < 2; i++)
        if (m->pair.sides[i].picture)
            code = cli_canvas_write(&m->pair.canvas, names[i], m->pair.sides[i].picture);
    for (int64_t j = 0; !code && j < m->pair.drawn.done; j++) {
        char name[48];
        picture_name(name, m, j);
        code = cli_canvas_write(&m->pair.canvas, name, m->pair.drawn.images + (size_t)j * bytes);
    }
    return code || m->pair.drawn.done < m->pair.drawn.lanes ? code : write_strip(m);
}

static int write_maps(const mix *m) {
    int64_t shape[4] = {m->count, m->pair.map[0], m->pair.map[1], m->pair.map[2]}, count = m->count;
    const char *const names[2] = {"features", "weights"};
    featinv_tensor t[2] = {featinv_tensor_view(m->pair.maps, FEATINV_DTYPE_F32, 4, shape),
                           featinv_tensor_view(m->weights, FEATINV_DTYPE_F64, 1, &count)};
    char *path = cli_path(m->pair.job.values->output, "mixed.npz");
    if (!path)
        return cli_fail_memory();
    featinv_status status = featinv_array_write(path, t, names, 2, 0);
    free(path);
    return status ? cli_fail_status(status, NULL) : CLI_DONE;
}

/* ---------------------------------------------------------------- results -------------------- */

/* Over the samples that were drawn at weight i. */
static double mean_cosine(const mix *m, int32_t i) {
    int64_t samples = m->pair.job.sampling.samples;
    double sum = 0.0;
    if ((i + 1) * samples > m->pair.drawn.done)
        return NAN;
    for (int64_t k = 0; k < samples; k++)
        sum += m->pair.drawn.scores[i * samples + k].cosine_median;
    return sum / (double)samples;
}

static json_t *item_json(const mix *m, int64_t lane) {
    char name[48];
    int64_t samples = m->pair.job.sampling.samples;
    json_t *item = json_object();
    picture_name(name, m, lane);
    cli_json_set(item, "weight", cli_json_number(m->weights[lane / samples]));
    cli_json_set(item, "sample", json_integer((json_int_t)(lane % samples)));
    cli_json_set(item, "image", json_string(name));
    cli_score_json(item, &m->pair.drawn.scores[lane], m->pair.job.opened.model);
    cli_json_set(item, "cosine_a", cli_json_number(m->to_a[lane]));
    cli_json_set(item, "cosine_b", cli_json_number(m->to_b[lane]));
    return item;
}

static json_t *results_json(const mix *m) {
    json_t *root = json_object(), *items = json_array(), *weights = json_array();
    json_t *summary = cli_draw_settings(&m->pair.job);
    for (int64_t j = 0; j < m->pair.drawn.done; j++)
        (void)json_array_append_new(items, item_json(m, j));
    for (int32_t i = 0; i < m->count; i++) {
        json_t *row = json_object();
        cli_json_set(row, "weight", cli_json_number(m->weights[i]));
        cli_json_set(row, "cosine_median", cli_json_number(mean_cosine(m, i)));
        cli_json_set(row, "norm_percentile", cli_json_number(m->norms[i]));
        cli_json_set(row, "residual_percentile", cli_json_number(m->residuals[i]));
        (void)json_array_append_new(weights, row);
    }
    cli_json_set(summary, "a", cli_json_text(m->pair.sides[0].path));
    cli_json_set(summary, "b", cli_json_text(m->pair.sides[1].path));
    cli_json_set(summary, "mode", json_string(mode_names[m->mode]));
    cli_json_set(summary, "samples", json_integer(m->pair.job.sampling.samples));
    cli_json_set(root, "items", items);
    cli_json_set(root, "weights", weights);
    cli_json_set(root, "summary", summary);
    return root;
}

static void put_row(cli_page *page, const mix *m, int64_t sample) {
    int64_t samples = m->pair.job.sampling.samples;
    char label[32], name[48], head[32], scope[96], score[256], lines[512];
    (void)snprintf(label, sizeof label, "sample %lld", (long long)sample);
    cli_page_row(page, samples > 1 ? label : NULL);
    for (int32_t i = 0; i < m->count; i++) {
        int64_t lane = i * samples + sample;
        if (lane >= m->pair.drawn.done)
            break;
        const featinv_score *s = &m->pair.drawn.scores[lane];
        picture_name(name, m, lane);
        cli_scope_line(scope, sizeof scope, m->norms[i], m->residuals[i]);
        cli_score_lines(score, sizeof score, s, m->pair.job.opened.model);
        (void)snprintf(lines, sizeof lines, "%g of B%s%s%s%s", m->weights[i], *score ? "\n" : "",
                       score, *scope ? "\n" : "", scope);
        cli_page_picture(page, name, cli_cosine_text(head, s->cosine_median), lines,
                         s->cosine_median, false);
    }
    cli_page_row_end(page);
}

static void put_curve(cli_page *page, const mix *m) {
    double *cosines = calloc((size_t)m->count, sizeof *cosines), low = 1.0, high = 0.0;
    bool rises = true;
    for (int32_t i = 0; cosines && i < m->count; i++) {
        cosines[i] = mean_cosine(m, i);
        low = fmin(low, cosines[i]);
        high = fmax(high, cosines[i]);
        rises = rises && (i == 0 || m->weights[i] > m->weights[i - 1]);
    }
    if (cosines && rises && m->count > 2 && high > low) {
        cli_page_card(page, "How well the mixed map can be drawn",
                      "Agreement of the picture's features with the mixed map. Where it sinks, the "
                      "map between is one that no picture has.");
        cli_page_curve(page, &(cli_curve){.x_name = "weight of B",
                                          .y_name = "cosine",
                                          .x = m->weights,
                                          .y = cosines,
                                          .count = (size_t)m->count,
                                          .y_low = floor(20.0 * low) / 20.0,
                                          .y_high = ceil(20.0 * high) / 20.0,
                                          .mark = NAN});
        cli_page_card_end(page);
    }
    free(cosines);
}

static int write_page(const mix *m) {
    static const char *const files[] = {"a-original.png", "b-original.png"};
    static const char *const modes[] = {
        "in a straight line", "along the arc between both directions, the length interpolated",
        "in a straight line, at the interpolated length"};
    char text[512];
    cli_page page;
    cli_page_open(
        &page, m->pair.job.values->output, "Between two feature maps",
        "The features of A and B are mixed position by position, and each mixture is drawn "
        "from the same noise. The pictures show what lies between two images for the "
        "vision model, which need not be what lies between them for the eye.");
    cli_page_card(&page, "A and B", NULL);
    cli_page_row(&page, NULL);
    for (int i = 0; i < 2; i++)
        if (m->pair.sides[i].picture)
            cli_page_picture(&page, files[i], i ? "B" : "A", m->pair.sides[i].name, NAN, false);
    cli_page_row_end(&page);
    for (int i = 0; i < 2; i++)
        if (!m->pair.sides[i].picture) {
            (void)snprintf(text, sizeof text, "%s is the map in %s.", i ? "B" : "A",
                           m->pair.sides[i].name);
            cli_page_text(&page, text);
        }
    cli_page_card_end(&page);
    (void)snprintf(text, sizeof text,
                   "Mixed %s. Under each picture: how well its own features agree with the mixed "
                   "map (1: the same direction everywhere), with the training mean removed "
                   "(centred), what the classifier takes it for, and the mixed map's percentiles "
                   "among training maps (length; what lies off their main directions).",
                   modes[m->mode]);
    cli_page_card(&page, "From A to B", text);
    for (int64_t k = 0; k < m->pair.job.sampling.samples; k++)
        put_row(&page, m, k);
    cli_page_card_end(&page);
    put_curve(&page, m);
    return cli_page_close(&page, m->pair.job.opened.info.sha256, false);
}

static void print_table(const mix *m) {
    for (int32_t i = 0; i < m->count; i++) {
        char scope[96], cosine[32];
        cli_scope_line(scope, sizeof scope, m->norms[i], m->residuals[i]);
        (void)printf("%-5g  %s%s%s\n", m->weights[i], cli_cosine_text(cosine, mean_cosine(m, i)),
                     *scope ? "  " : "", scope);
    }
    (void)printf("%s/index.html\n", m->pair.job.values->output);
}

static int write_results(cli_pair *pair, bool whole) {
    mix *m = (mix *)pair;
    const cli_values *v = pair->job.values;
    (void)whole; /* a picture that was not drawn is left out */
    int code = compare(m);
    if (!code)
        code = write_pictures(m);
    if (!code)
        code = write_maps(m);
    json_t *root = code ? NULL : results_json(m);
    if (!code)
        code = cli_write_json(v->output, "mix.json", root);
    if (!code)
        code = write_page(m);
    if (!code && v->json)
        code = cli_json_print(json_incref(root));
    else if (!code && !v->quiet)
        print_table(m);
    json_decref(root);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static int run(const cli_values *values) {
    static const cli_pair_verb verb = {mix_maps, write_results};
    mix m = {.pair.job = {.values = values, .verb = "mix"},
             .mode = values->mode < 0 ? FEATINV_MIX_LERP : values->mode};
    int code = cli_pair_check(&m.pair);
    if (!code)
        code = read_weights(&m);
    if (!code)
        code = cli_pair_run(&m.pair, &verb);
    free(m.weights);
    free(m.norms);
    free(m.residuals);
    free(m.to_a);
    free(m.to_b);
    cli_pair_free(&m.pair);
    return code;
}

static const cli_choice modes[] = {{"lerp", FEATINV_MIX_LERP},
                                   {"slerp", FEATINV_MIX_SLERP},
                                   {"norm", FEATINV_MIX_NORM},
                                   {NULL, 0}};
static const cli_option own[] = {
    {"weights", 0, CLI_TEXT, offsetof(cli_values, weights), 0, 0, NULL, "W,...",
     "shares of B, from 0 to 1 (0,0.25,0.5,0.75,1)"},
    {"mode", 0, CLI_CHOICE, offsetof(cli_values, mode), 0, 0, modes, "KIND",
     "lerp, slerp, or norm: lerp at the interpolated length (lerp)"},
    {"output", 'o', CLI_TEXT, offsetof(cli_values, output), 0, 0, NULL, "DIR",
     "folder for the pictures, mix.json, mixed.npz, strip.png and index.html"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own,
                                           cli_sampling_options,
                                           cli_run_options,
                                           cli_image_options,
                                           cli_output_options,
                                           cli_help_options,
                                           NULL};

const cli_verb cli_mix = {
    .name = "mix",
    .usage = "mix A B [--weights 0,0.25,0.5,0.75,1] [--mode lerp|slerp|norm] -o DIR",
    .summary = "pictures on the way from one image's features to another's",
    .details = "The map is (1 - w) A + w B; A and B are images or files with one map. Writes "
               "mix-0.png ...\n"
               "(with several samples mix-0-0.png ...), strip.png and the rest.",
    .tables = tables,
    .run = run};
