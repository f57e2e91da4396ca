// Attention: see kernels/simd/attention.inl.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/attention.inl"
// clang-format on

namespace lathe::avx512 {

void attention(const AttentionArgs& a, const Share& s) noexcept { lathe::attention(a, s); }
void write_kv(KvType type, const float* x, int64_t head_dim, void* row, float scale) noexcept {
  write_kv_row(type, x, head_dim, static_cast<char*>(row), scale);
}

}  // namespace lathe::avx512
