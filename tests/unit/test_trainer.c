/* The trainer over the fake backend: what a step does in which order, and what a failure leaves. */
#include "bundle_maker.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

enum { COUNT = 5, MAP = MAP_C * MAP_H * MAP_W, LATENT = LATENT_C * LATENT_HW * LATENT_HW };

static featinv_model *model;
static featinv_session *session;
static float maps[COUNT * MAP], latents[COUNT * LATENT], noise[COUNT * LATENT];
static int64_t map_shape[4] = {COUNT, MAP_C, MAP_H, MAP_W};
static int64_t latent_shape[4] = {COUNT, LATENT_C, LATENT_HW, LATENT_HW};
static featinv_tensor map_view, latent_view, noise_view;

static int setup(void **state) {
    (void)state;
    make_bundle();
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    CHECK_OK(featinv_session_create(&session, model, NULL));
    for (int i = 0; i < COUNT * MAP; i++)
        maps[i] = 0.5f * (float)(i / MAP);
    for (int i = 0; i < COUNT * LATENT; i++)
        noise[i] = 1.0f;
    map_view = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    latent_view = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    noise_view = featinv_tensor_view(noise, FEATINV_DTYPE_F32, 4, latent_shape);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    featinv_session_destroy(session);
    featinv_model_release(model);
    remove_bundle();
    return 0;
}

static featinv_trainer_options options(void) {
    featinv_trainer_options o;
    CHECK_OK(featinv_trainer_options_init(&o, sizeof o));
    o.rate = 0.125;
    o.average = 0.5;
    o.hint_dropout = o.prompt_dropout = 0.0;
    return o;
}

static featinv_trainer *create(const featinv_trainer_options *o) {
    featinv_trainer *trainer = NULL;
    CHECK_OK(featinv_trainer_create(&trainer, session, o));
    return trainer;
}

static featinv_trainer_batch batch(void) {
    return (featinv_trainer_batch){.struct_size = sizeof(featinv_trainer_batch),
                                   .count = COUNT,
                                   .latents = &latent_view,
                                   .maps = &map_view,
                                   .noise = &noise_view};
}

/* value, average, gradient of control.a (2, 2). */
static void look(float *value, float *average, float *gradient, featinv_trainer *trainer) {
    float data[4];
    int64_t shape[2] = {2, 2};
    featinv_tensor out = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, shape);
    CHECK_OK(featinv_trainer_parameter(&out, trainer, "control.a"));
    *value = data[0];
    assert_float_equal(data[3], data[0], 0);
    CHECK_OK(featinv_trainer_average(&out, trainer, "control.a"));
    *average = data[0];
    CHECK_OK(featinv_trainer_gradient(&out, trainer, "control.a"));
    *gradient = data[0];
}

/* The defaults are those of the paper. */
static void defaults(void **state) {
    (void)state;
    featinv_trainer_options o;
    CHECK_OK(featinv_trainer_options_init(&o, sizeof o));
    assert_float_equal(o.rate, 1e-5, 0);
    assert_float_equal(o.beta1, 0.9, 0);
    assert_float_equal(o.beta2, 0.999, 0);
    assert_float_equal(o.epsilon, 1e-8, 0);
    assert_float_equal(o.weight_decay, 0.01, 0);
    assert_float_equal(o.hint_dropout, 0.1, 0);
    assert_float_equal(o.prompt_dropout, 0.1, 0);
    assert_int_equal(o.mode, FEATINV_TRAIN_LOCKED);
    assert_int_equal(o.accumulation, 1);
    assert_int_equal(o.precision, FEATINV_DTYPE_F32);
    assert_int_equal(o.warmup + o.decay_steps + (int64_t)o.seed, 0);
    assert_true(!o.clip && !o.average && !o.min_snr && !o.joint_dropout);
}

/* Loss (W + m - 1)^2 with map means m = 0, .5, 1, 1.5, 2 and W = 0: losses 1, .25, 0, .25, 1 with
 * gradients 2 (m - 1) / 5, whose sum is zero; one map less makes it -.4. */
