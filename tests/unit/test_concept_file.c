/* Concept files there and back, and as hostile input. FEATINV_FUZZ_ROUNDS: damaged copies (400). */
#include "scratch.h"

#include "concept_maker.h"
#include "dense.h"
#include "file.h"

/* ---------------------------------------------------------------- there and back ------------- */

static void only_bases(void **state) {
    (void)state;
    static const int32_t dimensions[] = {2, 1, 3};
    featinv_concepts *concepts = random_concepts(9, dimensions, 3), *again;
    CHECK_OK(featinv_concepts_save(concepts, scratch("given.npz")));
    CHECK_OK(featinv_concepts_open(&again, scratch("given.npz")));
    featinv_concepts_details a = details_of(concepts), b = details_of(again);
    assert_int_equal(b.channels, 9);
    assert_int_equal(b.count, 3);
    assert_int_equal(b.method, FEATINV_CONCEPTS_GIVEN);
    assert_memory_equal(a.offsets, b.offsets, 4 * sizeof *a.offsets);
    assert_memory_equal(a.bases, b.bases, 9 * 6 * sizeof *a.bases);
    assert_true(isnan(b.gamma) && isnan(b.seconds) && !b.labels && !b.eigenvalues && !b.class_name);
    featinv_concepts_release(again);
    featinv_concepts_release(concepts);
}

/* Concepts with all that a fit notes. */
static featinv_concepts *fitted(void) {
    double *bases = calloc(4 * 3, sizeof *bases), values[] = {0.0, 0.25, 0.75};
    int32_t *offsets = calloc(3, sizeof *offsets), *labels = calloc(8, sizeof *labels);
    int64_t shape[3] = {2, 2, 2};
    featinv_concepts *concepts;
    bases[0 * 3 + 0] = bases[1 * 3 + 1] = bases[3 * 3 + 2] = 1.0;
    offsets[1] = 1;
    offsets[2] = 3;
    labels[3] = 1;
    labels[7] = -1;
    CHECK_OK(fi_concepts_new(&concepts, bases, offsets, 2, 4, labels, 3, shape));
    featinv_concepts_details *info = &concepts->info;
    concepts->eigenvalues = malloc(sizeof values);
    memcpy(concepts->eigenvalues, values, sizeof values);
    concepts->class_name = strdup("boat on s\xc3\xa3nd");
    info->eigenvalues = concepts->eigenvalues;
    info->eigenvalue_count = 3;
    info->class_name = concepts->class_name;
    info->method = FEATINV_CONCEPTS_MCD;
    info->basis = FEATINV_BASIS_CENTRED;
    info->gamma = 10.0;
    info->tau = 0.9;
    info->outlier_quantile = 0.75;
    info->seed = 0xfedcba9876543210u;
    info->rows = 8;
    info->rows_removed = 1;
    info->objective = -12.5;
    info->stationarity = 3e-12;
    info->seconds = 1.5;
    return concepts;
}

static void whole_fit(void **state) {
    (void)state;
    featinv_concepts *concepts = fitted(), *again;
    for (int round = 0; round < 2; round++) { /* what was read is written the same */
        const char *path = scratch("fit.npz");
        CHECK_OK(featinv_concepts_save(concepts, path));
        CHECK_OK(featinv_concepts_open(&again, path));
        featinv_concepts_details a = details_of(concepts), b = details_of(again);
        assert_int_equal(b.label_ndim, 3);
        assert_memory_equal(a.label_shape, b.label_shape, sizeof a.label_shape);
        assert_memory_equal(a.labels, b.labels, 8 * sizeof *a.labels);
        assert_int_equal(b.eigenvalue_count, 3);
        assert_memory_equal(a.eigenvalues, b.eigenvalues, 3 * sizeof *a.eigenvalues);
        assert_string_equal(b.class_name, "boat on s\xc3\xa3nd");
        assert_int_equal(b.method, a.method);
        assert_int_equal(b.basis, a.basis);
        assert_true(b.gamma == a.gamma && b.tau == a.tau && b.seed == a.seed);
        assert_true(b.outlier_quantile == a.outlier_quantile && b.objective == a.objective);
        assert_true(b.stationarity == a.stationarity && b.seconds == a.seconds);
        assert_true(b.rows == 8 && b.rows_removed == 1);
        featinv_concepts_release(concepts);
        concepts = again;
    }
    CHECK_FAILS(featinv_concepts_save(concepts, scratch("fit.npy")), FEATINV_ERROR_ARGUMENT,
                "ends in .npz");
    CHECK_FAILS(featinv_concepts_save(concepts, scratch("none/fit.npz")), FEATINV_ERROR_WRITE,
                "fit.npz");
    CHECK_FAILS(featinv_concepts_save(NULL, scratch("fit.npz")), FEATINV_ERROR_ARGUMENT,
                "no concepts");
    CHECK_FAILS(featinv_concepts_open(&again, scratch("absent.npz")), FEATINV_ERROR_NOT_FOUND,
                "absent.npz");
    featinv_concepts_release(concepts);
}

