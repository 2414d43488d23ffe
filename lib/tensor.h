/* Checks on the borrowed tensor views that cross the public interface. */
#ifndef FI_TENSOR_H
#define FI_TENSOR_H

#include "featinv.h"

#include <stdbool.h>

/* Bytes of one element, 0 for an unknown dtype. */
size_t fi_dtype_size(featinv_dtype dtype);
/* "float32" and so on. */
const char *fi_dtype_name(featinv_dtype dtype);
/* The dtype of a view, FEATINV_DTYPE_NONE for one that has no name here. */
featinv_dtype fi_tensor_dtype(const featinv_tensor *tensor);
/* shape as "(2, 48, 9, 9)" into text. */
const char *fi_shape_text(char *text, size_t capacity, const int64_t *shape, int32_t ndim);
/* Product of n dimensions and a size; false on overflow or a negative dimension. */
bool fi_checked_size(size_t *bytes, const int64_t *shape, int32_t ndim, size_t element);

/* Checks that a view is a CPU, C-contiguous tensor of that dtype and shape (-1: any extent) and
 * returns its data. `what` names it in the error. */
featinv_status fi_tensor_data(void **data, const featinv_tensor *tensor, const char *what,
                              featinv_dtype dtype, int32_t ndim, const int64_t *shape);

/* As fi_tensor_data, but also takes strided and CUDA tensors: *owned is then a packed host copy to
 * free, else NULL. For inputs. */
featinv_status fi_tensor_input(const void **data, void **owned, const featinv_tensor *tensor,
                               const char *what, featinv_dtype dtype, int32_t ndim,
                               const int64_t *shape);

/* VALUE error naming the first NaN or infinity. */
featinv_status fi_check_finite(const float *values, size_t count, const char *what);

#endif
