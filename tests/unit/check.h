/* What every unit test includes: cmocka with its prerequisites, and checks that print the library's
 * own error text. */
#ifndef CHECK_H
#define CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featinv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        featinv_status check_status_ = (call);                                                     \
        if (check_status_)                                                                         \
            fail_msg("%s: %s: %s", #call, featinv_status_name(check_status_),                      \
                     featinv_last_error());                                                        \
    } while (0)

/* The call fails with that status and a one-line text that holds `part`. */
#define CHECK_FAILS(call, status, part)                                                            \
    do {                                                                                           \
        featinv_status check_status_ = (call);                                                     \
        if (check_status_ != (status) || !strstr(featinv_last_error(), part) ||                    \
            strchr(featinv_last_error(), '\n'))                                                    \
            fail_msg("%s: wanted %s with \"%s\", got %s: %s", #call, featinv_status_name(status),  \
                     part, featinv_status_name(check_status_),                                     \
                     check_status_ ? featinv_last_error() : "");                                   \
    } while (0)

#endif
