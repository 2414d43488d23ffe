#include "array.h"

#include "convert.h"
#include "error.h"
#include "npy.h"
#include "options.h"
#include "tensor.h"
#include "zip.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- finding the array ---------- */

/* An array that is opened for reading: its header is read, its data comes next. */
typedef struct reader {
    const char *path;
    char label[512]; /* "FILE" or "FILE: MEMBER", for error texts */
    int fd;
    fi_zip zip;
    fi_source source;
    fi_npy npy;
} reader;

static void close_reader(reader *r) {
    fi_source_close(&r->source);
    fi_zip_close(&r->zip);
    fi_file_close(r->fd);
}

/* Length of the array's name, 0 for a member that is no array. */
static size_t array_name(const char *member) {
    size_t length = strlen(member);
    return length > 4 && strcmp(member + length - 4, ".npy") == 0 ? length - 4 : 0;
}

/* The member of that name; NULL: the only array, else `features`. */
static featinv_status find_member(const fi_zip_member **out, const fi_zip *zip, const char *name) {
    const fi_zip_member *only = NULL;
    size_t arrays = 0;
    const char *wanted = name ? name : "features";
    *out = NULL;
    for (size_t i = 0; i < zip->count; i++) {
        size_t length = array_name(zip->members[i].name);
        if (length == 0)
            continue;
        only = zip->members + i;
        arrays++;
        if (length == strlen(wanted) && memcmp(zip->members[i].name, wanted, length) == 0)
            *out = only;
    }
    if (!name && arrays == 1)
        *out = only;
    if (*out)
        return FEATINV_OK;
    if (arrays == 0)
        return fi_fail(FEATINV_ERROR_NOT_FOUND, "%s: holds no array", zip->path);
    return fi_fail(FEATINV_ERROR_NOT_FOUND, "%s: holds no array '%s'%s", zip->path, wanted,
                   name ? "" : ", and more than one other");
}

/* Opens the file, as .npy or .npz by its first bytes. *zipped says which. */
static featinv_status open_file(reader *r, bool *zipped, uint64_t *bytes) {
    uint8_t first[8] = {0};
    featinv_status status = fi_file_open(&r->fd, bytes, r->path);
    if (status)
        return status;
    if (*bytes == 0)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: is empty", r->path);
    status = fi_file_read_at(r->fd, first, *bytes < 8 ? (size_t)*bytes : 8, 0, r->path);
    if (status)
        return status;
    *zipped = memcmp(first, "PK\3\4", 4) == 0 || memcmp(first, "PK\5\6", 4) == 0;
    if (!*zipped && !fi_npy_magic(first, sizeof first))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: is neither .npy nor .npz", r->path);
    return *zipped ? fi_zip_open(&r->zip, r->fd, *bytes, r->path) : FEATINV_OK;
}

static featinv_status read_header(reader *r) {
    uint8_t prefix[FI_NPY_PREFIX];
    size_t begin = 0, end = 0;
    char *text = NULL;
    uint64_t all = r->source.size;
    r->source.path = r->label;
    featinv_status status = fi_source_read(&r->source, prefix, sizeof prefix);
    if (!status)
        status = fi_npy_prefix(&begin, &end, prefix, r->label);
    if (status)
        return status;
    text = malloc(end);
    if (!text)
        return fi_fail_memory(end);
    memcpy(text, prefix, sizeof prefix);
    status = fi_source_read(&r->source, text + sizeof prefix, end - sizeof prefix);
    if (!status)
        status = fi_npy_parse(&r->npy, text + begin, end - begin, r->label);
    if (!status && r->npy.data_bytes != all - end) {
        char shape[192];
        fi_shape_text(shape, sizeof shape, r->npy.shape, r->npy.ndim);
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: %llu bytes of data, %s %s needs %zu", r->label,
                         (unsigned long long)(all - end), fi_dtype_name(r->npy.dtype), shape,
                         r->npy.data_bytes);
    }
    free(text);
    return status;
}

