#include "forward.hpp"

#include <algorithm>
#include <cmath>

#include "device.hpp"
#include "guard.hpp"

namespace featinv {

namespace {

std::vector<std::int64_t> batch_of(std::int64_t n, const std::int64_t shape[3]) {
    return {n, shape[0], shape[1], shape[2]};
}

void require_shape(const Program &program, const at::Tensor &tensor, at::IntArrayRef shape) {
    bool same = tensor.dim() == static_cast<std::int64_t>(shape.size());
    for (std::size_t i = 0; same && i < shape.size(); i++)
        same = shape[i] == -1 || tensor.size(static_cast<std::int64_t>(i)) == shape[i];
    if (!same)
        fail(FEATINV_ERROR_BUNDLE, "%s gave %s, expected %s", program_name(program.number),
             shape_text(tensor.sizes()).c_str(), shape_text(shape).c_str());
}

std::vector<at::Tensor> tensors_of(const Program &program, const c10::IValue &value) {
    if (value.isTensorList())
        return value.toTensorVector();
    std::vector<at::Tensor> tensors;
    if (!value.isTuple())
        fail(FEATINV_ERROR_BUNDLE, "%s did not give a tuple of tensors",
             program_name(program.number));
    for (const c10::IValue &element : value.toTupleRef().elements()) {
        if (!element.isTensor())
            fail(FEATINV_ERROR_BUNDLE, "%s did not give a tuple of tensors",
                 program_name(program.number));
        tensors.push_back(element.toTensor());
    }
    return tensors;
}

/* Two results of shapes (n, …) and (n, …), copied to the host where wanted. */
void run_pair(const fi_net &net, int number, const float *input, at::IntArrayRef input_shape,
              float *first, at::IntArrayRef first_shape, float *second,
              at::IntArrayRef second_shape) {
    const Program &program = net.program(number);
    const OnDevice current(net.device);
    const at::Tensor x = from_host(input, input_shape, net.device, net.dtype);
    const auto results = tensors_of(program, program.run("forward", {activation(net, number, x)}));
    if (results.size() != 2)
        fail(FEATINV_ERROR_BUNDLE, "%s gave %zu results, expected 2", program_name(number),
             results.size());
    if (first) {
        require_shape(program, results[0], first_shape);
        to_host(first, results[0]);
    }
    if (second) {
        require_shape(program, results[1], second_shape);
        to_host(second, results[1]);
    }
}

/* 127.5 x + 127.5 in two float32 roundings, as published; a fused multiply-add differs. */
at::Tensor to_bytes(const at::Tensor &images, bool legacy) {
    const at::Tensor levels = images.mul(127.5).add(127.5).clamp(0, 255);
    if (!levels.isfinite().all().item<bool>())
        fail(FEATINV_ERROR_COMPUTE, "the decoder gave values that are not finite");
    return (legacy ? levels.trunc() : levels.round()).to(at::kByte).permute({0, 2, 3, 1});
}

/* Latents that go through the decoder together: its activations at the image's size are large, and
 * one image already fills a CPU. */
std::int64_t decode_batch(const fi_net &net) {
    return net.device.is_cuda() ? 8 : 1;
}

} // namespace

at::Tensor activation(const fi_net &net, int program, const at::Tensor &tensor) {
    const at::Tensor converted = tensor.to(dtype_of(net, program));
    if (converted.dim() != 4 || !(packs(net, program) || net.device.is_cuda()))
        return converted;
    return converted.contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor run_tensor(const Program &program, const char *method,
                      std::vector<c10::IValue> arguments, at::IntArrayRef shape) {
    const c10::IValue result = program.run(method, std::move(arguments));
    if (!result.isTensor())
        fail(FEATINV_ERROR_BUNDLE, "%s: method %s did not give a tensor",
             program_name(program.number), method);
    if (!shape.empty())
        require_shape(program, result.toTensor(), shape);
    return result.toTensor();
}

std::vector<at::Tensor> run_control(const fi_net &net, const at::Tensor &x, const at::Tensor &bank,
                                    const at::Tensor &kv, const at::Tensor &hint) {
    const Program &program = net.program(FI_PROGRAM_CONTROL);
    return tensors_of(program, program.run("step", {x, bank, kv, hint}));
}

at::Tensor run_unet(const fi_net &net, const at::Tensor &x, const at::Tensor &bank,
                    const at::Tensor &kv, const std::vector<at::Tensor> &residuals) {
    return run_tensor(net.program(FI_PROGRAM_UNET), "step",
                      {x, bank, kv, c10::List<at::Tensor>(residuals)}, x.sizes())
        .to(at::kFloat);
}

at::Tensor run_hint(const fi_net &net, const at::Tensor &maps, bool pooled,
                    const std::int64_t *latent) {
    const std::int64_t height = latent ? latent[1] : -1, width = latent ? latent[2] : -1;
    const at::Tensor input = pooled ? maps.mean({2, 3}, true).expand_as(maps) : maps;
    return run_tensor(net.program(FI_PROGRAM_HINT), "forward",
                      {activation(net, FI_PROGRAM_HINT, input)}, {maps.size(0), -1, height, width})
        .to(net.dtype);
}

std::vector<double> control_factors(const double *strengths, std::int32_t strength_count,
                                    std::size_t count, bool guess_mode, double strength) {
    if (strengths && static_cast<std::size_t>(strength_count) != count)
        fail(FEATINV_ERROR_ARGUMENT, "%d control strengths, the ControlNet has %zu residuals",
             strength_count, count);
    std::vector<double> factors(count, strength);
    for (std::size_t i = 0; i < count; i++) {
        if (strengths)
            factors[i] *= strengths[i];
        else if (guess_mode)
            factors[i] *= std::pow(0.825, static_cast<double>(count - 1 - i));
    }
    return factors;
}

void scale_residuals(std::vector<at::Tensor> &residuals, const std::vector<double> &factors) {
    for (std::size_t i = 0; i < residuals.size(); i++)
        if (factors[i] != 1.0)
            residuals[i] = residuals[i].mul(factors[i]);
}

void decode_to_host(const fi_net &net, std::uint8_t *bytes, float *floats, bool legacy,
                    const at::Tensor &latents, const std::int64_t image[3]) {
    const Program &program = net.program(FI_PROGRAM_DECODER);
    const std::int64_t size = image[0] * image[1] * image[2];
    for (std::int64_t begin = 0; begin < latents.size(0); begin += decode_batch(net)) {
        const std::int64_t count = std::min(decode_batch(net), latents.size(0) - begin);
        const at::Tensor z = activation(net, FI_PROGRAM_DECODER, latents.narrow(0, begin, count));
        const at::Tensor images =
            run_tensor(program, "forward", {z}, batch_of(count, image)).to(at::kFloat);
        if (bytes)
            to_host(bytes + begin * size, to_bytes(images, legacy), at::kByte);
        if (floats)
            to_host(floats + begin * size, images);
    }
}

int backbone(fi_net *net, float *maps, float *logits, const float *images, std::int64_t n,
             const std::int64_t image[3], const std::int64_t map[3], std::int64_t classes) {
    return guarded([&] {
        run_pair(*net, FI_PROGRAM_BACKBONE, images, batch_of(n, image), maps, batch_of(n, map),
                 logits, {n, classes});
    });
}

int head(fi_net *net, float *logits, const float *maps, std::int64_t n, const std::int64_t map[3],
         std::int64_t classes) {
    return guarded([&] {
        const OnDevice current(net->device);
        const at::Tensor x = from_host(maps, batch_of(n, map), net->device, net->dtype);
        to_host(logits, run_tensor(net->program(FI_PROGRAM_HEAD), "forward", {x}, {n, classes}));
    });
}

int encode(fi_net *net, float *mean, float *logvar, const float *images, std::int64_t n,
           const std::int64_t image[3], const std::int64_t latent[3]) {
    return guarded([&] {
        run_pair(*net, FI_PROGRAM_ENCODER, images, batch_of(n, image), mean, batch_of(n, latent),
                 logvar, batch_of(n, latent));
    });
}

int decode(fi_net *net, std::uint8_t *bytes, float *floats, std::int32_t legacy,
           const float *latents, std::int64_t n, const std::int64_t latent[3],
           const std::int64_t image[3]) {
    return guarded([&] {
        const OnDevice current(net->device);
        const at::Tensor z = from_host(latents, batch_of(n, latent), net->device, at::kFloat);
        decode_to_host(*net, bytes, floats, legacy != 0, z, image);
    });
}

int denoise(fi_net *net, float *prediction, float *hint, std::int64_t hint_size,
            float *const *residuals, const std::int64_t *residual_sizes,
            std::int32_t residual_count, const float *x, const std::int64_t *t,
            const float *context, std::int64_t context_rows, std::int64_t context_dim,
            const float *maps, std::int64_t n, const std::int64_t latent[3],
            const std::int64_t map[3], std::int32_t pooled, const double *strengths,
            std::int32_t strength_count, std::int32_t no_control) {
    return guarded([&] {
        const OnDevice current(net->device);
        at::Tensor encoded;
        if (hint || !no_control)
            encoded = run_hint(*net, from_host(maps, batch_of(n, map), net->device, at::kFloat),
                               pooled != 0);
        if (hint) {
            if (encoded.numel() != hint_size)
                fail(FEATINV_ERROR_SHAPE, "the encoded hint is %s, the output holds %lld values",
                     shape_text(encoded.sizes()).c_str(), static_cast<long long>(hint_size));
            to_host(hint, encoded);
        }
        if (!x)
            return;
        const at::Tensor latents = activation(
            *net, FI_PROGRAM_UNET, from_host(x, batch_of(n, latent), net->device, at::kFloat));
        const at::Tensor times =
            from_host(t, {n}, at::kLong, net->device, at::kLong).to(at::kFloat);
        const at::Tensor prompts =
            from_host(context, {n, context_rows, context_dim}, net->device, net->dtype);
        std::vector<at::Tensor> outputs;
        if (!no_control) {
            const Program &control = net->program(FI_PROGRAM_CONTROL);
            outputs = run_control(*net, latents, run_tensor(control, "time", {times}),
                                  run_tensor(control, "context", {prompts}), encoded);
        }
        if (residual_count && static_cast<std::size_t>(residual_count) != outputs.size())
            fail(FEATINV_ERROR_ARGUMENT, "%d residual outputs, the ControlNet gives %zu",
                 residual_count, outputs.size());
        for (std::size_t i = 0; i < static_cast<std::size_t>(residual_count); i++) {
            if (!residuals[i])
                continue;
            if (outputs[i].numel() != residual_sizes[i])
                fail(FEATINV_ERROR_SHAPE, "residual %zu is %s, the output holds %lld values", i,
                     shape_text(outputs[i].sizes()).c_str(),
                     static_cast<long long>(residual_sizes[i]));
            to_host(residuals[i], outputs[i]);
        }
        if (!prediction)
            return;
        if (!no_control)
            scale_residuals(outputs, control_factors(strengths, strength_count, outputs.size(),
                                                     /*guess_mode=*/false, /*strength=*/1.0));
        const Program &unet = net->program(FI_PROGRAM_UNET);
        to_host(prediction, run_unet(*net, latents, run_tensor(unet, "time", {times}),
                                     run_tensor(unet, "context", {prompts}), outputs));
    });
}

namespace {

/* The shapes depend on nothing but sizes; zeros give them. */
fi_net::Shapes find_shapes(const fi_net &net, const std::int64_t latent[3],
                           const std::int64_t map[3]) {
    const Program &control = net.program(FI_PROGRAM_CONTROL);
    if (control.context_width < 1)
        fail(FEATINV_ERROR_UNSUPPORTED, "%s does not show the width of its context",
             program_name(FI_PROGRAM_CONTROL));
    const at::TensorOptions floats = at::dtype(at::kFloat).device(net.device);
    const at::Tensor hint = run_hint(net, at::zeros(batch_of(1, map), floats), false);
    const at::Tensor x =
        activation(net, FI_PROGRAM_CONTROL, at::zeros(batch_of(1, latent), floats));
    const at::Tensor context = at::zeros({1, 1, control.context_width}, floats).to(net.dtype);
    fi_net::Shapes shapes;
    shapes.hint = hint.sizes().slice(1).vec();
    for (const at::Tensor &residual :
         run_control(net, x, run_tensor(control, "time", {at::zeros({1}, floats)}),
                     run_tensor(control, "context", {context}), hint)) {
        require_shape(control, residual, {1, -1, -1, -1});
        shapes.residuals.push_back(residual.sizes().slice(1).vec());
    }
    return shapes;
}

} // namespace

int residual_shapes(fi_net *net, std::int64_t hint_shape[3], std::int64_t (*shapes)[3],
                    std::int32_t capacity, std::int32_t *count, const std::int64_t latent[3],
                    const std::int64_t map[3]) {
    return guarded([&] {
        const OnDevice current(net->device);
        const std::vector<std::int64_t> key = {latent[0], latent[1], latent[2],
                                               map[0],    map[1],    map[2]};
        const std::lock_guard lock(net->shapes_lock);
        auto found = net->shapes.find(key);
        if (found == net->shapes.end())
            found = net->shapes.emplace(key, find_shapes(*net, latent, map)).first;
        const auto &residuals = found->second.residuals;
        *count = static_cast<std::int32_t>(residuals.size());
        if (hint_shape)
            std::copy(found->second.hint.begin(), found->second.hint.end(), hint_shape);
        if (!shapes)
            return;
        if (capacity < *count)
            fail(FEATINV_ERROR_CAPACITY, "room for %d residual shapes, there are %d", capacity,
                 *count);
        for (std::size_t i = 0; i < residuals.size(); i++)
            std::copy(residuals[i].begin(), residuals[i].end(), shapes[i]);
    });
}

} // namespace featinv
