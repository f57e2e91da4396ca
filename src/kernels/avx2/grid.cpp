// Linear layers over 8- and 4-bit floats and codebooks: see kernels/simd/grid.inl.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/grid.inl"
// clang-format on

namespace lathe::avx2 {
#include "kernels/simd/grid_formats.inl"
}  // namespace lathe::avx2
