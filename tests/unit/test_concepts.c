/* Bases, what is derived from them, and what is computed from bases and weights alone, in float64
 * against recorded results of the published code. */
#include "concept_maker.h"

#include "angles.h"
#include "dense.h"
#include "relevance.h"

/* ---------------------------------------------------------------- handles -------------------- */

static void one_concept(void **state) {
    (void)state;
    double direction[3] = {0, 3, 4};
    const int32_t offsets[2] = {0, 1};
    featinv_concepts *concepts;
    CHECK_FAILS(
        make_concepts(&concepts, direction, 3, offsets, 1, 0), FEATINV_ERROR_ARGUMENT,
        "concept 0 is not orthonormal: its columns 0 and 0 have an inner product off by 24");
    CHECK_OK(make_concepts(&concepts, direction, 3, offsets, 1, 1));
    featinv_concepts_details info = details_of(concepts);
    assert_int_equal(info.channels, 3);
    assert_int_equal(info.count, 1);
    assert_int_equal(info.total, 1);
    assert_int_equal(info.angle_first, -1);
    assert_int_equal(info.angle_second, -1);
    assert_int_equal(info.method, FEATINV_CONCEPTS_GIVEN);
    CHECK_BELOW(fabs(info.smallest_angle - M_PI / 2), 0.0);
    CHECK_BELOW(fabs(info.smallest_singular - 1.0), 1e-15);
    CHECK_BELOW(fabs(info.bases[1] - 0.6) + fabs(info.bases[2] - 0.8), 1e-15);
    assert_true(isnan(info.gamma) && isnan(info.objective) && !info.labels && !info.class_name);
    CHECK_FAILS(featinv_concepts_coefficients(NULL, NULL, NULL, NULL, concepts),
                FEATINV_ERROR_NOT_FOUND, "keep");
    /* a caller of an older library: a shorter struct, whose end is left alone */
    struct {
        uint32_t size;
        int32_t channels, count, total;
    } old = {sizeof old, 0, 0, 77};
    old.size = 12;
    CHECK_OK(featinv_concepts_info((featinv_concepts_details *)&old, concepts));
    assert_int_equal(old.channels, 3);
    assert_int_equal(old.count, 1);
    assert_int_equal(old.total, 77);
    assert_ptr_equal(featinv_concepts_retain(concepts), concepts);
    featinv_concepts_release(concepts);
    assert_int_equal(details_of(concepts).count, 1);
    featinv_concepts_release(concepts);
    featinv_concepts_release(NULL);
    assert_null(featinv_concepts_retain(NULL));
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *what;
        int32_t offsets[4], count, orthonormalize;
        double entry; /* of row 0, column 0; the rest is the unit matrix (4, 3) */
        featinv_status status;
        const char *text;
    } cases[] = {
        {"first", {1, 2, 3, 3}, 2, 0, 1, FEATINV_ERROR_ARGUMENT, "the first is 1, not 0"},
        {"empty", {0, 1, 1, 3}, 3, 0, 1, FEATINV_ERROR_ARGUMENT, "1 is followed by 1"},
        {"falling", {0, 2, 1, 3}, 3, 0, 1, FEATINV_ERROR_ARGUMENT, "2 is followed by 1"},
        {"short", {0, 1, 2, 2}, 2, 0, 1, FEATINV_ERROR_ARGUMENT, "the last is 2, bases has 3"},
        {"long",
         {0, 5, 5, 5},
         1,
         0,
         1,
         FEATINV_ERROR_ARGUMENT,
         "5 dimensions together, the features 4"},
        {"none", {0, 3, 3, 3}, 0, 0, 1, FEATINV_ERROR_ARGUMENT, "0 concepts"},
        {"NaN", {0, 3, 3, 3}, 1, 0, NAN, FEATINV_ERROR_VALUE, "NaN at row 0, column 0"},
        {"infinity", {0, 3, 3, 3}, 1, 1, INFINITY, FEATINV_ERROR_VALUE, "infinity at row 0"},
        {"long vector", {0, 3, 3, 3}, 1, 0, 1.00001, FEATINV_ERROR_ARGUMENT, "off by 2e-05"},
        {"dependent",
         {0, 3, 3, 3},
         1,
         1,
         0,
         FEATINV_ERROR_ARGUMENT,
         "the 3 columns of concept 0 are dependent: they span 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double bases[12] = {cases[i].entry, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
        int64_t shape[2] = {4, 3};
        featinv_tensor view = featinv_tensor_view(bases, FEATINV_DTYPE_F64, 2, shape);
        featinv_concepts *concepts = (void *)bases;
        featinv_status status = featinv_concepts_create(&concepts, &view, cases[i].offsets,
                                                        cases[i].count, cases[i].orthonormalize);
        if (status != cases[i].status || !strstr(featinv_last_error(), cases[i].text))
            fail_msg("%s: %s: %s", cases[i].what, featinv_status_name(status),
                     featinv_last_error());
    }
    double bases[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
    float single[12];
    for (int i = 0; i < 12; i++)
        single[i] = (float)bases[i];
    int64_t shape[2] = {4, 3}, flat[1] = {12};
    const int32_t offsets[2] = {0, 3};
    featinv_concepts *concepts;
    featinv_tensor view = featinv_tensor_view(bases, FEATINV_DTYPE_F64, 1, flat);
    CHECK_FAILS(featinv_concepts_create(&concepts, &view, offsets, 1, 0), FEATINV_ERROR_SHAPE,
                "(12,)");
    CHECK_FAILS(featinv_concepts_create(&concepts, NULL, offsets, 1, 0), FEATINV_ERROR_ARGUMENT,
                "bases");
    view = featinv_tensor_view(single, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(featinv_concepts_create(&concepts, &view, offsets, 1, 0));
    featinv_concepts_release(concepts);
    CHECK_FAILS(featinv_concepts_info(NULL, NULL), FEATINV_ERROR_ARGUMENT, "no concepts");
}

/* Labels come with fits and files. */
static void labels(void **state) {
    (void)state;
    static const int32_t wrong[] = {-2, 2};
    for (int32_t i = 0; i < 3; i++) {
        double *bases = calloc(4, sizeof *bases);
        int32_t *offsets = calloc(3, sizeof *offsets), *values = calloc(6, sizeof *values);
        int64_t shape[3] = {1, 2, 3};
        featinv_concepts *concepts;
        bases[0] = bases[3] = offsets[1] = values[0] = 1;
        offsets[2] = 2;
        values[1] = -1;
        if (i < 2) {
            values[5] = wrong[i];
            CHECK_FAILS(fi_concepts_new(&concepts, bases, offsets, 2, 2, values, 3, shape),
                        FEATINV_ERROR_ARGUMENT, i ? "labels: 2 at row 5" : "labels: -2 at row 5");
            continue;
        }
        CHECK_OK(fi_concepts_new(&concepts, bases, offsets, 2, 2, values, 3, shape));
        featinv_concepts_details info = details_of(concepts);
        assert_int_equal(info.label_ndim, 3);
        assert_memory_equal(info.label_shape, shape, sizeof shape);
        assert_int_equal(info.labels[1], -1);
        featinv_concepts_release(concepts);
    }
}

/* Bases that came as float32 are put right, those in float64 are kept bit for bit. */
static void polish(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("relevance", "basis", 4), *again;
    featinv_concepts_details info = details_of(concepts);
    int64_t size = (int64_t)info.channels * info.total, shape[2] = {info.channels, info.total};
    float *single = malloc((size_t)size * sizeof *single);
    double *kept = malloc((size_t)size * sizeof *kept);
    memcpy(kept, info.bases, (size_t)size * sizeof *kept);
    for (int64_t i = 0; i < size; i++)
        single[i] = (float)info.bases[i];
    CHECK_OK(make_concepts(&again, kept, info.channels, info.offsets, info.count, 0));
    assert_memory_equal(details_of(again).bases, kept, (size_t)size * sizeof *kept);
    featinv_concepts_release(again);
    featinv_tensor view = featinv_tensor_view(single, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(featinv_concepts_create(&again, &view, info.offsets, info.count, 0));
    featinv_concepts_details polished = details_of(again);
    CHECK_BELOW(furthest(polished.bases, info.bases, size), 2e-7);
    double *rows;
    int32_t p;
    CHECK_OK(fi_concepts_rows(&rows, &p, again, 1));
    for (int32_t i = 0; i < p; i++)
        for (int32_t j = 0; j <= i; j++)
            CHECK_BELOW(fabs(fi_dense_dot(rows + i * 24, rows + j * 24, 24) - (i == j)), 1e-14);
    free(rows);
    free(single);
    free(kept);
    featinv_concepts_release(again);
    featinv_concepts_release(concepts);
}

/* ---------------------------------------------------------------- angles --------------------- */

/* Two planes in 6 dimensions, one of whose angles is known, among far concepts. */
static void known_angles(void **state) {
    (void)state;
    static const double angles[] = {M_PI / 2, 1.2, M_PI / 4, 0.1, 1e-3, 1e-6, 1e-8, 1e-12, 0.0};
    for (size_t i = 0; i < sizeof angles / sizeof *angles; i++) {
        double e = angles[i], got[2], distance, bases[6 * 5] = {0};
        const int32_t offsets[4] = {0, 1, 3, 5};
        int32_t count;
        featinv_concepts *concepts;
        bases[0 * 5 + 0] = 1.0;                               /* concept 0: e0 */
        bases[1 * 5 + 1] = bases[2 * 5 + 2] = 1.0;            /* concept 1: e1, e2 */
        bases[2 * 5 + 3] = cos(e), bases[5 * 5 + 3] = sin(e); /* concept 2: at e to e2; e3 */
        bases[3 * 5 + 4] = 1.0;
        CHECK_OK(make_concepts(&concepts, bases, 6, offsets, 3, 0));
        featinv_concepts_details info = details_of(concepts);
        CHECK_BELOW(fabs(info.smallest_angle - e), 1e-14);
        CHECK_BELOW(fabs(info.smallest_singular - sqrt(2.0) * sin(e / 2)), 1e-15);
        if (e < 1.5) {
            assert_int_equal(info.angle_first, 1);
            assert_int_equal(info.angle_second, 2);
        }
        CHECK_OK(featinv_concepts_similarity(&distance, got, 2, &count, concepts, 1, concepts, 2));
        assert_int_equal(count, 2);
        CHECK_BELOW(fabs(got[0] - M_PI / 2), 1e-14);
        CHECK_BELOW(fabs(got[1] - e), 1e-14);
        CHECK_BELOW(fabs(distance - sqrt(M_PI * M_PI / 4 + e * e)), 1e-14);
        if (e >= 1e-8) /* where both concepts are the same, the complement grows */ {
            /* the complement is what concept 2 has no part of: all its angles are right */
            CHECK_OK(featinv_concepts_similarity(NULL, got, 1, &count, concepts, FEATINV_COMPLEMENT,
                                                 concepts, 2));
            assert_int_equal(count, 1);
            CHECK_BELOW(fabs(got[0] - M_PI / 2), 1e-14);
        }
        featinv_concepts_release(concepts);
    }
}

static void recorded_angles(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("relevance", "basis", 4);
    double *grassmann = recorded("relevance", "grassmann_official", FEATINV_DTYPE_F64, NULL);
    double smallest = M_PI;
    for (int32_t i = 0; i < 5; i++)
        for (int32_t j = 0; j < 5; j++) {
            double got[24], distance;
            int32_t count;
            char name[32];
            CHECK_OK(featinv_concepts_similarity(&distance, got, 24, &count, concepts,
                                                 i < 4 ? i : FEATINV_COMPLEMENT, concepts,
                                                 j < 4 ? j : FEATINV_COMPLEMENT));
            CHECK_BELOW(fabs(distance - grassmann[i * 5 + j]), i == j ? 1e-6 : 1e-12);
            if (i == j)
                CHECK_BELOW(distance, 1e-14); /* the recorded one is 1e-7: from cosines */
            if (i >= j)
                continue;
            (void)snprintf(name, sizeof name, "angles_%d_%d", i, j);
            double *want = recorded("relevance", name, FEATINV_DTYPE_F64, NULL);
            CHECK_BELOW(furthest(got, want, count), 1e-12);
            smallest = j < 4 ? fmin(smallest, want[count - 1]) : smallest;
            free(want);
        }
    CHECK_BELOW(fabs(details_of(concepts).smallest_angle - smallest), 1e-12);
    free(grassmann);
    featinv_concepts_release(concepts);
}

/* Complements of unequal spans against explicit bases of them. */
static void complement_angles(void **state) {
    (void)state;
    static const int32_t few[] = {2, 1}, many[] = {4, 3}, most[] = {5, 2};
    enum { D = 9 };
    featinv_concepts *sets[3] = {random_concepts(D, few, 2), random_concepts(D, many, 2),
                                 random_concepts(D, most, 2)};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double rows[2][2 * D * D], q[2][D * D], want[D], got[D];
            int64_t rank[2], first[2] = {sets[i]->rank, sets[j]->rank};
            int32_t count;
            for (int k = 0; k < 2; k++) {
                const featinv_concepts *set = sets[k ? j : i];
                memcpy(rows[k], set->span, (size_t)(set->rank * D) * sizeof(double));
                for (int64_t c = 0; c < D * D; c++)
                    rows[k][set->rank * D + c] = c % (D + 1) == 0;
                CHECK_OK(fi_orthonormal(q[k], NULL, &rank[k], rows[k], set->rank + D, D, 1e-9));
                assert_int_equal(rank[k], D);
            }
            CHECK_OK(fi_angles(want, q[0] + first[0] * D, D - first[0], q[1] + first[1] * D,
                               D - first[1], D));
            CHECK_OK(featinv_concepts_similarity(NULL, got, D, &count, sets[i], FEATINV_COMPLEMENT,
                                                 sets[j], FEATINV_COMPLEMENT));
            assert_int_equal(count, D - (first[0] > first[1] ? first[0] : first[1]));
            CHECK_BELOW(furthest(got, want, count), 1e-13);
            for (int32_t k = 0; k < 2; k++) { /* a concept wider than the other set's complement */
                int32_t p = sets[i]->offsets[k + 1] - sets[i]->offsets[k];
                double *own;
                CHECK_OK(fi_concepts_rows(&own, &p, sets[i], k));
                CHECK_OK(fi_angles(want, own, p, q[1] + first[1] * D, D - first[1], D));
                CHECK_OK(featinv_concepts_similarity(NULL, got, D, &count, sets[i], k, sets[j],
                                                     FEATINV_COMPLEMENT));
                assert_int_equal(count, p < D - first[1] ? p : D - first[1]);
                CHECK_BELOW(furthest(got, want, count), 1e-13);
                free(own);
            }
        }
    int32_t count;
    featinv_concepts *other = random_concepts(D + 1, few, 2);
    CHECK_FAILS(featinv_concepts_similarity(NULL, NULL, 0, &count, sets[0], 0, other, 0),
                FEATINV_ERROR_SHAPE, "9 and of 10");
    CHECK_FAILS(featinv_concepts_similarity(NULL, NULL, 0, &count, sets[0], 2, other, 0),
                FEATINV_ERROR_ARGUMENT, "concept is 2: there are 0 to 1");
    CHECK_FAILS(featinv_concepts_similarity(NULL, NULL, 3, &count, sets[0], 0, sets[0], 0),
                FEATINV_ERROR_ARGUMENT, "3 angles");
    featinv_concepts_release(other);
    for (int i = 0; i < 3; i++)
        featinv_concepts_release(sets[i]);
}

/* ---------------------------------------------------------------- the published figures ------ */

/* Parts of recorded features by the dual and the bases, against the recorded parts (n, K + 1,
 * C). */
static void check_parts(const featinv_concepts *concepts, const double *phi, const double *want,
                        int64_t n, double most) {
    featinv_concepts_details info = details_of(concepts);
    for (int64_t i = 0; i < n; i++) {
        double part[64], rest[64], scale = 0.0;
        const double *x = phi + i * info.channels;
        memcpy(rest, x, (size_t)info.channels * sizeof *rest);
        for (int32_t k = 0; k < info.count; k++) {
            memset(part, 0, sizeof part);
            for (int32_t j = info.offsets[k]; j < info.offsets[k + 1]; j++) {
                double a = fi_dense_dot(concepts->dual + j * info.channels, x, info.channels);
                for (int32_t c = 0; c < info.channels; c++)
                    part[c] += a * info.bases[c * info.total + j];
            }
            const double *recorded_part = want + (i * (info.count + 1) + k) * info.channels;
            scale = fmax(scale, sqrt(fi_dense_dot(recorded_part, recorded_part, info.channels)));
            CHECK_BELOW(furthest(part, recorded_part, info.channels), most * fmax(scale, 1.0));
            fi_dense_add(rest, -1.0, part, info.channels);
        }
        CHECK_BELOW(furthest(rest, want + (i * (info.count + 1) + info.count) * info.channels,
                             info.channels),
                    most * fmax(scale, 1.0));
    }
}

static void recorded_parts(void **state) {
    (void)state;
    static const char *const sets[] = {"sym", "off"}, *const kinds[] = {"official", "uncentred"};
    for (int s = 0; s < 2; s++)
        for (int k = 0; k < 2; k++) {
            char basis[64], parts[64], phi[64];
            (void)snprintf(basis, sizeof basis, "%s_basis_%s", sets[s], kinds[k]);
            (void)snprintf(parts, sizeof parts, "%s_components_%s", sets[s], kinds[k]);
            (void)snprintf(phi, sizeof phi, "%s_phi", sets[s]);
            featinv_concepts *concepts = recorded_concepts("bases", basis, 4);
            double *x = recorded("bases", phi, FEATINV_DTYPE_F64, NULL);
            double *want = recorded("bases", parts, FEATINV_DTYPE_F64, NULL);
            check_parts(concepts, x, want, 16, 1e-12);
            free(x);
            free(want);
            featinv_concepts_release(concepts);
        }
}

/* Concepts that share a direction: no dual, but the pseudo-inverse gives the shortest
 * coefficients. */
static void shared_direction(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("bases", "share_basis", 2);
    featinv_concepts_details info = details_of(concepts);
    int64_t d = info.channels, total = info.total, rank;
    assert_null(concepts->dual);
    assert_int_equal(concepts->rank, 5);
    CHECK_BELOW(info.smallest_angle, 1e-8);
    CHECK_BELOW(info.smallest_singular, 1e-8);
    CHECK_FAILS(fi_concepts_check_dual(concepts), FEATINV_ERROR_UNSUPPORTED,
                "concepts 0 and 1 overlap");
    double *rows[2], frame[6 * 24], q[6 * 24], factor[36], dual[6 * 24], rest[24];
    for (int32_t k = 0, p; k < 2; k++) {
        CHECK_OK(fi_concepts_rows(&rows[k], &p, concepts, k));
        assert_int_equal(p, 3);
        memcpy(frame + 72 * k, rows[k], 72 * sizeof *frame);
        free(rows[k]);
    }
    CHECK_OK(fi_orthonormal(q, factor, &rank, frame, total, d, 1e-10));
    CHECK_OK(fi_pseudo_inverse(dual, q, factor, total, rank, d));
    double *phi = recorded("bases", "over_phi", FEATINV_DTYPE_F64, NULL);
    double *want = recorded("bases", "share_components_minnorm", FEATINV_DTYPE_F64, NULL);
    memcpy(rest, phi, sizeof rest);
    for (int k = 0; k < 2; k++) {
        double part[24] = {0};
        for (int j = 3 * k; j < 3 * k + 3; j++)
            fi_dense_add(part, fi_dense_dot(dual + j * d, phi, d), frame + j * d, d);
        CHECK_BELOW(furthest(part, want + k * d, d), 1e-12);
        fi_dense_add(rest, -1.0, part, d);
    }
    CHECK_BELOW(furthest(rest, want + 2 * d, d), 1e-12);
    free(phi);
    free(want);
    featinv_concepts_release(concepts);
}

static void recorded_relevance(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("relevance", "basis", 4);
    double *weight = recorded("relevance", "w_raw", FEATINV_DTYPE_F64, NULL);
    double *want = recorded("relevance", "global_relevance_official", FEATINV_DTYPE_F64, NULL);
    double *both = recorded("relevance", "completeness_official", FEATINV_DTYPE_F64, NULL);
    double got[5], inside, outside, zero[24] = {0};
    CHECK_OK(fi_global_relevance(got, concepts, weight));
    CHECK_BELOW(furthest(got, want, 5), 1e-12);
    CHECK_OK(featinv_concepts_completeness(&inside, &outside, concepts, weight));
    CHECK_BELOW(fabs(inside - both[0]), 1e-12);
    CHECK_BELOW(fabs(outside - both[1]), 1e-12);
    CHECK_BELOW(fabs(inside * inside + outside * outside - 1.0), 1e-15);
    CHECK_OK(featinv_concepts_completeness(NULL, NULL, concepts, weight));
    CHECK_FAILS(featinv_concepts_completeness(&inside, NULL, concepts, zero),
                FEATINV_ERROR_ARGUMENT, "all 24 channels are zero");
    zero[3] = NAN;
    CHECK_FAILS(featinv_concepts_completeness(&inside, NULL, concepts, zero), FEATINV_ERROR_VALUE,
                "NaN at channel 3");
    CHECK_FAILS(featinv_concepts_completeness(&inside, NULL, concepts, NULL),
                FEATINV_ERROR_ARGUMENT, "no weight");
    free(weight);
    free(want);
    free(both);
    featinv_concepts_release(concepts);
}

/* The dimensions together are all channels: nothing is outside. */
static void whole_space(void **state) {
    (void)state;
    static const int32_t dimensions[] = {3, 1, 2};
    featinv_concepts *concepts = random_concepts(6, dimensions, 3);
    double weight[6] = {1, -2, 3, 0, 0, 1e-3}, inside, outside, global[4];
    CHECK_OK(featinv_concepts_completeness(&inside, &outside, concepts, weight));
    CHECK_BELOW(fabs(inside - 1.0), 1e-15);
    CHECK_BELOW(outside, 0.0);
    CHECK_OK(fi_global_relevance(global, concepts, weight));
    CHECK_BELOW(global[3], 0.0);
    int32_t count;
    CHECK_OK(featinv_concepts_similarity(&inside, NULL, 0, &count, concepts, 0, concepts,
                                         FEATINV_COMPLEMENT));
    assert_int_equal(count, 0);
    CHECK_BELOW(inside, 0.0);
    featinv_concepts_release(concepts);
}

/* ---------------------------------------------------------------- orthogonalisation ---------- */

static void recorded_greedy(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("relevance", "basis", 4), *greedy;
    double *weight = recorded("relevance", "w_raw", FEATINV_DTYPE_F64, NULL);
    int64_t *order = recorded("relevance", "greedy_order", FEATINV_DTYPE_I64, NULL);
    double *steps = recorded("relevance", "greedy_completeness", FEATINV_DTYPE_F64, NULL);
    double *global = recorded("relevance", "greedy_global_relevance", FEATINV_DTYPE_F64, NULL);
    int32_t got_order[4];
    CHECK_OK(featinv_concepts_orthogonalize(&greedy, got_order, concepts, weight));
    featinv_concepts_details info = details_of(greedy);
    assert_int_equal(info.count, 4);
    CHECK_BELOW(fabs(info.smallest_angle - M_PI / 2), 1e-14);
    double got[5], squares = 0.0, reached = 0.0;
    CHECK_OK(fi_global_relevance(got, greedy, weight));
    CHECK_BELOW(furthest(got, global, 5), 1e-12);
    for (int i = 0; i < 5; i++)
        squares += got[i] * got[i];
    CHECK_BELOW(fabs(squares - 1.0), 1e-14);
    for (int32_t k = 0; k < 4; k++) {
        char name[32];
        int64_t shape[8];
        double *rows, distance;
        int32_t p;
        assert_int_equal(got_order[k], order[k]);
        reached = hypot(reached, got[k]);
        CHECK_BELOW(fabs(reached - steps[k]), 1e-12);
        (void)snprintf(name, sizeof name, "greedy_basis_%d", k);
        double *want = recorded("relevance", name, FEATINV_DTYPE_F64, shape);
        CHECK_OK(fi_concepts_rows(&rows, &p, greedy, k));
        assert_int_equal(p, shape[0]);
        double angles[8];
        CHECK_OK(fi_angles(angles, rows, p, want, p, 24));
        distance = angles[0];
        CHECK_BELOW(distance, 1e-12);
        free(rows);
        free(want);
    }
    free(weight);
    free(order);
    free(steps);
    free(global);
    featinv_concepts_release(greedy);
    featinv_concepts_release(concepts);
}

/* A concept inside another keeps nothing but rounding, and goes; labels follow the new numbers. */
static void contained(void **state) {
    (void)state;
    double *bases = calloc(5 * 5, sizeof *bases), weight[5] = {0.1, 0.2, 2.0, 3.0, 0.0};
    int32_t *offsets = calloc(4, sizeof *offsets), *rows = malloc(5 * sizeof *rows), order[3];
    int64_t shape[1] = {5};
    const int32_t ends[] = {0, 2, 3, 5}, given[] = {0, 1, 2, -1, 0}, wanted[] = {1, -1, 0, -1, 1};
    bases[0 * 5 + 0] = bases[1 * 5 + 1] = 1.0;       /* 0: e0, e1 */
    bases[2 * 5 + 2] = 0.6, bases[3 * 5 + 2] = 0.8;  /* 1: within concept 2 */
    bases[2 * 5 + 3] = 0.8, bases[3 * 5 + 3] = -0.6; /* 2: e2, e3 turned */
    bases[2 * 5 + 4] = 0.6, bases[3 * 5 + 4] = 0.8;
    memcpy(offsets, ends, sizeof ends);
    memcpy(rows, given, sizeof given);
    featinv_concepts *concepts, *greedy;
    CHECK_OK(fi_concepts_new(&concepts, bases, offsets, 3, 5, rows, 1, shape));
    concepts->info.gamma = 10.0;
    concepts->info.class_name = concepts->class_name = strdup("boat");
    CHECK_OK(featinv_concepts_orthogonalize(&greedy, order, concepts, weight));
    featinv_concepts_details info = details_of(greedy);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.total, 4);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], -1);
    assert_memory_equal(info.labels, wanted, sizeof wanted);
    assert_string_equal(info.class_name, "boat");
    CHECK_BELOW(fabs(info.gamma - 10.0), 0.0);
    featinv_concepts_release(greedy);
    memset(weight, 0, sizeof weight);
    CHECK_FAILS(featinv_concepts_orthogonalize(&greedy, order, concepts, weight),
                FEATINV_ERROR_ARGUMENT, "zero");
    featinv_concepts_release(concepts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_concept),
        cmocka_unit_test(refused),
        cmocka_unit_test(labels),
        cmocka_unit_test(polish),
        cmocka_unit_test(known_angles),
        cmocka_unit_test(recorded_angles),
        cmocka_unit_test(complement_angles),
        cmocka_unit_test(recorded_parts),
        cmocka_unit_test(shared_direction),
        cmocka_unit_test(recorded_relevance),
        cmocka_unit_test(whole_space),
        cmocka_unit_test(recorded_greedy),
        cmocka_unit_test(contained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
