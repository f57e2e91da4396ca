// Linear layers over 8- and 4-bit floats and codebooks: see kernels/simd/grid.inl.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/grid.inl"
// clang-format on

namespace lathe::avx512 {
#include "kernels/simd/grid_formats.inl"
}  // namespace lathe::avx512
