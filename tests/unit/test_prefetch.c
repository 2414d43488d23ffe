/* The ring of batches: failures, batches given up, a reader without threads. */
#include "check.h"

#include "error.h"
#include "prefetch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { PLACES = 5, DEPTH = 3 };

/* What the tasks of a test share. */
typedef struct job {
    fi_prefetch *prefetch;
    int64_t values[DEPTH][PLACES];
    atomic_int calls, failing_calls, given_up;
    atomic_llong fails_in; /* batch in which places 1 and 3 fail, -1: none */
    atomic_llong hangs_in; /* batch whose places wait until nobody wants them, -1: none */
} job;

static featinv_status make(void *context, int32_t worker, int32_t slot, int64_t batch,
                           int32_t place) {
    job *j = context;
    (void)worker;
    atomic_fetch_add(&j->calls, 1);
    if (batch == j->hangs_in) {
        while (fi_prefetch_wanted(j->prefetch, slot, batch))
            usleep(100);
        atomic_fetch_add(&j->given_up, 1);
        return fi_fail(FEATINV_ERROR_CANCELLED, "given up");
    }
    if (batch == j->fails_in && (place == 1 || place == 3)) {
        if (place == 1)
            usleep(2000); /* the later place fails first */
        atomic_fetch_add(&j->failing_calls, 1);
        return fi_fail(FEATINV_ERROR_MEMORY, "place %d of batch %d", place, (int)batch);
    }
    j->values[slot][place] = 100 * batch + place;
    return FEATINV_OK;
}

static void open_job(job *j, int32_t threads) {
    memset(j, 0, sizeof *j);
    atomic_init(&j->fails_in, -1);
    atomic_init(&j->hangs_in, -1);
    CHECK_OK(fi_prefetch_create(&j->prefetch, threads, DEPTH, PLACES, make, j));
}

static void take(job *j, int64_t batch) {
    int32_t slot = -1;
    CHECK_OK(fi_prefetch_take(&slot, j->prefetch, batch));
    for (int32_t i = 0; i < PLACES; i++)
        assert_int_equal(j->values[slot][i], 100 * batch + i);
    fi_prefetch_pass(j->prefetch, batch);
}

static void wait_for_calls(job *j, int count) {
    for (int i = 0; i < 20000 && atomic_load(&j->calls) < count; i++)
        usleep(500);
    assert_true(atomic_load(&j->calls) >= count);
}

static void batches_in_any_order(void **unused) {
    (void)unused;
    for (int32_t threads = 0; threads < 5; threads++) {
        job j;
        open_job(&j, threads);
        assert_int_equal(atomic_load(&j.calls), 0);
        for (int64_t batch = 0; batch < 40; batch++)
            take(&j, batch);
        static const int64_t walk[] = {7, 7, 8, 10, 9, 1000000000000, 0, 2, 1, 0, 3};
        for (size_t i = 0; i < sizeof walk / sizeof *walk; i++)
            take(&j, walk[i]);
        fi_prefetch_destroy(j.prefetch);
    }
}

/* The system gave no threads: the reader makes its own batch and no other. */
static void without_threads_the_reader_works(void **unused) {
    (void)unused;
    job j;
    open_job(&j, 0);
    take(&j, 4);
    assert_int_equal(atomic_load(&j.calls), PLACES);
    take(&j, 5);
    assert_int_equal(atomic_load(&j.calls), 2 * PLACES);
    fi_prefetch_destroy(j.prefetch);
}

/* Memory is bounded: threads stop when the ring is full, and begin with the reader. */
static void no_more_than_the_ring_is_made(void **unused) {
    (void)unused;
    job j;
    open_job(&j, 4);
    take(&j, 0);
    wait_for_calls(&j, (DEPTH + 1) * PLACES);
    usleep(5000);
    assert_int_equal(atomic_load(&j.calls), (DEPTH + 1) * PLACES);
    fi_prefetch_destroy(j.prefetch);
}

static void the_first_failing_place_speaks(void **unused) {
    (void)unused;
    for (int32_t threads = 0; threads < 5; threads++) {
        job j;
        int32_t slot;
        open_job(&j, threads);
        j.fails_in = 2;
        take(&j, 0);
        take(&j, 1);
        for (int again = 1; again < 3; again++) {
            CHECK_FAILS(fi_prefetch_take(&slot, j.prefetch, 2), FEATINV_ERROR_MEMORY,
                        "place 1 of batch 2");
            assert_int_equal(atomic_load(&j.failing_calls), 2 * again); /* made anew */
        }
        take(&j, 3); /* the others are not touched by it */
        fi_prefetch_destroy(j.prefetch);
    }
}

static void batches_are_given_up(void **unused) {
    (void)unused;
    job j;
    open_job(&j, 2);
    j.hangs_in = 1;
    take(&j, 0);
    wait_for_calls(&j, PLACES + 1); /* somebody is at batch 1 */
    take(&j, 50);
    assert_in_range(atomic_load(&j.given_up), 1, 2);
    j.hangs_in = 61; /* and so when the reader goes back */
    int before = atomic_load(&j.calls), given_up = atomic_load(&j.given_up);
    take(&j, 60);
    wait_for_calls(&j, before + PLACES + 1);
    take(&j, 0);
    assert_true(atomic_load(&j.given_up) > given_up);
    j.hangs_in = -1;
    for (int64_t batch = 0; batch < 4; batch++)
        take(&j, batch);
    fi_prefetch_destroy(j.prefetch);

    open_job(&j, 2);
    j.hangs_in = 1;
    take(&j, 0);
    wait_for_calls(&j, PLACES + 1);
    fi_prefetch_destroy(j.prefetch); /* returns though no one else ends the batch */
    assert_in_range(atomic_load(&j.given_up), 1, 2);
    fi_prefetch_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_in_any_order),
        cmocka_unit_test(without_threads_the_reader_works),
        cmocka_unit_test(no_more_than_the_ring_is_made),
        cmocka_unit_test(the_first_failing_place_speaks),
        cmocka_unit_test(batches_are_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
