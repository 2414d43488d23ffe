/* Cosine agreement, spread and Fréchet distance against recorded values and against plain sums. The
 * linear algebra under the distance is a page of textbook C here, so that no backend is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featinv.h"
#include "fid.h"
#include "metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- recorded arrays ------------ */

static const char *recorded(const char *name) {
    static char path[1024];
    const char *folder = getenv("FEATINV_REFERENCE");
    (void)snprintf(path, sizeof path, "%s/%s", folder ? folder : "tests/data", name);
    return path;
}

/* An array of the file as doubles or floats; shape (8 values) may be NULL. */
static void *load(const char *member, featinv_dtype dtype, int64_t *shape) {
    const char *path = recorded("mcd/fid.npz");
    featinv_array_info info = {.struct_size = sizeof info};
    featinv_status status = featinv_array_read(NULL, 0, &info, path, member, dtype);
    if (status)
        fail_msg("%s", featinv_last_error());
    size_t count = 1;
    for (int32_t i = 0; i < info.ndim; i++)
        count *= (size_t)info.shape[i];
    size_t bytes = count * (dtype == FEATINV_DTYPE_F64 ? 8 : 4);
    void *data = malloc(bytes);
    assert_non_null(data);
    assert_int_equal(featinv_array_read(data, bytes, &info, path, member, dtype), FEATINV_OK);
    if (shape)
        memcpy(shape, info.shape, sizeof info.shape);
    return data;
}

static double load_value(const char *member) {
    double *data = load(member, FEATINV_DTYPE_F64, NULL);
    double value = *data;
    free(data);
    return value;
}

static void assert_near(double value, double target, double tolerance, const char *what) {
    if (!(fabs(value - target) <= tolerance))
        fail_msg("%s: %.17g, not %.17g within %g", what, value, target, tolerance);
}

/* ---------------------------------------------------------------- plain linear algebra ------- */

static const char *plain_error(void) {
    return "plain algebra failed";
}

static int plain_gemm(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                      int32_t ta, int32_t tb) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++)
                sum += (ta ? a[l * m + i] : a[i * k + l]) * (tb ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = sum;
        }
    return 0;
}

/* One-sided Jacobi on the rows of w (m, n), after which they are orthogonal. */
static void orthogonalise(double *w, int64_t m, int64_t n) {
    for (int sweep = 0; sweep < 60; sweep++) {
        double largest = 0.0;
        for (int64_t p = 0; p < m; p++)
            for (int64_t q = p + 1; q < m; q++) {
                double a = 0.0, b = 0.0, g = 0.0;
                for (int64_t i = 0; i < n; i++) {
                    a += w[p * n + i] * w[p * n + i];
                    b += w[q * n + i] * w[q * n + i];
                    g += w[p * n + i] * w[q * n + i];
                }
                if (g == 0.0 || fabs(g) <= 1e-17 * sqrt(a * b))
                    continue;
                largest = fmax(largest, fabs(g) / sqrt(a * b));
                double zeta = (b - a) / (2.0 * g);
                double t = (zeta < 0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
                for (int64_t i = 0; i < n; i++) {
                    double x = w[p * n + i], y = w[q * n + i];
                    w[p * n + i] = c * x - s * y;
                    w[q * n + i] = s * x + c * y;
                }
            }
        if (largest < 1e-15)
            return;
    }
}

static int plain_singular_values(double *values, const double *a, int64_t m, int64_t n) {
    int64_t rows = m < n ? m : n, columns = m < n ? n : m;
    double *w = malloc((size_t)(m * n) * sizeof *w);
    assert_non_null(w);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            w[i * columns + j] = m < n ? a[i * n + j] : a[j * n + i];
    orthogonalise(w, rows, columns);
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < columns; j++)
            sum += w[i * columns + j] * w[i * columns + j];
        values[i] = sqrt(sum);
    }
    free(w);
    return 0;
}

