// Rows of x as int8, and rounded: see kernels/simd/int8_rows.inl and rounded_rows.inl.
#include "kernels/neon/neon.h"
#include "kernels/neon/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/int8_rows.inl"
#include "kernels/simd/rounded_rows.inl"
// clang-format on

namespace lathe::neon {

void pack_int8_rows(const PackRowsArgs& a, const Share& s) noexcept { int8_rows(a, s); }
void pack_int8_groups(const PackRowsArgs& a, const Share& s) noexcept { int8_groups(a, s); }
void pack_rounded_rows(const PackRowsArgs& a, const Share& s) noexcept { rounded_rows(a, s); }

}  // namespace lathe::neon
