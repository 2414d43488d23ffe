#include "arrays.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- cosine --------------------- */

static int read_maps(cli_array *out, const char *path) {
    const int64_t any[4] = {-1, -1, -1, -1};
    int code = cli_array_read(out, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(out, path, any, 4, "(N, C, H, W):");
    return code ? code : cli_array_check_finite(out, path, "map");
}

/* A channel mean: (C), the only array of a file or `mean`, as features.npz holds it. */
static int read_centre(cli_array *out, const char *path, int64_t channels) {
    bool found = false;
    int code = strlen(path) > 4 && strcmp(path + strlen(path) - 4, ".npz") == 0
                   ? cli_array_read_optional(out, &found, path, "mean", FEATINV_DTYPE_F32)
                   : CLI_DONE;
    if (!code && !found)
        code = cli_array_read(out, path, NULL, FEATINV_DTYPE_F32);
    if (!code)
        code = cli_array_check(out, path, &channels, 1, "(C):");
    return code ? code : cli_array_check_finite(out, path, "channel");
}

static json_t *list_of(const double *values, int64_t count) {
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        (void)json_array_append_new(list, cli_json_number(values[i]));
    return list;
}

static int print_cosine(const cli_values *values, const featinv_cosine_result *r,
                        const double *per_image, const double *centred, int64_t count) {
    if (values->json) {
        json_t *root = json_object();
        cli_json_set(root, "value", cli_json_number(r->median_then_mean));
        cli_json_set(root, "median_all", cli_json_number(r->median_all));
        cli_json_set(root, "mean", cli_json_number(r->mean));
        cli_json_set(root, "centred", cli_json_number(r->centred));
        cli_json_set(root, "per_image", list_of(per_image, count));
        cli_json_set(root, "per_image_centred", list_of(centred, count));
        return cli_json_print(root);
    }
    if (values->quiet) {
        (void)printf("%.17g\n", r->median_then_mean);
        return CLI_DONE;
    }
    (void)printf("cosine      %.6f  (median per image, mean over %lld images)\n",
                 r->median_then_mean, (long long)count);
    (void)printf("median_all  %.6f  (over all positions of all images)\n", r->median_all);
    (void)printf("mean        %.6f\n", r->mean);
    (void)printf("centred     %.6f  (%s removed)\n", r->centred,
                 values->centre ? values->centre : "the first maps' channel means");
    return CLI_DONE;
}

static int run_cosine(const cli_values *values, const char *path_a, const char *path_b) {
    cli_array a = {0}, b = {0}, centre = {0};
    double *medians = NULL;
    int code = read_maps(&a, path_a);
    if (!code)
        code = read_maps(&b, path_b);
    if (!code)
        code = cli_array_check(&b, path_b, a.info.shape, 4, "as the first maps:");
    if (!code && values->centre)
        code = read_centre(&centre, values->centre, a.info.shape[1]);
    if (code)
        goto done;
    int64_t count = a.info.shape[0];
    medians = calloc((size_t)count, 2 * sizeof *medians);
    if (!medians) {
        code = cli_fail_memory();
        goto done;
    }
    featinv_cosine_result result = {.struct_size = sizeof result};
    featinv_tensor view_a = cli_array_view(&a), view_b = cli_array_view(&b);
    featinv_status status =
        featinv_cosine(&result, medians, medians + count, &view_a, &view_b, centre.data);
    code = status ? cli_fail_status(status, NULL)
                  : print_cosine(values, &result, medians, medians + count, count);
done:
    free(medians);
    cli_array_free(&a);
    cli_array_free(&b);
    cli_array_free(&centre);
    return code;
}

/* ---------------------------------------------------------------- Fréchet distance ----------- */

/* Rows (n, d), or maps (n, d, H, W), which are pooled. */
static int read_rows(cli_array *out, const char *path, int64_t dimension) {
    int code = cli_array_read(out, path, NULL, FEATINV_DTYPE_F32);
    int64_t wanted[4] = {-1, dimension, -1, -1};
    bool maps = !code && out->info.ndim == 4;
    if (!code)
        code = cli_array_check(out, path, wanted, maps ? 4 : 2,
                               maps ? "(n, d, H, W):" : "rows (n, d) or maps (n, d, H, W):");
    if (!code && out->info.shape[0] < 2)
        code = cli_fail(CLI_INPUT, "%s: holds one row; a covariance needs at least 2", path);
    return code ? code : cli_array_check_finite(out, path, "row");
}

static featinv_status distance_of(double *distance, cli_array sides[2], const cli_values *values) {
    featinv_fid *fid = NULL;
    featinv_session *session = NULL;
    featinv_session_options o;
    featinv_status status = featinv_session_options_init(&o, sizeof o);
    if (!status) {
        o.device = "cpu"; /* float64 linear algebra; needs no bundle */
        o.threads = values->threads;
        status = featinv_session_create(&session, NULL, &o);
    }
    if (!status)
        status = featinv_fid_create(&fid, sides[0].info.shape[1]);
    for (int32_t i = 0; i < 2 && !status; i++) {
        featinv_tensor view = cli_array_view(&sides[i]);
        status = featinv_fid_update(fid, i, &view, -1);
    }
    if (!status)
        status = featinv_fid_result(distance, fid, session);
    featinv_fid_destroy(fid);
    featinv_session_destroy(session);
    return status;
}

static int run_fid(const cli_values *values, const char *path_a, const char *path_b) {
    cli_array sides[2] = {{0}, {0}};
    double distance = NAN;
    int code = values->centre ? cli_fail(CLI_USAGE, "--centre belongs to cosine") : CLI_DONE;
    if (!code)
        code = read_rows(&sides[0], path_a, -1);
    if (!code)
        code = read_rows(&sides[1], path_b, sides[0].info.shape[1]);
    if (code)
        goto done;
    featinv_status status = distance_of(&distance, sides, values);
    if (status) {
        code = cli_fail_status(status, NULL);
        goto done;
    }
    long long n = sides[0].info.shape[0], m = sides[1].info.shape[0], d = sides[0].info.shape[1];
    if (values->json)
        code = cli_json_print(json_pack("{s:f, s:I, s:I, s:I}", "value", distance, "rows_a",
                                        (json_int_t)n, "rows_b", (json_int_t)m, "dimension",
                                        (json_int_t)d));
    else if (values->quiet)
        (void)printf("%.17g\n", distance);
    else
        (void)printf("Frechet distance  %.6f  (%lld and %lld rows of %lld features)\n", distance, n,
                     m, d);
done:
    cli_array_free(&sides[0]);
    cli_array_free(&sides[1]);
    return code;
}

/* ---------------------------------------------------------------- verb ----------------------- */

static int run(const cli_values *values) {
    const char *const *a = values->arguments;
    bool cosine = values->argument_count > 0 && strcmp(a[0], "cosine") == 0;
    bool fid = values->argument_count > 0 && strcmp(a[0], "fid") == 0;
    if (!cosine && !fid)
        return cli_fail(CLI_USAGE, "metrics%s%s: the metric is cosine or fid",
                        values->argument_count ? " " : "", values->argument_count ? a[0] : "");
    if (values->argument_count != 3)
        return cli_fail(CLI_USAGE, "metrics %s: takes two files, not %d", a[0],
                        values->argument_count - 1);
    return cosine ? run_cosine(values, a[1], a[2]) : run_fid(values, a[1], a[2]);
}

static const cli_option own[] = {
    {"centre", 0, CLI_TEXT, offsetof(cli_values, centre), 0, 0, NULL, "F",
     "cosine: (C) that `centred` removes, or .npz with `mean` (A's own)"},
    {"threads", 0, CLI_INTEGER, offsetof(cli_values, threads), 1, 4096, NULL, "N",
     "fid: CPU threads (the backend's choice)"},
    {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own, cli_output_options, cli_help_options, NULL};

const cli_verb cli_metrics = {
    .name = "metrics",
    .usage = "metrics cosine A B | fid A B",
    .summary = "agreement of maps, distance of sets of features",
    .details =
        "cosine: maps (N, C, H, W), position by position. fid: the Frechet distance of rows\n"
        "(n, d) or of maps (n, d, H, W), which are pooled; it is \"the FID\" only for Inception\n"
        "features. Files are .npy, or .npz with one array or `features`. No bundle is opened.",
    .tables = tables,
    .run = run};