/* ---------------------------------------------------------------- hostile members ------------ */

/* A file of up to four members beside what a good one holds; a member of the same name
 * replaces it. */
typedef struct file {
    featinv_tensor arrays[8];
    const char *names[8];
    int32_t count;
} file;

static double good_bases[4 * 3] = {1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1};
static int32_t good_offsets[3] = {0, 1, 3};
static int64_t bases_shape[2] = {4, 3}, offsets_shape[1] = {3};

static file good_file(void) {
    file f = {.count = 2, .names = {"bases", "offsets"}};
    f.arrays[0] = featinv_tensor_view(good_bases, FEATINV_DTYPE_F64, 2, bases_shape);
    f.arrays[1] = featinv_tensor_view(good_offsets, FEATINV_DTYPE_I32, 1, offsets_shape);
    return f;
}

static void put(file *f, const char *name, featinv_tensor array) {
    int32_t at = 0;
    while (at < f->count && strcmp(f->names[at], name) != 0)
        at++;
    f->names[at] = name;
    f->arrays[at] = array;
    f->count += at == f->count;
}

/* The file is refused in one line that names it and holds `text`. */
static void check_refused(const file *f, featinv_status status, const char *text) {
    featinv_concepts *concepts = (void *)good_bases;
    const char *path = scratch("hostile.npz");
    CHECK_OK(featinv_array_write(path, f->arrays, f->names, f->count, 0));
    CHECK_FAILS(featinv_concepts_open(&concepts, path), status, text);
    if (!strstr(featinv_last_error(), "hostile.npz: "))
        fail_msg("the file is not named: %s", featinv_last_error());
    assert_null(concepts);
}

static void refuse_array(const char *name, featinv_tensor array, featinv_status status,
                         const char *text) {
    file f = good_file();
    put(&f, name, array);
    check_refused(&f, status, text);
}

static void extra_members_are_ignored(void **state) {
    (void)state;
    file f = good_file();
    int64_t long_offsets[3] = {0, 1, 3};
    put(&f, "offsets", featinv_tensor_view(long_offsets, FEATINV_DTYPE_I64, 1, offsets_shape));
    put(&f, "comment", featinv_tensor_view(good_bases, FEATINV_DTYPE_F64, 2, bases_shape));
    int64_t seed = 7, tau = 1;
    put(&f, "seed", featinv_tensor_view(&seed, FEATINV_DTYPE_I64, 0, NULL));
    put(&f, "tau", featinv_tensor_view(&tau, FEATINV_DTYPE_I64, 0, NULL)); /* as NumPy makes of 1 */
    CHECK_OK(featinv_array_write(scratch("extra.npz"), f.arrays, f.names, f.count, 1));
    featinv_concepts *concepts;
    CHECK_OK(featinv_concepts_open(&concepts, scratch("extra.npz")));
    featinv_concepts_details info = details_of(concepts);
    assert_int_equal(info.total, 3);
    assert_true(info.seed == 7 && info.tau == 1.0);
    featinv_concepts_release(concepts);
}

