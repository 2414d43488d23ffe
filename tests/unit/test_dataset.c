/* Batches of training data: the same bytes whatever threads, order and history. */
#include "bundle_maker.h"
#include "scratch.h"

#include "dataset.h"
#include "shuffle.h"

#include <math.h>
#include <sys/wait.h>

enum { COUNT = 11, BATCH = 4, IMAGE = 12, VIEW = 18, MAX_BATCH = 16 };
enum { IMAGE_BYTES = IMAGE * IMAGE * 3, VIEW_BYTES = VIEW * VIEW * 3 };

static char names[COUNT][128];
static const char *paths[COUNT];

typedef struct batch {
    uint8_t images[MAX_BATCH * IMAGE_BYTES], views[MAX_BATCH * VIEW_BYTES];
    int64_t indices[MAX_BATCH];
} batch;

/* Pictures of different sizes, every second one a JPEG. */
static void write_picture(int i) {
    int32_t width = i == COUNT - 1 ? 130 : 20 + 7 * i, height = 50 - 3 * i;
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(bytes);
    assert_non_null(pixels);
    for (size_t k = 0; k < bytes; k++)
        pixels[k] = (uint8_t)((k * 2654435761u >> 9) * (uint32_t)(i + 1));
    featinv_image image = {pixels, width, height, 0};
    CHECK_OK(featinv_image_write(paths[i], &image));
    free(pixels);
}

static void write_all(void) {
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s/%02d.%s", scratch_folder, i,
                       i % 2 ? "jpg" : "png");
        paths[i] = names[i];
        (void)unlink(paths[i]);
        write_picture(i);
    }
}

static int make_pictures(void **state) {
    if (scratch_make(state))
        return -1;
    write_all();
    return 0;
}

static featinv_dataset_options small(void) {
    featinv_dataset_options o;
    CHECK_OK(featinv_dataset_options_init(&o, sizeof o, NULL));
    o.batch = BATCH;
    o.image_height = o.image_width = IMAGE;
    o.view_height = o.view_width = VIEW;
    o.threads = 2;
    return o;
}

static featinv_dataset *opened(const featinv_dataset_options *options, int64_t count) {
    featinv_dataset *d = NULL;
    CHECK_OK(featinv_dataset_create(&d, paths, count, options));
    return d;
}

/* The image at a place of the sequence, or the stand-in after `passed` bad ones. */
static int64_t image_at(uint64_t seed, int64_t position, int64_t passed) {
    return fi_shuffle(seed, (uint32_t)(position / COUNT), COUNT,
                      (position % COUNT + passed) % COUNT);
}

static featinv_status fetch(batch *out, featinv_dataset *d, int64_t k) {
    int64_t n = d->options.batch;
    int64_t image_shape[4] = {n, IMAGE, IMAGE, 3}, view_shape[4] = {n, VIEW, VIEW, 3};
    featinv_tensor images = featinv_tensor_view(out->images, FEATINV_DTYPE_U8, 4, image_shape);
    featinv_tensor views = featinv_tensor_view(out->views, FEATINV_DTYPE_U8, 4, view_shape);
    memset(out, 0, sizeof *out);
    return featinv_dataset_batch(&images, &views, out->indices, d, k);
}

static void same_batch(const batch *a, const batch *b, const char *what, int64_t k) {
    if (memcmp(a, b, sizeof *a))
        fail_msg("%s: batch %lld differs", what, (long long)k);
}

/* ---------------------------------------------------------------- the sequence --------------- */

static void threads_prefetch_and_order_change_nothing(void **unused) {
    (void)unused;
    enum { BATCHES = 9 };
    static const int32_t settings[][2] = {{1, 1}, {2, 1}, {2, 3}, {5, 2}, {5, 16}, {1, 7}};
    static const int64_t walk[] = {5, 0, 8, 7, 7, 2, 3, 4, 1, 6, 6, 5};
    static batch wanted[BATCHES], got;
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        featinv_dataset_options o = small();
        o.threads = settings[s][0];
        o.prefetch = settings[s][1];
        featinv_dataset *d = opened(&o, COUNT);
        for (int64_t k = 0; k < BATCHES; k++) {
            CHECK_OK(fetch(s ? &got : &wanted[k], d, k));
            if (s)
                same_batch(&got, &wanted[k], "in sequence", k);
        }
        for (size_t i = 0; i < sizeof walk / sizeof *walk; i++) {
            CHECK_OK(fetch(&got, d, walk[i]));
            same_batch(&got, &wanted[walk[i]], "out of sequence", walk[i]);
        }
        featinv_dataset_destroy(d);
        d = opened(&o, COUNT); /* a resumed training begins in the middle */
        for (int64_t k = 6; k < BATCHES; k++) {
            CHECK_OK(fetch(&got, d, k));
            same_batch(&got, &wanted[k], "resumed", k);
        }
        featinv_dataset_destroy(d);
    }
    for (int64_t k = 1; k < BATCHES; k++)
        assert_memory_not_equal(&wanted[k], &wanted[0], sizeof *wanted);
}

