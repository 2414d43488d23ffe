/* Decomposition of maps into parts, attenuation, activation maps. */
#include "concept_maker.h"

#include "dense.h"

enum { C = 24, K = 3, N = 3, H = 5, W = 9, P = H * W, SIZE = N * C * P };

/* Maps, and room for parts, of the size above. */
typedef struct fixture {
    featinv_concepts *concepts;
    float maps[SIZE], out[(K + 1) * SIZE];
} fixture;

static featinv_tensor maps_view(float *data) {
    static int64_t shape[4] = {N, C, H, W};
    return featinv_tensor_view(data, FEATINV_DTYPE_F32, 4, shape);
}

static featinv_tensor parts_view(float *data) {
    static int64_t shape[5] = {K + 1, N, C, H, W};
    return featinv_tensor_view(data, FEATINV_DTYPE_F32, 5, shape);
}

static int setup(void **state) {
    static const int32_t dimensions[K] = {2, 3, 5};
    fixture *f = calloc(1, sizeof *f);
    f->concepts = random_concepts(C, dimensions, K);
    for (int i = 0; i < SIZE; i++)
        f->maps[i] = (float)(3.0 * maker_random());
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    featinv_concepts_release(f->concepts);
    free(f);
    return 0;
}

/* The part of the position's feature in concept k (K: complement), in float64 by the textbook. */
static void textbook_part(double part[C], const featinv_concepts *concepts, const float *maps,
                          int position, int k) {
    const featinv_concepts_details *info = &concepts->info;
    double x[C];
    for (int c = 0; c < C; c++)
        x[c] = (double)maps[(position / P * C + c) * P + position % P];
    int first = k < info->count ? info->offsets[k] : 0;
    int end = k < info->count ? info->offsets[k + 1] : info->total;
    memset(part, 0, C * sizeof *part);
    for (int j = first; j < end; j++) {
        double a = fi_dense_dot(concepts->dual + j * C, x, C);
        for (int c = 0; c < C; c++)
            part[c] += a * info->bases[c * info->total + j];
    }
    for (int c = 0; c < C && k == info->count; c++)
        part[c] = x[c] - part[c];
}

static float at(const float *maps, int position, int c) {
    return maps[(position / P * C + c) * P + position % P];
}

static void parts_are_the_textbooks(void **state) {
    fixture *f = *state;
    featinv_tensor maps = maps_view(f->maps), parts = parts_view(f->out);
    CHECK_OK(featinv_concepts_decompose(&parts, f->concepts, &maps));
    double part[C];
    for (int p = 0; p < N * P; p++) {
        double sum[C] = {0};
        for (int k = 0; k <= K; k++) {
            textbook_part(part, f->concepts, f->maps, p, k);
            for (int c = 0; c < C; c++) {
                CHECK_BELOW(fabs((double)at(f->out + k * SIZE, p, c) - part[c]), 1e-6);
                sum[c] += (double)at(f->out + k * SIZE, p, c);
            }
        }
        for (int c = 0; c < C; c++)
            CHECK_BELOW(fabs(sum[c] - (double)at(f->maps, p, c)), 5e-7);
    }
}

/* A position's parts do not depend on where it stands: one map of a position each gives the same
 * bits. */
