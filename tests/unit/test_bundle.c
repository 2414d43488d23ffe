/* Bundles: a good one opens and tells what it holds; each thing that can be wrong refuses it. */
#include "bundle_maker.h"

#include "model.h"

static void a_good_bundle_opens(void **state) {
    (void)state;
    make_bundle();
    featinv_model *model = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    CHECK_OK(featinv_model_info(&info, model));
    assert_string_equal(info.name, "fake");
    assert_true(info.has_backbone && info.has_head && info.has_generator && info.has_encoder);
    assert_int_equal(info.channels, MAP_C);
    assert_int_equal(info.classes, CLASSES);
    assert_int_equal(info.contexts, 2);
    assert_int_equal(info.steps, 5);
    assert_int_equal(info.seed, 42);
    assert_string_equal(featinv_model_class_name(model, 6), "g");
    assert_null(featinv_model_class_name(model, 7));
    assert_null(featinv_model_class_name(model, -1));
    assert_string_equal(featinv_model_context_name(model, 0), "empty");
    assert_non_null(strstr(featinv_model_manifest(model), "featinv-bundle"));
    assert_ptr_equal(featinv_model_retain(model), model);
    featinv_model_release(model);
    featinv_model_release(model);
    featinv_model_release(NULL);
    remove_bundle();
}

typedef struct refusal {
    const char *edit; /* of the manifest */
    featinv_status status;
    const char *part;
} refusal;

static void each_fault_of_the_manifest_refuses(void **state) {
    (void)state;
    static const refusal cases[] = {
        {"\"featinv-bundle\"\1\"other\"", FEATINV_ERROR_BUNDLE, "`format`"},
        {"\"version\": 1\1\"version\": 2", FEATINV_ERROR_VERSION, "`version` is 2"},
        {"\"version\": 1\1\"version\": \"1\"", FEATINV_ERROR_BUNDLE,
         "`version` must be an integer"},
        {"\"torchscript\"\1\"onnx\"", FEATINV_ERROR_VERSION, "`backend` is \"onnx\""},
        {"\"name\": \"fake\", \1", FEATINV_ERROR_BUNDLE, "`name` is missing"},
        {"\"files\": {\1\"file\": {", FEATINV_ERROR_BUNDLE, "`files` is missing"},
        {"\"unet.ts\"\1\"../unet.ts\"", FEATINV_ERROR_BUNDLE, "plain relative file name"},
        {"\"unet.ts\"\1\"/unet.ts\"", FEATINV_ERROR_BUNDLE, "plain relative file name"},
        {"\"unet.ts\"\1\"nothere.ts\"", FEATINV_ERROR_BUNDLE,
         "unet.ts: the manifest does not list"},
        {"\"unet.ts\": {\"sha256\": \"\1\"unet.ts\": {\"sha256\": \"Z", FEATINV_ERROR_BUNDLE,
         "64 lower-case hex"},
        {"\"head\": \"linear\"\1\"head\": \"round\"", FEATINV_ERROR_BUNDLE, "`backbone.head`"},
        {"\"head\": \"linear\"\1\"head\": \"none\"", FEATINV_ERROR_BUNDLE, "head.ts"},
        {"\"std\": [1, 1, 1]\1\"std\": [1, 0, 1]", FEATINV_ERROR_BUNDLE, "`backbone.input.std`"},
        {"\"mean\": [0, 0, 0]\1\"mean\": [0, 0]", FEATINV_ERROR_BUNDLE, "`backbone.input.mean`"},
        {"\"crop\": 1.0\1\"crop\": 0", FEATINV_ERROR_BUNDLE, "`backbone.input.crop`"},
        {"\"bilinear\"\1\"lanczos\"", FEATINV_ERROR_BUNDLE, "\"lanczos\""},
        {"\"layout\": \"nchw\"\1\"layout\": \"hwcn\"", FEATINV_ERROR_BUNDLE, "`features.layout`"},
        {"\"channels\": 3, \"height\": 2\1\"channels\": 0, \"height\": 2", FEATINV_ERROR_BUNDLE,
         "`features.channels`"},
        {"\"channels\": 3, \"height\": 2\1\"channels\": 5, \"height\": 2", FEATINV_ERROR_BUNDLE,
         "mean must hold 5"},
        {"\"pooled\": false\1\"pooled\": 0", FEATINV_ERROR_BUNDLE, "`features.pooled`"},
        {"\"features\"\1\"feature\"", FEATINV_ERROR_BUNDLE, "`features` is missing"},
        {"\"epsilon\"\1\"x0\"", FEATINV_ERROR_BUNDLE, "\"x0\""},
        {"\"timesteps\": 1000\1\"timesteps\": 1", FEATINV_ERROR_BUNDLE, "`diffusion.timesteps`"},
        {"\"scaled_linear\"\1\"quadratic\"", FEATINV_ERROR_BUNDLE, "\"quadratic\""},
        {"\"latent\": [4\1\"latent\": [-4", FEATINV_ERROR_BUNDLE, "`diffusion.latent`"},
        {"\"image\": [3\1\"image\": [1", FEATINV_ERROR_BUNDLE, "3 channels"},
        {"\"latent_scale\": 0.5\1\"latent_scale\": 0", FEATINV_ERROR_BUNDLE,
         "`diffusion.latent_scale`"},
        {"\"diffusion\"\1\"diffusing\"", FEATINV_ERROR_BUNDLE, "`diffusion` is missing"},
        {"\"steps\": 5\1\"steps\": 1000", FEATINV_ERROR_BUNDLE, "`defaults.steps`"},
        {"\"context\": \"default\"\1\"context\": \"nobody\"", FEATINV_ERROR_BUNDLE,
         "no context is named \"nobody\""},
        {"\"defaults\"\1\"default\"", FEATINV_ERROR_BUNDLE, "`defaults` is missing"},
        {"\"provenance\": {}\1\"base\": {\"path\": \"nowhere\"}", FEATINV_ERROR_BUNDLE,
         "`base.manifest_sha256`"},
        {"}, \"backbone\"\1}, \"version\": 1, \"backbone\"", FEATINV_ERROR_BUNDLE, "duplicate"},
        {"{\"format\"\1{{\"format\"", FEATINV_ERROR_BUNDLE, "manifest.json: line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_model *model = NULL;
        make_bundle();
        put_manifest(cases[i].edit);
        CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), cases[i].status, cases[i].part);
        assert_null(model);
        remove_bundle();
    }
}

