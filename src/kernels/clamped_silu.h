// What gpt-oss makes of gate and up. On every ISA from kernels/simd/elementwise.inl.
#pragma once

#include "kernels/elementwise.h"

namespace lathe {

struct ClampedSiluArgs {  // out = op::SiluMul with a limit, of a and b
  const float *a, *b;
  float* out;
  int64_t rows, cols, a_stride, b_stride, out_stride;
  float limit, alpha;
};

void clamped_silu_mul_ref(const ClampedSiluArgs&, const Share&) noexcept;
namespace avx2 {
void clamped_silu_mul(const ClampedSiluArgs&, const Share&) noexcept;
}
namespace avx512 {
void clamped_silu_mul(const ClampedSiluArgs&, const Share&) noexcept;
}
namespace neon {
void clamped_silu_mul(const ClampedSiluArgs&, const Share&) noexcept;
}

}  // namespace lathe
