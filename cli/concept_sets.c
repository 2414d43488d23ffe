/* Concept sets by file or by name: a bundle may hold some, as concepts/NAME.npz. */
#include "json.h"
#include "maps.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#define FOLDER "concepts/"
#define ENDING ".npz"

json_t *cli_concept_sets(const featinv_model *model) {
    json_t *list = json_array(), *manifest = json_loads(featinv_model_manifest(model), 0, NULL);
    const char *file;
    json_t *entry;
    json_object_foreach(json_object_get(manifest, "files"), file, entry) {
        size_t length = strlen(file), rest = strlen(FOLDER) + strlen(ENDING);
        if (length <= rest || strncmp(file, FOLDER, strlen(FOLDER)) != 0 ||
            strcmp(file + length - strlen(ENDING), ENDING) != 0)
            continue;
        const char *name = file + strlen(FOLDER);
        (void)json_array_append_new(list, json_stringn(name, length - rest));
    }
    json_decref(manifest);
    return list;
}

/* Says that there is neither such a file nor such a set, and which sets there are. */
static int fail_unknown(const char *name, const char *bundle, const json_t *sets) {
    char known[2048] = "";
    size_t used = 0, i;
    json_t *set;
    json_array_foreach(sets, i, set) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                         json_string_value(set));
        if (n < 0 || (size_t)n >= sizeof known - used)
            break;
        used += (size_t)n;
    }
    return cli_fail(CLI_INPUT, "--concepts %s: no such file, and the bundle %s holds %s%s", name,
                    bundle, *known ? "only these sets: " : "no concept sets", known);
}

/* The file of the set `name`: its hash was checked when the bundle was opened. */
static int find_set(char path[PATH_MAX], const char *name, const featinv_model *model) {
    featinv_model_details bundle = {.struct_size = sizeof bundle};
    featinv_status status = featinv_model_info(&bundle, model);
    if (status)
        return cli_fail_status(status, NULL);
    json_t *sets = cli_concept_sets(model), *set;
    bool found = false;
    size_t i;
    json_array_foreach(sets, i, set) found = found || strcmp(json_string_value(set), name) == 0;
    int code = found ? CLI_DONE : fail_unknown(name, bundle.path, sets);
    json_decref(sets);
    if (!code && snprintf(path, PATH_MAX, "%s/" FOLDER "%s" ENDING, bundle.path, name) >= PATH_MAX)
        code = cli_fail(CLI_INPUT, "--concepts %s: the bundle's path is too long", name);
    return code;
}

/* A name is no path: no folder in front, no ending of a file. */
static bool is_name(const char *text) {
    size_t length = strlen(text), ending = strlen(ENDING);
    return *text && !strchr(text, '/') &&
           !(length >= ending && strcmp(text + length - ending, ENDING) == 0) &&
           access(text, F_OK) != 0;
}

int cli_concepts_open(featinv_concepts **out, featinv_concepts_details *info,
                      const cli_values *values, const featinv_model *model, int64_t channels) {
    char shipped[PATH_MAX];
    const char *path = values->concepts;
    featinv_model *opened = NULL;
    int code = CLI_DONE;
    *info = (featinv_concepts_details){.struct_size = sizeof *info};
    if (is_name(path)) {
        featinv_status status =
            model ? FEATINV_OK : featinv_model_open(&opened, values->model, NULL);
        code = status ? cli_fail_bundle(status, values->model)
                      : find_set(shipped, path, model ? model : opened);
        featinv_model_release(opened);
        path = shipped;
    }
    if (code)
        return code;
    featinv_status status = featinv_concepts_open(out, path);
    if (!status)
        status = featinv_concepts_info(info, *out);
    if (status)
        return cli_fail_status(status, path);
    if (channels >= 0 && info->channels != channels)
        return cli_fail(CLI_INPUT, "%s: concepts of %d channels, the maps have %lld", path,
                        info->channels, (long long)channels);
    return CLI_DONE;
}
