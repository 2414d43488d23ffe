#include "device.hpp"

#include <ATen/Version.h>
#include <dlfcn.h>
#include <malloc.h>

#include <cstring>
#include <mutex>

#include "backend.h"
#include "cuda.hpp"
#include "guard.hpp"

namespace featinv {

namespace {

struct Plugin {
    const fi_cuda *table = nullptr;
    int count = 0;
    std::string reason;
};

/* Folder, with a slash, of the file that holds an address. */
std::string folder_of(const void *address) {
    Dl_info info;
    if (!dladdr(address, &info) || !info.dli_fname)
        return "";
    const std::string path = info.dli_fname;
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

const void *address_of_libtorch() {
    return reinterpret_cast<const void *>(&at::show_config);
}

Plugin open_plugin() {
    Plugin plugin;
    /* Without a driver nothing below can find a device, and libtorch_cuda is a gigabyte. */
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver) {
        plugin.reason = "no CUDA driver";
        return plugin;
    }
    const std::string kernels = folder_of(address_of_libtorch()) + "libtorch_cuda.so";
    if (!dlopen(kernels.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
        const char *text = dlerror();
        plugin.reason = text ? text : kernels + " does not open";
        return plugin;
    }
    static const char anchor = 0;
    const std::string path = folder_of(&anchor) + "libfeatinv-cuda.so";
    void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        const char *text = dlerror();
        plugin.reason = text ? text : path + " does not open";
        return plugin;
    }
    const auto entry = reinterpret_cast<fi_cuda_entry>(dlsym(handle, FI_CUDA_ENTRY));
    const fi_cuda *table = entry ? entry() : nullptr;
    if (!table || table->abi != FI_CUDA_ABI || table->size != sizeof(fi_cuda)) {
        plugin.reason = path + " belongs to another build";
        return plugin;
    }
    plugin.table = table;
    plugin.count = table->count();
    if (plugin.count == 0)
        plugin.reason = "no CUDA device answers";
    return plugin;
}

const Plugin &plugin() {
    static const Plugin opened = open_plugin();
    return opened;
}

} // namespace

int cuda_count() {
    return plugin().count;
}

std::string cuda_reason() {
    return plugin().reason;
}

std::string cuda_text() {
    const Plugin &opened = plugin();
    if (!opened.table)
        return "CUDA plug-in: none (" + first_line(opened.reason) + "), 0 devices";
    std::string text = "CUDA plug-in: open, " + std::to_string(opened.count) + " devices";
    char line[256];
    for (int i = 0; i < opened.count; i++)
        if (opened.table->describe(line, sizeof line, i) == 0)
            text += " [" + std::to_string(i) + "] " + line;
    return text;
}

at::Device open_device(std::int32_t type, std::int32_t index) {
    if (type == FI_DEVICE_CPU) {
        if (index != 0)
            fail(FEATINV_ERROR_DEVICE, "no such device: cpu:%d", index);
        return at::Device(at::kCPU);
    }
    if (type != FI_DEVICE_CUDA)
        fail(FEATINV_ERROR_DEVICE, "no such device type: %d", type);
    const Plugin &opened = plugin();
    if (index < 0 || index >= opened.count)
        fail(FEATINV_ERROR_DEVICE, "no such device: cuda:%d (%s)", index,
             opened.count ? (std::to_string(opened.count) + " found").c_str()
                          : first_line(opened.reason).c_str());
    char text[256];
    if (opened.table->usable(text, sizeof text, index) != 0)
        fail(FEATINV_ERROR_DEVICE, "cuda:%d cannot be used: %s", index, text);
    return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void trim(const at::Device &device) {
    if (device.is_cuda())
        plugin().table->trim();
    malloc_trim(0);
}

at::ScalarType scalar_type(std::int32_t dtype) {
    switch (dtype) {
    case FEATINV_DTYPE_F32:
        return at::kFloat;
    case FEATINV_DTYPE_F16:
        return at::kHalf;
    case FEATINV_DTYPE_BF16:
        return at::kBFloat16;
    case FEATINV_DTYPE_F64:
        return at::kDouble;
    default:
        fail(FEATINV_ERROR_ARGUMENT, "dtype %d is not a floating-point type", dtype);
    }
}

at::Tensor from_host(const void *data, at::IntArrayRef shape, at::ScalarType stored,
                     const at::Device &device, at::ScalarType wanted) {
    const at::Tensor host = at::from_blob(const_cast<void *>(data), shape, at::dtype(stored));
    if (!device.is_cuda())
        return host.to(wanted);
    const at::Tensor pinned = at::empty(shape, host.options().pinned_memory(true));
    pinned.copy_(host);
    return pinned.to(device, /*non_blocking=*/true).to(wanted);
}

at::Tensor from_host(const float *data, at::IntArrayRef shape, const at::Device &device,
                     at::ScalarType wanted) {
    return from_host(data, shape, at::kFloat, device, wanted);
}

void to_host(void *out, const at::Tensor &tensor, at::ScalarType wanted) {
    const at::Tensor ready = tensor.to(wanted).contiguous();
    at::Tensor host = ready;
    if (ready.is_cuda()) {
        host = at::empty(ready.sizes(), at::dtype(wanted).pinned_memory(true));
        host.copy_(ready);
    }
    std::memcpy(out, host.const_data_ptr(), host.nbytes());
}

void to_host(float *out, const at::Tensor &tensor) {
    to_host(out, tensor, at::kFloat);
}

OnDevice::OnDevice(const at::Device &device) {
    if (device.is_cuda())
        guard_.reset_device(device);
}

} // namespace featinv
