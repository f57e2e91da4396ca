// Attention: see kernels/simd/attention.inl.
#include "kernels/simd/attention.inl"

#include "kernels/avx512/avx512.h"
#include "kernels/avx512/vec.h"

namespace lathe::avx512 {

void attention(const AttentionArgs& a, const Share& s) noexcept { lathe::attention(a, s); }

}  // namespace lathe::avx512