static void each_image_once_an_epoch(void **unused) {
    (void)unused;
    static const int32_t sizes[] = {1, 3, 4, 11, 16};
    static batch got;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        featinv_dataset_options o = small();
        o.batch = sizes[s];
        featinv_dataset *d = opened(&o, COUNT);
        int64_t order[5 * COUNT + MAX_BATCH], taken = 0;
        for (int64_t k = 0; taken < 5 * COUNT; k++) {
            CHECK_OK(fetch(&got, d, k));
            for (int32_t i = 0; i < o.batch; i++)
                order[taken++] = got.indices[i];
        }
        for (int epoch = 0; epoch < 5; epoch++) {
            int seen[COUNT] = {0};
            for (int i = 0; i < COUNT; i++)
                seen[order[epoch * COUNT + i]]++;
            for (int i = 0; i < COUNT; i++)
                if (seen[i] != 1)
                    fail_msg("batches of %d, epoch %d: image %d comes %d times", sizes[s], epoch, i,
                             seen[i]);
            assert_memory_not_equal(order + epoch * COUNT, order + (epoch + 1) % 5 * COUNT,
                                    COUNT * sizeof *order);
        }
        featinv_dataset_destroy(d);
    }
}

/* Three images in batches of eight: an image that comes twice is cropped anew. */
static void a_batch_may_hold_several_epochs(void **unused) {
    (void)unused;
    static batch got;
    featinv_dataset_options o = small();
    o.batch = 8;
    featinv_dataset *d = opened(&o, 3);
    CHECK_OK(fetch(&got, d, 2));
    int seen[3] = {0};
    for (int i = 2; i < 8; i++) /* positions 18 to 23: epochs 6 and 7 */
        seen[got.indices[i]]++;
    for (int i = 0; i < 3; i++)
        assert_int_equal(seen[i], 2);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(got.views + i * VIEW_BYTES, got.views + j * VIEW_BYTES,
                                    VIEW_BYTES);
    assert_int_equal(featinv_dataset_size(d), 3);
    featinv_dataset_destroy(d);
}

/* The global batch of 6 as two processes with batches of 3 see it. */
static void processes_share_a_batch(void **unused) {
    (void)unused;
    static batch whole, part;
    featinv_dataset_options o = small();
    o.batch = 6;
    featinv_dataset *all = opened(&o, COUNT);
    o.batch = 3;
    featinv_dataset *shared = opened(&o, COUNT);
    for (int64_t step = 0; step < 4; step++) {
        CHECK_OK(fetch(&whole, all, step));
        for (int64_t rank = 0; rank < 2; rank++) {
            CHECK_OK(fetch(&part, shared, 2 * step + rank));
            assert_memory_equal(part.views, whole.views + 3 * rank * VIEW_BYTES, 3 * VIEW_BYTES);
            assert_memory_equal(part.images, whole.images + 3 * rank * IMAGE_BYTES,
                                3 * IMAGE_BYTES);
        }
    }
    featinv_dataset_destroy(shared);
    featinv_dataset_destroy(all);
}

static void seeds_differ_and_plain_data_do_not(void **unused) {
    (void)unused;
    static batch a, b;
    featinv_dataset_options o = small();
    featinv_dataset *d = opened(&o, COUNT);
    CHECK_OK(fetch(&a, d, 0));
    featinv_dataset_destroy(d);
    o.seed++;
    d = opened(&o, COUNT);
    CHECK_OK(fetch(&b, d, 0));
    featinv_dataset_destroy(d);
    assert_memory_not_equal(a.indices, b.indices, BATCH * sizeof *a.indices);
    o.shuffle = o.augment = 0; /* for validation: nothing is left to chance */
    d = opened(&o, COUNT);
    for (int64_t k = 0; k < 6; k++) {
        CHECK_OK(fetch(&a, d, k));
        for (int64_t i = 0; i < BATCH; i++)
            assert_int_equal(a.indices[i], (BATCH * k + i) % COUNT);
    }
    CHECK_OK(fetch(&a, d, 0));
    CHECK_OK(fetch(&b, d, COUNT)); /* COUNT batches are BATCH epochs */
    same_batch(&a, &b, "plain", COUNT);
    featinv_dataset_destroy(d);
}

