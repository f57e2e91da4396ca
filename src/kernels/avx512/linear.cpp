// Linear layers: see kernels/simd/linear.inl.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/linear.inl"
#include "kernels/simd/stored.inl"
// clang-format on

namespace lathe::avx512 {
#include "kernels/simd/linear_formats.inl"
}  // namespace lathe::avx512
