/* The CUDA plug-in: opened when a CUDA device is asked for, after libtorch_cuda. It must load on a
 * machine without a GPU and then say so. */
#include "cuda.hpp"

#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>

#include <cstdio>

namespace {

/* Ampere: the first with bfloat16, and what the plug-in is compiled for. */
constexpr int lowest_major = 8;

int count() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) {
        cudaGetLastError(); /* not left for the next caller to find */
        return 0;
    }
    return devices;
}

/* Runs `body` with the device current, and the caller's device afterwards. */
template <class Body> int with_device(int index, Body &&body) {
    int before = 0;
    if (cudaGetDevice(&before) != cudaSuccess || cudaSetDevice(index) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    const int status = body();
    cudaSetDevice(before);
    return status;
}

int describe(char *text, size_t capacity, int index) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    return with_device(index, [&] {
        size_t available = 0, total = 0;
        if (cudaMemGetInfo(&available, &total) != cudaSuccess) {
            cudaGetLastError();
            return -1;
        }
        constexpr double gib = 1024.0 * 1024.0 * 1024.0;
        std::snprintf(text, capacity, "%s, %.1f of %.1f GiB free", properties.name,
                      static_cast<double>(available) / gib, static_cast<double>(total) / gib);
        return 0;
    });
}

int usable(char *text, size_t capacity, int index) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, index);
    if (error != cudaSuccess) {
        std::snprintf(text, capacity, "%s", cudaGetErrorString(error));
        cudaGetLastError();
        return -1;
    }
    if (properties.major < lowest_major) {
        std::snprintf(text, capacity, "%s has compute capability %d.%d, %d.0 is needed",
                      properties.name, properties.major, properties.minor, lowest_major);
        return -1;
    }
    return 0;
}

void trim() {
    try {
        c10::cuda::CUDACachingAllocator::emptyCache();
    } catch (...) { /* what cannot be given back is not a failure of the caller */
    }
}

const fi_cuda table = {FI_CUDA_ABI, sizeof(fi_cuda), count, describe, usable, trim};

} // namespace

extern "C" __attribute__((visibility("default"))) const fi_cuda *fi_cuda_table(void) {
    return &table;
}
