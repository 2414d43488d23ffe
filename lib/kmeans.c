#include "kmeans.h"

#include "error.h"
#include "fit_random.h"
#include "vector.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Centres are kept transposed in groups of LANES, (groups, d, LANES), so that the distances of a
 * row to LANES centres are sums side by side: vectorised without changing the order of any sum. */
enum { LANES = 8, MAX_ITERATIONS = 300, MAX_TRIALS = 32 };

typedef struct state {
    const featinv_session *session;
    const double *rows;
    int64_t n, d;
    int32_t k, groups;
    double *packed;    /* centres, (groups, d, LANES) */
    double *sums;      /* (k, d) */
    double *distances; /* (groups * LANES): of one row */
    double *nearest;   /* (n): squared distance to the closest centre */
    double *trial;     /* (MAX_TRIALS, n): the same with one more centre */
    int64_t *sizes;    /* (k) */
    int32_t *labels;   /* (n) */
} state;

/* Squared distances of a row to the LANES centres of each group. */
FI_CLONES static void row_distances(double *out, const double *row, const double *packed, int64_t d,
                                    int32_t groups) {
    for (int32_t g = 0; g < groups; g++) {
        const double *centre = packed + (int64_t)g * d * LANES;
        double sums[LANES] = {0};
        for (int64_t j = 0; j < d; j++)
            for (int l = 0; l < LANES; l++) {
                double difference = row[j] - centre[j * LANES + l];
                sums[l] += difference * difference;
            }
        memcpy(out + (int64_t)g * LANES, sums, sizeof sums);
    }
}

static void pack_centre(state *s, int32_t index, const double *centre) {
    double *to = s->packed + (int64_t)(index / LANES) * s->d * LANES + index % LANES;
    for (int64_t j = 0; j < s->d; j++)
        to[j * LANES] = centre[j];
}

/* A row drawn in proportion to its squared distance; any row where all distances are 0. */
static int64_t draw_row(fi_random *random, const double *nearest, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; i++)
        total += nearest[i];
    if (!(total > 0.0))
        return (int64_t)fi_random_below(random, (uint64_t)n);
    double target = fi_random_unit(random) * total, sum = 0.0;
    int64_t last = 0;
    for (int64_t i = 0; i < n; i++) {
        if (nearest[i] > 0.0)
            last = i;
        sum += nearest[i];
        if (sum > target)
            return i;
    }
    return last; /* the sum was rounded below the target */
}

/* Greedy k-means++ (Arthur and Vassilvitskii 2007): of 2 + ln k drawn rows the one that lowers the
 * cost most becomes the next centre. */
static void seed_centres(state *s, fi_random *random) {
    int trials = 2 + (int)log((double)s->k);
    trials = trials > MAX_TRIALS ? MAX_TRIALS : trials;
    memset(s->packed, 0, (size_t)s->groups * (size_t)s->d * LANES * sizeof *s->packed);
    for (int64_t i = 0; i < s->n; i++)
        s->nearest[i] = DBL_MAX;
    for (int32_t c = 0; c < s->k; c++) {
        int candidates = c == 0 ? 1 : trials, best = 0;
        int64_t drawn[MAX_TRIALS];
        double costs[MAX_TRIALS] = {0};
        for (int t = 0; t < candidates; t++)
            drawn[t] = c == 0 ? (int64_t)fi_random_below(random, (uint64_t)s->n)
                              : draw_row(random, s->nearest, s->n);
        for (int t = 0; t < candidates; t++) { /* candidates lie in the group that c will be in */
            double *trial = s->trial + (int64_t)t * s->n, all[LANES];
            const double *group = s->packed + (int64_t)(c / LANES) * s->d * LANES;
            pack_centre(s, c, s->rows + drawn[t] * s->d);
            for (int64_t i = 0; i < s->n; i++) {
                row_distances(all, s->rows + i * s->d, group, s->d, 1);
                trial[i] = fmin(s->nearest[i], all[c % LANES]);
                costs[t] += trial[i];
            }
            if (costs[t] < costs[best])
                best = t;
        }
        pack_centre(s, c, s->rows + drawn[best] * s->d);
        memcpy(s->nearest, s->trial + (int64_t)best * s->n, (size_t)s->n * sizeof *s->nearest);
    }
}

/* Gives each row its closest centre (the first of equals); whether any label changed. */
static bool assign(state *s, double *cost) {
    bool changed = false;
    *cost = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        row_distances(s->distances, s->rows + i * s->d, s->packed, s->d, s->groups);
        int32_t best = 0;
        for (int32_t c = 1; c < s->k; c++)
            if (s->distances[c] < s->distances[best])
                best = c;
        changed |= s->labels[i] != best;
        s->labels[i] = best;
        s->nearest[i] = s->distances[best];
        *cost += s->nearest[i];
    }
    return changed;
}