static void positions_stand_alone(void **state) {
    fixture *f = *state;
    featinv_tensor maps = maps_view(f->maps), parts = parts_view(f->out);
    CHECK_OK(featinv_concepts_decompose(&parts, f->concepts, &maps));
    int64_t single[4] = {N * P, C, 1, 1}, single_parts[5] = {K + 1, N * P, C, 1, 1};
    static float turned[SIZE], out[(K + 1) * SIZE];
    for (int p = 0; p < N * P; p++)
        for (int c = 0; c < C; c++)
            turned[p * C + c] = at(f->maps, p, c);
    maps = featinv_tensor_view(turned, FEATINV_DTYPE_F32, 4, single);
    parts = featinv_tensor_view(out, FEATINV_DTYPE_F32, 5, single_parts);
    CHECK_OK(featinv_concepts_decompose(&parts, f->concepts, &maps));
    for (int k = 0; k <= K; k++)
        for (int p = 0; p < N * P; p++)
            for (int c = 0; c < C; c++)
                assert_true(out[k * SIZE + p * C + c] == at(f->out + k * SIZE, p, c));
    /* and a strided view of channels last is the same map */
    int64_t strides[4] = {C * P, 1, C * W, C};
    static float last[SIZE], again[(K + 1) * SIZE];
    for (int p = 0; p < N * P; p++)
        for (int c = 0; c < C; c++)
            last[p * C + c] = at(f->maps, p, c);
    maps = maps_view(last);
    maps.strides = strides;
    parts = parts_view(again);
    CHECK_OK(featinv_concepts_decompose(&parts, f->concepts, &maps));
    assert_memory_equal(again, f->out, sizeof again);
}

static void attenuation(void **state) {
    fixture *f = *state;
    static const double factors[] = {-1.0, 0.0, 0.25, 2.0, 7.5};
    for (int32_t k = 0; k <= K; k++)
        for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
            featinv_tensor maps = maps_view(f->maps), out = maps_view(f->out);
            double part[C];
            CHECK_OK(featinv_concepts_attenuate(&out, f->concepts, &maps,
                                                k < K ? k : FEATINV_COMPLEMENT, factors[i], NULL));
            for (int p = 0; p < N * P; p++) {
                textbook_part(part, f->concepts, f->maps, p, k);
                for (int c = 0; c < C; c++) {
                    double want = (double)at(f->maps, p, c) - (1.0 - factors[i]) * part[c];
                    CHECK_BELOW(fabs((double)at(f->out, p, c) - want), 5e-6);
                }
            }
            if (factors[i] != 0.0)
                continue;
            double left, norm = 0.0, rest = 0.0;
            for (int p = 0; p < N * P; p++) {
                textbook_part(part, f->concepts, f->out, p, k);
                left = sqrt(fi_dense_dot(part, part, C));
                rest = fmax(rest, left);
                for (int c = 0; c < C; c++)
                    norm = fmax(norm, fabs((double)at(f->maps, p, c)));
            }
            CHECK_BELOW(rest / norm, 1e-6);
        }
}

static void factor_one_copies(void **state) {
    fixture *f = *state;
    f->maps[3] = -0.0f;
    featinv_tensor maps = maps_view(f->maps), out = maps_view(f->out);
    for (int32_t k = FEATINV_COMPLEMENT; k < K; k++) {
        memset(f->out, 0xff, SIZE * sizeof(float));
        CHECK_OK(featinv_concepts_attenuate(&out, f->concepts, &maps, k, 1.0, NULL));
        assert_memory_equal(f->out, f->maps, SIZE * sizeof(float));
    }
}

/* A mask weighs the change at each position; where it is zero the bits stay. */
static void masks(void **state) {
    fixture *f = *state;
    float mask[N * P];
    int64_t one[2] = {H, W}, each[3] = {N, H, W};
    f->maps[1] = -0.0f;
    for (int i = 0; i < N * P; i++)
        mask[i] = i % 3 == 0 ? 0.5f : (float)(i % 2);
    for (int many = 0; many < 2; many++) {
        featinv_tensor maps = maps_view(f->maps), out = maps_view(f->out);
        featinv_tensor view =
            featinv_tensor_view(mask, FEATINV_DTYPE_F32, many ? 3 : 2, many ? each : one);
        CHECK_OK(featinv_concepts_attenuate(&out, f->concepts, &maps, 1, 0.25, &view));
        for (int p = 0; p < N * P; p++) {
            double part[C], m = (double)mask[many ? p : p % P];
            textbook_part(part, f->concepts, f->maps, p, 1);
            for (int c = 0; c < C; c++) {
                float got = at(f->out, p, c), was = at(f->maps, p, c);
                CHECK_BELOW(fabs((double)got - ((double)was - 0.75 * m * part[c])), 2e-6);
                if (m == 0.0)
                    assert_memory_equal(&got, &was, sizeof got);
            }
        }
    }
    /* in place, all the same */
    static float copy[SIZE];
    memcpy(copy, f->maps, sizeof copy);
    featinv_tensor own = maps_view(copy);
    featinv_tensor view = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 3, each);
    CHECK_OK(featinv_concepts_attenuate(&own, f->concepts, &own, 1, 0.25, &view));
    assert_memory_equal(copy, f->out, sizeof copy);
}

