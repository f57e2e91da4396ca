// GGUF's k-quants over int8 groups: see kernels/simd/k_quants.inl.
#include "kernels/neon/dot.h"
#include "kernels/neon/neon.h"

namespace lathe {
namespace {

constexpr int small_chain(int) { return 8; }  // all: sums have 32 bits

}  // namespace
}  // namespace lathe

// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/k_quants.inl"
// clang-format on

namespace lathe::neon {

void k2(const LinearArgs& a, const Share& s) noexcept { k_quant<2, 16, true>(a, s); }
void k3(const LinearArgs& a, const Share& s) noexcept { k_quant<3, 16, false>(a, s); }
void k4(const LinearArgs& a, const Share& s) noexcept { k_quant<4, 32, true>(a, s); }
void k5(const LinearArgs& a, const Share& s) noexcept { k_quant<5, 32, true>(a, s); }
void k6(const LinearArgs& a, const Share& s) noexcept { k_quant<6, 16, false>(a, s); }

}  // namespace lathe::neon
