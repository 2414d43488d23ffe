#include "trainer.hpp"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>

#include "device.hpp"
#include "forward.hpp"
#include "guard.hpp"

namespace featinv {

namespace {

/* Autograd needs ordinary tensors; the guard of every entry has switched to inference. */
template <class Body> int training(fi_trainer *trainer, Body &&body) {
    return guarded([&] {
        const c10::InferenceMode ordinary(false);
        const OnDevice current(trainer->net->device);
        body();
    });
}

/* bfloat16 for matrix products and convolutions; their weights are cast once a forward. */
class Autocast {
  public:
    explicit Autocast(bool on)
        : on_(on), was_(on && at::autocast::is_autocast_enabled(at::kCUDA)),
          dtype_(on ? at::autocast::get_autocast_dtype(at::kCUDA) : at::kBFloat16) {
        if (!on_)
            return;
        at::autocast::set_autocast_enabled(at::kCUDA, true);
        at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
        at::autocast::increment_nesting();
    }
    ~Autocast() {
        if (!on_)
            return;
        if (at::autocast::decrement_nesting() == 0)
            at::autocast::clear_cache();
        at::autocast::set_autocast_dtype(at::kCUDA, dtype_);
        at::autocast::set_autocast_enabled(at::kCUDA, was_);
    }
    Autocast(const Autocast &) = delete;
    Autocast &operator=(const Autocast &) = delete;

