/* The only exported function: checks the libtorch in the process and gives the table. */
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "backend.h"
#include "device.hpp"
#include "forward.hpp"
#include "guard.hpp"
#include "linalg.hpp"
#include "net.hpp"
#include "sampler.hpp"
#include "trainer.hpp"

namespace featinv {

namespace {

/* Version of the libtorch that is in the process, "" when it does not say. */
std::string loaded_version() {
    const std::string config = at::show_config();
    const std::string mark = "TORCH_VERSION=";
    const std::size_t begin = config.find(mark);
    if (begin == std::string::npos)
        return "";
    const std::size_t from = begin + mark.size();
    return config.substr(from, config.find_first_of(", \n", from) - from);
}

int describe(char *text, std::size_t capacity) {
    return guarded([&] {
        const std::string line = "libtorch " + loaded_version() + ", " + at::get_cpu_capability() +
                                 ", " + std::to_string(at::get_num_threads()) + " threads, " +
                                 cuda_text();
        std::snprintf(text, capacity, "%s", line.c_str());
    });
}

int count_cuda() {
    int count = 0;
    return guarded([&] { count = cuda_count(); }) == FEATINV_OK ? count : 0;
}

int device_open(std::int32_t type, std::int32_t index) {
    return guarded([&] { open_device(type, index); });
}

int set_threads(std::int32_t threads) {
    return guarded([&] {
        if (threads < 0)
            fail(FEATINV_ERROR_ARGUMENT, "%d threads", threads);
        if (threads > 0)
            at::set_num_threads(threads);
    });
}

int thread_count() {
    return at::get_num_threads();
}

/* Kernels without a deterministic form still run: forwards of the usual layers all have one. */
int set_deterministic(std::int32_t on) {
    return guarded([&] {
        at::Context &context = at::globalContext();
        context.setDeterministicAlgorithms(on != 0, /*warn_only=*/true);
        context.setDeterministicFillUninitializedMemory(false);
        context.setDeterministicCuDNN(on != 0);
        context.setBenchmarkCuDNN(false);
    });
}

int download(void *host, const void *device, std::size_t bytes, std::int32_t device_index) {
    return guarded([&] {
        const at::Device place = open_device(FI_DEVICE_CUDA, device_index);
        const OnDevice current(place);
        const auto size = static_cast<std::int64_t>(bytes);
        const at::Tensor there =
            at::from_blob(const_cast<void *>(device), {size}, at::dtype(at::kByte).device(place));
        at::from_blob(host, {size}, at::dtype(at::kByte)).copy_(there);
    });
}

const fi_backend table = {
    FI_BACKEND_ABI,
    sizeof(fi_backend),
    last_error,
    describe,
    count_cuda,
    device_open,
    set_threads,
    set_deterministic,
    net_create,
    net_destroy,
    program_load,
    program_tensor_count,
    program_tensor,
    weight_memory,
    weight_done,
    program_finish,
    backbone,
    head,
    encode,
    decode,
    denoise,
    residual_shapes,
    sampler_create,
    sampler_hints,
    sampler_start,
    sampler_step,
    sampler_latents,
    sampler_decode,
    sampler_destroy,
    trainer_create,
    trainer_count,
    trainer_tensor,
    trainer_forward,
    trainer_norm,
    trainer_update,
    trainer_clear,
    trainer_read,
    trainer_write,
    trainer_destroy,
    gemm,
    eigh,
    singular_values,
    cholesky,
    operand_create,
    operand_multiply,
    operand_destroy,
    thread_count,
    download,
};

} // namespace

} // namespace featinv

extern "C" __attribute__((visibility("default"))) const fi_backend *
fi_backend_table(char *error, std::size_t capacity) {
    using namespace featinv;
    bool matches = false;
    const int status = guarded([&] {
        const std::string loaded = loaded_version();
        matches = loaded == TORCH_VERSION;
        if (!matches)
            fail(FEATINV_ERROR_BACKEND, "built for libtorch %s, found %s", TORCH_VERSION,
                 loaded.empty() ? "one of an unknown version" : loaded.c_str());
    });
    if (status == FEATINV_OK && matches)
        return &table;
    if (error && capacity)
        std::snprintf(error, capacity, "%s", last_error());
    return nullptr;
}
