/* A trainer: float32 weights of its own over a session's bundle (paper, section 3.2). */
#ifndef FI_TRAINER_H
#define FI_TRAINER_H

#include "ranks.h"
#include "session.h"

typedef struct fi_trained {
    const char *key; /* borrowed from the backend, as is shape */
    const int64_t *shape;
    int32_t ndim;
    size_t count; /* of its values */
} fi_trained;

struct featinv_trainer {
    featinv_session *session; /* the caller's */
    fi_net *net;
    fi_trainer *state;
    featinv_trainer_options options; /* context and uncontext: named, borrowed from the model */
    const fi_context *prompt, *empty;
    fi_trained *tensors;
    int64_t count;
    int64_t step; /* updates done */
    /* among several processes: what passes between them; NULL in one alone */
    float *exchange;
    size_t capacity; /* values that fit, at least those of the largest tensor */
};

/* The samples of a step on the host, everything that was not given drawn; fields as in
 * fi_trainer_batch. All owned, and freed by fi_trainer_inputs_free. */
typedef struct fi_trainer_inputs {
    int64_t n;
    float *latents, *noise, *maps, *contexts;
    int64_t *timesteps;
    double *signal, *sigma;
    double *weights; /* of min-SNR; a step divides them by the samples of all ranks */
    double *losses;  /* room for n */
    int64_t context_rows, context_dim;
} fi_trainer_inputs;

/* What the draws of featinv_trainer_loss use in place of a step's number. */
#define FI_TRAINER_NO_STEP UINT32_MAX

/* The programs of the session that a batch needs (FI_PART). */
uint32_t fi_trainer_inputs_need(const featinv_trainer_batch *batch);
/* Checks and completes a batch. net: the session's, with what the batch needs; step: of the draws;
 * dropout: draws flags that were not given. */
featinv_status fi_trainer_inputs_make(fi_trainer_inputs *out, const featinv_trainer *trainer,
                                      fi_net *net, const featinv_trainer_batch *batch,
                                      uint32_t step, bool dropout);
void fi_trainer_inputs_free(fi_trainer_inputs *inputs);

/* Reads or writes all of a trained tensor (FI_TRAINED_*). */
featinv_status fi_trainer_read(featinv_trainer *trainer, int32_t what, int64_t index,
                               float *values);
featinv_status fi_trainer_write(featinv_trainer *trainer, int32_t what, int64_t index,
                                const float *values);
/* Index of a key, or -1. */
int64_t fi_trainer_find(const featinv_trainer *trainer, const char *key);
/* Values of the largest trained tensor. */
size_t fi_trainer_largest(const featinv_trainer *trainer);

/* The buffer, where there are ranks. Every gradient becomes its sum over them: collective, and
 * nothing changes without ranks. */
featinv_status fi_trainer_ranks_prepare(featinv_trainer *trainer);
featinv_status fi_trainer_sum_gradients(featinv_trainer *trainer);

#endif
