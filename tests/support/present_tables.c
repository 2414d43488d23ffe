/* present_tables TABLES.json FOLDER: tables.md and index.html of an evaluation whose tables.json
 * has whatever a test wants. */
#include "../../cli/cli.h"
#include "../../cli/evaluate/present.h"

int main(int count, char **arguments) {
    if (count != 3)
        return cli_fail(CLI_USAGE, "present_tables TABLES.json FOLDER");
    json_error_t error;
    json_t *tables = json_load_file(arguments[1], 0, &error);
    if (!tables)
        return cli_fail(CLI_INPUT, "%s: %s", arguments[1], error.text);
    int code = cli_evaluation_write(arguments[2], tables);
    json_decref(tables);
    return code;
}