static void two_steps_by_hand(void **state) {
    (void)state;
    for (int32_t parts = 1; parts <= 6; parts++) {
        featinv_trainer_options o = options();
        o.accumulation = parts;
        featinv_trainer *trainer = create(&o);
        featinv_trainer_batch b = batch();
        featinv_trainer_result r = {.struct_size = sizeof r};
        double losses[COUNT];
        float value, average, gradient;
        uint8_t drop[COUNT] = {0, 0, 0, 0, 1};
        b.losses = losses;
        b.drop_hint = drop; /* the last map becomes zero */
        CHECK_OK(featinv_trainer_step(&r, trainer, &b));
        assert_int_equal(r.step, 1);
        assert_float_equal(r.loss, (1 + 0.25 + 0 + 0.25 + 1) / 5, 1e-7);
        assert_float_equal(losses[4], 1.0, 1e-7);
        assert_float_equal(losses[1], 0.25, 1e-7);
        look(&value, &average, &gradient, trainer);
        assert_float_equal(gradient, 2.0 * (-1 - 0.5 + 0 + 0.5 - 1) / 5, 1e-6);
        assert_float_equal(r.gradient_norm, 2.0 * 0.8, 1e-6); /* four equal elements */
        assert_float_equal(value, 0.125 * 0.8, 1e-7);
        assert_float_equal(average, 0.9 * value, 1e-7); /* decay (0 + 1) / (0 + 10) */
        float before = value, was = average;
        CHECK_OK(featinv_trainer_step(&r, trainer, &b));
        look(&value, &average, &gradient, trainer);
        /* W = .4 */
        assert_float_equal(gradient, 2.0 * (-0.6 - 0.1 + 0.4 + 0.9 - 0.6) / 5, 1e-6);
        assert_float_equal(value, before - 0.125f * gradient, 1e-6);
        assert_float_equal(average, was + (1 - 2.0 / 11) * (value - was), 1e-6);
        assert_int_equal(featinv_trainer_steps(trainer), 2);
        featinv_trainer_destroy(trainer);
    }
}

static void clipping(void **state) {
    (void)state;
    featinv_trainer_options o = options();
    o.clip = 0.4;
    featinv_trainer *trainer = create(&o);
    featinv_trainer_batch b = batch();
    featinv_trainer_result r = {.struct_size = sizeof r};
    float value, average, gradient;
    uint8_t drop[COUNT] = {0, 0, 0, 0, 1};
    b.drop_hint = drop;
    CHECK_OK(featinv_trainer_step(&r, trainer, &b));
    assert_float_equal(r.gradient_norm, 1.6, 1e-6);
    look(&value, &average, &gradient, trainer);
    assert_float_equal(gradient, -0.2, 1e-6);
    assert_float_equal(value, 0.125 * 0.2, 1e-7);
    featinv_trainer_destroy(trainer);
}

/* The whole state, as bytes. */
static void *state_of(featinv_trainer *trainer, size_t *size) {
    uint8_t *bytes = NULL;
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s.state", bundle_dir);
    CHECK_OK(featinv_trainer_save(trainer, path));
    CHECK_OK(fi_file_read(&bytes, size, path, 1 << 20));
    assert_int_equal(unlink(path), 0);
    return bytes;
}

static void check_state(featinv_trainer *trainer, const void *wanted, size_t wanted_size) {
    size_t size;
    void *found = state_of(trainer, &size);
    assert_int_equal(size, wanted_size);
    assert_memory_equal(found, wanted, size);
    free(found);
}

/* Whatever fails on the way of a step, the state is that before it. */
static void a_failed_step_changes_nothing(void **state) {
    (void)state;
    static const char *const functions[] = {"trainer_clear", "trainer_forward", "trainer_norm",
                                            "trainer_update"};
    featinv_trainer_options o = options();
    featinv_trainer *trainer = create(&o), *other = create(&o);
    featinv_trainer_batch b = batch();
    CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
    CHECK_OK(featinv_trainer_step(NULL, other, &b));
    size_t size;
    void *before = state_of(trainer, &size);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        setenv("FAKE_FAIL", functions[i], 1);
        CHECK_FAILS(featinv_trainer_step(NULL, trainer, &b), FEATINV_ERROR_COMPUTE, functions[i]);
        unsetenv("FAKE_FAIL");
        assert_int_equal(featinv_trainer_steps(trainer), 1);
        check_state(trainer, before, size);
    }
    static const char *const norms[] = {"inf", "nan"};
    for (size_t i = 0; i < 2; i++) {
        setenv("FAKE_NORM", norms[i], 1);
        CHECK_FAILS(featinv_trainer_step(NULL, trainer, &b), FEATINV_ERROR_COMPUTE,
                    "step 2: the gradient is not finite");
        unsetenv("FAKE_NORM");
        check_state(trainer, before, size);
    }
    free(before);
    CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
    CHECK_OK(featinv_trainer_step(NULL, other, &b));
    before = state_of(other, &size);
    check_state(trainer, before, size);
    free(before);
    featinv_trainer_destroy(trainer);
    featinv_trainer_destroy(other);
}

