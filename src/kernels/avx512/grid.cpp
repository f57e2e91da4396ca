// Linear layers over 8- and 4-bit floats and codebooks: see kernels/simd/grid.inl.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/grid.inl"
// clang-format on

namespace lathe::avx512 {

void linear_lut4_e4m3(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<E4M3>>(a, s); }
void linear_lut4_e8m0(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<E8M0>>(a, s); }
void linear_lut4_f32(const LinearArgs& a, const Share& s) noexcept { linear<Lut4<float>>(a, s); }
void linear_fp8_bf16(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<BF16>>(a, s); }
void linear_fp8_f16(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<F16>>(a, s); }
void linear_fp8_f32(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<float>>(a, s); }
void linear_fp8_e8m0(const LinearArgs& a, const Share& s) noexcept { linear<Fp8<E8M0>>(a, s); }

}  // namespace lathe::avx512
