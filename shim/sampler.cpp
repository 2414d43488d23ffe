#include "sampler.hpp"

#include <algorithm>
#include <cmath>

#include "device.hpp"
#include "forward.hpp"
#include "guard.hpp"

namespace featinv {

namespace {

using Outputs = std::array<at::Tensor, branch_count>;

std::vector<std::int64_t> batch_of(std::int64_t n, const std::vector<std::int64_t> &shape) {
    return {n, shape[0], shape[1], shape[2]};
}

StepCoefficients coefficients(double alpha, double alpha_prev, double sigma) {
    StepCoefficients step;
    step.alpha_root = std::sqrt(alpha);
    step.noise_root = std::sqrt(1.0 - alpha);
    step.previous_root = std::sqrt(alpha_prev);
    /* Rounding may leave a negative zero's neighbour where eta is 1. */
    step.direction = std::sqrt(std::max(0.0, 1.0 - alpha_prev - sigma * sigma));
    step.sigma = sigma;
    return step;
}

/* Which branches the guidance formula (combine) reads, in batches. Those with the ControlNet come
 * first in a batch. Prompts of different lengths cannot share one. */
std::vector<std::vector<Branch>> group_branches(const fi_sampler_plan &plan) {
    const bool hinted = plan.hint_scale != 1.0;
    const bool conditional = plan.scale != 0.0;
    const bool negative = plan.scale != 1.0 || hinted;
    std::vector<Branch> others;
    if (negative)
        others.push_back(NEGATIVE);
    if (hinted)
        others.push_back(UNHINTED);
    if (!conditional)
        return {others};
    std::vector<Branch> first = {CONDITIONAL};
    if (!negative)
        return {first};
    if (plan.context_rows != plan.uncontext_rows)
        return {first, others};
    first.insert(first.end(), others.begin(), others.end());
    return {first};
}

bool controlled(const fi_sampler &sampler, Branch branch) {
    return branch == CONDITIONAL || !sampler.guess_mode;
}

void check_plan(const fi_sampler_plan &plan) {
    if (plan.steps < 1 || !plan.timesteps || !plan.alpha || !plan.alpha_prev || !plan.sigma ||
        !plan.context)
        fail(FEATINV_ERROR_INTERNAL, "an incomplete sampling plan");
    if (plan.guess_mode && plan.hint_scale != 1.0)
        fail(FEATINV_ERROR_ARGUMENT, "guess mode needs a hint scale of 1, not %g", plan.hint_scale);
    if ((plan.scale != 1.0 || plan.hint_scale != 1.0) && !plan.uncontext)
        fail(FEATINV_ERROR_INTERNAL, "a sampling plan without a negative context");
    if (!(plan.latent_scale > 0.0))
        fail(FEATINV_ERROR_INTERNAL, "a latent scale of %g", plan.latent_scale);
}

Prompt project(const fi_net &net, const float *context, std::int64_t rows, std::int64_t width) {
    const at::Tensor prompt = from_host(context, {1, rows, width}, net.device, net.dtype);
    return {run_tensor(net.program(FI_PROGRAM_CONTROL), "context", {prompt}, {1, rows, -1}),
            run_tensor(net.program(FI_PROGRAM_UNET), "context", {prompt}, {1, rows, -1})};
}

/* One row for each step, computed once: the time embedding depends on nothing else. */
at::Tensor time_bank(const fi_net &net, int program, const fi_sampler_plan &plan) {
    const at::Tensor times =
        from_host(plan.timesteps, {plan.steps}, at::kLong, net.device, at::kLong).to(at::kFloat);
    return run_tensor(net.program(program), "time", {times}, {plan.steps, -1});
}

/* The rows of a group's batch, each of `parts` (1, …) or (B, …) spread over its B lanes. */
at::Tensor spread(const std::vector<at::Tensor> &parts, std::int64_t lanes) {
    std::vector<at::Tensor> rows;
    for (const at::Tensor &part : parts) {
        std::vector<std::int64_t> shape = part.sizes().vec();
        shape[0] = lanes;
        rows.push_back(part.expand(shape));
    }
    return rows.size() == 1 ? rows[0] : at::cat(rows);
}

Group make_group(const fi_sampler &sampler, const std::vector<Branch> &branches,
                 const at::Tensor &lane_hints) {
    Group group;
    group.branches = branches;
    std::vector<at::Tensor> control_kv, unet_kv, hints;
    for (const Branch branch : branches) {
        const Prompt &prompt = branch == CONDITIONAL ? sampler.conditional : sampler.negative;
        unet_kv.push_back(prompt.unet);
        if (!controlled(sampler, branch))
            continue;
        group.controlled++;
        control_kv.push_back(prompt.control);
        hints.push_back(branch == UNHINTED ? sampler.zero_hint : lane_hints);
    }
    const std::int64_t lanes = lane_hints.size(0);
    group.unet_kv = spread(unet_kv, lanes);
    if (group.controlled) {
        group.control_kv = spread(control_kv, lanes);
        group.hint = spread(hints, lanes);
    }
    return group;
}

/* Scaled residuals for the whole batch of a group: zero where a branch has no ControlNet. */
std::vector<at::Tensor> residuals_of(fi_sampler &sampler, const Group &group, const at::Tensor &x,
                                     std::int32_t step) {
    if (!group.controlled)
        return {};
    const std::int64_t rows = group.controlled * sampler.x.size(0);
    const at::Tensor bank = sampler.control_bank.narrow(0, step, 1).expand({rows, -1});
    std::vector<at::Tensor> residuals =
        run_control(*sampler.net, x.narrow(0, 0, rows), bank, group.control_kv, group.hint);
    if (sampler.factors.empty())
        sampler.factors = control_factors(
            sampler.strengths ? sampler.strengths->data() : nullptr,
            sampler.strengths ? static_cast<std::int32_t>(sampler.strengths->size()) : 0,
            residuals.size(), sampler.guess_mode, sampler.strength);
    scale_residuals(residuals, sampler.factors);
    if (rows < x.size(0))
        for (at::Tensor &residual : residuals) {
            std::vector<std::int64_t> rest = residual.sizes().vec();
            rest[0] = x.size(0) - rows;
            residual = at::cat({residual, at::zeros(rest, residual.options())});
        }
    return residuals;
}

/* All branches of step i, each (B, C, h, w) float32. */
Outputs evaluate(fi_sampler &sampler, std::int32_t step) {
    Outputs outputs;
    const std::int64_t lanes = sampler.x.size(0);
    const at::Tensor x = sampler.x.to(sampler.net->dtype);
    for (const Group &group : sampler.groups) {
        const auto n = static_cast<std::int64_t>(group.branches.size());
        const at::Tensor batch =
            activation(*sampler.net, FI_PROGRAM_UNET, n == 1 ? x : x.repeat({n, 1, 1, 1}));
        const at::Tensor bank = sampler.unet_bank.narrow(0, step, 1).expand({n * lanes, -1});
        const at::Tensor predictions = run_unet(*sampler.net, batch, bank, group.unet_kv,
                                                residuals_of(sampler, group, batch, step));
        for (std::int64_t i = 0; i < n; i++)
            outputs[group.branches[static_cast<std::size_t>(i)]] =
                predictions.narrow(0, i * lanes, lanes);
    }
    return outputs;
}

/* e(∅,h) + s (e(c,h) − e(∅,h)) + (s_h − 1) (e(∅,h) − e(∅,0)) */
at::Tensor combine(const fi_sampler &sampler, const Outputs &e) {
    at::Tensor sum;
    if (sampler.scale == 1.0)
        sum = e[CONDITIONAL];
    else if (sampler.scale == 0.0)
        sum = e[NEGATIVE];
    else
        sum = e[NEGATIVE] + (e[CONDITIONAL] - e[NEGATIVE]).mul(sampler.scale);
    if (sampler.hint_scale != 1.0)
        sum = sum + (e[NEGATIVE] - e[UNHINTED]).mul(sampler.hint_scale - 1.0);
    return sum;
}

at::Tensor encode_hints(const fi_sampler &sampler, const at::Tensor &maps) {
    return run_hint(*sampler.net, maps, sampler.pooled, sampler.latent.data());
}

} // namespace

int sampler_create(fi_sampler **out, fi_net *net, const fi_sampler_plan *plan) {
    return guarded([&] {
        *out = nullptr;
        check_plan(*plan);
        const OnDevice current(net->device);
        auto sampler = std::make_unique<fi_sampler>();
        sampler->net = net;
        sampler->predicts_v = plan->prediction == 1;
        sampler->guess_mode = plan->guess_mode != 0;
        sampler->pooled = plan->pooled != 0;
        sampler->scale = plan->scale;
        sampler->hint_scale = plan->hint_scale;
        sampler->strength = plan->strength;
        sampler->latent_scale = plan->latent_scale;
        if (plan->strengths)
            sampler->strengths.emplace(plan->strengths, plan->strengths + plan->strength_count);
        sampler->latent.assign(plan->latent, plan->latent + 3);
        sampler->map.assign(plan->map, plan->map + 3);
        for (std::int32_t i = 0; i < plan->steps; i++)
            sampler->steps.push_back(
                coefficients(plan->alpha[i], plan->alpha_prev[i], plan->sigma[i]));
        sampler->grouping = group_branches(*plan);
        sampler->conditional = project(*net, plan->context, plan->context_rows, plan->context_dim);
        if (plan->uncontext)
            sampler->negative =
                project(*net, plan->uncontext, plan->uncontext_rows, plan->context_dim);
        sampler->control_bank = time_bank(*net, FI_PROGRAM_CONTROL, *plan);
        sampler->unet_bank = time_bank(*net, FI_PROGRAM_UNET, *plan);
        *out = sampler.release();
    });
}

int sampler_hints(fi_sampler *sampler, const float *maps, std::int64_t n) {
    return guarded([&] {
        const fi_net &net = *sampler->net;
        const OnDevice current(net.device);
        sampler->hints = encode_hints(
            *sampler, from_host(maps, batch_of(n, sampler->map), net.device, at::kFloat));
        if (sampler->hint_scale != 1.0 && !sampler->zero_hint.defined())
            sampler->zero_hint =
                encode_hints(*sampler, at::zeros(batch_of(1, sampler->map),
                                                 at::dtype(at::kFloat).device(net.device)));
    });
}

int sampler_start(fi_sampler *sampler, const float *noise, const std::int64_t *map_index,
                  std::int64_t lanes) {
    return guarded([&] {
        const fi_net &net = *sampler->net;
        const OnDevice current(net.device);
        if (!sampler->hints.defined() || lanes < 1)
            fail(FEATINV_ERROR_INTERNAL, "sampling started without hints or lanes");
        for (std::int64_t i = 0; i < lanes; i++)
            if (map_index[i] < 0 || map_index[i] >= sampler->hints.size(0))
                fail(FEATINV_ERROR_INTERNAL, "lane %lld uses map %lld of %lld",
                     static_cast<long long>(i), static_cast<long long>(map_index[i]),
                     static_cast<long long>(sampler->hints.size(0)));
        const at::Tensor index = from_host(map_index, {lanes}, at::kLong, net.device, at::kLong);
        const at::Tensor lane_hints = sampler->hints.index_select(0, index);
        sampler->groups.clear();
        for (const auto &branches : sampler->grouping)
            sampler->groups.push_back(make_group(*sampler, branches, lane_hints));
        sampler->x =
            from_host(noise, batch_of(lanes, sampler->latent), net.device, at::kFloat).clone();
    });
}

int sampler_step(fi_sampler *sampler, std::int32_t i, const float *step_noise, float *x,
                 float *x0) {
    return guarded([&] {
        const fi_net &net = *sampler->net;
        const OnDevice current(net.device);
        if (i < 0 || static_cast<std::size_t>(i) >= sampler->steps.size() || !sampler->x.defined())
            fail(FEATINV_ERROR_INTERNAL, "there is no step %d to run", i);
        const StepCoefficients &step = sampler->steps[static_cast<std::size_t>(i)];
        const at::Tensor prediction = combine(*sampler, evaluate(*sampler, i));
        const at::Tensor &from = sampler->x;
        at::Tensor epsilon = prediction, clean;
        if (sampler->predicts_v) {
            epsilon = prediction.mul(step.alpha_root).add(from.mul(step.noise_root));
            clean = from.mul(step.alpha_root).sub(prediction.mul(step.noise_root));
        } else {
            clean = from.sub(epsilon.mul(step.noise_root)).div(step.alpha_root);
        }
        at::Tensor next = clean.mul(step.previous_root).add(epsilon.mul(step.direction));
        if (step.sigma != 0.0) {
            if (!step_noise)
                fail(FEATINV_ERROR_INTERNAL, "step %d needs noise", i);
            next = next.add(
                from_host(step_noise, from.sizes(), net.device, at::kFloat).mul(step.sigma));
        }
        sampler->x = next;
        if (x)
            to_host(x, next);
        if (x0)
            to_host(x0, clean);
    });
}

int sampler_latents(fi_sampler *sampler, float *latents) {
    return guarded([&] {
        const OnDevice current(sampler->net->device);
        to_host(latents, sampler->x);
    });
}

int sampler_decode(fi_sampler *sampler, std::uint8_t *bytes, float *floats, std::int32_t legacy,
                   const std::int64_t image[3]) {
    return guarded([&] {
        const OnDevice current(sampler->net->device);
        decode_to_host(*sampler->net, bytes, floats, legacy != 0,
                       sampler->x.div(sampler->latent_scale), image);
    });
}

void sampler_destroy(fi_sampler *sampler) {
    if (!sampler)
        return;
    guarded([&] {
        const OnDevice current(sampler->net->device);
        delete sampler;
    });
}

} // namespace featinv
