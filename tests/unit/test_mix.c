/* Mixing and pasting maps: exact ends, lengths and angles between them, and what is refused. */
#include "check.h"

#include "noise.h"

#include <math.h>
#include <stdbool.h>

enum { N = 2, C = 5, H = 2, W = 3, P = H * W, SIZE = N * C * P };

static int64_t shape[4] = {N, C, H, W};
static float a[SIZE], b[SIZE], out[SIZE];

static featinv_tensor view(float *values) {
    return featinv_tensor_view(values, FEATINV_DTYPE_F32, 4, shape);
}

static int fill(void **state) {
    (void)state;
    fi_noise(a, SIZE, 1, 0, 0, 0);
    fi_noise(b, SIZE, 2, 0, 0, 0);
    a[3] = -0.0f;
    b[4] = -0.0f;
    a[5] = 1e-42f; /* subnormal */
    memset(out, 0xff, sizeof out);
    return 0;
}

static featinv_status mix(double weight, featinv_mix_mode mode) {
    featinv_tensor va = view(a), vb = view(b), vo = view(out);
    return featinv_features_mix(&vo, &va, &vb, weight, mode);
}

/* Inner product of two maps at a position of map n. */
static double inner(const float *x, const float *y, int n, int position) {
    double sum = 0.0;
    for (int c = 0; c < C; c++)
        sum += (double)x[(n * C + c) * P + position] * (double)y[(n * C + c) * P + position];
    return sum;
}

static double length(const float *x, int n, int position) {
    return sqrt(inner(x, x, n, position));
}

static double angle(const float *x, const float *y, int n, int position) {
    return acos(inner(x, y, n, position) / (length(x, n, position) * length(y, n, position)));
}

static void ends_are_copies(void **state) {
    (void)state;
    for (featinv_mix_mode mode = 0; mode < 3; mode++) {
        CHECK_OK(mix(0.0, mode));
        assert_memory_equal(out, a, sizeof a);
        CHECK_OK(mix(1.0, mode));
        assert_memory_equal(out, b, sizeof b);
    }
}

static void lerp_is_the_weighted_mean(void **state) {
    (void)state;
    CHECK_OK(mix(0.3, FEATINV_MIX_LERP));
    for (int i = 0; i < SIZE; i++)
        assert_true(out[i] == (float)(0.7 * (double)a[i] + 0.3 * (double)b[i]));
}

/* Lengths go evenly from one to the other; slerp's angle does so, too. */
static void lengths_and_angles_go_evenly(void **state) {
    (void)state;
    static const double weights[] = {0.01, 0.25, 0.5, 0.9};
    for (int k = 0; k < 4; k++)
        for (featinv_mix_mode mode = FEATINV_MIX_SLERP; mode <= FEATINV_MIX_NORM; mode++) {
            double w = weights[k];
            CHECK_OK(mix(w, mode));
            for (int n = 0; n < N; n++)
                for (int p = 0; p < P; p++) {
                    double wanted = (1.0 - w) * length(a, n, p) + w * length(b, n, p);
                    assert_true(fabs(length(out, n, p) - wanted) < 1e-6 * wanted);
                    double whole = angle(a, b, n, p);
                    assert_true(fabs(angle(a, out, n, p) + angle(out, b, n, p) - whole) < 1e-3);
                    if (mode == FEATINV_MIX_SLERP)
                        assert_true(fabs(angle(out, b, n, p) - (1.0 - w) * whole) < 1e-3);
                }
        }
}

static void norm_keeps_the_direction_of_lerp(void **state) {
    (void)state;
    static float straight[SIZE];
    CHECK_OK(mix(0.4, FEATINV_MIX_LERP));
    memcpy(straight, out, sizeof out);
    CHECK_OK(mix(0.4, FEATINV_MIX_NORM));
    for (int n = 0; n < N; n++)
        for (int p = 0; p < P; p++) {
            double cosine =
                inner(out, straight, n, p) / (length(out, n, p) * length(straight, n, p));
            assert_true(cosine > 1.0 - 1e-12);
        }
}

/* One position for each way in which two vectors span no arc. */
static void without_an_arc_slerp_is_lerp(void **state) {
    (void)state;
    static float straight[SIZE];
    for (int c = 0; c < C; c++) {
        a[c * P + 0] = 0.0f;                                 /* zero and something */
        b[c * P + 1] = 2.0f * a[c * P + 1];                  /* parallel */
        b[c * P + 2] = -a[c * P + 2];                        /* antiparallel */
        a[c * P + 3] = b[c * P + 3] = 0.0f;                  /* both zero */
        b[c * P + 4] = a[c * P + 4] * (c ? 1.0f : 1.00001f); /* nearly parallel */
    }
    CHECK_OK(mix(0.5, FEATINV_MIX_LERP));
    memcpy(straight, out, sizeof out);
    CHECK_OK(mix(0.5, FEATINV_MIX_SLERP));
    bool bent = false; /* at the sixth position, which has an arc */
    for (int c = 0; c < C; c++) {
        for (int p = 0; p < 5; p++)
            assert_true(out[c * P + p] == straight[c * P + p]);
        bent = bent || out[c * P + 5] != straight[c * P + 5];
    }
    assert_true(bent);
    CHECK_OK(mix(0.5, FEATINV_MIX_NORM));
    for (int c = 0; c < C; c++) /* a lerp of zero has no direction to stretch */
        assert_true(out[c * P + 2] == 0.0f && out[c * P + 3] == 0.0f);
}