static featinv_status open_reader(reader *r, const char *path, const char *member) {
    bool zipped = false;
    uint64_t bytes = 0;
    memset(r, 0, sizeof *r);
    r->path = path;
    r->fd = -1;
    featinv_status status = open_file(r, &zipped, &bytes);
    if (status)
        return status;
    (void)snprintf(r->label, sizeof r->label, "%s", path);
    if (zipped) {
        const fi_zip_member *found;
        status = find_member(&found, &r->zip, member);
        if (status)
            return status;
        (void)snprintf(r->label, sizeof r->label, "%s: %.*s", path, (int)array_name(found->name),
                       found->name);
        status = fi_zip_source(&r->source, &r->zip, found);
        return status ? status : read_header(r);
    }
    if (member)
        return fi_fail(FEATINV_ERROR_NOT_FOUND, "%s: is one .npy array, it holds no '%s'", path,
                       member);
    status = fi_source_open(&r->source, r->fd, path, 0, bytes, bytes, false, NULL);
    return status ? status : read_header(r);
}

/* ---------------------------------------------------------------- reading data --------------- */

enum { BLOCK = 1 << 16 }; /* bytes read at once where they are converted on the way */

static size_t element_count(const fi_npy *npy) {
    return npy->data_bytes / fi_dtype_size(npy->dtype);
}

/* Stored order is C order: straight into place, or through a small block that is converted. */
static featinv_status read_c(reader *r, uint8_t *out, featinv_dtype dtype) {
    size_t element = fi_dtype_size(r->npy.dtype), size = fi_dtype_size(dtype);
    size_t left = element_count(&r->npy);
    union {
        uint8_t bytes[BLOCK];
        double aligned;
        int64_t integer;
    } *block = NULL;
    featinv_status status = FEATINV_OK;
    if (dtype == r->npy.dtype) {
        status = fi_source_read(&r->source, out, r->npy.data_bytes);
        if (!status && r->npy.swapped)
            fi_swap_bytes(out, element, left);
        return status;
    }
    block = malloc(sizeof *block);
    if (!block)
        return fi_fail_memory(sizeof *block);
    while (left > 0 && !status) {
        size_t count = left < BLOCK / element ? left : BLOCK / element;
        status = fi_source_read(&r->source, block->bytes, count * element);
        if (status)
            break;
        if (r->npy.swapped)
            fi_swap_bytes(block->bytes, element, count);
        fi_convert(out, dtype, block->bytes, r->npy.dtype, count);
        out += count * size;
        left -= count;
    }
    free(block);
    return status;
}

/* Copies elements stored first index fastest into C order. */
static void transpose(uint8_t *out, const uint8_t *in, const fi_npy *npy) {
    size_t element = fi_dtype_size(npy->dtype), count = element_count(npy);
    int32_t last = npy->ndim - 1;
    size_t step[FEATINV_MAX_DIMS]; /* bytes between neighbours of each dimension in the file */
    int64_t index[FEATINV_MAX_DIMS] = {0};
    size_t bytes = element;
    for (int32_t i = 0; i <= last; i++) {
        step[i] = bytes;
        bytes *= (size_t)npy->shape[i];
    }
    for (size_t done = 0; done < count; done += (size_t)npy->shape[last]) {
        const uint8_t *from = in;
        for (int32_t i = 0; i < last; i++)
            from += (size_t)index[i] * step[i];
        for (int64_t j = 0; j < npy->shape[last]; j++, from += step[last], out += element)
            memcpy(out, from, element);
        for (int32_t i = last - 1; i >= 0 && ++index[i] == npy->shape[i]; i--)
            index[i] = 0;
    }
}

static featinv_status read_fortran(reader *r, uint8_t *out, featinv_dtype dtype) {
    featinv_status status = FEATINV_OK;
    size_t bytes = r->npy.data_bytes, count = element_count(&r->npy);
    uint8_t *stored = malloc(bytes), *ordered = NULL;
    if (!stored)
        return fi_fail_memory(bytes);
    if (dtype != r->npy.dtype) {
        ordered = malloc(bytes);
        if (!ordered) {
            status = fi_fail_memory(bytes);
            goto done;
        }
    }
    status = fi_source_read(&r->source, stored, bytes);
    if (status)
        goto done;
    if (r->npy.swapped)
        fi_swap_bytes(stored, fi_dtype_size(r->npy.dtype), count);
    transpose(ordered ? ordered : out, stored, &r->npy);
    if (ordered)
        fi_convert(out, dtype, ordered, r->npy.dtype, count);
done:
    free(ordered);
    free(stored);
    return status;
}

