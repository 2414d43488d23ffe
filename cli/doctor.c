#include "cli.h"
#include "json.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE = 4096 };

/* What is installed, and the first thing that is wrong. */
typedef struct finding {
    char backend[TEXT_SIZE], bundle[TEXT_SIZE], cuda[TEXT_SIZE];
    bool backend_good, bundle_good, cuda_good;
    int code;
} finding;

static int processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

/* A line of /proc/meminfo in GiB, -1 where there is none. */
static double memory_gib(const char *key) {
    char line[256];
    double found = -1.0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && found < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            found = strtod(line + strlen(key), NULL) / (1024.0 * 1024.0);
    if (f)
        (void)fclose(f);
    return found;
}

static void note_failure(finding *f, char *text, int code) {
    (void)snprintf(text, TEXT_SIZE, "%s", featinv_last_error());
    if (!f->code)
        f->code = code;
}

static void look(finding *f, const cli_values *values) {
    featinv_status status = featinv_backend_info(f->backend, sizeof f->backend);
    f->backend_good = !status;
    if (status)
        note_failure(f, f->backend, cli_code(status));

    featinv_session_options o;
    featinv_session *session = NULL;
    if (f->backend_good && !featinv_session_options_init(&o, sizeof o)) {
        o.device = "cuda";
        f->cuda_good = !featinv_session_create(&session, NULL, &o);
        (void)snprintf(f->cuda, sizeof f->cuda, "%s",
                       f->cuda_good ? "usable" : featinv_last_error());
        featinv_session_destroy(session);
    }

    featinv_model *model = NULL;
    status = values->model ? FEATINV_OK : featinv_model_default(f->bundle, sizeof f->bundle);
    if (!status)
        status = featinv_model_open(&model, values->model, NULL);
    f->bundle_good = !status;
    if (status) {
        int code = cli_code(status);
        note_failure(f, f->bundle, code == CLI_INPUT ? CLI_BUNDLE : code);
    } else {
        featinv_model_details info = {.struct_size = sizeof info};
        (void)featinv_model_info(&info, model);
        (void)snprintf(f->bundle, sizeof f->bundle, "%s", info.path);
    }
    featinv_model_release(model);
}

static const char *waiting(void) {
    const char *policy = getenv("OMP_WAIT_POLICY"), *spin = getenv("GOMP_SPINCOUNT");
    if (policy)
        return policy;
    return spin && strcmp(spin, "0") == 0 ? "passive (GOMP_SPINCOUNT=0)" : NULL;
}

static int print_json(const finding *f) {
    json_t *root = json_object(), *backend = json_object(), *bundle = json_object();
    cli_json_set(root, "version", json_string(featinv_version()));
    cli_json_set(root, "build", cli_json_text(featinv_build_info()));
    cli_json_set(backend, "usable", json_boolean(f->backend_good));
    cli_json_set(backend, f->backend_good ? "info" : "error", cli_json_text(f->backend));
    cli_json_set(root, "backend", backend);
    cli_json_set(root, "cuda", json_boolean(f->cuda_good));
    cli_json_set(bundle, "usable", json_boolean(f->bundle_good));
    cli_json_set(bundle, f->bundle_good ? "path" : "error", cli_json_text(f->bundle));
    cli_json_set(root, "bundle", bundle);
    cli_json_set(root, "processors", json_integer(processors()));
    cli_json_set(root, "memory_gib", cli_json_number(memory_gib("MemTotal:")));
    cli_json_set(root, "memory_available_gib", cli_json_number(memory_gib("MemAvailable:")));
    cli_json_set(root, "omp_wait_policy", cli_json_text(waiting()));
    return cli_json_print(root);
}

static void print_text(const finding *f) {
    (void)printf("featinv     %s\nbuild       %s\n", featinv_version(), featinv_build_info());
    (void)printf("backend     %s%s\n", f->backend_good ? "" : "NOT USABLE: ", f->backend);
    if (*f->cuda)
        (void)printf("cuda        %s%s\n", f->cuda_good ? "" : "none: ", f->cuda);
    (void)printf("bundle      %s%s\n", f->bundle_good ? "" : "NOT USABLE: ", f->bundle);
    (void)printf("processors  %d\n", processors());
    (void)printf("memory      %.1f GiB, %.1f available\n", memory_gib("MemTotal:"),
                 memory_gib("MemAvailable:"));
    if (waiting())
        (void)printf("waiting     %s\n", waiting());
    else
        (void)puts("waiting     idle CPU threads spin; on a busy machine set "
                   "OMP_WAIT_POLICY=passive");
}

static int run(const cli_values *values) {
    finding *f = calloc(1, sizeof *f);
    if (!f)
        return cli_fail_memory();
    int code = CLI_DONE;
    if (values->argument_count)
        code = cli_fail(CLI_USAGE, "%s: doctor takes no argument", values->arguments[0]);
    if (!code) {
        look(f, values);
        if (values->json)
            code = print_json(f);
        else if (!values->quiet)
            print_text(f);
        if (!f->backend_good)
            (void)cli_fail(CLI_DEVICE, "%s", f->backend);
        if (!f->bundle_good)
            (void)cli_fail(CLI_BUNDLE, "%s", f->bundle);
        code = code ? code : f->code;
    }
    free(f);
    return code;
}

static const cli_option own[] = {{"model", 'm', CLI_TEXT, offsetof(cli_values, model), 0, 0, NULL,
                                  "BUNDLE",
                                  "the bundle to look at (FEATINV_MODEL, else the shipped one)"},
                                 {NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL}};
static const cli_option *const tables[] = {own, cli_output_options, cli_help_options, NULL};

const cli_verb cli_doctor = {
    .name = "doctor",
    .usage = "doctor [-m BUNDLE]",
    .summary = "what is installed, and what is missing",
    .details = "Exit code 6 where no backend can be used, 4 where the bundle cannot be opened.",
    .tables = tables,
    .run = run};
