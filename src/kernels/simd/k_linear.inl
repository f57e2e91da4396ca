// GGUF's k-quants (panel.k) as a format of simd/linear.inl: weights as floats.
#pragma once

// Order matters: the second is written in the first.
// clang-format off
#include "kernels/simd/linear.inl"
#include "kernels/simd/k_format.inl"
// clang-format on

namespace lathe {
namespace {

template <int bits, int group_columns, bool minimum>
struct KFormat {
  static constexpr int step = 16;
  struct Scale {
    V factor, term;  // code * factor + term with minima, else (code + term) * factor
  };
  KPanels<bits, group_columns, minimum> w;
  int64_t group = group_columns;

  explicit KFormat(const LinearArgs& a) : w(a) {}
  Scale scale(int64_t p, int64_t g, int lane) const {
    const F16* unit = w.unit(p, g * group_columns / w.super_columns, lane);
    const int8_t* multiple = w.multiple(p, g, lane);
    Scale out{mul(load_as_f32(unit), load_as_f32(multiple)), set(-(1 << (bits - 1)))};
    if constexpr (minimum)
      out.term = sub(zero(), mul(load_as_f32(unit + panel), load_as_f32(multiple + panel)));
    return out;
  }
  KCodes<bits> codes(int64_t p, int64_t column, int lane) const {
    return {w.codes(p, column / 32, lane), static_cast<int>(column / 16 % 2)};
  }
  const void* stored(int64_t p, int64_t column) const { return w.codes(p, column / 32, 0); }
  template <int i>
  V weight(At<i>, const KCodes<bits>& codes, const Scale& s) const {
    const V code = words_to_f32(codes.template code<i>());
    return minimum ? fma(code, s.factor, s.term) : mul(add(code, s.term), s.factor);
  }
};

}  // namespace
}  // namespace lathe
