/* Concept files: .npz archives (docs/concepts.md), read as hostile input. */
#include "array.h"
#include "concepts.h"
#include "error.h"
#include "file.h"
#include "tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* The fit's numbers, which a file may hold as 0-d arrays, and what they may be. */
typedef struct option {
    const char *name;
    size_t offset; /* in featinv_concepts_details */
    featinv_dtype dtype;
    double low, high;
    bool open; /* low itself is out of range */
} option;

#define FIELD(name) #name, offsetof(featinv_concepts_details, name)
static const option options[] = {
    {FIELD(method), FEATINV_DTYPE_I32, FEATINV_CONCEPTS_GIVEN, FEATINV_CONCEPTS_PCA, false},
    {FIELD(basis), FEATINV_DTYPE_I32, FEATINV_BASIS_ORIGIN, FEATINV_BASIS_CENTRED, false},
    {FIELD(gamma), FEATINV_DTYPE_F64, 0.0, HUGE_VAL, true},
    {FIELD(tau), FEATINV_DTYPE_F64, 0.0, 1.0, true},
    {FIELD(outlier_quantile), FEATINV_DTYPE_F64, 0.0, 1.0, true},
    {FIELD(seed), FEATINV_DTYPE_U64, 0.0, HUGE_VAL, false},
    {FIELD(rows), FEATINV_DTYPE_I64, 0.0, HUGE_VAL, false},
    {FIELD(rows_removed), FEATINV_DTYPE_I64, 0.0, HUGE_VAL, false},
    {FIELD(objective), FEATINV_DTYPE_F64, -HUGE_VAL, HUGE_VAL, false},
    {FIELD(stationarity), FEATINV_DTYPE_F64, 0.0, HUGE_VAL, false},
    {FIELD(seconds), FEATINV_DTYPE_F64, 0.0, HUGE_VAL, false},
};
enum {
    OPTIONS = sizeof options / sizeof *options,
    MOST_EIGENVALUES = 1 << 20,
    MOST_NAME = 4096,
    MOST_OFFSETS = 1 << 16
};

/* ---------------------------------------------------------------- reading -------------------- */

typedef struct reader {
    const char *path;
    char **names; /* of the file's arrays, NULL-ended */
} reader;

static bool holds(const reader *r, const char *name) {
    for (char **at = r->names; *at; at++)
        if (strcmp(*at, name) == 0)
            return true;
    return false;
}

static size_t element_count(const featinv_array_info *info) {
    size_t count = 1;
    for (int32_t i = 0; i < info->ndim; i++)
        count *= (size_t)info->shape[i];
    return count;
}

static bool is_integer(featinv_dtype dtype) {
    return dtype == FEATINV_DTYPE_I32 || dtype == FEATINV_DTYPE_I64 || dtype == FEATINV_DTYPE_U8 ||
           dtype == FEATINV_DTYPE_U32 || dtype == FEATINV_DTYPE_U64;
}

/* An array of that dtype and rank with at most so many values, in fresh memory. The header is
 * looked at first, so that an array of another kind is never read. */
static featinv_status load(void **data, featinv_array_info *info, const reader *r, const char *name,
                           featinv_dtype dtype, int32_t ndim, size_t most) {
    *info = (featinv_array_info){.struct_size = sizeof *info};
    featinv_status status = featinv_array_read(NULL, 0, info, r->path, name, FEATINV_DTYPE_NONE);
    if (status)
        return status;
    if (info->dtype != dtype)
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: %s: dtype is %s, not %s", r->path, name,
                       fi_dtype_name(info->dtype), fi_dtype_name(dtype));
    if (info->ndim != ndim)
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: %s: %d dimensions, not %d", r->path, name,
                       info->ndim, ndim);
    if (element_count(info) > most)
        return fi_fail(FEATINV_ERROR_LIMIT, "%s: %s: %zu values, more than %zu", r->path, name,
                       element_count(info), most);
    return fi_array_load(data, info, r->path, name, FEATINV_DTYPE_NONE);
}

