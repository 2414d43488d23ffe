/* One sampling run: tables, hints and latents stay on the device between steps. */
#ifndef FI_SHIM_SAMPLER_HPP
#define FI_SHIM_SAMPLER_HPP

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "net.hpp"

namespace featinv {

/* What a network evaluation of a lane may be given; h is the lane's hint. */
enum Branch { CONDITIONAL = 0 /* (c, h) */, NEGATIVE /* (∅, h) */, UNHINTED /* (∅, 0) */ };
constexpr std::size_t branch_count = 3;

/* Coefficients of one DDIM step, computed in double. */
struct StepCoefficients {
    double alpha_root, noise_root;   /* √ᾱ, √(1−ᾱ) */
    double previous_root, direction; /* √ᾱ_prev, √(1−ᾱ_prev−σ²) */
    double sigma;
};

/* The keys and values of one prompt, (1, L, P), for both networks. */
struct Prompt {
    at::Tensor control, unet;
};

/* Branches that go through the networks in one batch, n of them, lanes of a branch together. The
 * first `controlled` of them have the ControlNet. */
struct Group {
    std::vector<Branch> branches;
    std::int64_t controlled = 0;
    at::Tensor control_kv, unet_kv; /* (controlled·B, L, P), (n·B, L, P) */
    at::Tensor hint;                /* (controlled·B, M, h, w) */
};

} // namespace featinv

struct fi_sampler {
    fi_net *net = nullptr;
    bool predicts_v = false, guess_mode = false, pooled = false;
    double scale = 1.0, hint_scale = 1.0, strength = 1.0, latent_scale = 1.0;
    std::optional<std::vector<double>> strengths;
    std::vector<std::int64_t> latent, map; /* C, h, w; C, H, W */
    std::vector<featinv::StepCoefficients> steps;

    std::vector<std::vector<featinv::Branch>> grouping; /* branches of each group */
    featinv::Prompt conditional, negative;
    at::Tensor control_bank, unet_bank; /* (steps, E) */
    at::Tensor hints, zero_hint;        /* (n, M, h, w), (1, M, h, w) */

    std::vector<featinv::Group> groups;
    std::vector<double> factors; /* on the residuals; empty until the first step */
    at::Tensor x;                /* (B, C, h, w) float32 */
};

namespace featinv {

/* Entries of the table. */
int sampler_create(fi_sampler **out, fi_net *net, const fi_sampler_plan *plan);
int sampler_hints(fi_sampler *sampler, const float *maps, std::int64_t n);
int sampler_start(fi_sampler *sampler, const float *noise, const std::int64_t *map_index,
                  std::int64_t lanes);
int sampler_step(fi_sampler *sampler, std::int32_t i, const float *step_noise, float *x, float *x0);
int sampler_latents(fi_sampler *sampler, float *latents);
int sampler_decode(fi_sampler *sampler, std::uint8_t *bytes, float *floats, std::int32_t legacy,
                   const std::int64_t image[3]);
void sampler_destroy(fi_sampler *sampler);

} // namespace featinv

#endif
