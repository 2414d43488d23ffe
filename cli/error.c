#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int cli_code(featinv_status status) {
    switch (status) {
    case FEATINV_OK:
        return CLI_DONE;
    case FEATINV_ERROR_ARGUMENT:
        return CLI_USAGE;
    case FEATINV_ERROR_NOT_FOUND:
    case FEATINV_ERROR_READ:
    case FEATINV_ERROR_FORMAT:
    case FEATINV_ERROR_LIMIT:
    case FEATINV_ERROR_SHAPE:
    case FEATINV_ERROR_VALUE:
        return CLI_INPUT;
    case FEATINV_ERROR_BUNDLE:
    case FEATINV_ERROR_HASH:
    case FEATINV_ERROR_VERSION:
        return CLI_BUNDLE;
    case FEATINV_ERROR_MEMORY:
        return CLI_MEMORY;
    case FEATINV_ERROR_BACKEND:
    case FEATINV_ERROR_DEVICE:
        return CLI_DEVICE;
    case FEATINV_ERROR_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

static int32_t own_rank;

void cli_error_rank(int32_t rank) {
    own_rank = rank;
}

/* One line whatever the text holds: file names and option values may hold control characters. */
static void print_line(char *text) {
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    cli_progress_clear();
    (void)fflush(stdout);
    if (own_rank)
        (void)fprintf(stderr, "featinv: rank %d: %s\n", own_rank, text);
    else
        (void)fprintf(stderr, "featinv: %s\n", text);
}

int cli_fail(int code, const char *format, ...) {
    char text[4096];
    va_list args;
    if (code == CLI_USAGE && own_rank)
        return code;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_line(text);
    return code;
}

/* Whether the text begins with the file, whose control characters the library shows as '?'. */
static bool names(const char *text, const char *file) {
    for (; *file; file++, text++)
        if (*text != *file && !(*text == '?' && (unsigned char)*file < 0x20) &&
            !(*text == '?' && *file == 0x7f))
            return false;
    return true;
}

int cli_fail_status(featinv_status status, const char *file) {
    const char *text = featinv_last_error();
    if (!*text)
        text = featinv_status_name(status);
    /* never as one of usage, which is left to process 0: what the library refuses may be this
     * machine's alone */
    if (file && !names(text, file))
        (void)cli_fail(CLI_FAILED, "%s: %s", file, text);
    else
        (void)cli_fail(CLI_FAILED, "%s", text);
    return cli_code(status);
}

int cli_fail_bundle(featinv_status status, const char *bundle) {
    const char *text = featinv_last_error();
    char *real = bundle ? realpath(bundle, NULL) : NULL; /* the library names a bundle in full */
    if (real && strncmp(text, real, strlen(real)) == 0)
        bundle = NULL;
    free(real);
    int code = cli_fail_status(status, bundle);
    return code == CLI_INPUT ? CLI_BUNDLE : code;
}

int cli_fail_memory(void) {
    return cli_fail(CLI_MEMORY, "out of memory");
}

int cli_close_output(int code) {
    bool bad = ferror(stdout) != 0;
    if (fflush(stdout) != 0 || bad)
        return cli_fail(code ? code : CLI_FAILED, "standard output: cannot be written (%s)",
                        strerror(errno));
    return code;
}