static void hostile_bases(void **state) {
    (void)state;
    float single[12] = {0};
    double wide[12] = {0}, bad[12];
    int64_t flat[1] = {12}, turned[2] = {3, 4}, none[2] = {0, 3}, empty[2] = {4, 0};
    refuse_array("bases", featinv_tensor_view(single, FEATINV_DTYPE_F32, 2, bases_shape),
                 FEATINV_ERROR_SHAPE, "bases: dtype is float32, not float64");
    refuse_array("bases", featinv_tensor_view(wide, FEATINV_DTYPE_F64, 1, flat),
                 FEATINV_ERROR_SHAPE, "bases: 1 dimensions, not 2");
    refuse_array("bases", featinv_tensor_view(wide, FEATINV_DTYPE_F64, 2, turned),
                 FEATINV_ERROR_FORMAT, "4 dimensions together, the features 3 channels");
    refuse_array("bases", featinv_tensor_view(wide, FEATINV_DTYPE_F64, 2, none),
                 FEATINV_ERROR_SHAPE, "bases: shape is (0, 3)");
    refuse_array("bases", featinv_tensor_view(wide, FEATINV_DTYPE_F64, 2, empty),
                 FEATINV_ERROR_SHAPE, "bases: shape is (4, 0)");
    refuse_array("bases", featinv_tensor_view(wide, FEATINV_DTYPE_F64, 2, bases_shape),
                 FEATINV_ERROR_FORMAT, "bases: concept 0 is not orthonormal");
    memcpy(bad, good_bases, sizeof bad);
    bad[11] = NAN;
    refuse_array("bases", featinv_tensor_view(bad, FEATINV_DTYPE_F64, 2, bases_shape),
                 FEATINV_ERROR_VALUE, "bases: NaN at row 3, column 2");
    bad[11] = 1e200; /* finite, its square is not */
    refuse_array("bases", featinv_tensor_view(bad, FEATINV_DTYPE_F64, 2, bases_shape),
                 FEATINV_ERROR_FORMAT, "bases: concept 1 is not orthonormal");
    bad[11] = 1.0;
    bad[2] = 2e-6;
    bad[1] = 1.0, bad[4] = 0.0;
    refuse_array("bases", featinv_tensor_view(bad, FEATINV_DTYPE_F64, 2, bases_shape),
                 FEATINV_ERROR_FORMAT, "its columns 0 and 1 have an inner product off by 2e-06");
    /* more columns than anything has: refused before they are read */
    enum { MANY = 4097 };
    double *many = calloc((size_t)MANY * MANY, sizeof *many);
    int64_t large[2] = {MANY, MANY};
    file f = good_file();
    put(&f, "bases", featinv_tensor_view(many, FEATINV_DTYPE_F64, 2, large));
    CHECK_OK(featinv_array_write(scratch("hostile.npz"), f.arrays, f.names, f.count, 1));
    featinv_concepts *concepts;
    CHECK_FAILS(featinv_concepts_open(&concepts, scratch("hostile.npz")), FEATINV_ERROR_LIMIT,
                "4097 columns");
    free(many);
}

