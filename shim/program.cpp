/* Loading: programs, their external tensors, weights. */
#include "net.hpp"

#include <torch/csrc/jit/serialization/import.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include "device.hpp"
#include "guard.hpp"
#include "pack.hpp"
#include "rewrite.hpp"

namespace featinv {

namespace {

Program &loaded(fi_net *net, std::int32_t number) {
    if (number < 0 || number >= FI_PROGRAM_COUNT || !net->programs[number])
        fail(FEATINV_ERROR_INTERNAL, "program %d is not loaded", number);
    return *net->programs[number];
}

void add_external(std::vector<External> &externals, const std::string &key,
                  const at::Tensor &tensor, bool parameter) {
    if (tensor.is_floating_point())
        externals.push_back({key, tensor.sizes().vec(), parameter});
}

} // namespace

const char *program_name(int number) {
    static const char *const names[FI_PROGRAM_COUNT] = {
        "backbone.ts", "head.ts", "hint.ts", "control.ts", "unet.ts", "encoder.ts", "decoder.ts"};
    return number >= 0 && number < FI_PROGRAM_COUNT ? names[number] : "unknown program";
}

bool packs(const fi_net &net, int number) {
    return net.packs && number != FI_PROGRAM_HINT && number != FI_PROGRAM_ENCODER;
}

at::ScalarType dtype_of(const fi_net &net, int number) {
    const bool exact = number == FI_PROGRAM_HINT && net.dtype == at::kFloat &&
                       net.device.is_cpu() && !net.training;
    return exact ? at::kDouble : net.dtype;
}

std::unique_ptr<Program> load_program(int number, const void *bytes, std::size_t size) {
    auto program = std::make_unique<Program>();
    program->number = number;
    std::istringstream stream(std::string(static_cast<const char *>(bytes), size));
    try {
        program->module = torch::jit::load(stream, at::Device(at::kCPU));
    } catch (const c10::OutOfMemoryError &) {
        throw;
    } catch (const std::exception &error) {
        fail(FEATINV_ERROR_BUNDLE, "%s is not a TorchScript program: %s", program_name(number),
             first_line(error.what()).c_str());
    }
    program->module.eval();
    for (const auto &entry : program->module.named_parameters())
        add_external(program->externals, entry.name, entry.value, /*parameter=*/true);
    for (const auto &entry : program->module.named_buffers())
        add_external(program->externals, entry.name, entry.value, /*parameter=*/false);
    return program;
}

c10::IValue Program::run(const char *method, std::vector<c10::IValue> arguments) const {
    const auto found = methods.find(method);
    if (found == methods.end())
        fail(FEATINV_ERROR_BUNDLE, "%s has no method %s", program_name(number), method);
    torch::jit::Stack stack;
    stack.reserve(arguments.size() + 1);
    if (found->second.takes_module)
        stack.push_back(module._ivalue());
    for (auto &argument : arguments)
        stack.push_back(std::move(argument));
    arguments.clear();
    if (stack.size() != found->second.code.num_inputs())
        fail(FEATINV_ERROR_BUNDLE, "%s: method %s takes %zu arguments, expected %zu",
             program_name(number), method, found->second.code.num_inputs(), stack.size());
    torch::jit::InterpreterState(found->second.code).run(stack);
    if (stack.size() != 1)
        fail(FEATINV_ERROR_BUNDLE, "%s: method %s gives %zu results", program_name(number), method,
             stack.size());
    return std::move(stack.front());
}

int net_create(fi_net **out, std::int32_t device_type, std::int32_t index, std::int32_t dtype,
               std::int32_t training) {
    return guarded([&] {
        *out = nullptr;
        auto net = std::make_unique<fi_net>();
        net->device = open_device(device_type, index);
        net->dtype = scalar_type(dtype);
        if (net->dtype == at::kDouble || (net->dtype == at::kHalf && !net->device.is_cuda()))
            fail(FEATINV_ERROR_ARGUMENT, "%s needs a CUDA device",
                 net->dtype == at::kHalf ? "dtype fp16" : "dtype f64");
        net->training = training != 0;
        if (net->training && net->dtype != at::kFloat)
            fail(FEATINV_ERROR_ARGUMENT, "a net for training is fp32");
        net->packs = !net->training && can_pack(net->device, net->dtype);
        /* A convolution may not quietly keep ten bits of the mantissa. Process-wide in libtorch. */
        if (net->device.is_cuda() && net->dtype == at::kFloat)
            at::globalContext().setAllowTF32CuDNN(false);
        *out = net.release();
    });
}

void net_destroy(fi_net *net) {
    if (!net)
        return;
    guarded([&] {
        const at::Device device = net->device;
        const OnDevice current(device);
        delete net;
        trim(device);
    });
}

int program_load(fi_net *net, std::int32_t number, const void *bytes, std::size_t size) {
    return guarded([&] {
        if (number < 0 || number >= FI_PROGRAM_COUNT)
            fail(FEATINV_ERROR_INTERNAL, "no such program: %d", number);
        const c10::InferenceMode inference(!net->training);
        auto program = load_program(number, bytes, size);
        for (const External &external : program->externals) {
            Weight &weight = net->weights[external.key];
            if (weight.wanted && weight.shape != external.shape)
                fail(FEATINV_ERROR_BUNDLE, "%s wants %s as %s, another program as %s",
                     program_name(number), external.key.c_str(), shape_text(external.shape).c_str(),
                     shape_text(weight.shape).c_str());
            weight.shape = external.shape;
            weight.wanted |= 1u << number;
        }
        net->programs[number] = std::move(program);
    });
}

int program_tensor_count(fi_net *net, std::int32_t number, std::int64_t *count) {
    return guarded([&] {
        const auto &externals = loaded(net, number).externals;
        *count = static_cast<std::int64_t>(externals.size());
    });
}

int program_tensor(fi_net *net, std::int32_t number, std::int64_t index, const char **key,
                   const std::int64_t **shape, std::int32_t *ndim) {
    return guarded([&] {
        const auto &externals = loaded(net, number).externals;
        if (index < 0 || index >= static_cast<std::int64_t>(externals.size()))
            fail(FEATINV_ERROR_INTERNAL, "%s has no tensor %lld", program_name(number),
                 static_cast<long long>(index));
        const External &external = externals[static_cast<std::size_t>(index)];
        *key = external.key.c_str();
        *shape = external.shape.data();
        *ndim = static_cast<std::int32_t>(external.shape.size());
    });
}

int weight_memory(fi_net *net, const char *key, std::int32_t dtype, void **memory,
                  std::size_t bytes) {
    return guarded([&] {
        *memory = nullptr;
        const auto found = net->weights.find(key);
        if (found == net->weights.end() || !found->second.wanted)
            return;
        const c10::InferenceMode inference(!net->training);
        Weight &weight = found->second;
        weight.raw = at::empty(weight.shape, at::dtype(scalar_type(dtype)));
        if (weight.raw.nbytes() != bytes)
            fail(FEATINV_ERROR_BUNDLE, "%s: %zu bytes, the program wants %s, %zu bytes", key, bytes,
                 shape_text(weight.shape).c_str(), weight.raw.nbytes());
        /* Also of an empty tensor: NULL means that nobody wants it. */
        static char nothing;
        *memory = bytes ? weight.raw.mutable_data_ptr() : &nothing;
    });
}

int weight_done(fi_net *net, const char *key) {
    return guarded([&] {
        const auto found = net->weights.find(key);
        if (found == net->weights.end() || !found->second.raw.defined())
            fail(FEATINV_ERROR_INTERNAL, "%s was not asked for", key);
        const c10::InferenceMode inference(!net->training);
        Weight &weight = found->second;
        const OnDevice current(net->device);
        const bool hint_alone = weight.wanted == 1u << FI_PROGRAM_HINT;
        weight.value =
            weight.raw.to(net->device, hint_alone ? dtype_of(*net, FI_PROGRAM_HINT) : net->dtype);
        if (net->device.is_cuda() && weight.value.dim() == 4)
            weight.value = weight.value.contiguous(at::MemoryFormat::ChannelsLast);
        weight.raw.reset();
    });
}

int program_finish(fi_net *net, std::int32_t number) {
    return guarded([&] {
        Program &program = loaded(net, number);
        for (const External &external : program.externals)
            if (!net->weights.at(external.key).value.defined())
                fail(FEATINV_ERROR_BUNDLE, "the weights hold no %s, which %s needs",
                     external.key.c_str(), program_name(number));
        const OnDevice current(net->device);
        const c10::InferenceMode inference(!net->training);
        if (net->training)
            keep_program(*net, program);
        else
            lower_program(*net, program);
        trim(net->device);
    });
}

} // namespace featinv

const featinv::Program &fi_net::program(int number) const {
    const auto &program = programs[number];
    if (!program || program->methods.empty())
        featinv::fail(FEATINV_ERROR_UNSUPPORTED, "the bundle has no %s",
                      featinv::program_name(number));
    return *program;
}