  private:
    const bool on_, was_;
    const at::ScalarType dtype_;
};

/* The decoder half of the UNet: everything behind its middle block. */
bool is_decoder(const std::string &key) {
    static const std::string prefix = "model.diffusion_model.";
    return key.rfind(prefix + "output_blocks.", 0) == 0 || key.rfind(prefix + "out.", 0) == 0;
}

bool is_trained(int program, const std::string &key, std::int32_t mode) {
    return program != FI_PROGRAM_UNET || mode == FI_TRAIN_JOINT ||
           (mode == FI_TRAIN_UNLOCKED && is_decoder(key));
}

/* Takes the trained parameters of a program, in the order of its modules. */
void take_program(fi_trainer &trainer, int number) {
    const Program &program = trainer.net->program(number);
    for (const External &external : program.externals) {
        if (!external.parameter || !is_trained(number, external.key, trainer.plan.mode))
            continue;
        const at::Tensor value = trainer.net->weights.at(external.key).value;
        if (value.requires_grad())
            fail(FEATINV_ERROR_INTERNAL, "%s is trained twice", external.key.c_str());
        value.requires_grad_();
        trainer.keys.push_back(external.key);
        trainer.shapes.push_back(external.shape);
        trainer.values.push_back(value);
        trainer.firsts.push_back(at::zeros_like(value));
        trainer.seconds.push_back(at::zeros_like(value));
        if (trainer.plan.average)
            trainer.averages.push_back(value.detach().clone());
    }
}

/* x_t and what the network is to say about it. */
struct Target {
    at::Tensor noisy, wanted;
};

Target make_target(const fi_trainer &trainer, const fi_trainer_batch &batch) {
    const fi_net &net = *trainer.net;
    const std::int64_t *latent = trainer.plan.latent;
    const std::vector<std::int64_t> shape = {batch.n, latent[0], latent[1], latent[2]};
    const at::Tensor z = from_host(batch.latents, shape, net.device, at::kFloat);
    const at::Tensor noise = from_host(batch.noise, shape, net.device, at::kFloat);
    const auto column = [&](const double *values) {
        return from_host(values, {batch.n, 1, 1, 1}, at::kDouble, net.device, at::kDouble)
            .to(at::kFloat);
    };
    const at::Tensor signal = column(batch.signal), sigma = column(batch.sigma);
    return {signal * z + sigma * noise,
            trainer.plan.prediction == 0 ? noise : signal * noise - sigma * z};
}

at::Tensor predict(const fi_trainer &trainer, const fi_trainer_batch &batch, const at::Tensor &x) {
    const fi_net &net = *trainer.net;
    const std::int64_t *map = trainer.plan.map;
    const at::Tensor maps =
        from_host(batch.maps, {batch.n, map[0], map[1], map[2]}, net.device, at::kFloat);
    const at::Tensor contexts = from_host(
        batch.contexts, {batch.n, batch.context_rows, batch.context_dim}, net.device, at::kFloat);
    const at::Tensor times =
        from_host(batch.timesteps, {batch.n}, at::kLong, net.device, at::kLong).to(at::kFloat);
    const Autocast autocast(trainer.plan.autocast != 0);
    const at::Tensor latents = activation(net, FI_PROGRAM_UNET, x);
    const Program &control = net.program(FI_PROGRAM_CONTROL), &unet = net.program(FI_PROGRAM_UNET);
    const std::vector<at::Tensor> residuals =
        run_control(net, latents, run_tensor(control, "time", {times}),
                    run_tensor(control, "context", {contexts}),
                    run_hint(net, maps, trainer.plan.pooled != 0, trainer.plan.latent));
    return run_unet(net, latents, run_tensor(unet, "time", {times}),
                    run_tensor(unet, "context", {contexts}), residuals);
}

/* The tensors that have a gradient, each with its state: a parameter that the loss does not reach
 * is left alone, as torch.optim does. */
struct Reached {
    std::vector<at::Tensor> values, gradients, firsts, seconds;
};

Reached reached(fi_trainer &trainer) {
    Reached found;
    for (std::size_t i = 0; i < trainer.values.size(); i++) {
        at::Tensor &gradient = trainer.values[i].mutable_grad();
        if (!gradient.defined())
            continue;
        /* Autograd ignores the strides of sides of length 1; the fused update does not. */
        if (gradient.strides() != trainer.values[i].strides())
            gradient = at::empty_like(trainer.values[i]).copy_(gradient);
        found.values.push_back(trainer.values[i]);
        found.gradients.push_back(gradient);
        found.firsts.push_back(trainer.firsts[i]);
        found.seconds.push_back(trainer.seconds[i]);
    }
    return found;
}

/* The tensor that `what` means; undefined for a gradient that is not there. */
at::Tensor tensor_of(const fi_trainer &trainer, std::int32_t what, std::int64_t index) {
    const auto i = static_cast<std::size_t>(index);
    if (index < 0 || i >= trainer.values.size())
        fail(FEATINV_ERROR_INTERNAL, "no trained tensor %lld", static_cast<long long>(index));
    switch (what) {
    case FI_TRAINED_VALUE:
        return trainer.values[i];
    case FI_TRAINED_GRADIENT:
        return trainer.values[i].grad();
    case FI_TRAINED_FIRST:
        return trainer.firsts[i];
    case FI_TRAINED_SECOND:
        return trainer.seconds[i];
    case FI_TRAINED_AVERAGE:
        if (!trainer.averages.empty())
            return trainer.averages[i];
        [[fallthrough]];
    default:
        fail(FEATINV_ERROR_INTERNAL, "a trainer holds no %d of its tensors", what);
    }
}

} // namespace

int trainer_create(fi_trainer **out, fi_net *net, const fi_trainer_plan *plan) {
    return guarded([&] {
        *out = nullptr;
        const c10::InferenceMode ordinary(false);
        const OnDevice current(net->device);
        if (!net->training)
            fail(FEATINV_ERROR_INTERNAL, "the net was not made for training");
        if (plan->autocast && !net->device.is_cuda())
            fail(FEATINV_ERROR_ARGUMENT, "precision bf16 needs a CUDA device");
        auto trainer = std::make_unique<fi_trainer>();
        trainer->net = net;
        trainer->plan = *plan;
        for (const int program : {FI_PROGRAM_HINT, FI_PROGRAM_CONTROL, FI_PROGRAM_UNET})
            take_program(*trainer, program);
        *out = trainer.release();
    });
}

int trainer_count(fi_trainer *trainer, std::int64_t *count) {
    return guarded([&] { *count = static_cast<std::int64_t>(trainer->keys.size()); });
}

int trainer_tensor(fi_trainer *trainer, std::int64_t index, const char **key,
                   const std::int64_t **shape, std::int32_t *ndim) {
    return guarded([&] {
        (void)tensor_of(*trainer, FI_TRAINED_VALUE, index);
        const auto i = static_cast<std::size_t>(index);
        *key = trainer->keys[i].c_str();
        *shape = trainer->shapes[i].data();
        *ndim = static_cast<std::int32_t>(trainer->shapes[i].size());
    });
}

int trainer_forward(fi_trainer *trainer, double *losses, const fi_trainer_batch *batch,
                    std::int32_t backward) {
    return training(trainer, [&] {
        const c10::AutoGradMode record(backward != 0);
        const Target target = make_target(*trainer, *batch);
        const at::Tensor error =
            (predict(*trainer, *batch, target.noisy) - target.wanted).square().flatten(1).mean(1);
        if (backward) {
            const at::Tensor weights = from_host(batch->weights, {batch->n}, at::kDouble,
                                                 trainer->net->device, at::kDouble)
                                           .to(at::kFloat);
            (error * weights).sum().backward();
        }
        to_host(losses, error.detach(), at::kDouble);
    });
}

int trainer_norm(fi_trainer *trainer, double *norm) {
    return training(trainer, [&] {
        const c10::AutoGradMode record(false);
        const std::vector<at::Tensor> gradients = reached(*trainer).gradients;
        *norm =
            gradients.empty()
                ? 0.0
                : at::stack(at::_foreach_norm(gradients, 2)).to(at::kDouble).norm().item<double>();
    });
}

int trainer_update(fi_trainer *trainer, double rate, double factor, std::int64_t step,
                   double average_decay) {
    return training(trainer, [&] {
        const c10::AutoGradMode record(false);
        const fi_trainer_plan &plan = trainer->plan;
        const Reached found = reached(*trainer);
        if (!found.values.empty()) {
            if (factor != 1.0)
                at::_foreach_mul_(found.gradients, factor);
            const std::vector<at::Tensor> steps(
                found.values.size(), at::full({}, static_cast<double>(step),
                                              at::dtype(at::kFloat).device(trainer->net->device)));
            at::_fused_adamw_(found.values, found.gradients, found.firsts, found.seconds,
                              /*max_exp_avg_sqs=*/{}, steps, rate, plan.beta1, plan.beta2,
                              plan.weight_decay, plan.epsilon, /*amsgrad=*/false,
                              /*maximize=*/false);
        }
        if (!trainer->averages.empty())
            at::_foreach_lerp_(trainer->averages, trainer->values, 1.0 - average_decay);
    });
}

int trainer_clear(fi_trainer *trainer) {
    return training(trainer, [&] {
        for (at::Tensor &value : trainer->values)
            value.mutable_grad().reset();
    });
}

int trainer_read(fi_trainer *trainer, std::int32_t what, std::int64_t index, float *values) {
    return training(trainer, [&] {
        const at::Tensor tensor = tensor_of(*trainer, what, index);
        if (tensor.defined())
            to_host(values, tensor.detach());
        else
            std::fill_n(values, trainer->values[static_cast<std::size_t>(index)].numel(), 0.0f);
    });
}

int trainer_write(fi_trainer *trainer, std::int32_t what, std::int64_t index, const float *values) {
    return training(trainer, [&] {
        const c10::AutoGradMode record(false);
        at::Tensor tensor = tensor_of(*trainer, what, index);
        if (tensor.defined())
            tensor.copy_(at::from_blob(const_cast<float *>(values), tensor.sizes(), at::kFloat));
    });
}

void trainer_destroy(fi_trainer *trainer) {
    if (!trainer)
        return;
    training(trainer, [&] {
        for (at::Tensor &value : trainer->values) {
            value.mutable_grad().reset();
            value.requires_grad_(false);
        }
    });
    delete trainer;
}

} // namespace featinv
