#include "workers.h"

#include "error.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct seat {
    fi_workers *workers;
    pthread_t thread;
    int32_t number;
} seat;

struct fi_workers {
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    uint64_t round;  /* of the loop that runs */
    int32_t started; /* threads besides the caller's */
    int32_t busy;    /* of them, in this round */
    bool leave;
    fi_workers_task task;
    void *context;
    int64_t total, chunk;
    atomic_llong next;
    seat seats[];
};

static void take_chunks(fi_workers *w, int32_t number) {
    for (;;) {
        const int64_t first = atomic_fetch_add(&w->next, w->chunk);
        if (first >= w->total)
            return;
        const int64_t last = first + w->chunk < w->total ? first + w->chunk : w->total;
        w->task(w->context, number, first, last);
    }
}

static void *work(void *argument) {
    seat *own = argument;
    fi_workers *w = own->workers;
    uint64_t seen = 0;
    (void)pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->leave && w->round == seen)
            (void)pthread_cond_wait(&w->wake, &w->lock);
        if (w->leave)
            break;
        seen = w->round;
        (void)pthread_mutex_unlock(&w->lock);
        take_chunks(w, own->number);
        (void)pthread_mutex_lock(&w->lock);
        if (--w->busy == 0)
            (void)pthread_cond_signal(&w->idle);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The threads take no signals: those are the host's own threads' business. */
static void start(fi_workers *w, int32_t count) {
    sigset_t all, before;
    (void)sigfillset(&all);
    const bool masked = pthread_sigmask(SIG_SETMASK, &all, &before) == 0;
    while (w->started < count - 1) {
        seat *own = &w->seats[w->started];
        *own = (seat){.workers = w, .number = w->started + 1};
        if (pthread_create(&own->thread, NULL, work, own) != 0)
            break;
        w->started++;
    }
    if (masked)
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

featinv_status fi_workers_create(fi_workers **out, int32_t count) {
    const size_t size = sizeof(fi_workers) + (size_t)count * sizeof(seat);
    fi_workers *w = calloc(1, size);
    if (!w)
        return fi_fail_memory(size);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    (void)pthread_cond_init(&w->idle, NULL);
    atomic_init(&w->next, 0);
    start(w, count);
    *out = w;
    return FEATINV_OK;
}

void fi_workers_run(fi_workers *w, fi_workers_task task, void *context, int64_t total,
                    int64_t chunk) {
    (void)pthread_mutex_lock(&w->lock);
    w->task = task;
    w->context = context;
    w->total = total;
    w->chunk = chunk;
    atomic_store(&w->next, 0);
    w->busy = w->started;
    w->round++;
    (void)pthread_cond_broadcast(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    take_chunks(w, 0);
    (void)pthread_mutex_lock(&w->lock);
    while (w->busy)
        (void)pthread_cond_wait(&w->idle, &w->lock);
    (void)pthread_mutex_unlock(&w->lock);
}

void fi_workers_destroy(fi_workers *w) {
    if (!w)
        return;
    (void)pthread_mutex_lock(&w->lock);
    w->leave = true;
    (void)pthread_cond_broadcast(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    for (int32_t i = 0; i < w->started; i++)
        (void)pthread_join(w->seats[i].thread, NULL);
    (void)pthread_cond_destroy(&w->idle);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}