/* Cyclic Jacobi; values ascending, eigenvectors in the columns. */
static int plain_eigh(double *values, double *vectors, const double *matrix, int64_t n) {
    double *a = malloc((size_t)(n * n) * sizeof *a);
    double *v = calloc((size_t)(n * n), sizeof *v);
    assert_non_null(a);
    assert_non_null(v);
    memcpy(a, matrix, (size_t)(n * n) * sizeof *a);
    for (int64_t i = 0; i < n; i++)
        v[i * n + i] = 1.0;
    for (int sweep = 0; sweep < 40; sweep++)
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                if (a[p * n + q] == 0.0)
                    continue;
                double theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                double t = (theta < 0 ? -1.0 : 1.0) / (fabs(theta) + sqrt(1.0 + theta * theta));
                double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
                for (int64_t i = 0; i < n; i++) {
                    double x = a[i * n + p], y = a[i * n + q];
                    a[i * n + p] = c * x - s * y;
                    a[i * n + q] = s * x + c * y;
                }
                for (int64_t i = 0; i < n; i++) {
                    double x = a[p * n + i], y = a[q * n + i];
                    a[p * n + i] = c * x - s * y;
                    a[q * n + i] = s * x + c * y;
                    x = v[i * n + p], y = v[i * n + q];
                    v[i * n + p] = c * x - s * y;
                    v[i * n + q] = s * x + c * y;
                }
            }
    for (int64_t i = 0; i < n; i++) {
        int64_t rank = 0;
        for (int64_t j = 0; j < n; j++)
            rank += a[j * n + j] < a[i * n + i] || (a[j * n + j] == a[i * n + i] && j < i);
        values[rank] = a[i * n + i];
        for (int64_t j = 0; j < n; j++)
            vectors[j * n + rank] = v[j * n + i];
    }
    free(a);
    free(v);
    return 0;
}

static int plain_cholesky(double *factor, int32_t *ok, const double *a, int64_t n) {
    memset(factor, 0, (size_t)(n * n) * sizeof *factor);
    *ok = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (int64_t k = 0; k < j; k++)
                sum -= factor[i * n + k] * factor[j * n + k];
            if (i == j && sum <= 0.0)
                return 0;
            factor[i * n + j] = i == j ? sqrt(sum) : sum / factor[j * n + j];
        }
    *ok = 1;
    return 0;
}

static const fi_backend plain = {.error = plain_error,
                                 .gemm = plain_gemm,
                                 .eigh = plain_eigh,
                                 .singular_values = plain_singular_values,
                                 .cholesky = plain_cholesky};

/* ---------------------------------------------------------------- cosine --------------------- */

static void medians_are_the_middle_of_the_sorted_values(void **state) {
    (void)state;
    static const struct {
        size_t count;
        double values[7], median;
    } cases[] = {
        {1, {3}, 3},
        {2, {3, 1}, 2},
        {3, {5, -1, 2}, 2},
        {4, {4, 4, 1, 4}, 4},
        {5, {1, 2, 3, 4, 5}, 3},
        {6, {6, 5, 4, 3, 2, 1}, 3.5},
        {7, {0, 0, 0, 0, 1, 1, 1}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double values[7];
        memcpy(values, cases[i].values, sizeof values);
        assert_near(fi_median(values, cases[i].count), cases[i].median, 0, "median");
    }
    uint32_t random = 1;
    for (size_t count = 1; count < 200; count++) { /* count how many lie on each side */
        double values[200], copy[200];
        for (size_t i = 0; i < count; i++)
            copy[i] = values[i] = (double)((random = random * 1664525u + 1013904223u) >> 27);
        double median = fi_median(values, count);
        size_t below = 0, above = 0;
        for (size_t i = 0; i < count; i++) {
            below += copy[i] < median;
            above += copy[i] > median;
        }
        if (below > count / 2 || above > count / 2)
            fail_msg("%zu values: %zu below and %zu above the median", count, below, above);
    }
}

static void cosine_equals_the_recorded_values(void **state) {
    (void)state;
    int64_t shape[8];
    float *a = load("cos_A", FEATINV_DTYPE_F32, shape), *b = load("cos_B", FEATINV_DTYPE_F32, NULL);
    double *medians = load("cos_per_image_median", FEATINV_DTYPE_F64, NULL), per_image[7];
    featinv_cosine_result result = {.struct_size = sizeof result};
    featinv_tensor ta = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor tb = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, shape);
    assert_int_equal(featinv_cosine(&result, per_image, NULL, &ta, &tb, NULL), FEATINV_OK);
    assert_near(result.median_then_mean, load_value("cos_median_then_mean"), 1e-14, "median");
    assert_near(result.median_all, load_value("cos_global_median"), 1e-14, "median of all");
    assert_near(result.mean, load_value("cos_global_mean"), 1e-14, "mean");
    for (int i = 0; i < 7; i++)
        assert_near(per_image[i], medians[i], 1e-14, "median of one image");
    free(medians);
    free(a);
    free(b);
}