static void *cancel_soon(void *unused) {
    (void)unused;
    struct timespec pause = {0, 60 * 1000 * 1000};
    (void)nanosleep(&pause, NULL);
    featinv_session_cancel(session);
    return NULL;
}

static void a_cancelled_step_is_not_applied(void **state) {
    (void)state;
    featinv_trainer_options o = options();
    o.accumulation = COUNT;
    featinv_trainer *trainer = create(&o);
    featinv_trainer_batch b = batch();
    size_t size;
    void *before = state_of(trainer, &size);
    pthread_t thread;
    setenv("FAKE_DELAY", "0.04", 1);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
    CHECK_FAILS(featinv_trainer_step(NULL, trainer, &b), FEATINV_ERROR_CANCELLED, "cancelled");
    assert_int_equal(pthread_join(thread, NULL), 0);
    unsetenv("FAKE_DELAY");
    check_state(trainer, before, size);
    CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
    free(before);
    featinv_trainer_destroy(trainer);
}

static void failures_of_create(void **state) {
    (void)state;
    static const char *const functions[] = {"program_load",   "weight_memory",  "weight_done",
                                            "program_finish", "trainer_create", "trainer_count",
                                            "trainer_tensor"};
    featinv_trainer *trainer = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        setenv("FAKE_FAIL", functions[i], 1);
        assert_int_not_equal(featinv_trainer_create(&trainer, session, NULL), FEATINV_OK);
        unsetenv("FAKE_FAIL");
        assert_null(trainer);
    }
    featinv_trainer_destroy(NULL);
}

static void save_and_resume(void **state) {
    (void)state;
    char path[PATH_MAX + 32];
    featinv_trainer_options o = options();
    o.mode = FEATINV_TRAIN_JOINT;
    featinv_trainer *trainer = create(&o), *other = create(&o);
    featinv_trainer_batch b = batch();
    b.noise = NULL;
    for (int i = 0; i < 3; i++)
        CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
    (void)snprintf(path, sizeof path, "%s.state", bundle_dir);
    CHECK_OK(featinv_trainer_save(trainer, path));
    setenv("FAKE_FAIL", "trainer_read", 1);
    CHECK_FAILS(featinv_trainer_save(trainer, path), FEATINV_ERROR_COMPUTE, "trainer_read");
    setenv("FAKE_FAIL", "trainer_write", 1);
    CHECK_FAILS(featinv_trainer_resume(other, path), FEATINV_ERROR_COMPUTE, "trainer_write");
    unsetenv("FAKE_FAIL");
    assert_int_equal(featinv_trainer_steps(other), 0);
    CHECK_OK(featinv_trainer_resume(other, path));
    assert_int_equal(unlink(path), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
        CHECK_OK(featinv_trainer_step(NULL, other, &b));
    }
    size_t size;
    void *wanted = state_of(trainer, &size);
    check_state(other, wanted, size);
    free(wanted);
    featinv_trainer_destroy(trainer);
    featinv_trainer_destroy(other);
}

