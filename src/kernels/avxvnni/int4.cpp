// int4 over int8 groups: see kernels/simd/int4.inl.
#include "kernels/avxvnni/avxvnni.h"
#include "kernels/avxvnni/dot.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/int4.inl"
// clang-format on

namespace lathe::avxvnni {
#include "kernels/simd/int4_formats.inl"
}  // namespace lathe::avxvnni