static void activations(void **state) {
    fixture *f = *state;
    int64_t shape[4] = {K + 1, N, H, W};
    static float out[(K + 1) * N * P];
    for (int p = 0; p < P; p++) /* one image of zeros, and a zero position in another */
        for (int c = 0; c < C; c++)
            f->maps[(2 * C + c) * P + p] = 0.0f;
    for (int c = 0; c < C; c++)
        f->maps[c * P + 7] = 0.0f;
    featinv_tensor maps = maps_view(f->maps);
    featinv_tensor view = featinv_tensor_view(out, FEATINV_DTYPE_F32, 4, shape);
    for (featinv_activation kind = FEATINV_ACTIVATION_IMAGE; kind <= FEATINV_ACTIVATION_RAW;
         kind++) {
        double largest[N] = {0}, norms[N * P];
        CHECK_OK(featinv_concepts_activation(&view, f->concepts, &maps, kind));
        for (int p = 0; p < N * P; p++) {
            double sum = 0.0;
            for (int c = 0; c < C; c++)
                sum += (double)at(f->maps, p, c) * (double)at(f->maps, p, c);
            norms[p] = sqrt(sum);
            largest[p / P] = fmax(largest[p / P], norms[p]);
        }
        for (int k = 0; k <= K; k++)
            for (int p = 0; p < N * P; p++) {
                double part[C], unit = kind == FEATINV_ACTIVATION_IMAGE      ? largest[p / P]
                                       : kind == FEATINV_ACTIVATION_POSITION ? norms[p]
                                                                             : 1.0;
                textbook_part(part, f->concepts, f->maps, p, k);
                double want = unit > 0.0 ? sqrt(fi_dense_dot(part, part, C)) / unit : 0.0;
                CHECK_BELOW(fabs((double)out[k * N * P + p] - want), 2e-6);
            }
    }
    CHECK_FAILS(featinv_concepts_activation(&view, f->concepts, &maps, 3), FEATINV_ERROR_ARGUMENT,
                "normalization is 3");
}

/* The dimensions together are all channels: the complement is exactly zero. */
static void whole_space(void **state) {
    fixture *f = *state;
    static const int32_t dimensions[K] = {4, 8, 12};
    featinv_concepts *all = random_concepts(C, dimensions, K);
    featinv_tensor maps = maps_view(f->maps), parts = parts_view(f->out);
    CHECK_OK(featinv_concepts_decompose(&parts, all, &maps));
    for (int i = 0; i < SIZE; i++) {
        double sum = 0.0, scale = 1.0;
        for (int k = 0; k < K; k++) {
            sum += (double)f->out[k * SIZE + i];
            scale = fmax(scale, fabs((double)f->out[k * SIZE + i]));
        }
        assert_true(f->out[K * SIZE + i] == 0.0f);
        CHECK_BELOW(fabs(sum - (double)f->maps[i]) / scale, 1e-6);
    }
    featinv_tensor out = maps_view(f->out);
    CHECK_OK(featinv_concepts_attenuate(&out, all, &maps, FEATINV_COMPLEMENT, 0.0, NULL));
    for (int i = 0; i < SIZE; i++)
        assert_true(f->out[i] == f->maps[i]);
    featinv_concepts_release(all);
}