static featinv_status read_data(reader *r, void *out, featinv_dtype dtype) {
    bool reorder = r->npy.fortran && r->npy.ndim > 1 && r->npy.data_bytes > 0;
    featinv_status status = reorder ? read_fortran(r, out, dtype) : read_c(r, out, dtype);
    return status ? status : fi_source_finish(&r->source);
}

/* Settles the dtype to return and its size in bytes. */
static featinv_status settle(featinv_dtype *dtype, size_t *bytes, const reader *r) {
    if (*dtype == FEATINV_DTYPE_NONE)
        *dtype = r->npy.dtype;
    if (!fi_can_convert(*dtype, r->npy.dtype))
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: dtype is %s, not %s", r->label,
                       fi_dtype_name(r->npy.dtype), fi_dtype_name(*dtype));
    if (!fi_checked_size(bytes, r->npy.shape, r->npy.ndim, fi_dtype_size(*dtype)))
        return fi_fail(FEATINV_ERROR_LIMIT, "%s: too large as %s", r->label, fi_dtype_name(*dtype));
    return FEATINV_OK;
}

/* Into a struct of any age: its struct_size says how much of it there is. */
static featinv_status fill_info(featinv_array_info *info, const fi_npy *npy) {
    featinv_array_info all = {.struct_size = sizeof all, .dtype = npy->dtype, .ndim = npy->ndim};
    memcpy(all.shape, npy->shape, sizeof all.shape);
    return fi_options_init(info, info->struct_size, &all, sizeof all);
}

featinv_status featinv_array_read(void *data, size_t capacity, featinv_array_info *info,
                                  const char *path, const char *member, featinv_dtype dtype) {
    reader r;
    size_t bytes = 0;
    featinv_status status = open_reader(&r, path, member);
    if (!status)
        status = settle(&dtype, &bytes, &r);
    if (!status && info)
        status = fill_info(info, &r.npy);
    if (!status && data && capacity < bytes)
        status = fi_fail(FEATINV_ERROR_CAPACITY, "%s: needs %zu bytes, the buffer has %zu", r.label,
                         bytes, capacity);
    if (!status && data)
        status = read_data(&r, data, dtype);
    close_reader(&r);
    return status;
}

featinv_status fi_array_load(void **data, featinv_array_info *info, const char *path,
                             const char *member, featinv_dtype dtype) {
    reader r;
    size_t bytes = 0;
    *data = NULL;
    featinv_status status = open_reader(&r, path, member);
    if (!status)
        status = settle(&dtype, &bytes, &r);
    if (status)
        goto done;
    *data = malloc(bytes ? bytes : 1);
    if (!*data) {
        status = fi_fail_memory(bytes);
        goto done;
    }
    status = read_data(&r, *data, dtype);
    if (!status) {
        info->struct_size = sizeof *info;
        status = fill_info(info, &r.npy);
    } else {
        free(*data);
        *data = NULL;
    }
done:
    close_reader(&r);
    return status;
}