static void hostile_offsets(void **state) {
    (void)state;
    static const struct {
        int32_t values[3];
        int64_t count;
        featinv_status status;
        const char *text;
    } cases[] = {
        {{1, 2, 3}, 3, FEATINV_ERROR_FORMAT, "offsets: the first is 1, not 0"},
        {{0, 2, 2}, 3, FEATINV_ERROR_FORMAT, "offsets: the last is 2, bases has 3"},
        {{0, 3, 3}, 3, FEATINV_ERROR_FORMAT, "offsets: 3 is followed by 3"},
        {{0, 4, 3}, 3, FEATINV_ERROR_FORMAT, "offsets: 4 is not in 0 to 3"},
        {{0, -1, 3}, 3, FEATINV_ERROR_FORMAT, "offsets: -1 is not in 0 to 3"},
        {{3, 0, 0}, 1, FEATINV_ERROR_SHAPE, "offsets: 1 values"},
        {{0, 0, 0}, 0, FEATINV_ERROR_SHAPE, "offsets: 0 values"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t values[3];
        int64_t shape[1] = {cases[i].count};
        memcpy(values, cases[i].values, sizeof values);
        refuse_array("offsets", featinv_tensor_view(values, FEATINV_DTYPE_I32, 1, shape),
                     cases[i].status, cases[i].text);
    }
    int64_t huge[3] = {0, 4294967297, 3};
    double real[3] = {0, 1, 3};
    int64_t square[2] = {1, 3};
    refuse_array("offsets", featinv_tensor_view(huge, FEATINV_DTYPE_I64, 1, offsets_shape),
                 FEATINV_ERROR_FORMAT, "offsets: 4294967297");
    refuse_array("offsets", featinv_tensor_view(real, FEATINV_DTYPE_F64, 1, offsets_shape),
                 FEATINV_ERROR_SHAPE, "offsets: dtype is float64, not int32");
    refuse_array("offsets", featinv_tensor_view(good_offsets, FEATINV_DTYPE_I32, 2, square),
                 FEATINV_ERROR_SHAPE, "offsets: 2 dimensions");
    file f = good_file();
    f.count = 1;
    check_refused(&f, FEATINV_ERROR_NOT_FOUND, "'offsets'");
    f.arrays[0] = f.arrays[1];
    f.names[0] = "offsets";
    check_refused(&f, FEATINV_ERROR_NOT_FOUND, "'bases'");
}

static void hostile_labels(void **state) {
    (void)state;
    int32_t labels[4] = {0, 1, 2, -1};
    int64_t shape[1] = {4}, square[2] = {2, 2}, wide[4] = {0, 1, 1, -1};
    refuse_array("labels", featinv_tensor_view(labels, FEATINV_DTYPE_I32, 1, shape),
                 FEATINV_ERROR_FORMAT, "labels: 2 at row 2, not -1 to 1");
    labels[2] = -2;
    refuse_array("labels", featinv_tensor_view(labels, FEATINV_DTYPE_I32, 1, shape),
                 FEATINV_ERROR_FORMAT, "labels: -2 at row 2");
    refuse_array("labels", featinv_tensor_view(labels, FEATINV_DTYPE_I32, 2, square),
                 FEATINV_ERROR_SHAPE, "labels: 2 dimensions, not 1 or 3");
    refuse_array("labels", featinv_tensor_view(wide, FEATINV_DTYPE_I64, 1, shape),
                 FEATINV_ERROR_SHAPE, "labels: dtype is int64, not int32");
}

static void hostile_options(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double value;
        featinv_status status;
        const char *text;
    } reals[] = {
        {"gamma", 0.0, FEATINV_ERROR_FORMAT, "gamma is 0"},
        {"gamma", NAN, FEATINV_ERROR_VALUE, "gamma is nan"},
        {"tau", 1.5, FEATINV_ERROR_FORMAT, "tau is 1.5"},
        {"tau", 0.0, FEATINV_ERROR_FORMAT, "tau is 0"},
        {"outlier_quantile", -1.0, FEATINV_ERROR_FORMAT, "outlier_quantile is -1"},
        {"seconds", -1.0, FEATINV_ERROR_FORMAT, "seconds is -1"},
        {"objective", INFINITY, FEATINV_ERROR_VALUE, "objective is inf"},
        {"method", 1.0, FEATINV_ERROR_SHAPE, "method: dtype is float64, not an integer"},
    };
    static const struct {
        const char *name;
        int64_t value;
        const char *text;
    } integers[] = {
        {"method", 3, "method is 3"},
        {"method", -2, "method is -2"},
        {"method", 4294967296, "method is 4.29497e+09"},
        {"basis", 2, "basis is 2"},
        {"seed", -1, "seed is -1"},
        {"rows", -1, "rows is -1"},
        {"rows_removed", 5, "rows_removed is 5, rows 0"},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        double value = reals[i].value;
        refuse_array(reals[i].name, featinv_tensor_view(&value, FEATINV_DTYPE_F64, 0, NULL),
                     reals[i].status, reals[i].text);
    }
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        int64_t value = integers[i].value;
        refuse_array(integers[i].name, featinv_tensor_view(&value, FEATINV_DTYPE_I64, 0, NULL),
                     FEATINV_ERROR_FORMAT, integers[i].text);
    }
    uint64_t beyond = (uint64_t)INT64_MAX + 1;
    double values[3] = {0, NAN, 1};
    uint8_t name[3] = {'a', '\n', 'b'};
    int64_t shape[1] = {3};
    refuse_array("rows", featinv_tensor_view(&beyond, FEATINV_DTYPE_U64, 0, NULL),
                 FEATINV_ERROR_FORMAT, "rows is 9.22337e+18");
    refuse_array("gamma", featinv_tensor_view(values, FEATINV_DTYPE_F64, 1, shape),
                 FEATINV_ERROR_SHAPE, "gamma: 1 dimensions, not 0");
    refuse_array("eigenvalues", featinv_tensor_view(values, FEATINV_DTYPE_F64, 1, shape),
                 FEATINV_ERROR_VALUE, "eigenvalues: nan at 1");
    refuse_array("class_name", featinv_tensor_view(name, FEATINV_DTYPE_U8, 1, shape),
                 FEATINV_ERROR_FORMAT, "class_name: byte 10 at 1");
    static uint8_t text[5000];
    int64_t lengthy[1] = {5000};
    refuse_array("class_name", featinv_tensor_view(text, FEATINV_DTYPE_U8, 1, lengthy),
                 FEATINV_ERROR_LIMIT, "class_name: 5000 values, more than 4096");
}

