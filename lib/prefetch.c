#include "prefetch.h"

#include "error.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_SIZE = 1024, NOTHING = -1 };

/* One batch: places below next were given to workers, busy of them are being made. */
typedef struct slot {
    int64_t batch; /* NOTHING: given up, or not begun */
    int32_t next, busy, done;
    int32_t failed; /* the first failing place */
    featinv_status status;
    char text[TEXT_SIZE];
} slot;

typedef struct seat {
    fi_prefetch *owner;
    pthread_t thread;
    int32_t number;
} seat;

/* The lock guards everything but what tasks make; that is handed over with the slot's counts. */
struct fi_prefetch {
    pthread_mutex_t lock;
    pthread_cond_t work, change; /* places to make; a slot whole, or without busy places */
    fi_prefetch_task task;
    void *context;
    int32_t depth, places, started;
    bool leave;
    slot *slots;
    seat *seats;
};

/* The earliest batch that has places left. */
static slot *find_work(fi_prefetch *p) {
    slot *best = NULL;
    for (int32_t i = 0; i < p->depth; i++) {
        slot *s = p->slots + i;
        if (s->batch != NOTHING && s->next < p->places && (!best || s->batch < best->batch))
            best = s;
    }
    return best;
}

/* Makes one place; the lock is held before and after, not during. */
static void make_place(fi_prefetch *p, slot *s, int32_t worker) {
    const int64_t batch = s->batch;
    const int32_t place = s->next++;
    s->busy++;
    (void)pthread_mutex_unlock(&p->lock);
    const featinv_status status =
        p->task(p->context, worker, (int32_t)(s - p->slots), batch, place);
    (void)pthread_mutex_lock(&p->lock);
    s->busy--;
    if (s->batch == batch) {
        s->done++;
        if (status && place < s->failed) {
            s->failed = place;
            s->status = status;
            (void)snprintf(s->text, TEXT_SIZE, "%s", featinv_last_error());
        }
    }
    if (s->busy == 0 || s->done == p->places)
        (void)pthread_cond_broadcast(&p->change);
}

static void *run(void *argument) {
    seat *own = argument;
    fi_prefetch *p = own->owner;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->leave) {
        slot *s = find_work(p);
        if (s)
            make_place(p, s, own->number);
        else
            (void)pthread_cond_wait(&p->work, &p->lock);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* The threads take no signals: those are the host's own threads' business. */
static void start_threads(fi_prefetch *p, int32_t count) {
    sigset_t all, before;
    (void)sigfillset(&all);
    const bool masked = pthread_sigmask(SIG_SETMASK, &all, &before) == 0;
    while (p->started < count) {
        seat *own = &p->seats[p->started];
        *own = (seat){.owner = p, .number = p->started};
        if (pthread_create(&own->thread, NULL, run, own) != 0)
            break;
        p->started++;
    }
    if (masked)
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

featinv_status fi_prefetch_create(fi_prefetch **out, int32_t threads, int32_t depth, int32_t places,
                                  fi_prefetch_task task, void *context) {
    *out = NULL;
    fi_prefetch *p = calloc(1, sizeof *p);
    slot *slots = calloc((size_t)depth, sizeof *slots);
    seat *seats = calloc((size_t)threads + 1, sizeof *seats); /* none is no error */
    if (!p || !slots || !seats) {
        free(seats);
        free(slots);
        free(p);
        return fi_fail_memory(sizeof *p + (size_t)depth * sizeof *slots +
                              (size_t)threads * sizeof *seats);
    }
    p->task = task;
    p->context = context;
    p->depth = depth;
    p->places = places;
    p->slots = slots;
    p->seats = seats;
    for (int32_t i = 0; i < depth; i++)
        slots[i].batch = NOTHING;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    (void)pthread_cond_init(&p->change, NULL);
    start_threads(p, threads);
    *out = p;
    return FEATINV_OK;
}

static void begin(fi_prefetch *p, slot *s, int64_t batch) {
    s->batch = batch;
    s->next = s->done = 0;
    s->failed = p->places;
    s->status = FEATINV_OK;
}

/* Every slot holds its batch of `first` .. first + depth - 1, begun where it held another one. */
static void aim(fi_prefetch *p, int64_t first) {
    for (int32_t i = 0; i < p->depth; i++) {
        slot *s = p->slots + i;
        if (s->batch < first || s->batch >= first + p->depth)
            s->batch = NOTHING; /* whoever works on it sees that nobody waits */
    }
    for (int64_t batch = first; batch < first + p->depth; batch++) {
        slot *s = p->slots + batch % p->depth;
        if (s->batch == batch)
            continue;
        while (s->busy)
            (void)pthread_cond_wait(&p->change, &p->lock);
        begin(p, s, batch);
        (void)pthread_cond_broadcast(&p->work);
    }
}

featinv_status fi_prefetch_take(int32_t *out, fi_prefetch *p, int64_t batch) {
    slot *s = p->slots + batch % p->depth;
    (void)pthread_mutex_lock(&p->lock);
    aim(p, batch);
    while (s->done < p->places) {
        if (p->started == 0)
            make_place(p, s, 0);
        else
            (void)pthread_cond_wait(&p->change, &p->lock);
    }
    const featinv_status status = s->status;
    if (status) {
        (void)fi_fail(status, "%s", s->text);
        s->batch = NOTHING;
    }
    (void)pthread_mutex_unlock(&p->lock);
    *out = (int32_t)(batch % p->depth);
    return status;
}

void fi_prefetch_pass(fi_prefetch *p, int64_t batch) {
    (void)pthread_mutex_lock(&p->lock);
    begin(p, p->slots + batch % p->depth, batch + p->depth);
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
}

bool fi_prefetch_wanted(fi_prefetch *p, int32_t slot_number, int64_t batch) {
    (void)pthread_mutex_lock(&p->lock);
    const bool wanted = !p->leave && p->slots[slot_number].batch == batch;
    (void)pthread_mutex_unlock(&p->lock);
    return wanted;
}

void fi_prefetch_destroy(fi_prefetch *p) {
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->leave = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    for (int32_t i = 0; i < p->started; i++)
        (void)pthread_join(p->seats[i].thread, NULL);
    (void)pthread_cond_destroy(&p->change);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_mutex_destroy(&p->lock);
    free(p->seats);
    free(p->slots);
    free(p);
}
