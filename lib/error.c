#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_SIZE 1024

/* Two buffers, so that a text that is being prefixed may be read while the new one is written. */
static _Thread_local char text[2][TEXT_SIZE];
static _Thread_local int current;

static void set(const char *format, va_list args) {
    int next = 1 - current;
    (void)vsnprintf(text[next], TEXT_SIZE, format, args);
    for (char *c = text[next]; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?'; /* file names may hold newlines; an error is one line */
    current = next;
}

featinv_status fi_fail(featinv_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set(format, args);
    va_end(args);
    return status;
}

featinv_status fi_fail_prefix(featinv_status status, const char *format, ...) {
    char prefix[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    return fi_fail(status, "%s: %s", prefix, text[current]);
}

featinv_status fi_fail_memory(size_t bytes) {
    return fi_fail(FEATINV_ERROR_MEMORY, "out of memory: %zu bytes were not to be had", bytes);
}

const char *featinv_last_error(void) {
    return text[current];
}

const char *featinv_status_name(featinv_status status) {
    switch (status) {
#define NAME(s)                                                                                    \
    case s:                                                                                        \
        return #s
        NAME(FEATINV_OK);
        NAME(FEATINV_ERROR_INTERNAL);
        NAME(FEATINV_ERROR_MEMORY);
        NAME(FEATINV_ERROR_ARGUMENT);
        NAME(FEATINV_ERROR_UNSUPPORTED);
        NAME(FEATINV_ERROR_CANCELLED);
        NAME(FEATINV_ERROR_CAPACITY);
        NAME(FEATINV_ERROR_FORK);
        NAME(FEATINV_ERROR_WRITE);
        NAME(FEATINV_ERROR_NOT_FOUND);
        NAME(FEATINV_ERROR_READ);
        NAME(FEATINV_ERROR_FORMAT);
        NAME(FEATINV_ERROR_LIMIT);
        NAME(FEATINV_ERROR_SHAPE);
        NAME(FEATINV_ERROR_VALUE);
        NAME(FEATINV_ERROR_BUNDLE);
        NAME(FEATINV_ERROR_HASH);
        NAME(FEATINV_ERROR_VERSION);
        NAME(FEATINV_ERROR_BACKEND);
        NAME(FEATINV_ERROR_DEVICE);
        NAME(FEATINV_ERROR_COMPUTE);
#undef NAME
    default:
        return "unknown status";
    }
}
