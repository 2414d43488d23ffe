#include "cli.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static _Atomic(featinv_session *) watched;
static volatile sig_atomic_t interruptions;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interruptions = interruptions + 1;
    if (interruptions > 1)
        _exit(CLI_INTERRUPTED);
    featinv_session *session = atomic_load(&watched);
    if (session)
        featinv_session_cancel(session);
}

void cli_watch(featinv_session *session) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    atomic_store(&watched, session);
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL); /* what a scheduler sends first */
}

bool cli_interrupted(void) {
    return interruptions > 0;
}
