/* Sessions over the fake backend: order of lanes, noise, batching, cancel, options of any age. */
#include "bundle_maker.h"

#include "noise.h"

#include <math.h>
#include <pthread.h>

static featinv_model *model;

static int setup(void **state) {
    (void)state;
    make_bundle();
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    return 0;
}

static int teardown(void **state) {
    (void)state;
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

enum { MAPS = 5, SAMPLES = 3, LANES = MAPS * SAMPLES, MAP = MAP_C * MAP_H * MAP_W };
enum { LATENT = LATENT_C * LATENT_HW * LATENT_HW, IMAGE = 3 * IMAGE_HW * IMAGE_HW };

static float maps[MAPS * MAP];
static int64_t map_shape[4] = {MAPS, MAP_C, MAP_H, MAP_W};
static int64_t latent_shape[4] = {LANES, LATENT_C, LATENT_HW, LATENT_HW};
static int64_t image_shape[4] = {LANES, IMAGE_HW, IMAGE_HW, 3};

static featinv_tensor map_view(void) {
    for (int i = 0; i < MAPS * MAP; i++)
        maps[i] = 0.1f * (float)(i / MAP) + 0.01f * (float)(i % MAP);
    return featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
}

static featinv_sample_options sampling(void) {
    featinv_sample_options options;
    CHECK_OK(featinv_sample_options_init(&options, sizeof options, model));
    assert_int_equal(options.steps, 5);
    assert_int_equal(options.seed, 42);
    options.samples = SAMPLES;
    return options;
}

/* The fake sampler's arithmetic, lane by lane. */
static float expected(int lane, int element, int steps, bool noisy) {
    float noise[LATENT], target = 0;
    fi_noise(noise, LATENT, 42, (uint32_t)(lane % SAMPLES), 0, 0);
    double sum = 0;
    for (int i = 0; i < MAP; i++)
        sum += (double)maps[lane / SAMPLES * MAP + i];
    target = (float)(sum / MAP);
    float x = noise[element];
    for (int i = 0; i < steps; i++) {
        fi_noise(noise, LATENT, 42, (uint32_t)(lane % SAMPLES), (uint32_t)i + 1, 0);
        x += 0.125f * (target - x) + (noisy ? 0.01f * noise[element] : 0.0f);
    }
    return x;
}

static void lanes_are_map_major_whatever_the_batch(void **state) {
    (void)state;
    static const int32_t batches[] = {1, 2, 3, 7, 32};
    featinv_tensor view = map_view();
    for (size_t b = 0; b < 5; b++)
        for (int noisy = 0; noisy < 2; noisy++) {
            static float latents[LANES * LATENT];
            static uint8_t images[LANES * IMAGE];
            featinv_session *s = session(batches[b]);
            featinv_sample_options options = sampling();
            featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
            featinv_tensor out = featinv_tensor_view(images, FEATINV_DTYPE_U8, 4, image_shape);
            int64_t completed = -1;
            options.eta = noisy;
            options.completed = &completed;
            CHECK_OK(featinv_sample(&out, &z, s, &view, &options));
            assert_int_equal(completed, LANES);
            for (int lane = 0; lane < LANES; lane++)
                for (int i = 0; i < LATENT; i++)
                    if (fabsf(latents[lane * LATENT + i] - expected(lane, i, 5, noisy)) > 1e-5f)
                        fail_msg("batch %d, lane %d, element %d: %g, wanted %g", batches[b], lane,
                                 i, (double)latents[lane * LATENT + i],
                                 (double)expected(lane, i, 5, noisy));
            featinv_session_destroy(s);
        }
}

static void results_are_bit_equal_whatever_batch_and_threads(void **state) {
    (void)state;
    static float first[LANES * LATENT], latents[LANES * LATENT];
    static uint8_t first_images[LANES * IMAGE], images[LANES * IMAGE];
    static const int32_t batches[] = {1, 2, 7, 32};
    featinv_tensor view = map_view();
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor out = featinv_tensor_view(images, FEATINV_DTYPE_U8, 4, image_shape);
    for (int run = 0; run < 8; run++) {
        featinv_session_options options;
        featinv_sample_options sample = sampling();
        featinv_session *s = NULL;
        CHECK_OK(featinv_session_options_init(&options, sizeof options));
        options.batch = batches[run % 4];
        options.threads = run / 4 + 1;
        sample.eta = 1.0;
        memset(latents, 0, sizeof latents);
        memset(images, 0, sizeof images);
        CHECK_OK(featinv_session_create(&s, model, &options));
        CHECK_OK(featinv_sample(&out, &z, s, &view, &sample));
        featinv_session_destroy(s);
        if (run == 0) {
            memcpy(first, latents, sizeof first);
            memcpy(first_images, images, sizeof first_images);
        }
        assert_memory_equal(latents, first, sizeof first);
        assert_memory_equal(images, first_images, sizeof first_images);
    }
    assert_memory_not_equal(first, first + LATENT, LATENT * sizeof *first);
}

static void given_noise_and_traces_line_up(void **state) {
    (void)state;
    enum { STEPS = 5 };
    static float noise[LANES * LATENT], step_noise[STEPS * LANES * LATENT];
    static float trace[STEPS * LANES * LATENT], latents[LANES * LATENT], again[LANES * LATENT];
    int64_t trace_shape[5] = {STEPS, LANES, LATENT_C, LATENT_HW, LATENT_HW};
    featinv_tensor view = map_view();
    featinv_sample_options options = sampling();
    featinv_session *s = session(4);
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor z2 = featinv_tensor_view(again, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor x = featinv_tensor_view(noise, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor n = featinv_tensor_view(step_noise, FEATINV_DTYPE_F32, 5, trace_shape);
    featinv_tensor t = featinv_tensor_view(trace, FEATINV_DTYPE_F32, 5, trace_shape);
    options.eta = 1.0;
    CHECK_OK(featinv_sample(NULL, &z, s, &view, &options));
    for (int lane = 0; lane < LANES; lane++) { /* what the seed gives, handed in */
        fi_noise(noise + lane * LATENT, LATENT, 42, (uint32_t)(lane % SAMPLES), 0, 0);
        for (int i = 0; i < STEPS; i++)
            fi_noise(step_noise + (i * LANES + lane) * LATENT, LATENT, 42,
                     (uint32_t)(lane % SAMPLES), (uint32_t)i + 1, 0);
    }
    options.seed = 7;
    options.noise = &x;
    options.step_noise = &n;
    options.trace_x = &t;
    CHECK_OK(featinv_sample(NULL, &z2, s, &view, &options));
    assert_memory_equal(latents, again, sizeof latents);
    assert_memory_equal(latents, trace + (STEPS - 1) * LANES * LATENT, sizeof latents);
    noise[3] = NAN;
    CHECK_FAILS(featinv_sample(NULL, &z2, s, &view, &options), FEATINV_ERROR_VALUE, "noise");
    latent_shape[0] = 2;
    CHECK_FAILS(featinv_sample(NULL, NULL, s, &view, &options), FEATINV_ERROR_SHAPE, "2 rows");
    latent_shape[0] = LANES;
    featinv_session_destroy(s);
}

typedef struct stop {
    int64_t at, seen;
    featinv_session *session; /* cancel through it instead of the return value */
} stop;

static int32_t stop_at(void *user_data, int64_t done, int64_t total) {
    stop *s = user_data;
    assert_true(done <= total);
    s->seen = done;
    if (s->session && done >= s->at)
        featinv_session_cancel(s->session);
    return !s->session && done >= s->at;
}

static void cancel_at_any_step_keeps_what_is_finished(void **state) {
    (void)state;
    static float latents[LANES * LATENT], whole[LANES * LATENT];
    featinv_tensor view = map_view();
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor w = featinv_tensor_view(whole, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_session *s = session(4);
    featinv_sample_options options = sampling();
    CHECK_OK(featinv_sample(NULL, &w, s, &view, &options));
    const int64_t total = LANES * 6;
    for (int64_t at = 1; at < total; at++)
        for (int through_session = 0; through_session < 2; through_session++) {
            stop st = {at, 0, through_session ? s : NULL};
            int64_t completed = -1;
            options.progress = stop_at;
            options.user_data = &st;
            options.completed = &completed;
            memset(latents, 0, sizeof latents);
            featinv_status status = featinv_sample(NULL, &z, s, &view, &options);
            /* the last chunk's last tick comes when nothing is left to stop */
            if (status != FEATINV_ERROR_CANCELLED && !(status == FEATINV_OK && st.seen == total))
                fail_msg("stopped at %lld: %s", (long long)at, featinv_status_name(status));
            assert_true(st.seen - at <= 4); /* within one step of a chunk of 4 lanes */
            assert_memory_equal(latents, whole, (size_t)completed * LATENT * sizeof(float));
            options.progress = NULL;
            options.completed = NULL;
            CHECK_OK(featinv_sample(NULL, &z, s, &view, &options)); /* still usable */
            assert_memory_equal(latents, whole, sizeof whole);
        }
    featinv_session_cancel(s); /* finds no call: no effect */
    CHECK_OK(featinv_sample(NULL, &z, s, &view, &options));
    featinv_session_cancel(NULL);
    featinv_session_destroy(s);
}

static void *cancel_soon(void *arg) {
    for (int i = 0; i < 2000; i++) {
        featinv_session_cancel(arg);
        usleep(50);
    }
    return NULL;
}

static void cancel_may_come_from_another_thread(void **state) {
    (void)state;
    featinv_tensor view = map_view();
    featinv_session *s = session(1);
    featinv_sample_options options = sampling();
    options.steps = 900;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, s), 0);
    featinv_status status = FEATINV_OK;
    for (int i = 0; i < 50 && status == FEATINV_OK; i++)
        status = featinv_sample(NULL, NULL, s, &view, &options);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, FEATINV_ERROR_CANCELLED);
    options.steps = 5;
    CHECK_OK(featinv_sample(NULL, NULL, s, &view, &options));
    featinv_session_destroy(s);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    featinv_tensor view = map_view();
    featinv_session *s = session(4);
    static float latents[LANES * LATENT];
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    static const struct {
        double scale, hint_scale, strength, eta;
        int32_t steps, samples, guess;
        featinv_spacing spacing;
        const char *context, *part;
    } cases[] = {
        {NAN, 1, 1, 0, 5, SAMPLES, 0, 0, NULL, "scale is nan"},
        {INFINITY, 1, 1, 0, 5, SAMPLES, 0, 0, NULL, "scale is inf"},
        {1, NAN, 1, 0, 5, SAMPLES, 0, 0, NULL, "hint scale is nan"},
        {1, 1, NAN, 0, 5, SAMPLES, 0, 0, NULL, "strength is nan"},
        {1, 1, 1, NAN, 5, SAMPLES, 0, 0, NULL, "eta is nan"},
        {1, 1, 1, -1, 5, SAMPLES, 0, 0, NULL, "eta is -1"},
        {1, 1, 1, 0, 0, SAMPLES, 0, 0, NULL, "steps is 0"},
        {1, 1, 1, 0, 1000, SAMPLES, 0, 0, NULL, "steps is 1000"},
        {1, 1, 1, 0, 333, SAMPLES, 0, FEATINV_SPACING_LEGACY, NULL, "steps is 333"},
        {1, 1, 1, 0, 5, 0, 0, 0, NULL, "samples is 0"},
        {2, 1.5, 1, 0, 5, SAMPLES, 1, 0, NULL, "guess mode"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_sample_options options = sampling();
        options.scale = cases[i].scale;
        options.hint_scale = cases[i].hint_scale;
        options.strength = cases[i].strength;
        options.eta = cases[i].eta;
        options.steps = cases[i].steps;
        options.samples = cases[i].samples;
        options.guess_mode = cases[i].guess;
        options.spacing = cases[i].spacing;
        CHECK_FAILS(featinv_sample(NULL, &z, s, &view, &options), FEATINV_ERROR_ARGUMENT,
                    cases[i].part);
    }
    featinv_sample_options options = sampling();
    options.context = "nobody";
    CHECK_FAILS(featinv_sample(NULL, &z, s, &view, &options), FEATINV_ERROR_NOT_FOUND, "nobody");
    options = sampling();
    map_shape[1] = 2;
    CHECK_FAILS(featinv_sample(NULL, &z, s, &view, &options), FEATINV_ERROR_SHAPE, "maps");
    map_shape[1] = MAP_C;
    view = map_view();
    maps[7] = INFINITY;
    CHECK_FAILS(featinv_sample(NULL, &z, s, &view, &options), FEATINV_ERROR_VALUE, "maps");
    view = map_view();
    latent_shape[0] = 3;
    CHECK_FAILS(featinv_sample(NULL, &z, s, &view, &options), FEATINV_ERROR_SHAPE, "latents");
    latent_shape[0] = LANES;
    CHECK_FAILS(featinv_sample(NULL, &z, NULL, &view, &options), FEATINV_ERROR_ARGUMENT, "session");
    featinv_session_destroy(s);
}

static void devices_and_dtypes_that_cannot_be_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *device;
        featinv_dtype dtype;
        int32_t batch, threads;
        featinv_status status;
        const char *part;
    } cases[] = {
        {"tpu", FEATINV_DTYPE_F32, 0, 0, FEATINV_ERROR_ARGUMENT, "\"tpu\""},
        {"cuda:", FEATINV_DTYPE_F32, 0, 0, FEATINV_ERROR_ARGUMENT, "\"cuda:\""},
        {"cuda:x", FEATINV_DTYPE_F32, 0, 0, FEATINV_ERROR_ARGUMENT, "\"cuda:x\""},
        {"cuda:3", FEATINV_DTYPE_F32, 0, 0, FEATINV_ERROR_DEVICE, "3"},
        {"cuda", FEATINV_DTYPE_F32, 0, 0, FEATINV_ERROR_DEVICE, "CUDA"},
        {"cpu", FEATINV_DTYPE_F16, 0, 0, FEATINV_ERROR_ARGUMENT, "fp16"},
        {"cpu", FEATINV_DTYPE_U8, 0, 0, FEATINV_ERROR_ARGUMENT, "dtype"},
        {"cpu", FEATINV_DTYPE_F32, -1, 0, FEATINV_ERROR_ARGUMENT, "batch is -1"},
        {"cpu", FEATINV_DTYPE_F32, 0, -1, FEATINV_ERROR_ARGUMENT, "threads is -1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_session_options options;
        featinv_session *s = NULL;
        CHECK_OK(featinv_session_options_init(&options, sizeof options));
        options.device = cases[i].device;
        options.dtype = cases[i].dtype;
        options.batch = cases[i].batch;
        options.threads = cases[i].threads;
        CHECK_FAILS(featinv_session_create(&s, model, &options), cases[i].status, cases[i].part);
        assert_null(s);
    }
}

static void options_of_other_ages_work(void **state) {
    (void)state;
    struct {
        featinv_sample_options known;
        uint64_t later;
    } newer;
    featinv_tensor view = map_view();
    featinv_session *s = session(8);
    CHECK_OK(featinv_sample_options_init((featinv_sample_options *)&newer, sizeof newer, model));
    CHECK_OK(featinv_sample(NULL, NULL, s, &view, &newer.known));
    newer.later = 1; /* a field that this library does not know */
    CHECK_FAILS(featinv_sample(NULL, NULL, s, &view, &newer.known), FEATINV_ERROR_UNSUPPORTED,
                "newer");
    struct { /* a client from before `scale` existed */
        uint32_t struct_size;
        int32_t samples, steps, spacing;
    } older = {sizeof older, 2, 3, 0};
    CHECK_OK(featinv_sample(NULL, NULL, s, &view, (const featinv_sample_options *)&older));
    older.struct_size = 0;
    CHECK_FAILS(featinv_sample(NULL, NULL, s, &view, (const featinv_sample_options *)&older),
                FEATINV_ERROR_ARGUMENT, "struct_size is 0");
    featinv_session_destroy(s);
}

static void photos_become_maps_and_scores(void **state) {
    (void)state;
    enum { N = 3 };
    static uint8_t pixels[N][8 * 5 * 3], drawn[N * IMAGE], references[N * IMAGE];
    featinv_image photos[N];
    float out[N * MAP], logits[N * CLASSES];
    int64_t shape[4] = {N, MAP_C, MAP_H, MAP_W}, logit_shape[2] = {N, CLASSES};
    int64_t drawn_shape[4] = {N, IMAGE_HW, IMAGE_HW, 3};
    for (int i = 0; i < N; i++) {
        memset(pixels[i], 51 * i, sizeof pixels[i]);
        photos[i] = (featinv_image){pixels[i], 5, 8, 0};
    }
    featinv_tensor m = featinv_tensor_view(out, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor l = featinv_tensor_view(logits, FEATINV_DTYPE_F32, 2, logit_shape);
    featinv_tensor d = featinv_tensor_view(drawn, FEATINV_DTYPE_U8, 4, drawn_shape);
    featinv_tensor refs = featinv_tensor_view(references, FEATINV_DTYPE_U8, 4, drawn_shape);
    featinv_session *s = session(2);
    CHECK_OK(featinv_extract(&m, &l, s, photos, N, NULL));
    for (int i = 0; i < N; i++) /* mean of the image plus channel */
        for (int k = 0; k < MAP; k++)
            assert_true(fabsf(out[i * MAP + k] - 0.2f * (float)i - (float)(k / 4)) < 1e-5f);
    float again[N * CLASSES];
    featinv_tensor a = featinv_tensor_view(again, FEATINV_DTYPE_F32, 2, logit_shape);
    CHECK_OK(featinv_classify(&a, s, &m, NULL));
    assert_memory_equal(logits, again, sizeof again);

    featinv_score scores[N];
    featinv_reconstruct_options options;
    CHECK_OK(featinv_reconstruct_options_init(&options, sizeof options, model));
    options.references = &refs;
    CHECK_OK(featinv_reconstruct(&d, scores, s, photos, N, &options));
    for (int i = 0; i < N; i++) {
        assert_true(scores[i].cosine_median > 0.5 && scores[i].cosine_median <= 1.0 + 1e-9);
        assert_int_equal(scores[i].top1_original, 0);
        assert_true(scores[i].match_top1 == 0 || scores[i].match_top1 == 1);
        assert_int_equal(references[i * IMAGE], 51 * i);
        assert_true(scores[i].seconds > 0.0);
    }
    featinv_score alone[N];
    CHECK_OK(featinv_score_samples(alone, NULL, s, &d, &m, NULL, NULL));
    for (int i = 0; i < N; i++)
        assert_true(fabs(alone[i].cosine_mean - scores[i].cosine_mean) < 1e-12);
    photos[1].width = 0;
    CHECK_FAILS(featinv_extract(&m, NULL, s, photos, N, NULL), FEATINV_ERROR_ARGUMENT, "image 1");
    featinv_session_destroy(s);
}

static void weights_are_checked_while_they_load(void **state) {
    (void)state;
    featinv_tensor view = map_view();
    static const struct {
        int fault;
        featinv_status status;
        const char *part;
    } cases[] = {
        {0, FEATINV_ERROR_HASH, "unet.safetensors: SHA-256"},
        {1, FEATINV_ERROR_BUNDLE, "lack 1 tensors of control.ts"},
        {2, FEATINV_ERROR_BUNDLE, "model.b is (2, 2), unet.ts wants (2, 3)"},
        {3, FEATINV_ERROR_BUNDLE, "unet.safetensors"},
    };
    for (size_t i = 0; i < 4; i++) {
        char kept[PATH_MAX];
        memcpy(kept, bundle_dir, sizeof kept);
        make_bundle();
        static const char *const two[] = {"model.a", "model.b"};
        if (cases[i].fault == 1)
            put_weights("unet.safetensors", two, 2);
        if (cases[i].fault == 2)
            put("unet.ts", "model.a 2 2\nmodel.b 2 3\n", 24);
        if (cases[i].fault == 3)
            put("unet.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
        put_manifest(NULL);
        if (cases[i].fault == 0) { /* a bit flips after the manifest was made */
            FILE *file = fopen(in_bundle("unet.safetensors"), "r+b");
            assert_non_null(file);
            assert_int_equal(fseek(file, -1, SEEK_END), 0);
            assert_int_equal(fputc(1, file), 1);
            assert_int_equal(fclose(file), 0);
        }
        featinv_model *other = NULL;
        featinv_session *s = NULL;
        CHECK_OK(featinv_model_open(&other, bundle_dir, NULL));
        CHECK_OK(featinv_session_create(&s, other, NULL));
        CHECK_FAILS(featinv_sample(NULL, NULL, s, &view, NULL), cases[i].status, cases[i].part);
        featinv_session_destroy(s);
        featinv_model_release(other);
        remove_bundle();
        memcpy(bundle_dir, kept, sizeof kept);
    }
}

static void failures_of_the_backend_come_through(void **state) {
    (void)state;
    static const char *const names[] = {"sampler_create", "sampler_hints",   "sampler_start",
                                        "sampler_step",   "sampler_latents", "sampler_decode"};
    static float latents[LANES * LATENT];
    static uint8_t images[LANES * IMAGE];
    featinv_tensor view = map_view();
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    featinv_tensor out = featinv_tensor_view(images, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_session *s = session(4);
    featinv_sample_options options = sampling();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(setenv("FAKE_FAIL", names[i], 1), 0);
        CHECK_FAILS(featinv_sample(&out, &z, s, &view, &options), FEATINV_ERROR_COMPUTE, names[i]);
    }
    assert_int_equal(unsetenv("FAKE_FAIL"), 0);
    CHECK_OK(featinv_sample(&out, &z, s, &view, &options));
    featinv_session_destroy(s);
}

static void parts_check_their_shapes(void **state) {
    (void)state;
    static float x[2 * LATENT], prediction[2 * LATENT], hint[2 * LATENT], r0[2 * LATENT],
        r1[2 * LATENT], context[2 * 4 * 5];
    int64_t t[2] = {1, 999}, t_shape[1] = {2}, two[4] = {2, LATENT_C, LATENT_HW, LATENT_HW};
    int64_t context_shape[3] = {2, 4, 5}, two_maps[4] = {2, MAP_C, MAP_H, MAP_W};
    (void)map_view();
    featinv_tensor m = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, two_maps);
    featinv_tensor xt = featinv_tensor_view(x, FEATINV_DTYPE_F32, 4, two);
    featinv_tensor p = featinv_tensor_view(prediction, FEATINV_DTYPE_F32, 4, two);
    featinv_tensor ts = featinv_tensor_view(t, FEATINV_DTYPE_I64, 1, t_shape);
    featinv_tensor c = featinv_tensor_view(context, FEATINV_DTYPE_F32, 3, context_shape);
    featinv_tensor h = featinv_tensor_view(hint, FEATINV_DTYPE_F32, 4, two);
    featinv_tensor r[2] = {featinv_tensor_view(r0, FEATINV_DTYPE_F32, 4, two),
                           featinv_tensor_view(r1, FEATINV_DTYPE_F32, 4, two)};
    featinv_session *s = session(4);
    featinv_denoise_options options;
    CHECK_OK(featinv_denoise_options_init(&options, sizeof options));
    options.hint = &h;
    options.residuals = r;
    options.residual_count = 2;
    x[0] = 2.0f;
    CHECK_OK(featinv_denoise(&p, s, &xt, &ts, &c, &m, &options));
    assert_true(prediction[0] > 0.99f && prediction[0] < 1.01f && r1[5] > 0.99f);
    CHECK_OK(
        featinv_denoise(NULL, s, NULL, NULL, NULL, &m,
                        &(featinv_denoise_options){.struct_size = sizeof options, .hint = &h}));
    options.residual_count = 1;
    CHECK_FAILS(featinv_denoise(&p, s, &xt, &ts, &c, &m, &options), FEATINV_ERROR_SHAPE,
                "1 residual");
    options.residual_count = 2;
    t[1] = 1000;
    CHECK_FAILS(featinv_denoise(&p, s, &xt, &ts, &c, &m, &options), FEATINV_ERROR_ARGUMENT,
                "t[1] is 1000");
    t[1] = 5;
    context_shape[2] = 4;
    CHECK_FAILS(featinv_denoise(&p, s, &xt, &ts, &c, &m, &options), FEATINV_ERROR_SHAPE, "context");
    featinv_session_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_are_map_major_whatever_the_batch),
        cmocka_unit_test(results_are_bit_equal_whatever_batch_and_threads),
        cmocka_unit_test(given_noise_and_traces_line_up),
        cmocka_unit_test(cancel_at_any_step_keeps_what_is_finished),
        cmocka_unit_test(cancel_may_come_from_another_thread),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(devices_and_dtypes_that_cannot_be_are_refused),
        cmocka_unit_test(options_of_other_ages_work),
        cmocka_unit_test(photos_become_maps_and_scores),
        cmocka_unit_test(weights_are_checked_while_they_load),
        cmocka_unit_test(failures_of_the_backend_come_through),
        cmocka_unit_test(parts_check_their_shapes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
