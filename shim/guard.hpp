/* What every entry of the table has around it: exceptions become a status and one line of text. */
#ifndef FI_SHIM_GUARD_HPP
#define FI_SHIM_GUARD_HPP

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <string>

#include "featinv.h"

namespace featinv {

/* Thrown inside the shim; the only exception of its own. */
struct Failure {
    std::int32_t status;
    std::string text; /* one line, starts in lower case */
};

[[noreturn]] [[gnu::format(printf, 2, 3)]] void fail(std::int32_t status, const char *format, ...);

/* "(2, 4, 32, 32)" */
std::string shape_text(c10::IntArrayRef shape);

/* The calling thread's last failure; empty after none. */
const char *last_error() noexcept;

/* The first line of a libtorch text, without the interpreter's traceback. */
std::string first_line(const std::string &text);

/* To be called inside a catch block: writes the thread's text and gives the status. */
int caught() noexcept;

/* A library does not write to its host's stderr: libtorch's warnings are dropped. */
class Quiet : public c10::WarningHandler {
  public:
    void process(const c10::Warning &) override {}
};

template <class Body> int guarded(Body &&body) noexcept {
    try {
        const c10::InferenceMode inference;
        Quiet quiet;
        const c10::WarningUtils::WarningHandlerGuard silence(&quiet);
        body();
        return FEATINV_OK;
    } catch (...) {
        return caught();
    }
}

} // namespace featinv

#endif
