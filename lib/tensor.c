#include "tensor.h"

#include "backend.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPU = 1, CUDA = 2, CUDA_HOST = 3 }; /* DLPack's DLDeviceType */

/* ---------------------------------------------------------------- element types -------------- */

/* DLPack's type code and bits beside each name, indexed by featinv_dtype. */
static const struct {
    const char *name;
    uint8_t code, bits;
} dtypes[] = {
    [FEATINV_DTYPE_NONE] = {"unknown", 0, 0}, [FEATINV_DTYPE_F32] = {"float32", 2, 32},
    [FEATINV_DTYPE_F16] = {"float16", 2, 16}, [FEATINV_DTYPE_BF16] = {"bfloat16", 4, 16},
    [FEATINV_DTYPE_F64] = {"float64", 2, 64}, [FEATINV_DTYPE_U8] = {"uint8", 1, 8},
    [FEATINV_DTYPE_I32] = {"int32", 0, 32},   [FEATINV_DTYPE_I64] = {"int64", 0, 64},
    [FEATINV_DTYPE_BOOL] = {"bool", 6, 8},    [FEATINV_DTYPE_I8] = {"int8", 0, 8},
    [FEATINV_DTYPE_I16] = {"int16", 0, 16},   [FEATINV_DTYPE_U16] = {"uint16", 1, 16},
    [FEATINV_DTYPE_U32] = {"uint32", 1, 32},  [FEATINV_DTYPE_U64] = {"uint64", 1, 64},
};
enum { DTYPE_COUNT = sizeof dtypes / sizeof *dtypes };

static bool known(featinv_dtype dtype) {
    return dtype > FEATINV_DTYPE_NONE && dtype < DTYPE_COUNT;
}

size_t fi_dtype_size(featinv_dtype dtype) {
    return known(dtype) ? dtypes[dtype].bits / 8u : 0;
}

const char *fi_dtype_name(featinv_dtype dtype) {
    return dtypes[known(dtype) ? dtype : FEATINV_DTYPE_NONE].name;
}

featinv_dtype fi_tensor_dtype(const featinv_tensor *tensor) {
    if (tensor->dtype_lanes != 1)
        return FEATINV_DTYPE_NONE;
    for (featinv_dtype dtype = 1; dtype < DTYPE_COUNT; dtype++)
        if (dtypes[dtype].code == tensor->dtype_code && dtypes[dtype].bits == tensor->dtype_bits)
            return dtype;
    return FEATINV_DTYPE_NONE;
}

/* ---------------------------------------------------------------- shapes --------------------- */

/* free_extents: negative extents are those of a wanted shape, "any". */
static const char *shape_text(char *text, size_t capacity, const int64_t *shape, int32_t ndim,
                              bool free_extents) {
    if (capacity == 0)
        return "";
    size_t used = 0;
    for (int32_t i = 0; i < ndim && used < capacity; i++) {
        const char *before = i ? ", " : "(";
        int more =
            free_extents && shape[i] < 0
                ? snprintf(text + used, capacity - used, "%sany", before)
                : snprintf(text + used, capacity - used, "%s%lld", before, (long long)shape[i]);
        used += (size_t)more;
    }
    if (used < capacity)
        (void)snprintf(text + used, capacity - used, "%s",
                       ndim <= 0   ? "()"
                       : ndim == 1 ? ",)"
                                   : ")");
    return text;
}

const char *fi_shape_text(char *text, size_t capacity, const int64_t *shape, int32_t ndim) {
    return shape_text(text, capacity, shape, ndim, false);
}

/* An extent of 0 does not excuse others whose product overflows, in whatever order they come. */
bool fi_checked_size(size_t *bytes, const int64_t *shape, int32_t ndim, size_t element) {
    const size_t most = (size_t)PTRDIFF_MAX;
    size_t product = element;
    bool empty = element == 0;
    *bytes = 0;
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return false;
        uint64_t extent = (uint64_t)shape[i];
        if (extent == 0)
            empty = true;
        else if (extent > most || product > most / extent)
            return false;
        else
            product *= (size_t)extent;
    }
    *bytes = empty ? 0 : product;
    return product <= most;
}

