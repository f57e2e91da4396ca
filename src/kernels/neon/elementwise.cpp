// Row-wise ops: see kernels/simd/elementwise.inl, hadamard.inl.
#include "kernels/clamped_silu.h"
#include "kernels/neon/neon.h"
#include "kernels/neon/vec.h"
// The bodies come last: they are written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/elementwise.inl"
#include "kernels/simd/hadamard.inl"
// clang-format on

namespace lathe::neon {

void rms_norm(const RmsNormArgs& a, const Share& s) noexcept { lathe::rms_norm(a, s); }
void add_rms_norm(const AddRmsNormArgs& a, const Share& s) noexcept { lathe::add_rms_norm(a, s); }
void rope(const RopeArgs& a, const Share& s) noexcept { lathe::rope(a, s); }
void low_rank(const LowRankArgs& a, const Share& s) noexcept { lathe::low_rank(a, s); }
void hadamard(const HadamardArgs& a, const Share& s) noexcept { lathe::hadamard(a, s); }
void take_columns(const TakeColumnsArgs& a, const Share& s) noexcept { lathe::take_columns(a, s); }
void add(const BinaryArgs& a, const Share& s) noexcept { add_rows(a, s); }
void mul(const BinaryArgs& a, const Share& s) noexcept { mul_rows(a, s); }
void silu(const BinaryArgs& a, const Share& s) noexcept { silu_rows(a, s); }
void silu_mul(const BinaryArgs& a, const Share& s) noexcept { silu_mul_rows(a, s); }
void clamped_silu_mul(const ClampedSiluArgs& a, const Share& s) noexcept { clamped_silu_mul_rows(a, s); }

}  // namespace lathe::neon
