/* Weights from safetensors files into a net: hashed while they are read, never held twice. */
#ifndef FI_WEIGHTS_H
#define FI_WEIGHTS_H

#include "model.h"

/* Loads the programs of `parts` that `placed` lacks. */
featinv_status fi_weights_load(fi_placed_net *placed, featinv_model *model,
                               const fi_backend *backend, uint32_t parts);

#endif
