/* Devices, and the way of arrays between host and device. */
#ifndef FI_SHIM_DEVICE_HPP
#define FI_SHIM_DEVICE_HPP

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <cstdint>
#include <string>

namespace featinv {

/* Usable CUDA devices. Opens libtorch_cuda and the plug-in at the first call on a machine with a
 * driver; 0 where anything is missing. */
int cuda_count();

/* Why there is no CUDA device, or "" (after cuda_count). */
std::string cuda_reason();

/* One line about the CUDA side, for people. */
std::string cuda_text();

/* Checked device of a DLPack type and an index; fails with DEVICE. */
at::Device open_device(std::int32_t type, std::int32_t index);

/* Gives cached memory back after something large was released. */
void trim(const at::Device &device);

/* dtype of a featinv_dtype number that a net or a weight may have; fails with ARGUMENT. */
at::ScalarType scalar_type(std::int32_t dtype);

/* Host memory as a tensor on the device, in another dtype if wanted. May alias the host memory: the
 * caller keeps nothing of it beyond the call, or clones. */
at::Tensor from_host(const void *data, at::IntArrayRef shape, at::ScalarType stored,
                     const at::Device &device, at::ScalarType wanted);
at::Tensor from_host(const float *data, at::IntArrayRef shape, const at::Device &device,
                     at::ScalarType wanted);

/* Copies a tensor, converted, to C-ordered host memory. Returns when the bytes are there. */
void to_host(void *out, const at::Tensor &tensor, at::ScalarType wanted);
void to_host(float *out, const at::Tensor &tensor);

/* Makes the net's device current and restores the caller's; keeps float32 exact (no TF32). */
class OnDevice {
  public:
    explicit OnDevice(const at::Device &device);

  private:
    c10::OptionalDeviceGuard guard_;
    at::NoTF32Guard exact_;
};

} // namespace featinv

#endif
