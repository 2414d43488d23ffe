#include "json.h"

#include "cli.h"

#include <math.h>

json_t *cli_json_text(const char *text) {
    json_t *value = text ? json_string(text) : NULL;
    return value ? value : json_null();
}

json_t *cli_json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_hash(uint64_t hash) {
    char text[24];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return json_string(text);
}

void cli_json_set(json_t *object, const char *key, json_t *value) {
    (void)json_object_set_new(object, key, value);
}

int cli_json_print(json_t *value) {
    int failed = value ? json_dumpf(value, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : -1;
    json_decref(value);
    if (failed && !ferror(stdout)) /* a full disk is reported when the command ends */
        return cli_fail_memory();
    (void)putchar('\n');
    return CLI_DONE;
}