/* Bases that nearly share a direction: parts grow as 1/angle, the sum holds, then it is refused. */
static void nearly_shared(void **state) {
    (void)state;
    double *q = recorded("bases", "near_Q", FEATINV_DTYPE_F64, NULL);
    double *phi = recorded("bases", "over_phi", FEATINV_DTYPE_F64, NULL);
    int64_t size[8];
    double *table = recorded("bases", "near_table", FEATINV_DTYPE_F64, size);
    int refused = 0;
    for (int64_t row = 0; row < size[0]; row++) {
        double e = table[row * 5], bases[C * 6];
        const int32_t offsets[3] = {0, 3, 6};
        for (int c = 0; c < C; c++) {
            double own[6] = {q[c],         q[C + c],
                             q[2 * C + c], cos(e) * q[2 * C + c] + sin(e) * q[5 * C + c],
                             q[3 * C + c], q[4 * C + c]};
            memcpy(bases + c * 6, own, sizeof own);
        }
        featinv_concepts *concepts;
        CHECK_OK(make_concepts(&concepts, bases, C, offsets, 2, 0));
        featinv_concepts_details info = details_of(concepts);
        CHECK_BELOW(fabs(info.smallest_angle - e), 1e-14);
        CHECK_BELOW(fabs(info.smallest_singular - sqrt(2.0) * sin(e / 2)), 1e-14);
        float map[C], parts[3 * C];
        int64_t shape[4] = {1, C, 1, 1}, parts_shape[5] = {3, 1, C, 1, 1};
        for (int c = 0; c < C; c++)
            map[c] = (float)phi[c];
        featinv_tensor maps = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, shape);
        featinv_tensor out = featinv_tensor_view(parts, FEATINV_DTYPE_F32, 5, parts_shape);
        if (info.smallest_singular < 1e-6) {
            CHECK_FAILS(featinv_concepts_decompose(&out, concepts, &maps),
                        FEATINV_ERROR_UNSUPPORTED, "concepts 0 and 1 overlap");
            CHECK_FAILS(featinv_concepts_attenuate(&maps, concepts, &maps, 0, 1.0, NULL),
                        FEATINV_ERROR_UNSUPPORTED, "under 1e-06");
            refused++;
        } else {
            CHECK_OK(featinv_concepts_decompose(&out, concepts, &maps));
            for (int k = 0; k < 3; k++) {
                double sum = 0.0, want = table[row * 5 + 1 + k];
                for (int c = 0; c < C; c++)
                    sum += (double)parts[k * C + c] * (double)parts[k * C + c];
                /* phi came as float32, which 1/e enlarges against the recorded float64 */
                double most = k < 2 ? 1e-6 : 1e-6 / e;
                CHECK_BELOW(fabs(sqrt(sum) / want - 1.0), most);
            }
            for (int c = 0; c < C; c++)
                CHECK_BELOW(fabs((double)parts[c] + (double)parts[C + c] +
                                 (double)parts[2 * C + c] - (double)map[c]),
                            1e-6);
        }
        featinv_concepts_release(concepts);
    }
    assert_int_equal(refused, 8); /* 1e-6 and below; sqrt(1/2) e is the singular value */
    free(q);
    free(phi);
    free(table);
}

static void recorded_attenuation(void **state) {
    (void)state;
    featinv_concepts *concepts = recorded_concepts("attenuation", "basis", 3);
    double *phi = recorded("attenuation", "phi", FEATINV_DTYPE_F64, NULL);
    double *factors = recorded("attenuation", "factors", FEATINV_DTYPE_F64, NULL);
    double *want = recorded("attenuation", "phi_prime", FEATINV_DTYPE_F64, NULL);
    float map[6 * C], out[6 * C];
    int64_t shape[4] = {6, C, 1, 1};
    for (int i = 0; i < 6 * C; i++)
        map[i] = (float)phi[i];
    featinv_tensor maps = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor view = featinv_tensor_view(out, FEATINV_DTYPE_F32, 4, shape);
    for (int32_t k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) {
            CHECK_OK(featinv_concepts_attenuate(&view, concepts, &maps,
                                                k < 3 ? k : FEATINV_COMPLEMENT, factors[i], NULL));
            const double *row = want + (k * 4 + i) * 6 * C;
            double scale = 0.0, off = 0.0;
            for (int j = 0; j < 6 * C; j++) {
                scale = fmax(scale, fabs(row[j]));
                off = fmax(off, fabs((double)out[j] - row[j]));
            }
            CHECK_BELOW(off / scale, 1e-6);
        }
    free(phi);
    free(factors);
    free(want);
    featinv_concepts_release(concepts);
}