/* Its shape is looked at first: what it unpacks to may be large. */
static featinv_status read_bases(double **bases, int32_t *channels, int32_t *total,
                                 const reader *r) {
    featinv_array_info info = {.struct_size = sizeof info};
    void *data = NULL;
    featinv_status status =
        featinv_array_read(NULL, 0, &info, r->path, "bases", FEATINV_DTYPE_NONE);
    if (status)
        return status;
    if (info.ndim == 2 && (info.shape[0] < 1 || info.shape[0] > INT32_MAX || info.shape[1] < 1))
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: bases: shape is (%lld, %lld)", r->path,
                       (long long)info.shape[0], (long long)info.shape[1]);
    if (info.ndim == 2 && info.shape[1] > info.shape[0])
        return fi_fail(FEATINV_ERROR_FORMAT,
                       "%s: bases: the concepts have %lld dimensions together, the features %lld "
                       "channels",
                       r->path, (long long)info.shape[1], (long long)info.shape[0]);
    if (info.ndim == 2 && info.shape[1] > FI_MOST_DIMENSIONS)
        return fi_fail(FEATINV_ERROR_LIMIT, "%s: bases: %lld columns, more than %d", r->path,
                       (long long)info.shape[1], FI_MOST_DIMENSIONS);
    status = load(&data, &info, r, "bases", FEATINV_DTYPE_F64, 2, SIZE_MAX);
    if (status)
        return status;
    *bases = data;
    *channels = (int32_t)info.shape[0];
    *total = (int32_t)info.shape[1];
    return FEATINV_OK;
}

/* Offsets as int32 or int64; their order is checked with the bases. */
static featinv_status read_offsets(int32_t **offsets, int32_t *count, int32_t total,
                                   const reader *r) {
    featinv_array_info info = {.struct_size = sizeof info};
    void *data = NULL;
    featinv_status status =
        featinv_array_read(NULL, 0, &info, r->path, "offsets", FEATINV_DTYPE_NONE);
    if (status)
        return status;
    featinv_dtype dtype = info.dtype == FEATINV_DTYPE_I64 ? FEATINV_DTYPE_I64 : FEATINV_DTYPE_I32;
    status = load(&data, &info, r, "offsets", dtype, 1, MOST_OFFSETS);
    if (status)
        return status;
    int64_t n = info.shape[0];
    int32_t *values = malloc((size_t)n * sizeof *values + 1);
    if (!values)
        status = fi_fail_memory((size_t)n * sizeof *values);
    else if (n < 2)
        status = fi_fail(FEATINV_ERROR_SHAPE, "%s: offsets: %lld values, not 2 or more", r->path,
                         (long long)n);
    for (int64_t i = 0; i < n && !status; i++) {
        int64_t value = dtype == FEATINV_DTYPE_I64 ? ((const int64_t *)data)[i]
                                                   : (int64_t)((const int32_t *)data)[i];
        if (value < 0 || value > total)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: offsets: %lld is not in 0 to %d", r->path,
                             (long long)value, total);
        else
            values[i] = (int32_t)value;
    }
    if (!status && values[n - 1] != total)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: offsets: the last is %d, bases has %d columns",
                         r->path, values[n - 1], total);
    free(data);
    *offsets = values;
    *count = (int32_t)n - 1;
    return status;
}

static featinv_status read_labels(int32_t **labels, int32_t *ndim, int64_t shape[3],
                                  const reader *r) {
    featinv_array_info info = {.struct_size = sizeof info};
    void *data = NULL;
    if (!holds(r, "labels"))
        return FEATINV_OK;
    featinv_status status =
        featinv_array_read(NULL, 0, &info, r->path, "labels", FEATINV_DTYPE_NONE);
    if (!status && info.ndim != 1 && info.ndim != 3)
        status = fi_fail(FEATINV_ERROR_SHAPE, "%s: labels: %d dimensions, not 1 or 3", r->path,
                         info.ndim);
    if (!status)
        status = load(&data, &info, r, "labels", FEATINV_DTYPE_I32, info.ndim, SIZE_MAX);
    if (status)
        return status;
    *labels = data;
    *ndim = info.ndim;
    memcpy(shape, info.shape, (size_t)info.ndim * sizeof *shape);
    return FEATINV_OK;
}

/* The value as the field's own type; false where it does not fit. */
static bool put_option(featinv_concepts_details *info, const option *o, double value,
                       uint64_t integer, bool negative) {
    unsigned char *field = (unsigned char *)info + o->offset;
    if (o->dtype == FEATINV_DTYPE_F64) {
        memcpy(field, &value, sizeof value);
    } else if (o->dtype == FEATINV_DTYPE_I32) {
        int32_t number = (int32_t)value; /* within the option's narrow range */
        memcpy(field, &number, sizeof number);
    } else {
        if (negative || (o->dtype == FEATINV_DTYPE_I64 && integer > INT64_MAX))
            return false;
        memcpy(field, &integer, sizeof integer);
    }
    return true;
}

