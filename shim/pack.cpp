#include "pack.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/custom_operator.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <cstdlib>
#include <cstring>

#include "guard.hpp"

namespace featinv {

namespace {

/* The wheel exports no oneDNN symbols; its operators are reached by name. */
template <class Signature> auto operation(const char *name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

using Scalars = c10::List<std::optional<at::Scalar>>;

at::Tensor reorder_convolution(const at::Tensor &weight, const Packed::Geometry &geometry,
                               at::IntArrayRef input) {
    static const auto call =
        operation<at::Tensor(const at::Tensor &, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                             std::int64_t, at::OptionalIntArrayRef)>(
            "mkldnn::_reorder_convolution_weight");
    return call.call(weight, geometry.padding, geometry.stride, geometry.dilation, 1, input);
}

at::Tensor reorder_linear(const at::Tensor &weight, std::int64_t rows) {
    static const auto call = operation<at::Tensor(const at::Tensor &, std::optional<std::int64_t>)>(
        "mkldnn::_reorder_linear_weight");
    return call.call(weight, rows);
}

at::Tensor convolve(const at::Tensor &x, const at::Tensor &weight,
                    const std::optional<at::Tensor> &bias, const Packed::Geometry &geometry) {
    static const auto call = operation<at::Tensor(
        const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &, at::IntArrayRef,
        at::IntArrayRef, at::IntArrayRef, std::int64_t, std::string_view, Scalars,
        std::optional<std::string_view>)>("mkldnn::_convolution_pointwise");
    return call.call(x, weight, bias, geometry.padding, geometry.stride, geometry.dilation, 1,
                     "none", Scalars(), std::nullopt);
}

at::Tensor multiply(const at::Tensor &x, const at::Tensor &weight,
                    const std::optional<at::Tensor> &bias) {
    static const auto call = operation<at::Tensor(
        const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &, std::string_view,
        Scalars, std::optional<std::string_view>)>("mkldnn::_linear_pointwise");
    return call.call(x, weight, bias, "none", Scalars(), std::nullopt);
}

/* oneDNN's description of a packed weight, as bytes. */
at::Tensor description(const at::Tensor &packed) {
    static const auto call =
        operation<at::Tensor(const at::Tensor &)>("mkldnn::_get_mkldnn_serialized_md");
    return call.call(packed);
}

bool has_native(const char *name) {
    return operation<bool()>(name).call();
}

} // namespace

bool can_pack(const at::Device &device, at::ScalarType dtype) {
    const char *wish = std::getenv("FEATINV_PACK");
    if ((wish && std::strcmp(wish, "0") == 0) || !device.is_cpu() || !at::hasMKLDNN() ||
        !at::globalContext().userEnabledMkldnn())
        return false;
    return dtype == at::kFloat ||
           (dtype == at::kBFloat16 && has_native("mkldnn::_is_mkldnn_bf16_supported"));
}

Packed::Packed(at::Tensor weight, Geometry geometry)
    : geometry_(std::move(geometry)), dense_(std::move(weight)) {}

at::Tensor Packed::pack(const at::Tensor &dense, at::IntArrayRef input) const {
    return geometry_.stride.empty() ? reorder_linear(dense, input[0])
                                    : reorder_convolution(dense, geometry_, input);
}

at::Tensor Packed::layout_for(const at::Tensor &x) {
    const bool linear = geometry_.stride.empty();
    const std::int64_t rows = linear ? x.numel() / std::max<std::int64_t>(x.size(-1), 1) : 0;
    const at::IntArrayRef input = linear ? at::IntArrayRef(rows) : x.sizes();
    {
        const std::shared_lock reading(lock_);
        for (const Size &size : sizes_)
            if (input.equals(size.input))
                return layouts_[size.layout];
    }
    const std::unique_lock writing(lock_);
    for (const Size &size : sizes_)
        if (input.equals(size.input))
            return layouts_[size.layout];
    const at::Tensor dense = dense_.defined() ? dense_ : layouts_.front().to_dense();
    const at::Tensor packed = pack(dense, input);
    const at::Tensor wanted = description(packed);
    std::size_t layout = 0;
    while (layout < layouts_.size() && !at::equal(description(layouts_[layout]), wanted))
        layout++;
    if (layout == layouts_.size())
        layouts_.push_back(packed);
    sizes_.push_back({input.vec(), layout});
    dense_.reset();
    return layouts_[layout];
}

at::Tensor Packed::run(const at::Tensor &x, const std::optional<at::Tensor> &bias) {
    const bool linear = geometry_.stride.empty();
    if (!linear && x.dim() != 4)
        fail(FEATINV_ERROR_BUNDLE, "a convolution of a program was given %s",
             shape_text(x.sizes()).c_str());
    const at::Tensor weight = layout_for(x);
    return linear ? multiply(x, weight, bias) : convolve(x, weight, bias, geometry_);
}

const char *const packed_node = "featinv::packed";

void register_packed_node() {
    static const torch::jit::RegisterOperators once({torch::jit::Operator(
        c10::Symbol::fromQualString(packed_node),
        [](const torch::jit::Node *node) -> torch::jit::Operation {
            const auto packed = c10::static_intrusive_pointer_cast<Packed>(
                node->ival(c10::attr::value).toCapsule());
            return [packed](torch::jit::Stack &stack) {
                const auto bias = torch::jit::pop(stack).toOptional<at::Tensor>();
                const at::Tensor x = torch::jit::pop(stack).toTensor();
                stack.emplace_back(packed->run(x, bias));
            };
        },
        c10::AliasAnalysisKind::CONSERVATIVE)});
}

} // namespace featinv
