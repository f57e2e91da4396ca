// Linear layers over 8- and 4-bit floats and codebooks: see kernels/simd/grid.inl.
#include "kernels/neon/neon.h"
#include "kernels/neon/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/grid.inl"
// clang-format on

namespace lathe::neon {
#include "kernels/simd/grid_formats.inl"
}  // namespace lathe::neon