static bool is_contiguous(const featinv_tensor *tensor) {
    if (!tensor->strides)
        return true;
    int64_t expected = 1;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != expected)
            return false;
        expected *= tensor->shape[i];
    }
    return true;
}

/* ---------------------------------------------------------------- checks --------------------- */

/* Rank, dtype and shape against what is wanted; *bytes is the packed size. */
static featinv_status check_view(size_t *bytes, const featinv_tensor *tensor, const char *what,
                                 featinv_dtype dtype, int32_t ndim, const int64_t *shape) {
    if (!tensor)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the tensor is NULL", what);
    if (tensor->ndim < 0 || (tensor->ndim > 0 && !tensor->shape))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the tensor has %d dimensions%s", what,
                       (int)tensor->ndim, tensor->ndim < 0 ? "" : " but no shape");
    char have[128], want[128];
    if (fi_tensor_dtype(tensor) != dtype || dtype == FEATINV_DTYPE_NONE)
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: dtype is %s, not %s", what,
                       fi_dtype_name(fi_tensor_dtype(tensor)), fi_dtype_name(dtype));
    bool fits = tensor->ndim == ndim;
    for (int32_t i = 0; fits && i < ndim; i++)
        fits = shape[i] < 0 || tensor->shape[i] == shape[i];
    fi_shape_text(have, sizeof have, tensor->shape, tensor->ndim);
    if (!fits)
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: shape is %s, not %s", what, have,
                       shape_text(want, sizeof want, shape, ndim, true));
    if (!fi_checked_size(bytes, tensor->shape, tensor->ndim, fi_dtype_size(dtype)))
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: shape %s is negative or too large", what, have);
    if (*bytes > 0 && !tensor->data)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the tensor has no data", what);
    return FEATINV_OK;
}

static bool is_host(const featinv_tensor *tensor) {
    return tensor->device_type == CPU || tensor->device_type == CUDA_HOST;
}

static featinv_status fail_device(const featinv_tensor *tensor, const char *what) {
    return fi_fail(FEATINV_ERROR_UNSUPPORTED, "%s: device type %d is not supported here", what,
                   (int)tensor->device_type);
}

static uint8_t *first_byte(const featinv_tensor *tensor) {
    return tensor->data ? (uint8_t *)tensor->data + tensor->byte_offset : NULL;
}

static bool is_aligned(const void *data, featinv_dtype dtype) {
    return (uintptr_t)data % fi_dtype_size(dtype) == 0;
}

featinv_status fi_tensor_data(void **data, const featinv_tensor *tensor, const char *what,
                              featinv_dtype dtype, int32_t ndim, const int64_t *shape) {
    *data = NULL;
    size_t bytes;
    featinv_status status = check_view(&bytes, tensor, what, dtype, ndim, shape);
    if (status)
        return status;
    if (!is_host(tensor))
        return fail_device(tensor, what);
    if (bytes > 0 && !is_contiguous(tensor))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the tensor is not C-contiguous", what);
    if (!is_aligned(first_byte(tensor), dtype))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: the data is not aligned to its %zu-byte type",
                       what, fi_dtype_size(dtype));
    *data = first_byte(tensor);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- packing -------------------- */

/* Copies a strided array into C order, the last dimension in the inner loop. Strides in elements.
 */