/* What a place holds, from the parts: the file, the numbers of (seed, epoch, image), the pair. */
static void places_are_made_of_their_own_numbers(void **unused) {
    (void)unused;
    static batch got;
    static uint8_t pixels[1 << 16], image[IMAGE_BYTES], view[VIEW_BYTES];
    featinv_dataset_options o = small();
    featinv_dataset *d = opened(&o, COUNT);
    for (int64_t k = 0; k < 7; k++) {
        CHECK_OK(fetch(&got, d, k));
        for (int64_t i = 0; i < BATCH; i++) {
            int64_t position = k * BATCH + i, epoch = position / COUNT;
            int64_t index = fi_shuffle(o.seed, (uint32_t)epoch, COUNT, position % COUNT);
            assert_int_equal(got.indices[i], index);
            featinv_image picture = {pixels, 0, 0, 0};
            CHECK_OK(featinv_image_read(pixels, sizeof pixels, &picture.width, &picture.height,
                                        paths[index], 0));
            fi_random random = fi_random_start(o.seed, FI_STREAM_AUGMENT, (uint32_t)index);
            random.block = (uint64_t)epoch << 32;
            CHECK_OK(fi_augment_apply(image, view, &d->augment, &picture, &random));
            assert_memory_equal(got.images + i * IMAGE_BYTES, image, IMAGE_BYTES);
            assert_memory_equal(got.views + i * VIEW_BYTES, view, VIEW_BYTES);
        }
    }
    featinv_dataset_destroy(d);
}

/* ---------------------------------------------------------------- problems ------------------- */

/* Damages five of the files, each in its way. */
static void damage(void) {
    uint8_t start[40] = {0};
    FILE *file = fopen(paths[2], "rb");
    assert_non_null(file);
    assert_int_equal(fread(start, 1, sizeof start, file), sizeof start);
    (void)fclose(file);
    (void)scratch_file("02.png", start, sizeof start); /* cut */
    (void)unlink(paths[3]);                            /* vanished */
    (void)scratch_file("05.jpg", "", 0);
    (void)scratch_file("06.png", "not a picture", 13);
    (void)unlink(paths[9]); /* and, too large, image 10: 130 x 20 pixels */
}

static void bad_files_have_stand_ins(void **unused) {
    (void)unused;
    enum { BATCHES = 24 };
    static const char *const texts[COUNT] = {[2] = "02.png: ",
                                             [3] = "03.jpg: no such file",
                                             [5] = "05.jpg: is empty",
                                             [6] = "06.png: is neither",
                                             [9] = "09.jpg: no such file",
                                             [10] = "10.png: 130 x 20 pixels, at most 2100"};
    static const int32_t settings[][2] = {{1, 1}, {2, 4}, {5, 2}};
    static batch wanted[BATCHES], got;
    int64_t order[COUNT], found = 0;
    damage();
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        featinv_dataset_options o = small();
        o.threads = settings[s][0];
        o.prefetch = settings[s][1];
        o.max_pixels = 2100; /* the others have at most 69 x 29 */
        featinv_dataset *d = opened(&o, COUNT);
        assert_int_equal(featinv_dataset_problems(d), 0);
        for (int64_t k = 0; k < BATCHES; k++) {
            CHECK_OK(fetch(s ? &got : &wanted[k], d, k));
            if (s)
                same_batch(&got, &wanted[k], "with bad files", k);
            for (int64_t i = 0; i < BATCH; i++) { /* the next good one of the epoch */
                int64_t position = k * BATCH + i, passed = 0;
                while (texts[image_at(100, position, passed)])
                    passed++;
                assert_int_equal(wanted[k].indices[i], image_at(100, position, passed));
            }
            if (k == 0) { /* only what the first batch met, though more was tried */
                int64_t met = 0;
                for (int64_t i = 0; i < COUNT; i++)
                    for (int64_t p = 0; texts[i] && p < BATCH; p++)
                        if (image_at(100, p, 0) == i)
                            met++;
                int64_t last = BATCH; /* places behind, that its last ones ran into */
                while (texts[image_at(100, BATCH - 1, 0)] && texts[image_at(100, last, 0)]) {
                    met++;
                    last++;
                }
                assert_int_equal(featinv_dataset_problems(d), met);
            }
        }
        assert_int_equal(featinv_dataset_problems(d), 6);
        for (int64_t i = 0; i < 6; i++) {
            int64_t index = -1;
            const char *text = featinv_dataset_problem(&index, d, i);
            assert_non_null(text);
            if (!texts[index] || !strstr(text, texts[index]) || strchr(text, '\n'))
                fail_msg("image %lld: %s", (long long)index, text);
            if (s == 0)
                order[found++] = index;
            assert_int_equal(index, order[i]);
        }
        assert_null(featinv_dataset_problem(NULL, d, 6));
        assert_null(featinv_dataset_problem(NULL, d, -1));
        /* files that come back are not looked at again: this run stays what it is */
        write_picture(3);
        CHECK_OK(fetch(&got, d, 0));
        same_batch(&got, &wanted[0], "after a file came back", 0);
        (void)unlink(paths[3]);
        featinv_dataset_destroy(d);
    }
    write_all();
}