static void other_files(void **state) {
    (void)state;
    featinv_concepts *concepts;
    file f = good_file();
    CHECK_OK(featinv_array_write(scratch("one.npy"), f.arrays, NULL, 1, 0));
    CHECK_FAILS(featinv_concepts_open(&concepts, scratch("one.npy")), FEATINV_ERROR_FORMAT,
                "one.npy: is not an .npz archive");
    CHECK_FAILS(featinv_concepts_open(&concepts, scratch_file("text.npz", "concepts", 8)),
                FEATINV_ERROR_FORMAT, "text.npz: is neither .npy nor .npz");
    CHECK_FAILS(featinv_concepts_open(&concepts, scratch_file("empty.npz", "", 0)),
                FEATINV_ERROR_FORMAT, "empty.npz: is empty");
    CHECK_FAILS(featinv_concepts_open(&concepts, scratch_folder), FEATINV_ERROR_READ,
                scratch_folder);
    CHECK_FAILS(featinv_concepts_open(&concepts, NULL), FEATINV_ERROR_ARGUMENT, "no path");
    CHECK_FAILS(featinv_concepts_open(NULL, "x"), FEATINV_ERROR_ARGUMENT, "no place");
}

/* ---------------------------------------------------------------- damage --------------------- */

/* Reads a damaged file: it is refused in one line, or what it holds is sound. */
static int survives(const uint8_t *bytes, size_t size) {
    featinv_concepts *concepts;
    featinv_status status = featinv_concepts_open(&concepts, scratch_file("d.npz", bytes, size));
    if (status) {
        assert_null(concepts);
        if (strchr(featinv_last_error(), '\n') || !strstr(featinv_last_error(), "d.npz"))
            fail_msg("the error is not one line with the file's name: %s", featinv_last_error());
        return 0;
    }
    featinv_concepts_details info = details_of(concepts);
    assert_true(info.count >= 1 && info.total <= info.channels);
    float map[64] = {1}, out[64];
    int64_t shape[4] = {1, info.channels, 1, 1};
    featinv_tensor maps = featinv_tensor_view(map, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor view = featinv_tensor_view(out, FEATINV_DTYPE_F32, 4, shape);
    if (info.channels <= 64 && info.smallest_singular > 1e-6)
        CHECK_OK(featinv_concepts_attenuate(&view, concepts, &maps, 0, 0.0, NULL));
    featinv_concepts_release(concepts);
    return 1;
}

static void truncated(void **state) {
    (void)state;
    featinv_concepts *concepts = fitted();
    uint8_t *bytes;
    size_t size;
    CHECK_OK(featinv_concepts_save(concepts, scratch("whole.npz")));
    CHECK_OK(fi_file_read(&bytes, &size, scratch("whole.npz"), 1 << 20));
    assert_true(survives(bytes, size));
    for (size_t length = 0; length < size; length += length < 64 ? 1 : 37)
        assert_false(survives(bytes, length));
    assert_false(survives(bytes, size - 1));
    free(bytes);
    featinv_concepts_release(concepts);
}

/* Flipped, overwritten, moved bytes, both in archives with their checksums and in the arrays behind
 * them: the checksums are no guard against someone who writes them. */
static void damaged(void **state) {
    (void)state;
    const char *wanted = getenv("FEATINV_FUZZ_ROUNDS");
    int rounds = wanted ? atoi(wanted) : 400, read = 0;
    featinv_concepts *concepts = fitted();
    uint8_t *bytes;
    size_t size;
    CHECK_OK(featinv_concepts_save(concepts, scratch("whole.npz")));
    CHECK_OK(fi_file_read(&bytes, &size, scratch("whole.npz"), 1 << 20));
    uint8_t *copy = malloc(size);
    for (int round = 0; round < rounds; round++) {
        memcpy(copy, bytes, size);
        for (int edits = 1 + round % 4; edits > 0; edits--) {
            size_t at = (size_t)(fabs(maker_random()) * (double)(size - 8));
            if (round % 3 == 0)
                memset(copy + at, round % 2 ? 0xff : 0, 1 + (size_t)(round % 8));
            else
                copy[at] ^= (uint8_t)(1u << (unsigned)(round % 8));
        }
        read += survives(copy, size);
    }
    /* the same in the content, with right checksums */
    for (int round = 0; round < rounds; round++) {
        double bases[12];
        int32_t offsets[3], labels[8] = {0};
        double gamma = ldexp(maker_random(), round % 64);
        int64_t label_shape[3] = {2, 2, 2};
        memcpy(bases, good_bases, sizeof bases);
        memcpy(offsets, good_offsets, sizeof offsets);
        void *const targets[] = {bases, offsets, labels};
        const size_t sizes[] = {sizeof bases, sizeof offsets, sizeof labels};
        uint8_t *target = targets[round % 3];
        target[(size_t)(fabs(maker_random()) * (double)sizes[round % 3])] ^=
            (uint8_t)(1u << (unsigned)(round / 3 % 8));
        file f = good_file();
        f.arrays[0].data = bases;
        f.arrays[1].data = offsets;
        put(&f, "labels", featinv_tensor_view(labels, FEATINV_DTYPE_I32, 3, label_shape));
        put(&f, "gamma", featinv_tensor_view(&gamma, FEATINV_DTYPE_F64, 0, NULL));
        CHECK_OK(featinv_array_write(scratch("c.npz"), f.arrays, f.names, f.count, 0));
        uint8_t *content;
        size_t length;
        CHECK_OK(fi_file_read(&content, &length, scratch("c.npz"), 1 << 20));
        read += survives(content, length);
        free(content);
    }
    assert_true(read > 0 && read < rounds); /* some damage is harmless, most is not */
    free(copy);
    free(bytes);
    featinv_concepts_release(concepts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_bases),
        cmocka_unit_test(whole_fit),
        cmocka_unit_test(extra_members_are_ignored),
        cmocka_unit_test(hostile_bases),
        cmocka_unit_test(hostile_offsets),
        cmocka_unit_test(hostile_labels),
        cmocka_unit_test(hostile_options),
        cmocka_unit_test(other_files),
        cmocka_unit_test(truncated),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
