/* What the shim's tests read: .npz files as NumPy stores them, safetensors, bundle folders. */
#ifndef FI_TESTS_SHIM_SUPPORT_HPP
#define FI_TESTS_SHIM_SUPPORT_HPP

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "featinv.h"

using Shape = std::vector<std::int64_t>;
using Floats = std::vector<float>;

struct Array {
    std::string dtype; /* as NumPy writes it: "<f4" */
    Shape shape;
    std::string bytes;

    template <class T> std::vector<T> as() const {
        std::vector<T> values(bytes.size() / sizeof(T));
        std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
        return values;
    }
    std::vector<double> doubles() const {
        if (dtype == "<f8")
            return as<double>();
        const Floats narrow = as<float>();
        return std::vector<double>(narrow.begin(), narrow.end());
    }
    Floats floats() const {
        if (dtype == "<f4")
            return as<float>();
        const std::vector<double> wide = as<double>();
        return Floats(wide.begin(), wide.end());
    }
};

using Arrays = std::map<std::string, Array>;

inline std::string read_file(const std::string &path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream)
        throw std::runtime_error("cannot read " + path);
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
}

template <class T> T little(const std::string &bytes, std::size_t at) {
    T value;
    if (at + sizeof value > bytes.size())
        throw std::runtime_error("truncated file");
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

inline Shape numbers(const std::string &text) {
    Shape found;
    for (std::size_t i = 0; i < text.size(); i++)
        if (std::isdigit(static_cast<unsigned char>(text[i]))) {
            found.push_back(std::strtoll(text.c_str() + i, nullptr, 10));
            while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])))
                i++;
        }
    return found;
}

inline std::string between(const std::string &text, const std::string &after, char open,
                           char close) {
    const std::size_t from = text.find(open, text.find(after) + after.size());
    return text.substr(from + 1, text.find(close, from + 1) - from - 1);
}

inline Array parse_npy(const std::string &bytes) {
    const std::size_t length = little<std::uint16_t>(bytes, 8);
    const std::string header = bytes.substr(10, length);
    Array array;
    array.dtype = between(header, "'descr'", '\'', '\'');
    array.shape = numbers(between(header, "'shape'", '(', ')'));
    array.bytes = bytes.substr(10 + length);
    return array;
}

/* Stored members only, as numpy.savez writes them. */
inline Arrays read_npz(const std::string &path) {
    const std::string file = read_file(path);
    Arrays arrays;
    const std::size_t end = file.rfind("PK\x05\x06");
    std::size_t entry = little<std::uint32_t>(file, end + 16);
    for (int count = little<std::uint16_t>(file, end + 10); count > 0; count--) {
        const std::size_t size = little<std::uint32_t>(file, entry + 24);
        const std::size_t name = little<std::uint16_t>(file, entry + 28);
        const std::size_t local = little<std::uint32_t>(file, entry + 42);
        if (little<std::uint16_t>(file, entry + 10) != 0)
            throw std::runtime_error(path + " is compressed");
        const std::size_t data = local + 30 + little<std::uint16_t>(file, local + 26) +
                                 little<std::uint16_t>(file, local + 28);
        const std::string key = file.substr(entry + 46, name - 4); /* without .npy */
        arrays[key] = parse_npy(file.substr(data, size));
        entry += 46 + name + little<std::uint16_t>(file, entry + 30) +
                 little<std::uint16_t>(file, entry + 32);
    }
    return arrays;
}

/* Calls visit(key, dtype, size, stream) for each tensor, the stream standing at its bytes. */
template <class Visit> void each_tensor(const std::string &path, Visit &&visit) {
    std::ifstream stream(path, std::ios::binary);
    std::uint64_t length = 0;
    stream.read(reinterpret_cast<char *>(&length), sizeof length);
    if (!stream || length > (1u << 26))
        throw std::runtime_error("cannot read " + path);
    std::string header(length, ' ');
    stream.read(header.data(), static_cast<std::streamsize>(length));
    for (std::size_t at = header.find("\"dtype\""); at != std::string::npos;
         at = header.find("\"dtype\"", at + 1)) {
        const std::size_t brace = header.rfind('{', at), quote = header.rfind('"', brace);
        const std::size_t start = header.rfind('"', quote - 1) + 1;
        const std::string item = header.substr(brace, header.find('}', at) - brace);
        const Shape range = numbers(between(item, "\"data_offsets\"", '[', ']'));
        stream.seekg(static_cast<std::streamoff>(8 + length) + range[0]);
        visit(header.substr(start, quote - start), between(item, "\"dtype\":", '"', '"'),
              static_cast<std::size_t>(range[1] - range[0]), stream);
    }
}

