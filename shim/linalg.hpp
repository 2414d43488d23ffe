/* Dense linear algebra of the backend's table. */
#ifndef FI_SHIM_LINALG_HPP
#define FI_SHIM_LINALG_HPP

#include <cstdint>

#include "backend.h"

namespace featinv {

int gemm(double *c, const double *a, const double *b, std::int64_t m, std::int64_t n,
         std::int64_t k, std::int32_t transpose_a, std::int32_t transpose_b);
int eigh(double *values, double *vectors, const double *a, std::int64_t n);
int singular_values(double *values, const double *a, std::int64_t m, std::int64_t n);
int cholesky(double *factor, std::int32_t *ok, const double *a, std::int64_t n);
int operand_create(fi_operand **out, std::int32_t device_type, std::int32_t index,
                   const float *rows, std::int64_t n, std::int64_t d);
int operand_multiply(fi_operand *operand, float *out, std::int64_t stride, const float *a,
                     std::int64_t a_first, std::int64_t m, std::int64_t first, std::int64_t count);
void operand_destroy(fi_operand *operand);

} // namespace featinv

#endif