static void exported(void **state) {
    (void)state;
    char path[PATH_MAX + 32], command[PATH_MAX + 64];
    featinv_trainer_options o = options();
    featinv_trainer *trainer = create(&o);
    featinv_trainer_batch b = batch();
    uint8_t drop[COUNT] = {1};
    b.drop_hint = drop;
    noise[0] = 3.0f; /* so that the gradients do not cancel */
    CHECK_OK(featinv_trainer_step(NULL, trainer, &b));
    noise[0] = 1.0f;
    (void)snprintf(path, sizeof path, "%s.new", bundle_dir);
    setenv("FAKE_FAIL", "trainer_read", 1);
    CHECK_FAILS(featinv_trainer_export(trainer, path, NULL), FEATINV_ERROR_COMPUTE, "trainer_read");
    unsetenv("FAKE_FAIL");
    assert_int_not_equal(access(path, F_OK), 0);
    CHECK_OK(featinv_trainer_export(trainer, path, NULL));
    CHECK_FAILS(featinv_trainer_export(trainer, path, NULL), FEATINV_ERROR_WRITE, "exists");
    featinv_trainer_export_options again;
    CHECK_OK(featinv_trainer_export_options_init(&again, sizeof again));
    again.force = 1;
    CHECK_OK(featinv_trainer_export(trainer, path, &again));

    float average, value, gradient, found, unused;
    look(&value, &average, &gradient, trainer);
    assert_true(value != 0 && average != value);
    featinv_model *fresh = NULL;
    featinv_session *reader = NULL;
    featinv_trainer *next = NULL;
    CHECK_OK(featinv_model_open(&fresh, path, NULL));
    CHECK_OK(featinv_session_create(&reader, fresh, NULL));
    CHECK_OK(featinv_trainer_create(&next, reader, &o));
    look(&found, &unused, &gradient, next);
    assert_float_equal(found, average, 0);
    featinv_trainer_destroy(next);
    featinv_session_destroy(reader);
    featinv_model_release(fresh);
    featinv_trainer_destroy(trainer);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void wrong_calls(void **state) {
    (void)state;
    featinv_trainer *trainer = create(NULL);
    featinv_trainer_batch b = batch();
    int64_t shape[FEATINV_MAX_DIMS];
    int32_t ndim;
    float data[4];
    int64_t extent[2] = {2, 2}, wrong[2] = {4, 1};
    featinv_tensor out = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, extent);
    featinv_tensor other = featinv_tensor_view(data, FEATINV_DTYPE_F32, 2, wrong);
    CHECK_FAILS(featinv_trainer_create(NULL, session, NULL), FEATINV_ERROR_ARGUMENT, "no place");
    CHECK_FAILS(featinv_trainer_create(&trainer, NULL, NULL), FEATINV_ERROR_ARGUMENT, "no session");
    CHECK_FAILS(featinv_trainer_step(NULL, NULL, &b), FEATINV_ERROR_ARGUMENT, "no trainer");
    CHECK_FAILS(featinv_trainer_step(NULL, trainer, NULL), FEATINV_ERROR_ARGUMENT, "no batch");
    CHECK_FAILS(featinv_trainer_loss(NULL, trainer, NULL), FEATINV_ERROR_ARGUMENT, "no batch");
    CHECK_FAILS(featinv_trainer_save(trainer, NULL), FEATINV_ERROR_ARGUMENT, "no path");
    CHECK_FAILS(featinv_trainer_resume(NULL, "x"), FEATINV_ERROR_ARGUMENT, "no trainer");
    CHECK_FAILS(featinv_trainer_export(trainer, NULL, NULL), FEATINV_ERROR_ARGUMENT, "no path");
    CHECK_FAILS(featinv_trainer_parameter(&other, trainer, "control.a"), FEATINV_ERROR_SHAPE,
                "(4, 1)");
    CHECK_FAILS(featinv_trainer_parameter(&out, trainer, "model.a"), FEATINV_ERROR_NOT_FOUND,
                "model.a");
    CHECK_FAILS(featinv_trainer_average(&out, trainer, "control.a"), FEATINV_ERROR_UNSUPPORTED,
                "average");
    CHECK_FAILS(featinv_trainer_shape(NULL, &ndim, trainer, "x"), FEATINV_ERROR_ARGUMENT, "shape");
    b.struct_size = 0;
    CHECK_FAILS(featinv_trainer_step(NULL, trainer, &b), FEATINV_ERROR_ARGUMENT, "struct_size");
    assert_int_equal(featinv_trainer_count(trainer), 1);
    assert_string_equal(featinv_trainer_key(trainer, 0), "control.a");
    assert_null(featinv_trainer_key(trainer, 1));
    assert_null(featinv_trainer_key(trainer, -1));
    CHECK_OK(featinv_trainer_shape(shape, &ndim, trainer, "control.a"));
    assert_int_equal(ndim, 2);
    assert_int_equal(shape[0] * shape[1], 4);
    featinv_trainer_destroy(trainer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(two_steps_by_hand),
        cmocka_unit_test(clipping),
        cmocka_unit_test(a_failed_step_changes_nothing),
        cmocka_unit_test(a_cancelled_step_is_not_applied),
        cmocka_unit_test(failures_of_create),
        cmocka_unit_test(save_and_resume),
        cmocka_unit_test(exported),
        cmocka_unit_test(wrong_calls),
    };
    return cmocka_run_group_tests_name("trainer", tests, setup, teardown);
}