/* The recording holds the median over all positions: one "image" that holds them all gives it. */
static void centred_cosine_equals_the_recorded_value(void **state) {
    (void)state;
    int64_t shape[8];
    float *a = load("cos_A", FEATINV_DTYPE_F32, shape), *b = load("cos_B", FEATINV_DTYPE_F32, NULL);
    int64_t one[4] = {1, shape[1], shape[0], shape[2] * shape[3]};
    int64_t strides[4] = {0, one[3], shape[1] * one[3], 1};
    featinv_tensor ta = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, one);
    featinv_tensor tb = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, one);
    ta.strides = tb.strides = strides;
    double *centre = load("cos_centre", FEATINV_DTYPE_F64, NULL);
    float given[24];
    for (int i = 0; i < 24; i++)
        given[i] = (float)centre[i];
    featinv_cosine_result own = {.struct_size = sizeof own}, other = own;
    double single;
    assert_int_equal(featinv_cosine(&own, NULL, &single, &ta, &tb, NULL), FEATINV_OK);
    assert_near(own.centred, load_value("cos_centred_median"), 1e-14, "own centre");
    assert_near(single, own.centred, 0, "the only image");
    assert_int_equal(featinv_cosine(&other, NULL, NULL, &ta, &tb, given), FEATINV_OK);
    assert_near(other.centred, own.centred, 1e-6, "given centre, rounded to float");
    memset(given, 0, sizeof given);
    assert_int_equal(featinv_cosine(&other, NULL, NULL, &ta, &tb, given), FEATINV_OK);
    assert_near(other.centred, other.median_then_mean, 0, "a centre of zeros removes nothing");
    free(centre);
    free(a);
    free(b);
}

static void zero_norms_count_as_documented(void **state) {
    (void)state;
    float a[8] = {0, 0, 1, 3, /* second channel */ 0, 0, 0, 4};
    float b[8] = {0, 1, 2, 4, 0, 1, 0, -3};
    const double expected = (1.0 + 0.0 + 1.0 + 0.0) / 4.0;
    int64_t shape[4] = {1, 2, 2, 2};
    featinv_tensor ta = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor tb = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, shape);
    featinv_cosine_result result = {.struct_size = sizeof result};
    assert_int_equal(featinv_cosine(&result, NULL, NULL, &ta, &tb, NULL), FEATINV_OK);
    assert_near(result.mean, expected, 1e-15, "mean");
    assert_near(result.median_all, 0.5, 1e-15, "two middle values");
}

