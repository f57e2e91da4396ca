// Few rows of x over bf16 weights that lie as tiles (amx.bf16): f32 arithmetic in vectors, as simd/linear.inl
// does it for panels, and the same bits.
#include "kernels/amx/amx.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/linear.inl"
// clang-format on

namespace lathe::amx {
namespace {

// A word holds two columns of a row, a vector of words those of 16 rows: half a panel.
struct Pairs {
  static constexpr int step = 2;
  struct Scale {};
  const char* tiles;
  int64_t depth, group;

  explicit Pairs(const LinearArgs& a)
      : tiles(static_cast<const char*>(a.codes)), depth((a.k + 31) / 32), group(a.k + a.k % 2) {}
  Scale scale(int64_t, int64_t, int) const { return {}; }
  I codes(int64_t p, int64_t column, int lane) const {
    const char* at = tiles + ((p * depth + column / 32) * 2 + lane / 16) * 1024 + column % 32 / 2 * 64;
    __builtin_prefetch(at + read_ahead);
    return load_words(reinterpret_cast<const uint32_t*>(at));
  }
  template <int i>
  V weight(At<i>, I words, Scale) const {
    return i == 0 ? low_bf16(_mm512_castsi512_ps(words)) : high_bf16(_mm512_castsi512_ps(words));
  }
};

}  // namespace

void decode_bf16(const LinearArgs& a, const Share& s) noexcept { linear<Pairs>(a, s); }

}  // namespace lathe::amx