static void other_files_refuse(void **state) {
    (void)state;
    featinv_model *model = NULL;
    make_bundle();
    put("extra.bin", "x", 1);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE,
                "extra.bin: the manifest does not list");
    assert_int_equal(unlink(in_bundle("extra.bin")), 0);
    put(".hidden", "x", 1); /* hidden files are nobody's business */
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    featinv_model_release(model);

    put("unet.ts", "model.a 2 2\nmodel.c 2 2\n", 24); /* same size, other bytes */
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_HASH,
                "unet.ts: SHA-256");
    put("unet.ts", "short", 5);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_HASH, "5 bytes");
    assert_int_equal(unlink(in_bundle("unet.ts")), 0);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "unet.ts");
    assert_int_equal(symlink("/etc/hostname", in_bundle("unet.ts")), 0);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "link");
    remove_bundle();
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_NOT_FOUND, bundle_dir);
}

static void half_a_generator_refuses(void **state) {
    (void)state;
    featinv_model *model = NULL;
    make_bundle();
    assert_int_equal(unlink(in_bundle("decoder.ts")), 0);
    put_manifest(NULL);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "3 of them");
    remove_bundle();
    make_bundle();
    assert_int_equal(unlink(in_bundle("contexts.npz")), 0);
    put_manifest(NULL);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "contexts.npz");
    put("contexts.npz", "PK not a zip", 12);
    put_manifest(NULL);
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "contexts.npz");
    remove_bundle();
}

static void the_environment_names_the_default_bundle(void **state) {
    (void)state;
    char path[PATH_MAX], tiny[4];
    assert_int_equal(setenv("FEATINV_MODEL", "/some/where", 1), 0);
    CHECK_OK(featinv_model_default(path, sizeof path));
    assert_string_equal(path, "/some/where");
    CHECK_FAILS(featinv_model_default(tiny, sizeof tiny), FEATINV_ERROR_CAPACITY, "FEATINV_MODEL");
    assert_int_equal(unsetenv("FEATINV_MODEL"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_bundle_opens),
        cmocka_unit_test(each_fault_of_the_manifest_refuses),
        cmocka_unit_test(other_files_refuse),
        cmocka_unit_test(half_a_generator_refuses),
        cmocka_unit_test(the_environment_names_the_default_bundle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
