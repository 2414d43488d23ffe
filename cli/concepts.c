/* `featinv concepts`: its parts stand in files of their own. */
#include "cli.h"

static int run(const cli_values *values) {
    if (values->argument_count)
        return cli_fail(CLI_USAGE, "concepts %s: no such part; fit, show, decompose or import",
                        values->arguments[0]);
    return cli_fail(CLI_USAGE, "concepts: what about them? fit, show, decompose or import");
}

static const cli_option *const tables[] = {cli_output_options, cli_help_options, NULL};
static const cli_verb *const parts[] = {&cli_concepts_fit, &cli_concepts_show,
                                        &cli_concepts_decompose, &cli_concepts_import, NULL};

const cli_verb cli_concepts = {
    .name = "concepts",
    .usage = "concepts fit|show|decompose|import ...",
    .summary = "find the concepts of a class, and see what they are",
    .details =
        "  fit        subspaces that the features of some images fall into\n"
        "  show       where each is active, how it counts for the class, its best examples\n"
        "  decompose  feature maps into one part for each concept, and the rest\n"
        "  import     subspaces that another method has found\n\n"
        "`featinv concepts fit --help` and so on list the options of each. Concepts count from 0;\n"
        "what no concept explains is the complement, which comes last.",
    .tables = tables,
    .run = run,
    .parts = parts};
