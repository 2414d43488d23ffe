/* Single forwards of the programs, and what the sampler shares with them. */
#ifndef FI_SHIM_FORWARD_HPP
#define FI_SHIM_FORWARD_HPP

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "net.hpp"

namespace featinv {

/* In the net's dtype, laid out as the program's convolutions like it. */
at::Tensor activation(const fi_net &net, int program, const at::Tensor &tensor);

/* `method` of a program with one tensor result, whose shape must be `shape` where that is given
 * (-1: any size). */
at::Tensor run_tensor(const Program &program, const char *method,
                      std::vector<c10::IValue> arguments, at::IntArrayRef shape = {});

/* Residuals of one ControlNet step, unscaled. */
std::vector<at::Tensor> run_control(const fi_net &net, const at::Tensor &x, const at::Tensor &bank,
                                    const at::Tensor &kv, const at::Tensor &hint);

/* Prediction of one UNet step, in float32. */
at::Tensor run_unet(const fi_net &net, const at::Tensor &x, const at::Tensor &bank,
                    const at::Tensor &kv, const std::vector<at::Tensor> &residuals);

/* Float32 maps (N, C, H, W), pooled or not → encoded hints, whose sides must be those of the
 * latent (C, h, w) where it is given: they are added to what the ControlNet makes of it. */
at::Tensor run_hint(const fi_net &net, const at::Tensor &maps, bool pooled,
                    const std::int64_t *latent = nullptr);

/* Factors on `count` residuals: strength, times strengths[i] where they are given, else times
 * 0.825^(count - 1 - i) in guess mode. */
std::vector<double> control_factors(const double *strengths, std::int32_t strength_count,
                                    std::size_t count, bool guess_mode, double strength);

void scale_residuals(std::vector<at::Tensor> &residuals, const std::vector<double> &factors);

/* Unscaled latents on the net's device → bytes (N,H,W,3) or floats (N,3,H,W) on the host. */
void decode_to_host(const fi_net &net, std::uint8_t *bytes, float *floats, bool legacy,
                    const at::Tensor &latents, const std::int64_t image[3]);

/* Entries of the table. */
int backbone(fi_net *net, float *maps, float *logits, const float *images, std::int64_t n,
             const std::int64_t image[3], const std::int64_t map[3], std::int64_t classes);
int head(fi_net *net, float *logits, const float *maps, std::int64_t n, const std::int64_t map[3],
         std::int64_t classes);
int encode(fi_net *net, float *mean, float *logvar, const float *images, std::int64_t n,
           const std::int64_t image[3], const std::int64_t latent[3]);
int decode(fi_net *net, std::uint8_t *bytes, float *floats, std::int32_t legacy,
           const float *latents, std::int64_t n, const std::int64_t latent[3],
           const std::int64_t image[3]);
int denoise(fi_net *net, float *prediction, float *hint, std::int64_t hint_size,
            float *const *residuals, const std::int64_t *residual_sizes,
            std::int32_t residual_count, const float *x, const std::int64_t *t,
            const float *context, std::int64_t context_rows, std::int64_t context_dim,
            const float *maps, std::int64_t n, const std::int64_t latent[3],
            const std::int64_t map[3], std::int32_t pooled, const double *strengths,
            std::int32_t strength_count, std::int32_t no_control);
int residual_shapes(fi_net *net, std::int64_t hint_shape[3], std::int64_t (*shapes)[3],
                    std::int32_t capacity, std::int32_t *count, const std::int64_t latent[3],
                    const std::int64_t map[3]);

} // namespace featinv

#endif