/* A stand-in is not a second copy of its own appearance. */
static void stand_ins_are_cropped_anew(void **unused) {
    (void)unused;
    static batch got;
    featinv_dataset_options o = small();
    o.batch = 2;
    o.flip_horizontal = o.flip_vertical = 0;
    (void)unlink(paths[0]);
    featinv_dataset *d = opened(&o, 2);
    for (int64_t k = 0; k < 5; k++) {
        CHECK_OK(fetch(&got, d, k));
        assert_int_equal(got.indices[0], 1);
        assert_int_equal(got.indices[1], 1);
        assert_memory_not_equal(got.views, got.views + VIEW_BYTES, VIEW_BYTES);
    }
    featinv_dataset_destroy(d);
    write_all();
}

static void without_a_good_file_the_first_ones_error(void **unused) {
    (void)unused;
    static batch got;
    for (int i = 0; i < COUNT; i++)
        (void)unlink(paths[i]);
    for (int32_t threads = 1; threads < 6; threads += 2) {
        featinv_dataset_options o = small();
        o.threads = threads;
        featinv_dataset *d = opened(&o, COUNT);
        for (int again = 0; again < 2; again++)
            CHECK_FAILS(fetch(&got, d, 3), FEATINV_ERROR_NOT_FOUND,
                        "none of the 11 images can be used; the first: ");
        assert_non_null(strstr(featinv_last_error(), "00.png: no such file"));
        featinv_dataset_destroy(d);
    }
    write_all();
}

/* ---------------------------------------------------------------- life ----------------------- */

/* Some destroy it in the middle of a picture, some before its threads began; sanitizers watch. */
static void destroy_at_any_time(void **unused) {
    (void)unused;
    static batch got;
    for (int i = 0; i < 60; i++) {
        featinv_dataset_options o = small();
        o.threads = 1 + i % 5;
        o.prefetch = 1 + i % 7;
        featinv_dataset *d = opened(&o, COUNT);
        for (int64_t k = 0; k < i % 4; k++)
            CHECK_OK(fetch(&got, d, 3 * k));
        if (i % 3 == 0)
            usleep((useconds_t)(i * 20));
        featinv_dataset_destroy(d);
    }
    featinv_dataset_destroy(NULL);
}