static void a_result_may_take_an_argument_s_place(void **state) {
    (void)state;
    for (featinv_mix_mode mode = 0; mode < 3; mode++)
        for (int second = 0; second < 2; second++) {
            static float place[SIZE];
            fill(NULL);
            CHECK_OK(mix(0.35, mode));
            memcpy(place, second ? b : a, sizeof place);
            featinv_tensor va = view(second ? a : place), vb = view(second ? place : b);
            featinv_tensor vo = view(place);
            CHECK_OK(featinv_features_mix(&vo, &va, &vb, 0.35, mode));
            assert_memory_equal(place, out, sizeof out);
        }
}

static void bad_mixes_are_refused(void **state) {
    (void)state;
    CHECK_FAILS(mix(NAN, 0), FEATINV_ERROR_ARGUMENT, "weight is nan");
    CHECK_FAILS(mix(-0.1, 0), FEATINV_ERROR_ARGUMENT, "weight is -0.1");
    CHECK_FAILS(mix(1.0000001, 0), FEATINV_ERROR_ARGUMENT, "weight is 1");
    CHECK_FAILS(mix(INFINITY, 0), FEATINV_ERROR_ARGUMENT, "weight is inf");
    CHECK_FAILS(mix(0.5, 3), FEATINV_ERROR_ARGUMENT, "mode is 3");
    CHECK_FAILS(mix(0.5, -1), FEATINV_ERROR_ARGUMENT, "mode is -1");
    int64_t other[4] = {N, C, W, H};
    featinv_tensor va = view(a), vb = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, other);
    featinv_tensor vo = view(out);
    CHECK_FAILS(featinv_features_mix(&vo, &va, &vb, 0.5, 0), FEATINV_ERROR_SHAPE, "second maps");
    CHECK_FAILS(featinv_features_mix(&vb, &va, &va, 0.5, 0), FEATINV_ERROR_SHAPE, "result");
    CHECK_FAILS(featinv_features_mix(&vo, NULL, &va, 0.5, 0), FEATINV_ERROR_ARGUMENT, "first maps");
    b[7] = NAN;
    CHECK_FAILS(mix(0.0, 0), FEATINV_ERROR_VALUE, "second maps: NaN at element 7");
}

static void masks_paste(void **state) {
    (void)state;
    float mask[N * P] = {0, 1, 0.25f, 0, 1, 0.5f, 1, 1, 0, 0, 0.75f, 1};
    int64_t mask_shape[3] = {N, H, W};
    for (int ndim = 2; ndim <= 3; ndim++) {
        featinv_tensor va = view(a), vb = view(b), vo = view(out);
        featinv_tensor vm =
            featinv_tensor_view(mask, FEATINV_DTYPE_F32, ndim, mask_shape + (3 - ndim));
        CHECK_OK(featinv_features_compose(&vo, &va, &vb, &vm));
        for (int i = 0; i < SIZE; i++) {
            float m = mask[(ndim == 3 ? i / (C * P) * P : 0) + i % P];
            float wanted =
                m == 0.0f   ? a[i]
                : m == 1.0f ? b[i]
                            : (float)((1.0 - (double)m) * (double)a[i] + (double)m * (double)b[i]);
            assert_memory_equal(&out[i], &wanted, sizeof wanted);
        }
    }
}

static void bad_masks_are_refused(void **state) {
    (void)state;
    float mask[N * P] = {0};
    int64_t mask_shape[3] = {N, H, W}, wrong[3] = {N + 1, H, W}, turned[2] = {W, H};
    featinv_tensor va = view(a), vb = view(b), vo = view(out);
    featinv_tensor vm = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 3, mask_shape);
    featinv_tensor other = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 3, wrong);
    featinv_tensor flat = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, turned);
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, NULL), FEATINV_ERROR_ARGUMENT, "mask");
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, &other), FEATINV_ERROR_SHAPE, "mask");
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, &flat), FEATINV_ERROR_SHAPE, "mask");
    mask[9] = 1.5f;
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, &vm), FEATINV_ERROR_ARGUMENT,
                "1.5 at element 9");
    mask[9] = -0.5f;
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, &vm), FEATINV_ERROR_ARGUMENT, "-0.5");
    mask[9] = NAN;
    CHECK_FAILS(featinv_features_compose(&vo, &va, &vb, &vm), FEATINV_ERROR_VALUE, "NaN");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(ends_are_copies, fill),
        cmocka_unit_test_setup(lerp_is_the_weighted_mean, fill),
        cmocka_unit_test_setup(lengths_and_angles_go_evenly, fill),
        cmocka_unit_test_setup(norm_keeps_the_direction_of_lerp, fill),
        cmocka_unit_test_setup(without_an_arc_slerp_is_lerp, fill),
        cmocka_unit_test_setup(a_result_may_take_an_argument_s_place, fill),
        cmocka_unit_test_setup(bad_mixes_are_refused, fill),
        cmocka_unit_test_setup(masks_paste, fill),
        cmocka_unit_test_setup(bad_masks_are_refused, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
