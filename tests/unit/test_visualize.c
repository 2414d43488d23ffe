/* FeatInv-Viz over the fake backend: the same as its parts called one by one, whatever the
 * batch. */
#include "bundle_maker.h"

#include "noise.h"
#include "null.h"

#include <math.h>

enum { N = 3, PAIRS = 4, CONCEPTS = 2, COUNT = 3, MAP = MAP_C * MAP_H * MAP_W };
enum {
    LATENT = LATENT_C * LATENT_HW * LATENT_HW,
    PIXELS = IMAGE_HW * IMAGE_HW,
    PICTURE = 3 * PIXELS
};

static featinv_model *model;
static featinv_concepts *concepts;
static const int32_t indices[COUNT] = {1, FEATINV_COMPLEMENT, 0};

static float maps[N * MAP], map[N * COUNT * PIXELS], null_map[N * COUNT * PIXELS];
static float altered_maps[N * COUNT * MAP];
static uint8_t mask[N * COUNT * PIXELS], originals[N * PAIRS * PICTURE];
static uint8_t altered[N * COUNT * PAIRS * PICTURE];
static double maxima[N * COUNT];

static int64_t map_shape[4] = {N, MAP_C, MAP_H, MAP_W};
static int64_t plane_shape[4] = {N, COUNT, IMAGE_HW, IMAGE_HW};
static int64_t original_shape[5] = {N, PAIRS, IMAGE_HW, IMAGE_HW, 3};
static int64_t altered_shape[6] = {N, COUNT, PAIRS, IMAGE_HW, IMAGE_HW, 3};
static int64_t changed_shape[5] = {N, COUNT, MAP_C, MAP_H, MAP_W};

static int setup(void **state) {
    (void)state;
    make_bundle();
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    double bases[MAP_C * CONCEPTS] = {1,   0.6, 0,
                                      0.8, 0,   0}; /* oblique, in the first two channels */
    int64_t shape[2] = {MAP_C, CONCEPTS};
    static const int32_t offsets[] = {0, 1, 2};
    featinv_tensor view = featinv_tensor_view(bases, FEATINV_DTYPE_F64, 2, shape);
    CHECK_OK(featinv_concepts_create(&concepts, &view, offsets, CONCEPTS, 0));
    for (int i = 0; i < N * MAP; i++)
        maps[i] = 0.4f * (float)(i / MAP) + 0.15f * (float)(i % 7) - 0.2f;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    featinv_concepts_release(concepts);
    featinv_model_release(model);
    remove_bundle();
    return 0;
}

static featinv_session *session(int32_t batch) {
    featinv_session_options options;
    featinv_session *s = NULL;
    CHECK_OK(featinv_session_options_init(&options, sizeof options));
    options.batch = batch;
    CHECK_OK(featinv_session_create(&s, model, &options));
    return s;
}

static featinv_visualize_options standard(void) {
    featinv_visualize_options o;
    CHECK_OK(featinv_visualize_options_init(&o, sizeof o, model));
    assert_int_equal(o.pairs, 5);
    assert_true(o.factor == 0.25 && o.threshold == 0.33 && o.null_draws == 0);
    o.pairs = PAIRS;
    return o;
}

/* Every output but the null's map. */
static featinv_status visualize(featinv_session *s, featinv_visualize_options *o) {
    featinv_tensor m = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, plane_shape);
    featinv_tensor k = featinv_tensor_view(mask, FEATINV_DTYPE_U8, 4, plane_shape);
    featinv_tensor a = featinv_tensor_view(originals, FEATINV_DTYPE_U8, 5, original_shape);
    featinv_tensor b = featinv_tensor_view(altered, FEATINV_DTYPE_U8, 6, altered_shape);
    featinv_tensor c = featinv_tensor_view(altered_maps, FEATINV_DTYPE_F32, 5, changed_shape);
    featinv_tensor in = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    memset(map, 0xff, sizeof map);
    memset(mask, 0xff, sizeof mask);
    memset(altered, 0, sizeof altered);
    o->originals = &a;
    o->altered = &b;
    o->altered_maps = &c;
    o->maxima = maxima;
    return featinv_visualize(&m, &k, s, concepts, indices, COUNT, &in, o);
}