static void pack(uint8_t *out, const uint8_t *in, const featinv_tensor *tensor, size_t element,
                 size_t bytes) {
    int32_t last = tensor->ndim - 1; /* a 0-d tensor is contiguous and does not come here */
    int64_t index[FEATINV_MAX_DIMS] = {0};
    int64_t inner = tensor->shape[last];
    ptrdiff_t step = (ptrdiff_t)tensor->strides[last] * (ptrdiff_t)element;
    for (size_t written = 0; written < bytes;) {
        const uint8_t *row = in;
        for (int32_t i = 0; i < last; i++)
            row += (ptrdiff_t)index[i] * (ptrdiff_t)tensor->strides[i] * (ptrdiff_t)element;
        if (step == (ptrdiff_t)element) {
            memcpy(out + written, row, (size_t)inner * element);
        } else {
            for (int64_t j = 0; j < inner; j++)
                memcpy(out + written + (size_t)j * element, row + j * step, element);
        }
        written += (size_t)inner * element;
        for (int32_t i = last - 1; i >= 0 && ++index[i] == tensor->shape[i]; i--)
            index[i] = 0;
    }
}

/* Lowest and highest element offset that a view touches, from its first element. */
static bool span(int64_t *low, int64_t *high, const featinv_tensor *tensor, size_t element) {
    *low = *high = 0;
    for (int32_t i = 0; i < tensor->ndim && tensor->strides; i++) {
        int64_t reach;
        if (__builtin_mul_overflow(tensor->shape[i] - 1, tensor->strides[i], &reach) ||
            __builtin_add_overflow(reach < 0 ? *low : *high, reach, reach < 0 ? low : high))
            return false;
    }
    int64_t limit = INT64_MAX / 2 / (int64_t)element;
    return *low > -limit && *high < limit;
}

/* A packed host copy of a view that is strided, misaligned or on a CUDA device. */
static featinv_status copy_view(void **owned, const featinv_tensor *tensor, const char *what,
                                size_t element, size_t bytes) {
    featinv_status status = FEATINV_OK;
    uint8_t *staging = NULL, *packed = NULL;
    const uint8_t *first = first_byte(tensor);
    bool contiguous = is_contiguous(tensor);
    int64_t low = 0, high = 0;
    if (tensor->ndim > FEATINV_MAX_DIMS || !span(&low, &high, tensor, element))
        return fi_fail(FEATINV_ERROR_SHAPE, "%s: the strides of this tensor are not supported",
                       what);
    packed = malloc(bytes);
    if (!packed)
        return fi_fail_memory(bytes);
    if (tensor->device_type == CUDA) {
        size_t reach = contiguous ? bytes : (size_t)(high - low + 1) * element;
        const uint8_t *from = first + low * (int64_t)element;
        staging = contiguous ? packed : malloc(reach);
        if (!staging) {
            status = fi_fail_memory(reach);
            goto done;
        }
        status = fi_backend_download(staging, from, reach, tensor->device_id);
        if (status)
            goto done;
        first = staging - low * (int64_t)element;
    } else if (contiguous) {
        memcpy(packed, first, bytes);
    }
    if (!contiguous)
        pack(packed, first, tensor, element, bytes);
    *owned = packed;
    packed = NULL;
done:
    if (staging != packed && staging != *owned)
        free(staging);
    free(packed);
    return status;
}

featinv_status fi_tensor_input(const void **data, void **owned, const featinv_tensor *tensor,
                               const char *what, featinv_dtype dtype, int32_t ndim,
                               const int64_t *shape) {
    *data = NULL;
    *owned = NULL;
    size_t bytes;
    featinv_status status = check_view(&bytes, tensor, what, dtype, ndim, shape);
    if (status)
        return status;
    if (!is_host(tensor) && tensor->device_type != CUDA)
        return fail_device(tensor, what);
    if (bytes == 0 ||
        (is_host(tensor) && is_contiguous(tensor) && is_aligned(first_byte(tensor), dtype))) {
        *data = first_byte(tensor);
        return FEATINV_OK;
    }
    status = copy_view(owned, tensor, what, fi_dtype_size(dtype), bytes);
    *data = *owned;
    return status;
}

/* ---------------------------------------------------------------- values --------------------- */