featinv_status fi_array_names(char ***names, int64_t *count, const char *path) {
    reader r = {.path = path, .fd = -1};
    bool zipped = false;
    uint64_t bytes = 0;
    *names = NULL;
    *count = 0;
    featinv_status status = open_file(&r, &zipped, &bytes);
    if (!status && !zipped)
        status = fi_fail(FEATINV_ERROR_FORMAT, "%s: is not an .npz archive", path);
    if (status)
        goto done;
    size_t size = (r.zip.count + 1) * sizeof(char *);
    for (size_t i = 0; i < r.zip.count; i++)
        size += strlen(r.zip.members[i].name) + 1;
    char **list = malloc(size);
    if (!list) {
        status = fi_fail_memory(size);
        goto done;
    }
    char *text = (char *)(list + r.zip.count + 1);
    for (size_t i = 0; i < r.zip.count; i++) {
        size_t length = array_name(r.zip.members[i].name);
        if (length == 0)
            continue;
        memcpy(text, r.zip.members[i].name, length);
        text[length] = 0;
        list[(*count)++] = text;
        text += length + 1;
    }
    list[*count] = NULL;
    *names = list;
done:
    close_reader(&r);
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

/* Bytes of text as one element: NumPy's |Sn, which SciPy wants for a sparse matrix's format. */
static bool is_text(const featinv_tensor *array) {
    return array->dtype_code == 1 && array->dtype_bits == 8 && array->dtype_lanes > 1 &&
           array->ndim == 0 && array->device_type == 1 && array->data;
}

/* Header and packed data of one array. *owned is to be freed. */
static featinv_status prepare(char header[FI_NPY_HEADER_MOST], size_t *header_bytes,
                              const void **data, size_t *data_bytes, void **owned,
                              const featinv_tensor *array, const char *what) {
    *owned = NULL;
    if (is_text(array)) {
        *header_bytes = fi_npy_format_text(header, array->dtype_lanes);
        *data = (const uint8_t *)array->data + array->byte_offset;
        *data_bytes = array->dtype_lanes;
        return FEATINV_OK;
    }
    featinv_dtype dtype = fi_tensor_dtype(array);
    if (fi_dtype_size(dtype) == 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the dtype is not known", what);
    featinv_status status =
        fi_tensor_input(data, owned, array, what, dtype, array->ndim, array->shape);
    if (status)
        return status;
    *header_bytes = fi_npy_format(header, dtype, array->ndim, array->shape);
    if (*header_bytes == 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: NumPy's format holds no %s of %d dimensions",
                       what, fi_dtype_name(dtype), (int)array->ndim);
    (void)fi_checked_size(data_bytes, array->shape, array->ndim, fi_dtype_size(dtype));
    return FEATINV_OK;
}

static featinv_status write_npy(const char *path, const featinv_tensor *array) {
    char header[FI_NPY_HEADER_MOST];
    size_t header_bytes, data_bytes;
    const void *data;
    void *owned;
    fi_writer *writer = NULL;
    featinv_status status = prepare(header, &header_bytes, &data, &data_bytes, &owned, array, path);
    if (!status)
        status = fi_writer_open(&writer, path);
    if (!status) {
        fi_writer_write(writer, header, header_bytes);
        fi_writer_write(writer, data, data_bytes);
        status = fi_writer_commit(writer);
    }
    free(owned);
    return status;
}

static featinv_status write_member(fi_zip_writer *writer, const char *name,
                                   const featinv_tensor *array, bool deflated) {
    char header[FI_NPY_HEADER_MOST];
    size_t header_bytes, data_bytes;
    const void *data;
    void *owned;
    featinv_status status = prepare(header, &header_bytes, &data, &data_bytes, &owned, array, name);
    if (!status)
        status = fi_zip_writer_add(writer, name, header, header_bytes, data, data_bytes, deflated);
    free(owned);
    return status;
}

static featinv_status write_npz(const char *path, const featinv_tensor *arrays,
                                const char *const *names, int32_t count, bool deflated) {
    fi_zip_writer *writer;
    featinv_status status = fi_zip_writer_open(&writer, path);
    for (int32_t i = 0; i < count && !status; i++) {
        char fallback[32]; /* what np.savez calls arrays without a name */
        (void)snprintf(fallback, sizeof fallback, "arr_%d", (int)i);
        status = write_member(writer, names ? names[i] : fallback, arrays + i, deflated);
    }
    if (!status)
        return fi_zip_writer_commit(writer);
    fi_zip_writer_abort(writer);
    return status;
}

static featinv_status check_names(const char *const *names, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        if (!names[i] || !*names[i] || strlen(names[i]) > 1024)
            return fi_fail(FEATINV_ERROR_ARGUMENT, "array %d has no name of 1 to 1024 bytes",
                           (int)i);
        for (int32_t j = 0; j < i; j++)
            if (strcmp(names[i], names[j]) == 0)
                return fi_fail(FEATINV_ERROR_ARGUMENT, "two arrays are named %s", names[i]);
    }
    return FEATINV_OK;
}

featinv_status featinv_array_write(const char *path, const featinv_tensor *arrays,
                                   const char *const *names, int32_t count, int32_t compress) {
    if (!path || count < 0 || (count > 0 && !arrays))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no path or no arrays to write");
    if (fi_path_has_suffix(path, ".npz")) {
        featinv_status status = names ? check_names(names, count) : FEATINV_OK;
        return status ? status : write_npz(path, arrays, names, count, compress != 0);
    }
    if (!fi_path_has_suffix(path, ".npy"))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: ends neither in .npy nor in .npz", path);
    if (count != 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: an .npy file holds one array, not %d", path,
                       (int)count);
    return write_npy(path, arrays);
}