static featinv_status read_option(featinv_concepts_details *out, const option *o, const reader *r) {
    featinv_array_info info = {.struct_size = sizeof info};
    union {
        double real;
        uint64_t u64;
        int64_t i64;
        uint32_t u32;
        int32_t i32;
        uint8_t u8;
    } stored = {0};
    if (!holds(r, o->name))
        return FEATINV_OK;
    featinv_status status =
        featinv_array_read(NULL, 0, &info, r->path, o->name, FEATINV_DTYPE_NONE);
    bool real = o->dtype == FEATINV_DTYPE_F64;
    if (!status && !real && !is_integer(info.dtype))
        status = fi_fail(FEATINV_ERROR_SHAPE, "%s: %s: dtype is %s, not an integer", r->path,
                         o->name, fi_dtype_name(info.dtype));
    if (!status && info.ndim != 0)
        status = fi_fail(FEATINV_ERROR_SHAPE, "%s: %s: %d dimensions, not 0", r->path, o->name,
                         info.ndim);
    if (!status)
        status = featinv_array_read(&stored, sizeof stored, &info, r->path, o->name,
                                    real ? FEATINV_DTYPE_F64 : FEATINV_DTYPE_NONE);
    if (status)
        return status;
    int64_t integer = info.dtype == FEATINV_DTYPE_I32   ? stored.i32
                      : info.dtype == FEATINV_DTYPE_U32 ? (int64_t)stored.u32
                      : info.dtype == FEATINV_DTYPE_U8  ? (int64_t)stored.u8
                                                        : stored.i64;
    bool wide = info.dtype == FEATINV_DTYPE_U64, negative = !real && !wide && integer < 0;
    double value = real ? stored.real : wide ? (double)stored.u64 : (double)integer;
    if (!isfinite(value))
        return fi_fail(FEATINV_ERROR_VALUE, "%s: %s is %g", r->path, o->name, value);
    if (value < o->low || value > o->high || (o->open && value == o->low) ||
        !put_option(out, o, value, (uint64_t)integer, negative))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: %s is %g, out of range", r->path, o->name, value);
    return FEATINV_OK;
}

static featinv_status read_eigenvalues(featinv_concepts *concepts, const reader *r) {
    featinv_array_info info;
    void *data = NULL;
    if (!holds(r, "eigenvalues"))
        return FEATINV_OK;
    featinv_status status =
        load(&data, &info, r, "eigenvalues", FEATINV_DTYPE_F64, 1, MOST_EIGENVALUES);
    if (status)
        return status;
    concepts->eigenvalues = data;
    for (int64_t i = 0; i < info.shape[0]; i++)
        if (!isfinite(concepts->eigenvalues[i]))
            return fi_fail(FEATINV_ERROR_VALUE, "%s: eigenvalues: %g at %lld", r->path,
                           concepts->eigenvalues[i], (long long)i);
    concepts->info.eigenvalues = concepts->eigenvalues;
    concepts->info.eigenvalue_count = (int32_t)info.shape[0];
    return FEATINV_OK;
}

static featinv_status read_class_name(featinv_concepts *concepts, const reader *r) {
    featinv_array_info info;
    void *data = NULL;
    if (!holds(r, "class_name"))
        return FEATINV_OK;
    featinv_status status = load(&data, &info, r, "class_name", FEATINV_DTYPE_U8, 1, MOST_NAME);
    if (status)
        return status;
    size_t length = (size_t)info.shape[0];
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length && !status; i++)
        if (bytes[i] < 0x20 || bytes[i] == 0x7f)
            status = fi_fail(FEATINV_ERROR_FORMAT, "%s: class_name: byte %u at %zu is no text",
                             r->path, bytes[i], i);
    if (!status && !(concepts->class_name = strndup(data, length)))
        status = fi_fail_memory(length);
    concepts->info.class_name = concepts->class_name;
    free(data);
    return status;
}

