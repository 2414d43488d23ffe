#include "guard.hpp"

#include <cctype>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace featinv {

namespace {

/* A fixed array: reporting that memory is out must not need any. */
thread_local char error_text[1024] = "";

int record(int status, const char *prefix, const char *text) noexcept {
    std::snprintf(error_text, sizeof error_text, "%s%s", prefix, text);
    return status;
}

bool says_out_of_memory(const std::string &text) {
    return text.find("out of memory") != std::string::npos ||
           text.find("can't allocate memory") != std::string::npos ||
           text.find("not enough memory") != std::string::npos ||
           text.find("bad_alloc") != std::string::npos;
}

int record_torch(const char *text) {
    const std::string whole = text;
    const std::string line = first_line(whole);
    /* The interpreter rethrows everything as one type; only the text still tells. */
    if (says_out_of_memory(whole))
        return record(FEATINV_ERROR_MEMORY, "out of memory: ", line.c_str());
    return record(FEATINV_ERROR_COMPUTE, "libtorch: ", line.c_str());
}

} // namespace

const char *last_error() noexcept {
    return error_text;
}

void fail(std::int32_t status, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    throw Failure{status, text};
}

std::string shape_text(c10::IntArrayRef shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); i++)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

std::string first_line(const std::string &text) {
    std::size_t begin = 0;
    if (text.rfind("The following operation failed in the TorchScript interpreter", 0) == 0) {
        /* A traceback of the program follows, then "RuntimeError: " and the message. */
        const std::size_t mark = text.find("Error: ");
        if (mark != std::string::npos)
            begin = mark + std::strlen("Error: ");
    }
    while (begin < text.size() && std::isspace(static_cast<unsigned char>(text[begin])))
        begin++;
    return text.substr(begin, text.find('\n', begin) - begin);
}

int caught() noexcept {
    try {
        try {
            throw;
        } catch (const Failure &failure) {
            return record(failure.status, "", failure.text.c_str());
        } catch (const c10::OutOfMemoryError &error) {
            const std::string line = first_line(error.what_without_backtrace());
            return record(FEATINV_ERROR_MEMORY, "out of memory: ", line.c_str());
        } catch (const c10::Error &error) {
            return record_torch(error.what_without_backtrace());
        } catch (const std::bad_alloc &) {
            return record(FEATINV_ERROR_MEMORY, "", "out of memory");
        } catch (const std::exception &error) {
            return record_torch(error.what());
        } catch (...) {
            return record(FEATINV_ERROR_INTERNAL, "", "an exception of an unknown type");
        }
    } catch (...) {
        return record(FEATINV_ERROR_MEMORY, "", "out of memory while reporting a failure");
    }
}

} // namespace featinv