static void cosine_refuses(void **state) {
    (void)state;
    float a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, NAN};
    int64_t good[4] = {1, 2, 2, 2}, other[4] = {1, 2, 4, 1}, empty[4] = {0, 2, 2, 2};
    featinv_tensor ta = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, good);
    featinv_tensor nan = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, good);
    featinv_tensor shaped = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, other);
    featinv_tensor rank = featinv_tensor_view(a, FEATINV_DTYPE_F32, 3, good + 1);
    featinv_tensor none = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, empty);
    featinv_tensor bytes = featinv_tensor_view(a, FEATINV_DTYPE_U8, 4, good);
    const float bad_centre[2] = {0, INFINITY};
    featinv_cosine_result result = {.struct_size = sizeof result}, unset = {0};
    const struct {
        const char *name;
        featinv_cosine_result *result;
        const featinv_tensor *a, *b;
        const float *centre;
        featinv_status status;
    } cases[] = {
        {"no result", NULL, &ta, &ta, NULL, FEATINV_ERROR_ARGUMENT},
        {"struct_size 0", &unset, &ta, &ta, NULL, FEATINV_ERROR_ARGUMENT},
        {"no maps", &result, NULL, &ta, NULL, FEATINV_ERROR_ARGUMENT},
        {"other shape", &result, &ta, &shaped, NULL, FEATINV_ERROR_SHAPE},
        {"rank 3", &result, &rank, &rank, NULL, FEATINV_ERROR_SHAPE},
        {"no images", &result, &none, &none, NULL, FEATINV_ERROR_SHAPE},
        {"bytes", &result, &bytes, &bytes, NULL, FEATINV_ERROR_SHAPE},
        {"NaN first", &result, &nan, &ta, NULL, FEATINV_ERROR_VALUE},
        {"NaN second", &result, &ta, &nan, NULL, FEATINV_ERROR_VALUE},
        {"infinite centre", &result, &ta, &ta, bad_centre, FEATINV_ERROR_VALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_status status =
            featinv_cosine(cases[i].result, NULL, NULL, cases[i].a, cases[i].b, cases[i].centre);
        if (status != cases[i].status || !*featinv_last_error())
            fail_msg("%s: %s, not %s", cases[i].name, featinv_status_name(status),
                     featinv_status_name(cases[i].status));
    }
}

/* ---------------------------------------------------------------- spread --------------------- */

static void spread_is_the_deviation_over_samples(void **state) {
    (void)state;
    /* two pixels, three samples: constant; and channels with deviations sqrt(8/3), 0, sqrt(2/3) */
    uint8_t bytes[3][2][3] = {
        {{9, 200, 255}, {0, 7, 1}}, {{9, 200, 255}, {2, 7, 2}}, {{9, 200, 255}, {4, 7, 3}}};
    int64_t shape[4] = {3, 1, 2, 3};
    float spread[2];
    featinv_tensor samples = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 4, shape);
    assert_int_equal(featinv_spread(spread, &samples), FEATINV_OK);
    assert_near((double)spread[0], 0.0, 0.0, "a constant pixel");
    assert_near((double)spread[1], sqrt((8.0 / 3 + 2.0 / 3) / 3), 1e-7, "a varying pixel");
    shape[0] = 1;
    assert_int_equal(featinv_spread(spread, &samples), FEATINV_OK);
    assert_near((double)spread[1], 0.0, 0.0, "one sample");
    shape[0] = 0;
    assert_int_equal(featinv_spread(spread, &samples), FEATINV_ERROR_SHAPE);
    shape[0] = 3;
    assert_int_equal(featinv_spread(NULL, &samples), FEATINV_ERROR_ARGUMENT);
}

/* ---------------------------------------------------------------- Fréchet distance ----------- */

static featinv_fid *filled(const char *first, const char *second, int64_t *dimension) {
    featinv_fid *fid = NULL;
    for (int side = 0; side < 2; side++) {
        int64_t shape[8];
        float *rows = load(side ? second : first, FEATINV_DTYPE_F32, shape);
        featinv_tensor view = featinv_tensor_view(rows, FEATINV_DTYPE_F32, 2, shape);
        if (!fid)
            assert_int_equal(featinv_fid_create(&fid, shape[1]), FEATINV_OK);
        assert_int_equal(featinv_fid_update(fid, side, &view, -1), FEATINV_OK);
        *dimension = shape[1];
        free(rows);
    }
    return fid;
}

/* The covariance route squares the data: where a side has no more rows than dimensions, only half
 * the digits are there in the worst case. */
