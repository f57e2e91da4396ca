// lut4 over int8 groups: see kernels/simd/lut4.inl.
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/dot.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/lut4.inl"
// clang-format on

namespace lathe::avx512vnni {

void nvfp4(const LinearArgs& a, const Share& s) noexcept { lut4<E4M3, 16, 1>(a, s); }
void mxfp4(const LinearArgs& a, const Share& s) noexcept { lut4<E8M0, 32, 1>(a, s); }
void nf4(const LinearArgs& a, const Share& s) noexcept { lut4<float, 32, 2>(a, s); }

}  // namespace lathe::avx512vnni
