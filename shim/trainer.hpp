/* Training (paper, section 3.2): forward, backward and update of the trained part of a net. */
#ifndef FI_SHIM_TRAINER_HPP
#define FI_SHIM_TRAINER_HPP

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "net.hpp"

struct fi_trainer {
    fi_net *net = nullptr;
    fi_trainer_plan plan{};
    std::vector<std::string> keys;
    std::vector<std::vector<std::int64_t>> shapes;
    /* One element for each key, float32 on the net's device. `values` are the tensors that the
     * programs read, and carry the gradients. */
    std::vector<at::Tensor> values, firsts, seconds;
    std::vector<at::Tensor> averages; /* empty where the plan keeps none */
};

namespace featinv {

/* Entries of the table. */
int trainer_create(fi_trainer **out, fi_net *net, const fi_trainer_plan *plan);
int trainer_count(fi_trainer *trainer, std::int64_t *count);
int trainer_tensor(fi_trainer *trainer, std::int64_t index, const char **key,
                   const std::int64_t **shape, std::int32_t *ndim);
int trainer_forward(fi_trainer *trainer, double *losses, const fi_trainer_batch *batch,
                    std::int32_t backward);
int trainer_norm(fi_trainer *trainer, double *norm);
int trainer_update(fi_trainer *trainer, double rate, double factor, std::int64_t step,
                   double average_decay);
int trainer_clear(fi_trainer *trainer);
int trainer_read(fi_trainer *trainer, std::int32_t what, std::int64_t index, float *values);
int trainer_write(fi_trainer *trainer, std::int32_t what, std::int64_t index, const float *values);
void trainer_destroy(fi_trainer *trainer);

} // namespace featinv

#endif
