/* The Gram matrix against float64 products. */
#include "check.h"

#include "gram.h"
#include "vector.h"

#include <math.h>

enum { KEPT = 1 << 30 };

/* The kept values by exact integers and by the backend: within the bound that each states of the
 * float64 products; a row count that fills no block and no stretch, an odd width, rows of very
 * different lengths. */
static void test_gram(void **state) {
    (void)state;
    enum { N = 300, D = 517 };
    float *rows = malloc(sizeof(float) * N * D);
    assert_non_null(rows);
    uint32_t noise = 7;
    for (int64_t i = 0; i < (int64_t)N * D; i++) { /* about unit length */
        noise = noise * 1664525u + 1013904223u;
        rows[i] = (float)(((double)noise / 4294967296.0 - 0.5) * sqrt(12.0 / D));
    }
    for (int64_t k = 0; k < D; k++) {
        rows[2 * D + k] *= 1e-3f;
        rows[3 * D + k] = k == 5 ? 1.0f : 0.0f;
        rows[4 * D + k] = 0.0f;
    }
    featinv_session_options options;
    CHECK_OK(featinv_session_options_init(&options, sizeof options));
    options.threads = 2;
    options.device = "cpu";
    featinv_session *session = NULL;
    CHECK_OK(featinv_session_create(&session, NULL, &options));
    fi_workers *workers = NULL;
    CHECK_OK(fi_workers_create(&workers, 2));
    for (int integers = 0; integers <= fi_fixed_supported(); integers++) {
        fi_gram gram;
        fi_progress progress = {.total = 1};
        CHECK_OK(fi_gram_create(&gram, session, rows, N, D, KEPT, integers));
        assert_int_equal(gram.fixed.values != NULL, integers);
        CHECK_OK(fi_gram_make(&gram, session, workers, &progress));
        double worst = 0.0;
        for (int64_t i = 0; i < N; i++)
            for (int64_t k = 0; k < N; k++) {
                const double entry =
                    gram.unit * fi_gram_block(&gram, k / FI_GRAM_WIDTH, i)[k % FI_GRAM_WIDTH];
                worst = fmax(worst, fabs(entry - fi_dot(rows + i * D, rows + k * D, D)));
            }
        assert_true(worst <= gram.rounding);
        assert_true(gram.rounding < 2e-3);
        fi_gram_free(&gram);
    }
    rows[7] = NAN;
    fi_gram gram;
    CHECK_FAILS(fi_gram_create(&gram, session, rows, N, D, KEPT, true), FEATINV_ERROR_VALUE,
                "row 0 holds NaN");
    fi_gram_free(&gram);
    fi_workers_destroy(workers);
    featinv_session_destroy(session);
    free(rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gram)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
