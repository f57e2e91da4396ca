// What gpt-oss makes of gate and up. On every ISA from kernels/simd/elementwise.inl.
#pragma once

#include "kernels/elementwise.h"

namespace lathe {

struct ClampedSiluArgs : BinaryArgs {  // out = op::SiluMul with a limit, of a and b
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