static void refused(void **state) {
    fixture *f = *state;
    featinv_tensor maps = maps_view(f->maps), out = maps_view(f->out);
    featinv_tensor parts = parts_view(f->out);
    float mask[N * P] = {0};
    int64_t wide[2] = {W, H}, few[3] = {N - 1, H, W}, right[2] = {H, W};
    int64_t channels[4] = {N, C - 1, H, W}, narrow[5] = {K, N, C, H, W};
    featinv_tensor bad = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, wide);
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, 0.5, &bad),
                FEATINV_ERROR_SHAPE, "mask: shape is (9, 5), not (5, 9)");
    bad = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 3, few);
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, 0.5, &bad),
                FEATINV_ERROR_SHAPE, "mask: shape is (2, 5, 9)");
    bad = featinv_tensor_view(mask, FEATINV_DTYPE_F32, 2, right);
    mask[11] = 1.5f;
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, 1.0, &bad),
                FEATINV_ERROR_ARGUMENT, "mask: 1.5 at element 11");
    mask[11] = NAN;
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, 0.5, &bad),
                FEATINV_ERROR_VALUE, "mask: NaN at element 11");
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, K, 0.5, NULL),
                FEATINV_ERROR_ARGUMENT, "concept is 3: there are 0 to 2");
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, -2, 0.5, NULL),
                FEATINV_ERROR_ARGUMENT, "concept is -2");
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, NAN, NULL),
                FEATINV_ERROR_ARGUMENT, "factor is nan");
    CHECK_FAILS(featinv_concepts_attenuate(&out, f->concepts, &maps, 0, 1e300, NULL),
                FEATINV_ERROR_VALUE, "attenuated maps: infinity");
    CHECK_FAILS(featinv_concepts_attenuate(&out, NULL, &maps, 0, 0.5, NULL), FEATINV_ERROR_ARGUMENT,
                "no concepts");
    bad = featinv_tensor_view(f->maps, FEATINV_DTYPE_F32, 4, channels);
    CHECK_FAILS(featinv_concepts_decompose(&parts, f->concepts, &bad), FEATINV_ERROR_SHAPE,
                "maps: 23 channels, the concepts have 24");
    bad = featinv_tensor_view(f->out, FEATINV_DTYPE_F32, 5, narrow);
    CHECK_FAILS(featinv_concepts_decompose(&bad, f->concepts, &maps), FEATINV_ERROR_SHAPE,
                "parts: shape is (3, ");
    CHECK_FAILS(featinv_concepts_decompose(&parts, f->concepts, NULL), FEATINV_ERROR_ARGUMENT,
                "maps");
    f->maps[100] = NAN;
    CHECK_FAILS(featinv_concepts_decompose(&parts, f->concepts, &maps), FEATINV_ERROR_VALUE,
                "maps: NaN at element 100");
    int64_t none[4] = {0, C, H, W}, no_parts[5] = {K + 1, 0, C, H, W};
    maps = featinv_tensor_view(NULL, FEATINV_DTYPE_F32, 4, none);
    parts = featinv_tensor_view(NULL, FEATINV_DTYPE_F32, 5, no_parts);
    CHECK_OK(featinv_concepts_decompose(&parts, f->concepts, &maps)); /* nothing to do */
    CHECK_OK(featinv_concepts_attenuate(&maps, f->concepts, &maps, 0, 1.0, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(parts_are_the_textbooks),
        TEST(positions_stand_alone),
        TEST(attenuation),
        TEST(factor_one_copies),
        TEST(masks),
        TEST(activations),
        TEST(whole_space),
        TEST(refused),
        cmocka_unit_test(nearly_shared),
        cmocka_unit_test(recorded_attenuation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
