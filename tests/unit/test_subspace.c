/* Bases of clusters: principal directions, their count, against the published code's. */
#include "concept_maker.h"

#include "dense.h"
#include "subspace.h"

static featinv_session *session;

static int open_session(void **state) {
    (void)state;
    return featinv_session_create(&session, NULL, NULL) ? -1 : 0;
}

static int close_session(void **state) {
    (void)state;
    featinv_session_destroy(session);
    return 0;
}

/* Largest difference of the projectors of a basis (d, p) and of rows (q, d). */
static double projector_error(const double *basis, int64_t p, const double *rows, int64_t q,
                              int64_t d) {
    double *left = calloc((size_t)(d * d), sizeof *left), *right = calloc((size_t)(d * d), 8);
    fi_multiply_add(left, d, 1.0, (fi_matrix){basis, p, false}, (fi_matrix){basis, p, true}, d, d,
                    p);
    fi_multiply_add(right, d, 1.0, (fi_matrix){rows, d, true}, (fi_matrix){rows, d, false}, d, d,
                    q);
    double worst = furthest(left, right, d * d);
    free(left);
    free(right);
    return worst;
}

static void check_orthonormal(const double *basis, int64_t p, int64_t d) {
    for (int64_t i = 0; i < p; i++) {
        double largest = 0.0;
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0.0;
            for (int64_t c = 0; c < d; c++)
                sum += basis[c * p + i] * basis[c * p + j];
            CHECK_BELOW(fabs(sum - (i == j)), 1e-14);
        }
        for (int64_t c = 0; c < d; c++)
            if (fabs(basis[c * p + i]) > fabs(largest))
                largest = basis[c * p + i];
        assert_true(largest > 0.0); /* signs do not depend on the eigensolver */
    }
}

static int64_t members_of(int64_t *members, const int32_t *labels, int64_t n, int32_t label) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (labels[i] == label)
            members[count++] = i;
    return count;
}

static void recorded_bases(void **state) {
    (void)state;
    static const char *const sets[] = {"sym", "off"}, *const kinds[] = {"uncentred", "official"};
    static int64_t members[400];
    for (int s = 0; s < 2; s++) {
        char name[64];
        int64_t shape[8];
        (void)snprintf(name, sizeof name, "%s_X", sets[s]);
        float *x = recorded("bases", name, FEATINV_DTYPE_F32, shape);
        (void)snprintf(name, sizeof name, "%s_labels", sets[s]);
        int32_t *labels = recorded("bases", name, FEATINV_DTYPE_I32, NULL);
        for (int kind = FEATINV_BASIS_ORIGIN; kind <= FEATINV_BASIS_CENTRED; kind++)
            for (int32_t k = 0; k < 4; k++) {
                double *basis;
                int32_t p;
                int64_t want_shape[8], count = members_of(members, labels, shape[0], k);
                (void)snprintf(name, sizeof name, "%s_basis_%s_%d", sets[s], kinds[kind], k);
                double *want = recorded("bases", name, FEATINV_DTYPE_F64, want_shape);
                CHECK_OK(fi_subspace_fit(&basis, &p, session, x, 24, members, count, kind, 0));
                assert_int_equal(p, want_shape[0]);
                check_orthonormal(basis, p, 24);
                CHECK_BELOW(projector_error(basis, p, want, p, 24), 1e-6);
                free(basis);
                /* fewer members than channels: the other Gram matrix, the same directions */
                CHECK_OK(fi_subspace_fit(&basis, &p, session, x, 24, members, 10, kind, 3));
                assert_true(p == 3);
                check_orthonormal(basis, p, 24);
                free(basis);
                free(want);
            }
        free(x);
        free(labels);
    }
}

/* Rows of a known subspace with coordinates of known lengths: float32 rounding moves the projector
 * by no more than the smallest of them allows, on either side of the Gram matrix. */
static void known_subspace(void **state) {
    (void)state;
    static const int64_t counts[] = {12, 60};
    static const double lengths[] = {1.0, 0.5, 0.3, 1e-2};
    enum { D = 30, RANK = 4 };
    for (int s = 0; s < 2; s++) {
        int64_t n = counts[s], rank;
        double random[RANK * D], frame[RANK * D], coordinates[60 * RANK], turned[RANK * 60];
        float *rows = malloc((size_t)(n * D) * sizeof *rows);
        int64_t members[60];
        for (int i = 0; i < RANK * D; i++)
            random[i] = maker_random();
        CHECK_OK(fi_orthonormal(frame, NULL, &rank, random, RANK, D, 0.0));
        for (int64_t i = 0; i < RANK * n; i++)
            turned[i] = maker_random();
        double even[RANK * 60];
        CHECK_OK(fi_orthonormal(even, NULL, &rank, turned, RANK, n, 0.0));
        fi_transpose(coordinates, even, RANK, n);
        for (int64_t i = 0; i < n; i++) {
            members[i] = i;
            for (int c = 0; c < D; c++) {
                double sum = 0.0;
                for (int k = 0; k < RANK; k++)
                    sum += coordinates[i * RANK + k] * lengths[k] * frame[k * D + c];
                rows[i * D + c] = (float)sum;
            }
        }
        static const int32_t wanted[] = {0, 2, 4, 9}, found[] = {3, 2, 4, 4};
        for (int w = 0; w < 4; w++) { /* squares: 1, .25, .09, 1e-4: three above .05 */
            double *basis;
            int32_t p;
            CHECK_OK(fi_subspace_fit(&basis, &p, session, rows, D, members, n, FEATINV_BASIS_ORIGIN,
                                     wanted[w]));
            assert_int_equal(p, found[w]); /* never above the rank */
            check_orthonormal(basis, p, D);
            CHECK_BELOW(projector_error(basis, p, frame, p, D), p < 4 ? 1e-6 : 1e-5);
            free(basis);
        }
        free(rows);
    }
}

static void few_rows(void **state) {
    (void)state;
    float rows[4 * 3] = {0, -3, 4, 0, -3, 4, 0, -3, 4, 0, 0, 0};
    const int64_t all[3] = {0, 1, 2}, zero[1] = {3};
    double *basis;
    int32_t p;
    for (int64_t n = 1; n <= 3; n++) { /* one row, and copies of it */
        CHECK_OK(fi_subspace_fit(&basis, &p, session, rows, 3, all, n, FEATINV_BASIS_ORIGIN, 2));
        assert_int_equal(p, 1);
        CHECK_BELOW(fabs(basis[0]) + fabs(basis[1] + 0.6) + fabs(basis[2] - 0.8), 1e-15);
        free(basis);
        CHECK_FAILS(fi_subspace_fit(&basis, &p, session, rows, 3, all, n, FEATINV_BASIS_CENTRED, 0),
                    FEATINV_ERROR_UNSUPPORTED, "equal rows");
        assert_null(basis);
    }
    CHECK_FAILS(fi_subspace_fit(&basis, &p, session, rows, 3, zero, 1, FEATINV_BASIS_ORIGIN, 0),
                FEATINV_ERROR_UNSUPPORTED, "1 rows of zeros");
    CHECK_FAILS(fi_subspace_fit(&basis, &p, session, rows, 3, zero, 0, FEATINV_BASIS_ORIGIN, 0),
                FEATINV_ERROR_ARGUMENT, "no rows");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_bases),
        cmocka_unit_test(known_subspace),
        cmocka_unit_test(few_rows),
    };
    return cmocka_run_group_tests(tests, open_session, close_session);
}
