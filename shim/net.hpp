/* The programs and weights of one bundle on one device. */
#ifndef FI_SHIM_NET_HPP
#define FI_SHIM_NET_HPP

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/interpreter.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend.h"

namespace featinv {

/* A parameter or float buffer that a program leaves to the weights file. */
struct External {
    std::string key;
    std::vector<std::int64_t> shape;
    bool parameter = false;
};

struct Weight {
    std::vector<std::int64_t> shape;
    at::Tensor raw;           /* as stored, while the core reads into it */
    at::Tensor value;         /* in the net's dtype on its device */
    std::uint32_t wanted = 0; /* bits of the programs that are loaded, not finished */
};

/* A method of a program, inlined, with its weights in place of the module's attributes. */
struct Method {
    torch::jit::Code code;
    bool takes_module = false; /* something in it could not be taken out of the module */
};

struct Program {
    int number = 0;
    torch::jit::Module module;
    std::vector<External> externals;
    std::map<std::string, Method> methods; /* filled by program_finish */
    std::int64_t context_width = 0;        /* D of the method `context`; 0: unknown */

    /* Thread-safe once finished. Fails with UNSUPPORTED where the program has no such method. */
    c10::IValue run(const char *method, std::vector<c10::IValue> arguments) const;
};

const char *program_name(int number);

/* Whether a program's convolutions and linear layers use re-laid weights and channels-last
 * activations. Not the hint and latent encoders': group normalisation in that layout sums squares
 * in one pass, which costs them digits that their tolerances want, and they run once per map. */
bool packs(const fi_net &net, int number);

/* What a program computes in: the net's dtype, but float64 for a float32 hint encoder on a CPU. It
 * runs once per map, so it costs next to nothing there, and float32 convolutions of a thousand
 * channels round by 4e-6 there, depending on the processor. */
at::ScalarType dtype_of(const fi_net &net, int number);

/* Reads a program; its weights stay placeholders. */
std::unique_ptr<Program> load_program(int number, const void *bytes, std::size_t size);

} // namespace featinv

struct fi_net {
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;
    bool packs = false; /* this device and dtype gain from it, and nobody forbade it */
    /* Weights stay in `weights` and in the modules, and tensors are made outside of inference mode,
     * whose tensors autograd refuses. */
    bool training = false;
    std::array<std::unique_ptr<featinv::Program>, FI_PROGRAM_COUNT> programs;
    std::unordered_map<std::string, featinv::Weight> weights;

    struct Shapes {
        std::vector<std::int64_t> hint;
        std::vector<std::vector<std::int64_t>> residuals;
    };
    std::mutex shapes_lock;
    std::map<std::vector<std::int64_t>, Shapes> shapes; /* by latent and map */

    /* A finished program; fails with UNSUPPORTED where the bundle has none. */
    const featinv::Program &program(int number) const;
};

namespace featinv {

/* Entries of the table. */
int net_create(fi_net **out, std::int32_t device_type, std::int32_t index, std::int32_t dtype,
               std::int32_t training);
void net_destroy(fi_net *net);
int program_load(fi_net *net, std::int32_t program, const void *bytes, std::size_t size);
int program_tensor_count(fi_net *net, std::int32_t program, std::int64_t *count);
int program_tensor(fi_net *net, std::int32_t program, std::int64_t index, const char **key,
                   const std::int64_t **shape, std::int32_t *ndim);
int weight_memory(fi_net *net, const char *key, std::int32_t dtype, void **memory,
                  std::size_t bytes);
int weight_done(fi_net *net, const char *key);
int program_finish(fi_net *net, std::int32_t program);

} // namespace featinv

#endif
