/* The generator against the answers published with Philox, and the promises made on its order. */
#include "check.h"

#include "noise.h"

#include <math.h>
#include <pthread.h>

static void philox_gives_the_published_answers(void **state) {
    (void)state;
    /* Random123's kat_vectors, philox4x32 10 */
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        fi_philox(out, cases[i].counter, cases[i].key);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

/* What the definition in docs/numerics.md gives with libm's functions, in double. */
static float by_definition(uint64_t seed, uint32_t sample, uint32_t step, size_t element) {
    uint32_t counter[4] = {sample, step, 0, (uint32_t)(element / 4)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    fi_philox(counter, counter, key);
    size_t pair = element % 4 / 2 * 2;
    double u0 = (counter[pair] + 0.5) / 4294967296.0, u1 = (counter[pair + 1] + 0.5) / 4294967296.0;
    double angle = 2.0 * 3.14159265358979323846 * u1, radius = sqrt(-2.0 * log(u0));
    return (float)(radius * (element % 2 ? sin(angle) : cos(angle)));
}

static void noise_follows_its_definition(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    static float noise[COUNT];
    const uint64_t seed = 0x123456789abcdef0u;
    CHECK_OK(featinv_noise(noise, COUNT, seed, 7, 3));
    for (size_t i = 0; i < COUNT; i++) {
        float wanted = by_definition(seed, 7, 3, i);
        if (fabsf(noise[i] - wanted) > 2e-7f * fmaxf(1.0f, fabsf(wanted)))
            fail_msg("element %zu: %.9g, wanted %.9g", i, (double)noise[i], (double)wanted);
    }
}

/* Bits recorded once; any machine, compiler or order of calls must give them again. */
static void noise_is_the_same_everywhere(void **state) {
    (void)state;
    float all[4096], part[10];
    CHECK_OK(featinv_noise(all, 4096, 100, 0, 0));
    CHECK_OK(featinv_noise(part, 10, 100, 0, 0));
    assert_memory_equal(all, part, sizeof part);
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over the bytes */
    for (size_t i = 0; i < sizeof all; i++)
        hash = (hash ^ ((const unsigned char *)all)[i]) * 0x100000001b3u;
    if (hash != 0x57094a98bdbc4b1au)
        fail_msg("the hash of 4096 values is %016llx", (unsigned long long)hash);
}

static void noise_is_standard_normal(void **state) {
    (void)state;
    enum { COUNT = 400000 };
    float *noise = malloc(COUNT * sizeof *noise);
    CHECK_OK(featinv_noise(noise, COUNT, 1, 0, 0));
    double sum = 0, sum2 = 0, sum4 = 0;
    for (size_t i = 0; i < COUNT; i++) {
        double v = (double)noise[i];
        sum += v;
        sum2 += v * v;
        sum4 += v * v * v * v;
    }
    free(noise);
    assert_true(fabs(sum / COUNT) < 0.007);
    assert_true(fabs(sum2 / COUNT - 1.0) < 0.01);
    assert_true(fabs(sum4 / COUNT - 3.0) < 0.08);
}

static void samples_and_steps_have_their_own_noise(void **state) {
    (void)state;
    float a[64], b[64], c[64], d[64];
    CHECK_OK(featinv_noise(a, 64, 5, 0, 0));
    CHECK_OK(featinv_noise(b, 64, 5, 1, 0));
    CHECK_OK(featinv_noise(c, 64, 5, 0, 1));
    CHECK_OK(featinv_noise(d, 64, 5 + ((uint64_t)1 << 32), 0, 0));
    assert_true(memcmp(a, b, sizeof a) && memcmp(a, c, sizeof a) && memcmp(a, d, sizeof a));
}

enum { SAMPLES = 32, STEPS = 3, VALUES = 1003 }; /* 32: the default batch on a GPU; an odd tail */

typedef struct filling {
    float *out; /* (SAMPLES, STEPS, VALUES) */
    int first, stride;
    featinv_status status;
} filling;

static void *fill(void *arg) {
    filling *f = arg;
    for (int i = 0; i < SAMPLES * STEPS && !f->status; i++) {
        int row = (f->first + i * f->stride) % (SAMPLES * STEPS);
        f->status = featinv_noise(f->out + row * VALUES, VALUES, 42, (uint32_t)(row / STEPS),
                                  (uint32_t)(row % STEPS));
    }
    return NULL;
}

/* Two threads at once, one backwards, one by leaps of 35 (prime to 96), against one after another;
 * then batches of 1, 2, 7 and 32 samples, each begun anew. */
static void noise_is_bit_equal_in_any_order_and_thread(void **state) {
    (void)state;
    static float serial[SAMPLES * STEPS * VALUES], backwards[SAMPLES * STEPS * VALUES],
        leaping[SAMPLES * STEPS * VALUES];
    filling all[] = {{serial, 0, 1, 0}, {backwards, 95, 95, 0}, {leaping, 5, 35, 0}};
    pthread_t threads[2];
    (void)fill(&all[0]);
    CHECK_OK(all[0].status);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fill, &all[i + 1]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        CHECK_OK(all[i + 1].status);
        assert_memory_equal(serial, all[i + 1].out, sizeof serial);
    }
    static const int batches[] = {1, 2, 7, 32};
    for (size_t b = 0; b < 4; b++) {
        memset(backwards, 0, sizeof backwards);
        for (int from = 0; from < SAMPLES; from += batches[b])
            for (int step = 0; step < STEPS; step++)
                for (int k = from; k < SAMPLES && k < from + batches[b]; k++)
                    CHECK_OK(featinv_noise(backwards + (k * STEPS + step) * VALUES, VALUES, 42,
                                           (uint32_t)k, (uint32_t)step));
        assert_memory_equal(serial, backwards, sizeof serial);
    }
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    CHECK_FAILS(featinv_noise(NULL, 3, 1, 0, 0), FEATINV_ERROR_ARGUMENT, "3 values");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(noise_follows_its_definition),
        cmocka_unit_test(noise_is_the_same_everywhere),
        cmocka_unit_test(noise_is_standard_normal),
        cmocka_unit_test(samples_and_steps_have_their_own_noise),
        cmocka_unit_test(noise_is_bit_equal_in_any_order_and_thread),
        cmocka_unit_test(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
