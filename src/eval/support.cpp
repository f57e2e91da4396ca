#include "eval/support.h"

#include "core/error.h"

namespace lathe {

std::string_view to_string(Support s) {
  constexpr std::string_view names[] = {"native", "emulated", "storage only"};
  return names[static_cast<size_t>(s)];
}

FormatSupport support_of(const Numerics& numerics, int64_t n, int64_t k, uint32_t features) {
  try {
    const LinearKernel& row = choose_linear(numerics, n, k, features);
    if (!packing(row.packing).holds(numerics)) return {};
    return {emulates(row, numerics) ? Support::emulated : Support::native, &row};
  } catch (const Error&) {  // no row takes it
    return {};
  }
}

}  // namespace lathe