/* How the concepts were found, as far as the file tells. */
static featinv_status read_fit(featinv_concepts *concepts, const reader *r) {
    featinv_status status = FEATINV_OK;
    for (int i = 0; i < OPTIONS && !status; i++)
        status = read_option(&concepts->info, &options[i], r);
    const featinv_concepts_details *info = &concepts->info;
    if (!status && info->rows_removed > info->rows)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: rows_removed is %lld, rows %lld", r->path,
                         (long long)info->rows_removed, (long long)info->rows);
    if (!status)
        status = read_eigenvalues(concepts, r);
    return status ? status : read_class_name(concepts, r);
}

featinv_status featinv_concepts_open(featinv_concepts **out, const char *path) {
    reader r = {path, NULL};
    double *bases = NULL;
    int32_t *offsets = NULL, *labels = NULL, channels = 0, total = 0, count = 0, label_ndim = 0;
    int64_t label_shape[3] = {0}, names;
    if (!out || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", out ? "path" : "place for the concepts");
    *out = NULL;
    featinv_status status = fi_array_names(&r.names, &names, path);
    if (!status)
        status = read_bases(&bases, &channels, &total, &r);
    if (!status)
        status = read_offsets(&offsets, &count, total, &r);
    if (!status)
        status = read_labels(&labels, &label_ndim, label_shape, &r);
    if (status) {
        free(bases);
        free(offsets);
        free(labels);
        free(r.names);
        return status;
    }
    status = fi_concepts_new(out, bases, offsets, count, channels, labels, label_ndim, label_shape);
    if (status)
        status = fi_fail_prefix(status == FEATINV_ERROR_ARGUMENT ? FEATINV_ERROR_FORMAT : status,
                                "%s", path);
    else
        status = read_fit(*out, &r);
    free(r.names);
    if (status) {
        featinv_concepts_release(*out);
        *out = NULL;
    }
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

enum { ARRAYS = 5 + OPTIONS };

typedef struct writer {
    featinv_tensor arrays[ARRAYS];
    const char *names[ARRAYS];
    int64_t shapes[ARRAYS][3];
    int32_t count;
} writer;

static void add(writer *w, const char *name, const void *data, featinv_dtype dtype, int32_t ndim,
                const int64_t *shape) {
    int64_t *own = w->shapes[w->count];
    for (int32_t i = 0; i < ndim; i++)
        own[i] = shape[i];
    w->names[w->count] = name;
    w->arrays[w->count++] = featinv_tensor_view((void *)(uintptr_t)data, dtype, ndim, own);
}

static void add_option(writer *w, const featinv_concepts_details *info, const option *o) {
    const unsigned char *field = (const unsigned char *)info + o->offset;
    double value = 0.0;
    if (o->dtype == FEATINV_DTYPE_F64)
        memcpy(&value, field, sizeof value);
    if (isfinite(value)) /* NaN: not known */
        add(w, o->name, field, o->dtype, 0, NULL);
}

featinv_status featinv_concepts_save(const featinv_concepts *concepts, const char *path) {
    writer w = {.count = 0};
    if (!concepts || !path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no %s", concepts ? "path" : "concepts");
    if (!fi_path_has_suffix(path, ".npz"))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: a concept file ends in .npz", path);
    const featinv_concepts_details *info = &concepts->info;
    const int64_t bases[2] = {info->channels, info->total}, offsets[1] = {(int64_t)info->count + 1};
    const int64_t eigenvalues[1] = {info->eigenvalue_count};
    add(&w, "bases", info->bases, FEATINV_DTYPE_F64, 2, bases);
    add(&w, "offsets", info->offsets, FEATINV_DTYPE_I32, 1, offsets);
    if (info->labels)
        add(&w, "labels", info->labels, FEATINV_DTYPE_I32, info->label_ndim, info->label_shape);
    int32_t count = info->method == FEATINV_CONCEPTS_GIVEN ? 1 : OPTIONS; /* 1: the method */
    for (int32_t i = 0; i < count; i++)
        add_option(&w, info, &options[i]);
    if (info->eigenvalues)
        add(&w, "eigenvalues", info->eigenvalues, FEATINV_DTYPE_F64, 1, eigenvalues);
    if (info->class_name) {
        const int64_t length[1] = {(int64_t)strlen(info->class_name)};
        add(&w, "class_name", info->class_name, FEATINV_DTYPE_U8, 1, length);
    }
    return featinv_array_write(path, w.arrays, w.names, w.count, 0);
}