inline std::int32_t dtype_number(const std::string &name) {
    return name == "F32"    ? FEATINV_DTYPE_F32
           : name == "F16"  ? FEATINV_DTYPE_F16
           : name == "BF16" ? FEATINV_DTYPE_BF16
                            : FEATINV_DTYPE_F64;
}

inline const fi_backend *open_backend(const char *file, const std::string &libtorch) {
    if (!dlopen((libtorch + "/lib/libtorch_cpu.so").c_str(), RTLD_NOW | RTLD_LOCAL))
        throw std::runtime_error(dlerror());
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        throw std::runtime_error(dlerror());
    const auto entry = reinterpret_cast<fi_backend_entry>(dlsym(handle, FI_BACKEND_ENTRY));
    char error[512] = "no entry";
    const fi_backend *table = entry ? entry(error, sizeof error) : nullptr;
    if (!table || table->abi != FI_BACKEND_ABI || table->size != sizeof(fi_backend))
        throw std::runtime_error(error);
    return table;
}

inline void demand(const fi_backend *backend, int status, const char *what) {
    if (status != 0)
        throw std::runtime_error(std::string(what) + ": " + backend->error());
}

constexpr const char *program_files[FI_PROGRAM_COUNT] = {"backbone", "head",    "hint",   "control",
                                                         "unet",     "encoder", "decoder"};

/* Reads the programs of a bundle folder and their weights, one program after the other, as the core
 * does. skip: a weight key that is left out. */
inline fi_net *open_net(const fi_backend *backend, const std::string &folder, std::int32_t dtype,
                        const std::string &skip = "") {
    fi_net *net = nullptr;
    demand(backend, backend->net_create(&net, FI_DEVICE_CPU, 0, dtype, 0), "net_create");
    for (std::int32_t number = 0; number < FI_PROGRAM_COUNT; number++) {
        const std::string stem = folder + "/" + program_files[number];
        if (!std::ifstream(stem + ".ts"))
            continue;
        const std::string program = read_file(stem + ".ts");
        demand(backend, backend->program_load(net, number, program.data(), program.size()),
               "program_load");
        each_tensor(stem + ".safetensors", [&](const std::string &key, const std::string &type,
                                               std::size_t size, std::istream &stream) {
            void *memory = nullptr;
            if (key == skip)
                return;
            demand(backend,
                   backend->weight_memory(net, key.c_str(), dtype_number(type), &memory, size),
                   "weight_memory");
            if (!memory)
                throw std::runtime_error("nobody wants " + key);
            if (!stream.read(static_cast<char *>(memory), static_cast<std::streamsize>(size)))
                throw std::runtime_error("truncated weights at " + key);
            demand(backend, backend->weight_done(net, key.c_str()), "weight_done");
        });
        const int status = backend->program_finish(net, number);
        if (status != 0) {
            const std::string text = backend->error();
            backend->net_destroy(net);
            throw std::runtime_error(text);
        }
    }
    return net;
}

/* The positions of a field (n, c, side, side) that its recording holds: all of them, or every third
 * row and column (tests/data/thin.py). Nothing when the sizes do not go together. */
inline Floats kept(const Floats &field, const Array &recorded) {
    const auto planes = static_cast<std::size_t>(recorded.shape[0] * recorded.shape[1]);
    const auto side =
        static_cast<std::size_t>(std::lround(std::sqrt(double(field.size() / planes))));
    const auto rows = static_cast<std::size_t>(recorded.shape[2]);
    const std::size_t stride = side == rows ? 1 : 3;
    Floats part;
    for (std::size_t i = 0; planes * side * side == field.size() && i < planes * side; i++)
        for (std::size_t x = 0; i % side % stride == 0 && x < side; x += stride)
            part.push_back(field[i * side + x]);
    return part;
}

/* Largest difference over largest reference value. */
inline double scaled(const Floats &got, const Floats &wanted) {
    double difference = 0, size = 0;
    if (got.size() != wanted.size())
        return INFINITY;
    for (std::size_t i = 0; i < got.size(); i++) {
        if (!std::isfinite(got[i]))
            return INFINITY;
        difference = std::max(difference, std::fabs(double(got[i]) - double(wanted[i])));
        size = std::max(size, std::fabs(double(wanted[i])));
    }
    return difference / size;
}

#endif