/* An empty cluster takes the row that lies farthest from its centre. */
static bool fill_empty(state *s) {
    bool changed = false;
    memset(s->sizes, 0, (size_t)s->k * sizeof *s->sizes);
    for (int64_t i = 0; i < s->n; i++)
        s->sizes[s->labels[i]]++;
    for (int32_t c = 0; c < s->k; c++) {
        if (s->sizes[c])
            continue;
        int64_t farthest = -1;
        for (int64_t i = 0; i < s->n; i++)
            if (s->sizes[s->labels[i]] > 1 && s->nearest[i] > 0.0 &&
                (farthest < 0 || s->nearest[i] > s->nearest[farthest]))
                farthest = i;
        if (farthest < 0)
            break; /* fewer different rows than clusters */
        s->sizes[s->labels[farthest]]--;
        s->sizes[c] = 1;
        s->labels[farthest] = c;
        s->nearest[farthest] = 0.0;
        changed = true;
    }
    return changed;
}

static void update_centres(state *s) {
    memset(s->sums, 0, (size_t)s->k * (size_t)s->d * sizeof *s->sums);
    for (int64_t i = 0; i < s->n; i++) {
        double *sum = s->sums + s->labels[i] * s->d;
        const double *row = s->rows + i * s->d;
        for (int64_t j = 0; j < s->d; j++)
            sum[j] += row[j];
    }
    for (int32_t c = 0; c < s->k; c++) {
        double *sum = s->sums + c * s->d;
        if (!s->sizes[c])
            continue; /* the centre stays where it was */
        for (int64_t j = 0; j < s->d; j++)
            sum[j] /= (double)s->sizes[c];
        pack_centre(s, c, sum);
    }
}

/* Lloyd's iterations until no label changes; the cost belongs to the labels and centres left. */
static featinv_status iterate(state *s, double *cost) {
    for (int64_t i = 0; i < s->n; i++)
        s->labels[i] = -1;
    for (int i = 0; i < MAX_ITERATIONS; i++) {
        if (s->session && atomic_load(&s->session->cancelled))
            return fi_fail(FEATINV_ERROR_CANCELLED, "cancelled while clustering");
        bool changed = assign(s, cost);
        changed |= fill_empty(s);
        if (!changed)
            return FEATINV_OK;
        update_centres(s);
    }
    (void)assign(s, cost);
    return FEATINV_OK;
}

static void free_state(state *s) {
    free(s->packed);
    free(s->sums);
    free(s->distances);
    free(s->nearest);
    free(s->trial);
    free(s->sizes);
    free(s->labels);
}

static featinv_status make_state(state *s) {
    size_t padded = (size_t)s->groups * LANES;
    s->packed = calloc(padded * (size_t)s->d, sizeof *s->packed);
    s->sums = calloc((size_t)s->k * (size_t)s->d, sizeof *s->sums);
    s->distances = malloc(padded * sizeof *s->distances);
    s->nearest = malloc((size_t)s->n * sizeof *s->nearest);
    s->trial = malloc(MAX_TRIALS * (size_t)s->n * sizeof *s->trial);
    s->sizes = malloc((size_t)s->k * sizeof *s->sizes);
    s->labels = malloc((size_t)s->n * sizeof *s->labels);
    if (!s->packed || !s->sums || !s->distances || !s->nearest || !s->trial || !s->sizes ||
        !s->labels)
        return fi_fail_memory((2 * padded * (size_t)s->d + (MAX_TRIALS + 2) * (size_t)s->n) *
                              sizeof(double));
    return FEATINV_OK;
}

static void read_centres(double *centres, const state *s) {
    for (int32_t c = 0; c < s->k; c++)
        for (int64_t j = 0; j < s->d; j++)
            centres[c * s->d + j] =
                s->packed[((int64_t)(c / LANES) * s->d + j) * LANES + c % LANES];
}

featinv_status fi_kmeans(int32_t *labels, double *centres, double *inertia,
                         const featinv_session *session, const double *rows, int64_t n, int64_t d,
                         int32_t k, int32_t restarts, uint64_t seed) {
    if (k < 1 || k > n || d < 1 || restarts < 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT,
                       "k-means of %lld rows with %lld values into %d clusters, %d starts",
                       (long long)n, (long long)d, k, restarts);
    state s = {.session = session,
               .rows = rows,
               .n = n,
               .d = d,
               .k = k,
               .groups = (k + LANES - 1) / LANES};
    featinv_status status = make_state(&s);
    double best = DBL_MAX;
    for (int32_t r = 0; r < restarts && !status; r++) {
        fi_random random = fi_random_start(seed, FI_STREAM_KMEANS, (uint32_t)r);
        seed_centres(&s, &random);
        double cost;
        status = iterate(&s, &cost);
        if (status || (r > 0 && !(cost < best)))
            continue;
        best = cost;
        memcpy(labels, s.labels, (size_t)n * sizeof *labels);
        if (centres)
            read_centres(centres, &s);
    }
    if (!status)
        *inertia = best;
    free_state(&s);
    return status;
}
