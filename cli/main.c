/* The `featinv` command: options and printing over featinv.h. */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const cli_verb *const verbs[] = {
    &cli_doctor,   &cli_info,      &cli_extract, &cli_sample, &cli_reconstruct,
    &cli_concepts, &cli_attenuate, &cli_viz,     &cli_mix,    &cli_compose,
    &cli_train,    &cli_evaluate,  &cli_metrics, NULL};

static void print_usage(FILE *stream) {
    (void)fputs("usage: featinv VERB [OPTION]...\n\n"
                "From images to the feature maps of a vision model, and back.\n\n",
                stream);
    for (const cli_verb *const *v = verbs; *v; v++)
        (void)fprintf(stream, "  %-12s  %s\n", (*v)->name, (*v)->summary);
    (void)fputs(
        "\nfeatinv VERB --help lists a verb's options; featinv --version prints the version.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad input file, 4 bundle refused,\n"
        "5 out of memory, 6 no such device or backend, 130 interrupted.\n",
        stream);
}

/* By the last word of its name. */
static const cli_verb *find_verb(const cli_verb *const *list, const char *word) {
    for (const cli_verb *const *v = list; *v; v++) {
        const char *space = strrchr((*v)->name, ' ');
        if (strcmp(space ? space + 1 : (*v)->name, word) == 0)
            return *v;
    }
    return NULL;
}

static int run_verb(const cli_verb *verb, int argc, const char *const *argv) {
    const char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments)
        return cli_fail_memory();
    cli_values values;
    const cli_verb *part = verb->parts && argc ? find_verb(verb->parts, argv[0]) : NULL;
    if (part) {
        verb = part;
        argc--;
        argv++;
    }
    int32_t rank, size;
    (void)cli_launched(&rank, &size);
    cli_error_rank(rank);
    int code = cli_parse(&values, verb, argc, argv, arguments);
    if (!code && !values.help)
        code = cli_launch_shard(&values, verb);
    if (!code && values.help)
        cli_print_help(stdout, verb);
    else if (!code)
        code = verb->run(&values);
    free(arguments);
    return code;
}

int main(int argc, char **argv) {
    /* a file that meets the limit of its size is an error of that file, not the end */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_usage(stdout);
        return cli_close_output(CLI_DONE);
    }
    if (strcmp(word, "--version") == 0) {
        (void)printf("featinv %s\n", featinv_version());
        return cli_close_output(CLI_DONE);
    }
    const cli_verb *verb = find_verb(verbs, word);
    if (!verb)
        return cli_fail(CLI_USAGE, "%s: no such verb; featinv --help lists them", word);
    return cli_close_output(run_verb(verb, argc - 2, (const char *const *)argv + 2));
}
