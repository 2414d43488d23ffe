/* Dense linear algebra, so that the core links no BLAS. */
#include "linalg.hpp"

#include <ATen/ATen.h>

#include "device.hpp"
#include "guard.hpp"

struct fi_operand {
    at::Device device;
    at::Tensor rows; /* on the CPU a view of the caller's memory */
};

namespace featinv {

namespace {

at::Tensor matrix(const double *data, std::int64_t rows, std::int64_t columns) {
    if (rows < 0 || columns < 0)
        fail(FEATINV_ERROR_ARGUMENT, "a matrix of %lld by %lld", static_cast<long long>(rows),
             static_cast<long long>(columns));
    return at::from_blob(const_cast<double *>(data), {rows, columns}, at::dtype(at::kDouble));
}

} // namespace

int gemm(double *c, const double *a, const double *b, std::int64_t m, std::int64_t n,
         std::int64_t k, std::int32_t transpose_a, std::int32_t transpose_b) {
    return guarded([&] {
        const at::Tensor left = transpose_a ? matrix(a, k, m).t() : matrix(a, m, k);
        const at::Tensor right = transpose_b ? matrix(b, n, k).t() : matrix(b, k, n);
        at::Tensor out = matrix(c, m, n);
        at::mm_out(out, left, right);
    });
}

int eigh(double *values, double *vectors, const double *a, std::int64_t n) {
    return guarded([&] {
        const auto [found, basis] = at::linalg_eigh(matrix(a, n, n));
        matrix(values, 1, n).copy_(found.unsqueeze(0));
        if (vectors)
            matrix(vectors, n, n).copy_(basis);
    });
}

int singular_values(double *values, const double *a, std::int64_t m, std::int64_t n) {
    return guarded([&] {
        const at::Tensor found = at::linalg_svdvals(matrix(a, m, n));
        matrix(values, 1, found.size(0)).copy_(found.unsqueeze(0));
    });
}

int cholesky(double *factor, std::int32_t *ok, const double *a, std::int64_t n) {
    return guarded([&] {
        const auto [lower, info] = at::linalg_cholesky_ex(matrix(a, n, n));
        *ok = info.item<int>() == 0;
        if (*ok)
            matrix(factor, n, n).copy_(lower);
    });
}

int operand_create(fi_operand **out, std::int32_t device_type, std::int32_t index,
                   const float *rows, std::int64_t n, std::int64_t d) {
    return guarded([&] {
        const at::Device device = open_device(device_type, index);
        const OnDevice current(device);
        *out = new fi_operand{device, from_host(rows, {n, d}, device, at::kFloat)};
    });
}

int operand_multiply(fi_operand *operand, float *out, std::int64_t stride, const float *a,
                     std::int64_t a_first, std::int64_t m, std::int64_t first, std::int64_t count) {
    return guarded([&] {
        const OnDevice current(operand->device);
        const at::Tensor left =
            a ? from_host(a, {m, operand->rows.size(1)}, operand->device, at::kFloat)
              : operand->rows.narrow(0, a_first, m);
        const at::Tensor right = operand->rows.narrow(0, first, count).t();
        at::Tensor host = at::from_blob(out, {m, count}, {stride, 1}, at::dtype(at::kFloat));
        if (operand->device.is_cpu())
            at::mm_out(host, left, right);
        else
            host.copy_(at::mm(left, right));
    });
}

void operand_destroy(fi_operand *operand) {
    if (!operand)
        return;
    const at::Device device = operand->device;
    (void)guarded([&] {
        delete operand;
        trim(device);
    });
}

} // namespace featinv
