// W8A8: see kernels/simd/w8a8.inl.
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/dot.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/w8a8.inl"
// clang-format on

namespace lathe::avx512vnni {

void w8a8_bf16(const LinearArgs& a, const Share& s) noexcept { w8a8<BF16>(a, s); }
void w8a8_f16(const LinearArgs& a, const Share& s) noexcept { w8a8<F16>(a, s); }
void w8a8_f32(const LinearArgs& a, const Share& s) noexcept { w8a8<float>(a, s); }
void w8a8_gated_bf16(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<BF16>(a, s); }
void w8a8_gated_f16(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<F16>(a, s); }
void w8a8_gated_f32(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<float>(a, s); }

}  // namespace lathe::avx512vnni
