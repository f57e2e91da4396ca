// Linear layers: see kernels/simd/linear.inl.
#include "kernels/neon/neon.h"
#include "kernels/neon/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/linear.inl"
#include "kernels/simd/stored.inl"
// clang-format on

namespace lathe::neon {
#include "kernels/simd/linear_formats.inl"
}  // namespace lathe::neon
