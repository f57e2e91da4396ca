// Attention: see kernels/simd/attention.inl.
#include "kernels/simd/attention.inl"

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vec.h"

namespace lathe::avx2 {

void attention(const AttentionArgs& a, const Share& s) noexcept { lathe::attention(a, s); }

}  // namespace lathe::avx2
