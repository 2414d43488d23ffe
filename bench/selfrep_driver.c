/* Self-representation of the rows of an .npy file, timed; bench/concepts.py builds and calls it.
 *
 *     selfrep_driver ROWS.npy OUT.npz GAMMA TAU MEMORY THREADS REPEAT
 *
 * OUT.npz: offsets, indices, values, alpha. Prints one line of JSON. */
#include "featinv.h"
#include "selfrep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double cpu_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double wall_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The process's own peak: getrusage would count what the parent held when it forked. */
static long long peak_bytes(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kilobytes = strtoll(line + 6, NULL, 10);
    if (file)
        (void)fclose(file);
    return kilobytes * 1024;
}

static int stop(const char *what) {
    (void)fprintf(stderr, "%s: %s\n", what, featinv_last_error());
    return 1;
}

static featinv_status write_result(const char *path, fi_sparse *c, double *alpha) {
    int64_t rows = c->rows, offsets = rows + 1, entries = c->offsets[rows];
    const featinv_tensor arrays[] = {
        featinv_tensor_view(c->offsets, FEATINV_DTYPE_I64, 1, &offsets),
        featinv_tensor_view(c->indices, FEATINV_DTYPE_I32, 1, &entries),
        featinv_tensor_view(c->values, FEATINV_DTYPE_F64, 1, &entries),
        featinv_tensor_view(alpha, FEATINV_DTYPE_F64, 1, &rows),
    };
    const char *const names[] = {"offsets", "indices", "values", "alpha"};
    return featinv_array_write(path, arrays, names, 4, 0);
}

int main(int argc, char **argv) {
    if (argc != 8)
        return 2;
    const double gamma = strtod(argv[3], NULL), tau = strtod(argv[4], NULL);
    const long long memory = strtoll(argv[5], NULL, 10), repeat = strtoll(argv[7], NULL, 10);
    featinv_array_info info = {.struct_size = sizeof info};
    if (featinv_array_read(NULL, 0, &info, argv[1], NULL, FEATINV_DTYPE_F32) || info.ndim != 2)
        return stop(argv[1]);
    const int64_t n = info.shape[0], d = info.shape[1];
    const size_t bytes = (size_t)(n * d) * sizeof(float);
    float *rows = malloc(bytes);
    double *alpha = malloc((size_t)n * sizeof *alpha);
    if (!rows || !alpha || featinv_array_read(rows, bytes, &info, argv[1], NULL, FEATINV_DTYPE_F32))
        return stop(argv[1]);
    featinv_session_options options;
    (void)featinv_session_options_init(&options, sizeof options);
    options.device = "cpu";
    options.threads = (int32_t)strtol(argv[6], NULL, 10);
    featinv_session *session = NULL;
    if (featinv_session_create(&session, NULL, &options))
        return stop("session");
    double best_cpu = 1e300, best_wall = 1e300;
    fi_sparse c = {0};
    fi_selfrep_summary summary = {0};
    for (long long i = 0; i < repeat; i++) {
        fi_progress progress = {.total = n};
        fi_selfrep *selfrep = NULL;
        fi_sparse_free(&c);
        const double cpu = cpu_seconds(), wall = wall_seconds();
        if (fi_selfrep_create(&selfrep, session, rows, n, d, gamma, tau, memory) ||
            fi_selfrep_solve(selfrep, &c, alpha, &summary, NULL, &progress))
            return stop("self-representation");
        fi_selfrep_destroy(selfrep);
        const double cpu_used = cpu_seconds() - cpu, wall_used = wall_seconds() - wall;
        best_cpu = cpu_used < best_cpu ? cpu_used : best_cpu;
        best_wall = wall_used < best_wall ? wall_used : best_wall;
    }
    if (write_result(argv[2], &c, alpha))
        return stop(argv[2]);
    (void)printf("{\"cpu\": %.4f, \"wall\": %.4f, \"objective\": %.17g, \"stationarity\": %.3g, "
                 "\"passes\": %lld, \"entries\": %lld, \"peak_bytes\": %lld}\n",
                 best_cpu, best_wall, summary.objective, summary.stationarity,
                 (long long)summary.passes, (long long)c.offsets[n], peak_bytes());
    fi_sparse_free(&c);
    featinv_session_destroy(session);
    free(rows);
    free(alpha);
    return 0;
}