static void distance_equals_the_recorded_values(void **state) {
    (void)state;
    static const struct {
        const char *a, *b, *target;
        fi_fid_route route;
        double relative;
    } cases[] = {
        {"full0_A", "full0_B", "full0_fid_factor", FI_FID_AUTO, 2e-12},
        {"full0_A", "full0_B", "full0_fid_factor", FI_FID_COVARIANCE, 2e-12},
        {"full1_A", "full1_B", "full1_fid_factor", FI_FID_AUTO, 2e-12},
        {"rankdef_A", "rankdef_B", "rankdef_fid_factor", FI_FID_AUTO, 1e-12},
        {"rankdef_A", "rankdef_B", "rankdef_fid_factor", FI_FID_ROWS, 1e-12},
        {"rankdef_A", "rankdef_B", "rankdef_fid_factor", FI_FID_COVARIANCE, 2e-8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t d;
        double value, target = load_value(cases[i].target);
        featinv_fid *fid = filled(cases[i].a, cases[i].b, &d);
        assert_int_equal(fi_fid_compute(&value, fid, &plain, cases[i].route), FEATINV_OK);
        assert_near(value, target, cases[i].relative * target, cases[i].target);
        featinv_fid_destroy(fid);
    }
}

static void distance_of_a_set_to_itself_is_zero(void **state) {
    (void)state;
    static const fi_fid_route routes[] = {FI_FID_ROWS, FI_FID_COVARIANCE};
    for (size_t i = 0; i < 2; i++) {
        int64_t d;
        double value;
        featinv_fid *fid = filled("rankdef_A", "rankdef_A", &d);
        assert_int_equal(fi_fid_compute(&value, fid, &plain, routes[i]), FEATINV_OK);
        assert_near(value, 0.0, routes[i] == FI_FID_ROWS ? 2e-13 * (double)d : 3e-7, "itself");
        featinv_fid_destroy(fid);
    }
}

/* Shards that come in any order, merged or not, give the very same bits. */
static void order_of_shards_does_not_matter(void **state) {
    (void)state;
    int64_t d, shape[8];
    double whole, sharded, merged;
    featinv_fid *fid = filled("rankdef_A", "rankdef_B", &d);
    assert_int_equal(fi_fid_compute(&whole, fid, &plain, FI_FID_AUTO), FEATINV_OK);
    featinv_fid_destroy(fid);

    featinv_fid *one = NULL, *two = NULL;
    assert_int_equal(featinv_fid_create(&one, d), FEATINV_OK);
    assert_int_equal(featinv_fid_create(&two, d), FEATINV_OK);
    for (int pass = 0; pass < 2; pass++)
        for (int side = 0; side < 2; side++) {
            float *rows = load(side ? "rankdef_B" : "rankdef_A", FEATINV_DTYPE_F32, shape);
            int64_t n = shape[0];
            for (int64_t first = (n - 1) / 7 * 7; first >= 0; first -= 7) {
                int64_t part[2] = {n - first < 7 ? n - first : 7, d};
                featinv_tensor view =
                    featinv_tensor_view(rows + first * d, FEATINV_DTYPE_F32, 2, part);
                featinv_fid *to = pass && first % 2 ? two : one;
                assert_int_equal(featinv_fid_update(to, side, &view, first), FEATINV_OK);
            }
            free(rows);
            if (side == 1 && pass == 0) {
                assert_int_equal(fi_fid_compute(&sharded, one, &plain, FI_FID_AUTO), FEATINV_OK);
                featinv_fid_destroy(one);
                assert_int_equal(featinv_fid_create(&one, d), FEATINV_OK);
            }
        }
    assert_int_equal(featinv_fid_merge(one, two), FEATINV_OK);
    assert_int_equal(fi_fid_compute(&merged, one, &plain, FI_FID_AUTO), FEATINV_OK);
    assert_memory_equal(&sharded, &whole, sizeof whole);
    assert_memory_equal(&merged, &whole, sizeof whole);

    assert_int_equal(featinv_fid_merge(one, two), FEATINV_OK); /* now some rows are there twice */
    assert_int_equal(fi_fid_compute(&merged, one, &plain, FI_FID_AUTO), FEATINV_ERROR_ARGUMENT);
    featinv_fid_destroy(one);
    featinv_fid_destroy(two);
}

static void maps_are_pooled(void **state) {
    (void)state;
    float maps[2][2][4] = {{{1, 2, 3, 6}, {0, 0, 0, 4}}, {{5, 5, 5, 5}, {8, 0, 0, 0}}};
    float rows[2][2] = {{3, 1}, {5, 2}};
    float other[2][2] = {{0, 1}, {4, -2}};
    int64_t map_shape[4] = {2, 2, 2, 2}, row_shape[2] = {2, 2};
    double values[2];
    for (int pooled = 0; pooled < 2; pooled++) {
        featinv_fid *fid = NULL;
        assert_int_equal(featinv_fid_create(&fid, 2), FEATINV_OK);
        featinv_tensor a = pooled ? featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape)
                                  : featinv_tensor_view(rows, FEATINV_DTYPE_F32, 2, row_shape);
        featinv_tensor b = featinv_tensor_view(other, FEATINV_DTYPE_F32, 2, row_shape);
        assert_int_equal(featinv_fid_update(fid, 0, &a, -1), FEATINV_OK);
        assert_int_equal(featinv_fid_update(fid, 1, &b, -1), FEATINV_OK);
        assert_int_equal(fi_fid_compute(&values[pooled], fid, &plain, FI_FID_ROWS), FEATINV_OK);
        featinv_fid_destroy(fid);
    }
    assert_memory_equal(&values[0], &values[1], sizeof *values);
    /* by hand: means (4, 1.5) and (2, -.5); covariances of rank 1 along (2,1) and (4,-3), halved */
    double trace = fabs(2.0 * 4.0 - 1.0 * 3.0) / 2.0;
    assert_near(values[0], 8.0 + 2.5 + 12.5 - 2.0 * trace, 1e-12, "by hand");
}

