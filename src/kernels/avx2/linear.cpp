// Linear layers: see kernels/simd/linear.inl.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/linear.inl"
#include "kernels/simd/stored.inl"
// clang-format on

namespace lathe::avx2 {
#include "kernels/simd/linear_formats.inl"
}  // namespace lathe::avx2
