// Passes over logits: see kernels/simd/sample.inl.
#include "kernels/neon/neon.h"
#include "kernels/neon/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/sample.inl"
// clang-format on

namespace lathe::neon {

float largest(const float* x, int64_t n) noexcept { return largest_of(x, n); }
void exponentials(const ExponentialsArgs& a) noexcept { lathe::exponentials(a); }
Tail at_least(const float* x, int64_t n, float bound) noexcept { return lathe::at_least(x, n, bound); }

}  // namespace lathe::neon