static void distance_refuses(void **state) {
    (void)state;
    featinv_fid *fid = NULL, *other = NULL;
    double value;
    float rows[6] = {1, 2, 3, 4, 5, INFINITY};
    int64_t one[2] = {1, 2}, bad[2] = {3, 2}, wide[2] = {1, 3};
    assert_int_equal(featinv_fid_create(&fid, 0), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_fid_create(&fid, 2), FEATINV_OK);
    assert_int_equal(featinv_fid_create(&other, 3), FEATINV_OK);
    featinv_tensor good = featinv_tensor_view(rows, FEATINV_DTYPE_F32, 2, one);
    featinv_tensor infinite = featinv_tensor_view(rows, FEATINV_DTYPE_F32, 2, bad);
    featinv_tensor shaped = featinv_tensor_view(rows, FEATINV_DTYPE_F32, 2, wide);
    featinv_tensor flat = featinv_tensor_view(rows, FEATINV_DTYPE_F32, 1, one);
    assert_int_equal(featinv_fid_update(fid, 2, &good, -1), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_fid_update(fid, 0, &good, -2), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_fid_update(fid, 0, &infinite, -1), FEATINV_ERROR_VALUE);
    assert_int_equal(featinv_fid_update(fid, 0, &shaped, -1), FEATINV_ERROR_SHAPE);
    assert_int_equal(featinv_fid_update(fid, 0, &flat, -1), FEATINV_ERROR_SHAPE);
    assert_int_equal(featinv_fid_merge(fid, other), FEATINV_ERROR_SHAPE);
    assert_int_equal(featinv_fid_merge(fid, fid), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_fid_update(fid, 0, &good, -1), FEATINV_OK);
    assert_int_equal(featinv_fid_update(fid, 1, &good, -1), FEATINV_OK);
    assert_int_equal(fi_fid_compute(&value, fid, &plain, FI_FID_AUTO), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_fid_result(&value, fid, NULL), FEATINV_ERROR_ARGUMENT);
    featinv_fid_destroy(fid);
    featinv_fid_destroy(other);
    featinv_fid_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians_are_the_middle_of_the_sorted_values),
        cmocka_unit_test(cosine_equals_the_recorded_values),
        cmocka_unit_test(centred_cosine_equals_the_recorded_value),
        cmocka_unit_test(zero_norms_count_as_documented),
        cmocka_unit_test(cosine_refuses),
        cmocka_unit_test(spread_is_the_deviation_over_samples),
        cmocka_unit_test(distance_equals_the_recorded_values),
        cmocka_unit_test(distance_of_a_set_to_itself_is_zero),
        cmocka_unit_test(order_of_shards_does_not_matter),
        cmocka_unit_test(maps_are_pooled),
        cmocka_unit_test(distance_refuses),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
