// What a weight format costs at an ISA level: a kernel of its own, a detour through f32, or nothing that runs
// it.
#pragma once

#include <string_view>

#include "kernels/tables.h"

namespace lathe {

enum class Support : uint8_t {
  native,        // a kernel reads the format itself, and multiplies it
  emulated,      // weights are expanded to f32 first: exact, but four bytes each; or a kernel reads them, but
                 // rows of x, rounded to the format's floats, are multiplied as f32
  storage_only,  // it can be read and written, and no kernel runs it
};
std::string_view to_string(Support);  // "native", "emulated", "storage only"

struct FormatSupport {
  Support support = Support::storage_only;
  const LinearKernel* kernel = nullptr;  // the row that a plan would take; null when storage only
};
FormatSupport support_of(const Numerics&, int64_t n, int64_t k, uint32_t features);

}  // namespace lathe