static void a_child_is_refused(void **unused) {
    (void)unused;
    static batch got;
    featinv_dataset_options o = small();
    featinv_dataset *d = opened(&o, COUNT);
    CHECK_OK(fetch(&got, d, 0));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int right = fetch(&got, d, 1) == FEATINV_ERROR_FORK;
        featinv_dataset_destroy(d); /* must not wait for threads that are not there */
        _exit(right ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_OK(fetch(&got, d, 1));
    featinv_dataset_destroy(d);
}

static void outputs_may_be_left_out(void **unused) {
    (void)unused;
    static batch got, wanted;
    featinv_dataset_options o = small();
    featinv_dataset *d = opened(&o, COUNT);
    CHECK_OK(fetch(&wanted, d, 0));
    int64_t shape[4] = {BATCH, VIEW, VIEW, 3};
    featinv_tensor views = featinv_tensor_view(got.views, FEATINV_DTYPE_U8, 4, shape);
    CHECK_OK(featinv_dataset_batch(NULL, &views, NULL, d, 0));
    assert_memory_equal(got.views, wanted.views, BATCH * VIEW_BYTES);
    CHECK_OK(featinv_dataset_batch(NULL, NULL, got.indices, d, 0));
    assert_memory_equal(got.indices, wanted.indices, BATCH * sizeof *got.indices);
    featinv_dataset_destroy(d);
}

/* ---------------------------------------------------------------- arguments ------------------ */

static void options_come_from_the_model(void **unused) {
    (void)unused;
    featinv_model *model = NULL;
    featinv_dataset_options o;
    make_bundle();
    CHECK_OK(featinv_model_open(&model, bundle_dir, NULL));
    CHECK_OK(featinv_dataset_options_init(&o, sizeof o, model));
    featinv_model_details info = {.struct_size = sizeof info};
    CHECK_OK(featinv_model_info(&info, model));
    assert_int_equal(o.image_height, info.image[1]);
    assert_int_equal(o.image_width, info.image[2]);
    assert_int_equal(o.view_height, info.input_height);
    assert_int_equal(o.view_width, info.input_width);
    assert_int_equal(o.filter, info.interpolation);
    assert_true(o.crop == info.crop);
    featinv_model_release(model);
    remove_bundle();
}

static void options_are_checked(void **unused) {
    (void)unused;
    static const double nan = (double)NAN;
    featinv_dataset *d = (featinv_dataset *)paths;
    featinv_dataset_options o;
#define REFUSED(change, part)                                                                      \
    o = small();                                                                                   \
    change;                                                                                        \
    d = (featinv_dataset *)paths;                                                                  \
    CHECK_FAILS(featinv_dataset_create(&d, paths, COUNT, &o), FEATINV_ERROR_ARGUMENT, part);       \
    assert_null(d)
    REFUSED(o.batch = 0, "batch is 0");
    REFUSED(o.batch = 65537, "batch is 65537");
    REFUSED(o.image_height = 0, "image_height is 0");
    REFUSED(o.image_width = -1, "image_width is -1");
    REFUSED(o.view_height = 65536, "view_height is 65536");
    REFUSED(o.view_width = 0, "view_width is 0");
    REFUSED(o.filter = 2, "filter is 2");
    REFUSED(o.augment = 2, "augment is 2");
    REFUSED(o.legacy_target = -1, "legacy_target is -1");
    REFUSED(o.shuffle = 7, "shuffle is 7");
    REFUSED(o.threads = -1, "threads is -1");
    REFUSED(o.threads = 1025, "threads is 1025");
    REFUSED(o.prefetch = 0, "prefetch is 0");
    REFUSED(o.max_pixels = -1, "max_pixels is -1");
    REFUSED(o.crop = 0, "crop is 0");
    REFUSED(o.crop = 1.5, "crop is 1.5");
    REFUSED(o.crop = nan, "crop is ");
    REFUSED(o.scale_min = 0, "scale is 0 to 1");
    REFUSED(o.scale_max = 1.01, "scale is 0.08 to 1.01");
    REFUSED(o.scale_max = 0.01, "scale is 0.08 to 0.01");
    REFUSED(o.scale_min = nan, "scale is ");
    REFUSED(o.ratio_min = -1, "ratio is -1");
    REFUSED(o.ratio_max = (double)INFINITY, "ratio is ");
    REFUSED(o.ratio_max = nan, "ratio is ");
    REFUSED(o.flip_horizontal = -0.1, "flip_horizontal is -0.1");
    REFUSED(o.flip_vertical = 1.1, "flip_vertical is 1.1");
    REFUSED(o.flip_vertical = nan, "flip_vertical is ");
    REFUSED(o.struct_size = 0, "struct_size is 0");
#undef REFUSED
    CHECK_FAILS(featinv_dataset_options_init(NULL, sizeof o, NULL), FEATINV_ERROR_ARGUMENT, "");
}

static void arguments_are_checked(void **unused) {
    (void)unused;
    static batch got;
    const char *const hole[] = {names[0], NULL}, *const empty[] = {""};
    featinv_dataset_options o = small();
    featinv_dataset *d = NULL;
    CHECK_FAILS(featinv_dataset_create(NULL, paths, COUNT, &o), FEATINV_ERROR_ARGUMENT, "no place");
    CHECK_FAILS(featinv_dataset_create(&d, NULL, COUNT, &o), FEATINV_ERROR_ARGUMENT, "NULL");
    CHECK_FAILS(featinv_dataset_create(&d, paths, 0, &o), FEATINV_ERROR_ARGUMENT, "images is 0");
    CHECK_FAILS(featinv_dataset_create(&d, paths, -3, &o), FEATINV_ERROR_ARGUMENT, "images is -3");
    CHECK_FAILS(featinv_dataset_create(&d, paths, INT64_C(1) << 31, &o), FEATINV_ERROR_ARGUMENT,
                "2147483648");
    CHECK_FAILS(featinv_dataset_create(&d, hole, 2, &o), FEATINV_ERROR_ARGUMENT, "image 1 is NULL");
    CHECK_FAILS(featinv_dataset_create(&d, empty, 1, &o), FEATINV_ERROR_ARGUMENT,
                "image 0 is empty");
    CHECK_FAILS(featinv_dataset_batch(NULL, NULL, NULL, NULL, 0), FEATINV_ERROR_ARGUMENT,
                "no dataset");
    assert_int_equal(featinv_dataset_size(NULL), 0);
    assert_int_equal(featinv_dataset_problems(NULL), 0);
    assert_null(featinv_dataset_problem(NULL, NULL, 0));

    d = opened(&o, COUNT);
    int64_t shape[4] = {BATCH, IMAGE, IMAGE, 3};
    featinv_tensor images = featinv_tensor_view(got.images, FEATINV_DTYPE_U8, 4, shape);
    featinv_tensor floats = featinv_tensor_view(got.images, FEATINV_DTYPE_F32, 4, shape);
    CHECK_FAILS(fetch(&got, d, -1), FEATINV_ERROR_ARGUMENT, "batch_index is -1");
    CHECK_FAILS(fetch(&got, d, INT64_MAX), FEATINV_ERROR_ARGUMENT,
                "batch_index is 9223372036854775807");
    CHECK_FAILS(featinv_dataset_batch(NULL, &images, NULL, d, 0), FEATINV_ERROR_SHAPE, "views");
    CHECK_FAILS(featinv_dataset_batch(&floats, NULL, NULL, d, 0), FEATINV_ERROR_SHAPE, "images");
    shape[0] = BATCH + 1;
    CHECK_FAILS(featinv_dataset_batch(&images, NULL, NULL, d, 0), FEATINV_ERROR_SHAPE, "images");
    int64_t last = (INT64_C(1) << 32) * COUNT / BATCH - o.prefetch - 1; /* epochs of 32 bits */
    CHECK_OK(fetch(&got, d, last));
    CHECK_FAILS(fetch(&got, d, last + 1), FEATINV_ERROR_ARGUMENT, "batch_index is 11811160062");
    featinv_dataset_destroy(d);
}

/* An older caller's struct ends earlier: the fields behind keep their defaults. */
static void shorter_options_keep_the_defaults(void **unused) {
    (void)unused;
    featinv_dataset_options o = small();
    o.struct_size = offsetof(featinv_dataset_options, flip_horizontal);
    o.seed = 1;
    o.flip_vertical = 77; /* beyond the end: never read */
    featinv_dataset *d = opened(&o, COUNT);
    assert_int_equal(d->options.seed, 100);
    assert_true(d->options.flip_vertical == 0.5);
    assert_int_equal(d->options.batch, BATCH);
    featinv_dataset_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_prefetch_and_order_change_nothing),
        cmocka_unit_test(each_image_once_an_epoch),
        cmocka_unit_test(a_batch_may_hold_several_epochs),
        cmocka_unit_test(processes_share_a_batch),
        cmocka_unit_test(seeds_differ_and_plain_data_do_not),
        cmocka_unit_test(places_are_made_of_their_own_numbers),
        cmocka_unit_test(bad_files_have_stand_ins),
        cmocka_unit_test(stand_ins_are_cropped_anew),
        cmocka_unit_test(without_a_good_file_the_first_ones_error),
        cmocka_unit_test(destroy_at_any_time),
        cmocka_unit_test(a_child_is_refused),
        cmocka_unit_test(outputs_may_be_left_out),
        cmocka_unit_test(options_come_from_the_model),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(shorter_options_keep_the_defaults),
    };
    return cmocka_run_group_tests(tests, make_pictures, scratch_remove);
}
