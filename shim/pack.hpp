/* Weights of convolutions and linear layers in the layout that oneDNN computes in.
 *
 * Left alone, oneDNN re-lays a weight at every call; for the deep layers of a diffusion network
 * that is half of the time. The best layout depends on the size of the input, so a weight is packed
 * when it first meets one, and again only where another size wants another layout. */
#ifndef FI_SHIM_PACK_HPP
#define FI_SHIM_PACK_HPP

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace featinv {

/* CPU with oneDNN, a dtype it multiplies in natively, and not FEATINV_PACK=0 in the environment. */
bool can_pack(const at::Device &device, at::ScalarType dtype);

class Packed : public torch::CustomClassHolder {
  public:
    /* A 2-d convolution; at a linear layer the vectors are empty. */
    struct Geometry {
        std::vector<std::int64_t> stride, padding, dilation;
        bool operator==(const Geometry &other) const {
            return stride == other.stride && padding == other.padding && dilation == other.dilation;
        }
    };

    Packed(at::Tensor weight, Geometry geometry);

    /* Thread-safe. x: (N, C, H, W), or (..., C) at a linear layer. */
    at::Tensor run(const at::Tensor &x, const std::optional<at::Tensor> &bias);

    const Geometry &geometry() const { return geometry_; }

  private:
    struct Size {
        std::vector<std::int64_t> input;
        std::size_t layout; /* index into layouts_ */
    };

    at::Tensor layout_for(const at::Tensor &x);
    at::Tensor pack(const at::Tensor &dense, at::IntArrayRef input) const;

    const Geometry geometry_;
    std::shared_mutex lock_;
    at::Tensor dense_;                /* until first packed */
    std::vector<at::Tensor> layouts_; /* one or two in practice */
    std::vector<Size> sizes_;
};

/* Name of the graph node that runs a Packed: inputs (x, bias), attribute `value`. */
extern const char *const packed_node;

/* Registers that node with the interpreter; once per process. */
void register_packed_node();

} // namespace featinv

#endif
