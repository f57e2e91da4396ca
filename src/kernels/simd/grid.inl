// Weights of 8- and 4-bit floats and of codebooks: formats for simd/linear.inl (quant/packings/panels.cpp).
// Both give exactly what dequantize() does: (scale * global) * value, rounded once.
#pragma once

#include "kernels/simd/linear.inl"

namespace lathe {
namespace {

// panel.lut4: any 16 values, e2m1 and nf4 alike. Per vector of weights a shift, a look-up and a product.
template <class S>
struct Lut4 {
  static constexpr int step = 8;
  struct Scale {
    V factor;
  };
  const uint32_t* words;
  const S* scales;
  FloatTable values;
  float global;
  int64_t steps, groups, k, group;

  explicit Lut4(const LinearArgs& a)
      : words(static_cast<const uint32_t*>(a.codes)),
        scales(static_cast<const S*>(a.scales)),
        values(static_cast<const float*>(a.zeros)),
        global(static_cast<const float*>(a.zeros)[16]),
        steps((a.k + step - 1) / step),
        groups((a.k + a.group - 1) / a.group),
        k(a.k),
        group(a.group) {}

  Scale scale(int64_t p, int64_t g, int lane) const {
    return {mul(load_as_f32(scales + (p * groups + g) * panel + lane), set(global))};
  }
  I codes(int64_t p, int64_t column, int lane) const {
    const uint32_t* at = words + (p * steps + column / step) * panel + lane;
    __builtin_prefetch(reinterpret_cast<const char*>(at) + read_ahead);
    return load_words(at);
  }
  const void* stored(int64_t p, int64_t column) const { return words + (p * steps + column / step) * panel; }
  template <int i>
  V weight(At<i>, I code, const Scale& s) const {
    return mul(values[shift_right<4 * i>(code)], s.factor);
  }
};

// panel.fp8. The scale takes the 256 that load_256ths() leaves.
template <class S>
struct Fp8 {
  static constexpr int step = 1;
  struct Scale {
    V factor;
  };
  const E4M3* elements;
  const S* scales;
  int64_t groups, k, group;

  explicit Fp8(const LinearArgs& a)
      : elements(static_cast<const E4M3*>(a.codes)),
        scales(static_cast<const S*>(a.scales)),
        groups((a.k + a.group - 1) / a.group),
        k(a.k),
        group(a.group) {}

  Scale scale(int64_t p, int64_t g, int lane) const {
    return {mul(load_as_f32(scales + (p * groups + g) * panel + lane), set(256))};
  }
  V codes(int64_t p, int64_t column, int lane) const {
    const E4M3* at = elements + (p * k + column) * panel;
    if (lane == 0) __builtin_prefetch(reinterpret_cast<const char*>(at) + read_ahead);
    return load_256ths(at, lane);
  }
  const void* stored(int64_t p, int64_t column) const { return elements + (p * k + column) * panel; }
  V weight(At<0>, V code, const Scale& s) const { return mul(code, s.factor); }
};

}  // namespace
}  // namespace lathe
