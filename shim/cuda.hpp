/* The seam between the backend and its CUDA plug-in. The backend links no CUDA library: once
 * libtorch_cuda is in the process, ATen's dispatcher reaches every CUDA kernel, and what ATen has
 * no device-neutral call for stands here. */
#ifndef FI_SHIM_CUDA_HPP
#define FI_SHIM_CUDA_HPP

#include <stddef.h>
#include <stdint.h>

#define FI_CUDA_ABI 1
#define FI_CUDA_ENTRY "fi_cuda_table"

extern "C" {

typedef struct fi_cuda {
    uint32_t abi;  /* FI_CUDA_ABI */
    uint32_t size; /* sizeof(fi_cuda) */
    /* Devices that can be used; 0 without driver or device. Never fails. */
    int (*count)(void);
    /* "NVIDIA H100 80GB HBM3, 79 of 80 GiB free"; 0, or -1 where the device does not answer. */
    int (*describe)(char *text, size_t capacity, int index);
    /* 0 where the plug-in holds code for the device; -1 and a text where not. */
    int (*usable)(char *text, size_t capacity, int index);
    /* Gives cached device memory that nothing uses back to the driver. */
    void (*trim)(void);
} fi_cuda;

typedef const fi_cuda *(*fi_cuda_entry)(void);
}

#endif
