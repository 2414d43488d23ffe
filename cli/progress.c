#include "cli.h"

#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static bool drawn; /* a bar stands on the current line */

double cli_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress_clear(void) {
    if (drawn)
        (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
    drawn = false;
}

void cli_progress_start(cli_progress *progress, const char *label, const char *unit, int64_t total,
                        bool quiet) {
    *progress = (cli_progress){.shown = !quiet && isatty(STDERR_FILENO),
                               .label = label,
                               .unit = unit,
                               .total = total,
                               .started = cli_now()};
}

static int terminal_width(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

static void time_left(char *text, size_t capacity, double seconds) {
    long long whole = (long long)(seconds + 0.5);
    if (whole >= 3600)
        (void)snprintf(text, capacity, "%lld:%02lld:%02lld left", whole / 3600, whole / 60 % 60,
                       whole % 60);
    else
        (void)snprintf(text, capacity, "%lld:%02lld left", whole / 60, whole % 60);
}

/* "reconstruct 3/8 images [=====>     ]  42% 0:12 left" */
static void draw(const cli_progress *p, double fraction) {
    char head[96], tail[64], left[40] = "", bar[61];
    double elapsed = cli_now() - p->started;
    if (fraction > 0.02 && elapsed > 1.0)
        time_left(left, sizeof left, elapsed * (1.0 - fraction) / fraction);
    (void)snprintf(head, sizeof head, "%s %lld/%lld %s ", p->label, (long long)p->first,
                   (long long)p->total, p->unit);
    (void)snprintf(tail, sizeof tail, " %3d%% %s", (int)(100.0 * fraction), left);
    int room = terminal_width() - (int)strlen(head) - (int)strlen(tail) - 3;
    int width = room > (int)sizeof bar - 1 ? (int)sizeof bar - 1 : room;
    (void)fprintf(stderr, "\r\033[K%s", head);
    if (width >= 5) {
        int full = (int)(fraction * width);
        for (int i = 0; i < width; i++)
            bar[i] = i < full ? '=' : i == full ? '>' : ' ';
        bar[width] = 0;
        (void)fprintf(stderr, "[%s]", bar);
    }
    (void)fputs(tail, stderr);
    (void)fflush(stderr);
    drawn = true;
}

int32_t cli_progress_call(void *progress, int64_t done, int64_t total) {
    const cli_progress *p = progress;
    if (p->shown && p->total > 0) {
        double share = total > 0 ? (double)done / (double)total : 1.0;
        draw(p, ((double)p->first + share * (double)p->count) / (double)p->total);
    }
    return cli_interrupted();
}
