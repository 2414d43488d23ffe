/* An opened bundle in memory, and its nets on devices. */
#ifndef FI_MODEL_H
#define FI_MODEL_H

#include "backend.h"
#include "bundle.h"
#include "safetensors.h"
#include "scope.h"

#include <pthread.h>
#include <stdatomic.h>

/* An encoded prompt: (rows, dim). */
typedef struct fi_context {
    char *name;
    float *data;
    int64_t rows, dim;
} fi_context;

/* The programs and weights on one device in one dtype; shared by its sessions. */
typedef struct fi_placed_net {
    struct fi_placed_net *next;
    int32_t device_type, device_index;
    featinv_dtype dtype;
    fi_net *net;
    uint32_t ready; /* bits of the programs that are loaded and finished */
} fi_placed_net;

struct featinv_model {
    atomic_int references;
    fi_bundle *bundle, *base; /* base: NULL without one */
    char **classes;
    int32_t class_count;
    fi_context *contexts;
    int32_t context_count;
    float *feature_mean; /* (C) or NULL */
    fi_scope scope;      /* statistics of the training maps, where features.npz holds some */
    float *alphas;       /* (timesteps), NULL without a generator */
    bool has_head, has_generator, has_encoder;

    pthread_mutex_t lock; /* guards nets */
    fi_placed_net *nets;
    const fi_backend *backend;
};

/* Parts as sets of programs. */
#define FI_PART(program) (1u << (program))
#define FI_PARTS_GENERATOR                                                                         \
    (FI_PART(FI_PROGRAM_HINT) | FI_PART(FI_PROGRAM_CONTROL) | FI_PART(FI_PROGRAM_UNET) |           \
     FI_PART(FI_PROGRAM_DECODER))

/* The net on that device with at least these programs ready, loading what is missing. */
featinv_status fi_model_net(fi_net **out, featinv_model *model, const fi_backend *backend,
                            int32_t device_type, int32_t device_index, featinv_dtype dtype,
                            uint32_t parts);

/* The context of that name; NULL sets NOT_FOUND with the names that exist. */
const fi_context *fi_model_context(const featinv_model *model, const char *name);

/* The bundle that holds a program or its weights (own, else base), or NULL. */
const fi_bundle *fi_model_owner(const featinv_model *model, const char *file);

#endif