/* PAIRS pictures of each of n maps, by the public call. */
static void draw(uint8_t *pictures, featinv_session *s, float *values, int64_t n,
                 const featinv_tensor *noise) {
    int64_t in_shape[4] = {n, MAP_C, MAP_H, MAP_W};
    int64_t out_shape[4] = {n * PAIRS, IMAGE_HW, IMAGE_HW, 3};
    featinv_tensor in = featinv_tensor_view(values, FEATINV_DTYPE_F32, 4, in_shape);
    featinv_tensor out = featinv_tensor_view(pictures, FEATINV_DTYPE_U8, 4, out_shape);
    featinv_sample_options options;
    CHECK_OK(featinv_sample_options_init(&options, sizeof options, model));
    options.samples = PAIRS;
    options.noise = noise;
    CHECK_OK(featinv_sample(&out, NULL, s, &in, &options));
}

static void compare(double *maximum, float *out, uint8_t *out_mask, const uint8_t *a,
                    const uint8_t *b, double threshold) {
    int64_t shape[4] = {PAIRS, IMAGE_HW, IMAGE_HW, 3}, plane[2] = {IMAGE_HW, IMAGE_HW};
    featinv_tensor x = featinv_tensor_view((void *)(uintptr_t)a, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor y = featinv_tensor_view((void *)(uintptr_t)b, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor m = featinv_tensor_view(out, FEATINV_DTYPE_F32, 2, plane);
    featinv_tensor k = featinv_tensor_view(out_mask, FEATINV_DTYPE_U8, 2, plane);
    CHECK_OK(featinv_difference_map(&m, &k, maximum, &x, &y, FEATINV_NORMALIZE_MAX, threshold));
}

/* Attenuated maps of all concepts, (N, COUNT, C, h, w). */
static void attenuate(float *out, double factor) {
    static float changed[N * MAP];
    featinv_tensor in = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    featinv_tensor to = featinv_tensor_view(changed, FEATINV_DTYPE_F32, 4, map_shape);
    for (int c = 0; c < COUNT; c++) {
        CHECK_OK(featinv_concepts_attenuate(&to, concepts, &in, indices[c], factor, NULL));
        for (int n = 0; n < N; n++)
            memcpy(out + (n * COUNT + c) * MAP, changed + n * MAP, MAP * sizeof *out);
    }
}

static void check_against_parts(featinv_session *s, double factor, double threshold,
                                const featinv_tensor *noise, const featinv_tensor *noise_altered) {
    static float wanted_maps[N * COUNT * MAP], wanted[PIXELS];
    static uint8_t wanted_mask[PIXELS], first[N * PAIRS * PICTURE];
    static uint8_t second[N * COUNT * PAIRS * PICTURE];
    attenuate(wanted_maps, factor);
    assert_memory_equal(altered_maps, wanted_maps, sizeof wanted_maps);
    draw(first, s, maps, N, noise);
    assert_memory_equal(originals, first, sizeof first);
    draw(second, s, wanted_maps, N * COUNT, noise_altered);
    assert_memory_equal(altered, second, sizeof second);
    for (int i = 0; i < N * COUNT; i++) {
        double maximum;
        compare(&maximum, wanted, wanted_mask, first + i / COUNT * PAIRS * PICTURE,
                second + i * PAIRS * PICTURE, threshold);
        assert_true(maximum > 0.0 && maximum == maxima[i]);
        assert_memory_equal(map + i * PIXELS, wanted, sizeof wanted);
        assert_memory_equal(mask + i * PIXELS, wanted_mask, sizeof wanted_mask);
    }
}

static void it_is_its_parts_whatever_the_batch(void **state) {
    (void)state;
    static const int32_t batches[] = {1, 3, 4, 8, 64};
    for (size_t b = 0; b < 5; b++) {
        featinv_session *s = session(batches[b]);
        featinv_visualize_options o = standard();
        featinv_sample_options sampling;
        int64_t completed = -1;
        CHECK_OK(featinv_sample_options_init(&sampling, sizeof sampling, model));
        sampling.samples = 0; /* ignored */
        sampling.completed = &completed;
        o.sampling = &sampling;
        o.factor = b % 2 ? 2.0 : 0.25;
        o.threshold = b % 2 ? 2.0 : 0.33;
        CHECK_OK(visualize(s, &o));
        assert_int_equal(completed, N);
        check_against_parts(s, o.factor, o.threshold, NULL, NULL);
        featinv_session_destroy(s);
    }
}

static void given_noise_belongs_to_map_and_pair(void **state) {
    (void)state;
    static float noise[N * PAIRS * LATENT], repeated[N * COUNT * PAIRS * LATENT];
    int64_t shape[4] = {N * PAIRS, LATENT_C, LATENT_HW, LATENT_HW};
    int64_t repeated_shape[4] = {N * COUNT * PAIRS, LATENT_C, LATENT_HW, LATENT_HW};
    fi_noise(noise, N * PAIRS * LATENT, 5, 0, 0, 0);
    for (int i = 0; i < N * COUNT; i++)
        memcpy(repeated + i * PAIRS * LATENT, noise + i / COUNT * PAIRS * LATENT,
               PAIRS * LATENT * sizeof *noise);
    featinv_tensor given = featinv_tensor_view(noise, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor again = featinv_tensor_view(repeated, FEATINV_DTYPE_F32, 4, repeated_shape);
    featinv_session *s = session(8);
    featinv_visualize_options o = standard();
    featinv_sample_options sampling;
    CHECK_OK(featinv_sample_options_init(&sampling, sizeof sampling, model));
    sampling.noise = &given;
    o.sampling = &sampling;
    CHECK_OK(visualize(s, &o));
    check_against_parts(s, 0.25, 0.33, &given, &again);
    shape[0] = 1;
    CHECK_OK(visualize(s, &o));
    check_against_parts(s, 0.25, 0.33, &given, &given);
    shape[0] = PAIRS;
    CHECK_FAILS(visualize(s, &o), FEATINV_ERROR_SHAPE, "noise");
    featinv_session_destroy(s);
}

static int64_t ticks[2];

static int32_t note(void *user_data, int64_t done, int64_t total) {
    (void)user_data;
    assert_true(done > ticks[0] && done <= total);
    ticks[0] = done;
    ticks[1] = total;
    return 0;
}

static void no_change_shows_none(void **state) {
    (void)state;
    featinv_session *s = session(8);
    featinv_visualize_options o = standard();
    featinv_sample_options sampling;
    CHECK_OK(featinv_sample_options_init(&sampling, sizeof sampling, model));
    for (int changed = 0; changed < 2; changed++) {
        sampling.progress = note;
        o.sampling = &sampling;
        o.factor = changed ? 0.25 : 1.0;
        o.threshold = -1.0;
        o.null_draws = 2;
        ticks[0] = ticks[1] = 0;
        CHECK_OK(visualize(s, &o));
        assert_int_equal(ticks[0], ticks[1]); /* also where nothing was to draw */
        assert_int_equal(ticks[1], N * (1 + COUNT * 3) * PAIRS * (5 + 1));
        for (int i = 0; i < N * COUNT && !changed; i++) {
            assert_true(maxima[i] == 0.0);
            assert_memory_equal(altered + i * PAIRS * PICTURE,
                                originals + i / COUNT * PAIRS * PICTURE, PAIRS * PICTURE);
            for (int k = 0; k < PIXELS; k++)
                assert_true(map[i * PIXELS + k] == 0.0f && mask[i * PIXELS + k] == 1);
        }
    }
    featinv_session_destroy(s);
}

/* The null by hand: the random maps drawn, compared, and their median over the draws taken. The
 * fake pictures are of one colour each, so the percentile over pixels is that value. */
static void the_null_is_a_random_subspace_of_equal_energy(void **state) {
    (void)state;
    enum { DRAWS = 3 };
    featinv_session *s = session(8);
    featinv_visualize_options o = standard();
    featinv_tensor view = featinv_tensor_view(null_map, FEATINV_DTYPE_F32, 4, plane_shape);
    o.null_draws = DRAWS;
    o.null_seed = 11;
    o.null_map = &view;
    o.threshold = -1.0;
    CHECK_OK(visualize(s, &o));
    fi_null null;
    CHECK_OK(fi_null_open(&null, MAP_C, MAP_H * MAP_W, 1));
    for (int i = 0; i < N * COUNT; i++) {
        double values[DRAWS], low = INFINITY, high = 0.0, middle = 0.0;
        for (uint32_t d = 0; d < DRAWS; d++) {
            static float random_map[MAP], unused[PIXELS];
            static uint8_t pictures[PAIRS * PICTURE], unused_mask[PIXELS];
            fi_null_draw(&null, 1, 11, d, indices[i % COUNT]);
            fi_null_map(random_map, &null, maps + i / COUNT * MAP, altered_maps + i * MAP, false);
            draw(pictures, s, random_map, 1, NULL);
            compare(&values[d], unused, unused_mask, originals + i / COUNT * PAIRS * PICTURE,
                    pictures, 0.0);
            low = fmin(low, values[d]);
            high = fmax(high, values[d]);
            middle += values[d];
        }
        middle = (middle - low - high) / maxima[i];
        for (int k = 0; k < PIXELS; k++) {
            assert_true(fabs((double)null_map[i * PIXELS + k] - middle) < 1e-6);
            assert_int_equal(mask[i * PIXELS + k], 1.0 < middle);
        }
    }
    fi_null_close(&null);
    featinv_session_destroy(s);
}

static void random_subspaces_are_what_they_claim(void **state) {
    (void)state;
    enum { C = 20, P = 3 };
    static const size_t dimensions[] = {0, 1, 7, 10, 11, 19, 20};
    float from[C * P], changed[C * P], out[C * P];
    fi_noise(from, C * P, 3, 0, 0, 0);
    fi_noise(changed, C * P, 4, 0, 0, 0);
    double energy = 0.0;
    for (int i = 0; i < C * P; i++) {
        double d = (double)changed[i] - (double)from[i];
        energy += d * d;
    }
    for (size_t k = 0; k < sizeof dimensions / sizeof *dimensions; k++) {
        fi_null null;
        CHECK_OK(fi_null_open(&null, C, P, dimensions[k]));
        fi_null_draw(&null, dimensions[k], 7, 2, 5);
        assert_int_equal(null.complement ? C - null.rows : null.rows, dimensions[k]);
        for (size_t i = 0; i < null.rows; i++)
            for (size_t j = 0; j < null.rows; j++) {
                double sum = 0.0;
                for (int c = 0; c < C; c++)
                    sum += null.basis[i * C + (size_t)c] * null.basis[j * C + (size_t)c];
                assert_true(fabs(sum - (i == j)) < 1e-14);
            }
        for (int up = 0; up < 2; up++) {
            double spent = 0.0, along = 0.0, inside = 0.0;
            fi_null_map(out, &null, from, changed, up);
            for (int i = 0; i < C * P; i++) {
                double d = (double)out[i] - (double)from[i];
                spent += d * d;
                along += d * (double)from[i];
            }
            for (size_t i = 0; i < null.rows; i++)
                for (int p = 0; p < P; p++) {
                    double sum = 0.0;
                    for (int c = 0; c < C; c++)
                        sum += null.basis[i * C + (size_t)c] *
                               ((double)out[c * P + p] - (double)from[c * P + p]);
                    inside += sum * sum;
                }
            double wanted = dimensions[k] ? energy : 0.0; /* no subspace, no change */
            assert_true(fabs(spent - wanted) < 1e-5 * energy);
            assert_true(fabs(inside - (null.complement ? 0.0 : wanted)) < 1e-5 * energy);
            assert_true(!dimensions[k] || (up ? along > 0.0 : along < 0.0));
        }
        fi_null_close(&null);
    }
}

/* Another draw, seed or concept is another subspace; the same is the same. */
static void random_subspaces_depend_on_seed_draw_and_concept(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t draw;
        int32_t concept_index;
    } cases[] = {{1, 0, 0}, {1, 0, 0}, {2, 0, 0}, {1, 1, 0}, {1, 0, 1}, {1, 0, FEATINV_COMPLEMENT}};
    double first[12];
    fi_null null;
    CHECK_OK(fi_null_open(&null, 6, 1, 2));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fi_null_draw(&null, 2, cases[i].seed, cases[i].draw, cases[i].concept_index);
        if (i == 0)
            memcpy(first, null.basis, sizeof first);
        assert_int_equal(memcmp(first, null.basis, sizeof first) == 0, i < 2);
    }
    fi_null_close(&null);
}

typedef struct stopper {
    int64_t after, calls;
} stopper;

static int32_t stop_once(void *user_data, int64_t done, int64_t total) {
    stopper *s = user_data;
    (void)total;
    s->calls++;
    return done == s->after;
}

/* Stopped anywhere, also at the last step of a block, with what came before kept. */
static void a_call_can_be_stopped(void **state) {
    (void)state;
    const int64_t each = (1 + COUNT) * PAIRS * (5 + 1);
    for (int64_t after = 4; after <= N * each; after += 4) {
        featinv_session *s = session(4); /* one map to a block, one variant to a batch */
        featinv_visualize_options o = standard();
        featinv_sample_options sampling;
        stopper stop = {.after = after};
        int64_t completed = -1;
        CHECK_OK(featinv_sample_options_init(&sampling, sizeof sampling, model));
        sampling.progress = stop_once;
        sampling.user_data = &stop;
        sampling.completed = &completed;
        o.sampling = &sampling;
        featinv_status status = visualize(s, &o);
        if (after == N * each) { /* nothing was left to stop */
            CHECK_OK(status);
            assert_int_equal(completed, N);
        } else {
            assert_int_equal(status, FEATINV_ERROR_CANCELLED);
            assert_int_equal(completed, after / each);
            assert_int_equal(stop.calls, after / 4);
        }
        for (int i = 0; i < N * COUNT; i++) /* finished maps are whole, others untouched */
            assert_int_equal(mask[i * PIXELS] != 0xff, i / COUNT < completed);
        featinv_session_destroy(s);
    }
}

static void bad_calls_are_refused(void **state) {
    (void)state;
    featinv_session *s = session(8);
    featinv_tensor view = featinv_tensor_view(null_map, FEATINV_DTYPE_F32, 4, plane_shape);
    featinv_sample_options sampling, steps;
    CHECK_OK(featinv_sample_options_init(&sampling, sizeof sampling, model));
    CHECK_OK(featinv_sample_options_init(&steps, sizeof steps, model));
    sampling.step_noise = &view;
    steps.steps = 0;
    static const struct {
        int32_t pairs, draws;
        double factor, threshold;
        featinv_normalize normalization;
        int which; /* 1: null map, 2: step noise, 3: no steps */
        const char *part;
    } cases[] = {
        {0, 0, .25, .33, 0, 0, "pairs is 0"},
        {-1, 0, .25, .33, 0, 0, "pairs is -1"},
        {4, -1, .25, .33, 0, 0, "null draws is -1"},
        {4, 0, .25, -1, 0, 0, "a threshold from the null needs at least one null draw"},
        {4, 0, .25, .33, 0, 1, "the null map needs at least one null draw"},
        {4, 0, .25, NAN, 0, 0, "threshold is nan"},
        {4, 0, .25, .33, 2, 0, "normalization is 2"},
        {4, 0, NAN, .33, 0, 0, "factor"},
        {4, 0, .25, .33, 0, 2, "step noise"},
        {4, 0, .25, .33, 0, 3, "steps is 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_visualize_options o = standard();
        o.pairs = cases[i].pairs;
        o.null_draws = cases[i].draws;
        o.factor = cases[i].factor;
        o.threshold = cases[i].threshold;
        o.normalization = cases[i].normalization;
        o.null_map = cases[i].which == 1 ? &view : NULL;
        o.sampling = cases[i].which == 2 ? &sampling : cases[i].which == 3 ? &steps : NULL;
        CHECK_FAILS(visualize(s, &o), FEATINV_ERROR_ARGUMENT, cases[i].part);
    }
    featinv_tensor m = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, plane_shape);
    featinv_tensor in = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    static const int32_t beyond[COUNT] = {0, 2, 1};
    CHECK_FAILS(featinv_visualize(&m, NULL, s, concepts, beyond, COUNT, &in, NULL),
                FEATINV_ERROR_ARGUMENT, "concept 2");
    CHECK_FAILS(featinv_visualize(&m, NULL, s, concepts, beyond, 0, &in, NULL),
                FEATINV_ERROR_ARGUMENT, "0 concepts");
    CHECK_FAILS(featinv_visualize(&m, NULL, s, NULL, indices, COUNT, &in, NULL),
                FEATINV_ERROR_ARGUMENT, "no concepts");
    CHECK_FAILS(featinv_visualize(&m, NULL, NULL, concepts, indices, COUNT, &in, NULL),
                FEATINV_ERROR_ARGUMENT, "no session");
    CHECK_FAILS(featinv_visualize(NULL, NULL, s, concepts, indices, COUNT, &in, NULL),
                FEATINV_ERROR_ARGUMENT, "the map");
    CHECK_FAILS(featinv_visualize(&m, NULL, s, concepts, indices, 2, &in, NULL),
                FEATINV_ERROR_SHAPE, "the map");
    featinv_session_destroy(s);
}

static void other_channels_are_refused(void **state) {
    (void)state;
    double bases[4] = {1, 0, 0, 0};
    int64_t shape[2] = {4, 1};
    static const int32_t offsets[] = {0, 1}, first[] = {0};
    featinv_concepts *other = NULL;
    featinv_tensor view = featinv_tensor_view(bases, FEATINV_DTYPE_F64, 2, shape);
    CHECK_OK(featinv_concepts_create(&other, &view, offsets, 1, 0));
    featinv_session *s = session(8);
    featinv_tensor m = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, plane_shape);
    featinv_tensor in = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    CHECK_FAILS(featinv_visualize(&m, NULL, s, other, first, 1, &in, NULL), FEATINV_ERROR_SHAPE,
                "the concepts have 4 channels, the bundle's maps 3");
    featinv_session_destroy(s);
    featinv_concepts_release(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_its_parts_whatever_the_batch),
        cmocka_unit_test(given_noise_belongs_to_map_and_pair),
        cmocka_unit_test(no_change_shows_none),
        cmocka_unit_test(the_null_is_a_random_subspace_of_equal_energy),
        cmocka_unit_test(random_subspaces_are_what_they_claim),
        cmocka_unit_test(random_subspaces_depend_on_seed_draw_and_concept),
        cmocka_unit_test(a_call_can_be_stopped),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(other_channels_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