featinv_status fi_check_finite(const float *values, size_t count, const char *what) {
    const uint32_t exponent = 0x7f800000u;
    for (size_t block = 0; block < count; block += 4096) {
        size_t end = count - block < 4096 ? count : block + 4096;
        uint32_t bad = 0;
        for (size_t i = block; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            bad |= (bits & exponent) == exponent;
        }
        for (size_t i = block; bad && i < end; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            if ((bits & exponent) == exponent)
                return fi_fail(FEATINV_ERROR_VALUE, "%s: %s at element %zu", what,
                               bits & 0x7fffffu ? "NaN" : "infinity", i);
        }
    }
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- public --------------------- */

featinv_tensor featinv_tensor_view(void *data, featinv_dtype dtype, int32_t ndim, int64_t *shape) {
    featinv_tensor view = {0};
    bool is_known = known(dtype);
    view.data = data;
    view.device_type = CPU;
    view.ndim = ndim;
    view.dtype_code = is_known ? dtypes[dtype].code : 0;
    view.dtype_bits = is_known ? dtypes[dtype].bits : 0;
    view.dtype_lanes = 1;
    view.shape = shape;
    return view;
}

/* DLManagedTensor of DLPack; DLTensor has the layout of featinv_tensor. */
typedef struct managed {
    featinv_tensor tensor;
    void *context;
    void (*deleter)(struct managed *self);
} managed;

/* What to_dlpack hands out: the public struct first, so that its deleter finds the rest. */
typedef struct exported {
    managed base;
    void *owner;
    void (*release)(void *owner);
    int64_t extents[]; /* shape, then strides */
} exported;

featinv_status featinv_tensor_from_dlpack(featinv_tensor *out, const void *dl_managed_tensor) {
    if (!out || !dl_managed_tensor)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the DLPack tensor is NULL");
    featinv_tensor view = ((const managed *)dl_managed_tensor)->tensor;
    if (view.ndim < 0 || (view.ndim > 0 && !view.shape))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the DLPack tensor has no valid shape");
    if (fi_tensor_dtype(&view) == FEATINV_DTYPE_NONE)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED,
                       "DLPack type code %d, %d bits, %d lanes is not supported", view.dtype_code,
                       view.dtype_bits, view.dtype_lanes);
    if (view.device_type == CUDA_HOST)
        view.device_type = CPU; /* pinned memory is host memory */
    if (view.device_type != CPU && view.device_type != CUDA)
        return fi_fail(FEATINV_ERROR_UNSUPPORTED, "DLPack device type %d is not supported",
                       (int)view.device_type);
    *out = view;
    return FEATINV_OK;
}

static void delete_exported(managed *self) {
    if (!self)
        return;
    exported *whole = self->context;
    if (whole->release)
        whole->release(whole->owner);
    free(whole);
}

featinv_status featinv_tensor_to_dlpack(void **dl_managed_tensor, const featinv_tensor *tensor,
                                        void *owner, void (*release)(void *owner)) {
    if (!dl_managed_tensor || !tensor)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the tensor to export is NULL");
    *dl_managed_tensor = NULL;
    int32_t ndim = tensor->ndim;
    if (ndim < 0 || ndim > 64 || (ndim > 0 && !tensor->shape))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the tensor to export has no valid shape");
    size_t bytes;
    if (!fi_checked_size(&bytes, tensor->shape, ndim, 1))
        return fi_fail(FEATINV_ERROR_SHAPE, "the shape to export is negative or too large");

    size_t size = sizeof(exported) + 2 * (size_t)ndim * sizeof(int64_t);
    exported *whole = calloc(1, size);
    if (!whole)
        return fi_fail_memory(size);
    int64_t *shape = whole->extents, *strides = whole->extents + ndim;
    int64_t step = 1;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        shape[i] = tensor->shape[i];
        strides[i] = tensor->strides ? tensor->strides[i] : step;
        step *= shape[i] > 0 ? shape[i] : 1;
    }
    whole->base.tensor = *tensor;
    whole->base.tensor.shape = shape;
    whole->base.tensor.strides = strides;
    whole->base.context = whole;
    whole->base.deleter = delete_exported;
    whole->owner = owner;
    whole->release = release;
    *dl_managed_tensor = &whole->base;
    return FEATINV_OK;
}
