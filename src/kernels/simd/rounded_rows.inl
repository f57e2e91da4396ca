// Rows of x rounded to the numbers of quant/activations.h, as the floats that these mean, for kernels of f32
// products. The same bits on every ISA, and as round_row gives. Rounding has no vectors of its own: loops of
// plain arithmetic over what shares a scale, which compilers turn into them.
#pragma once

#include "kernels/simd/int8_rows.inl"

namespace lathe {
namespace {

inline uint32_t float_bits(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, sizeof u);
  return u;
}
inline float float_from(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, sizeof f);
  return f;
}

// A float of few bits: magnitudes up to `largest`, steps of 2^-bits of the power of two below, which is at
// least `lowest`. e4m3 and e2m1.
struct E4M3Grid {
  static constexpr float largest = 448, lowest = 0x1p-6f, to_magic = 0x1.8p20f;
  static constexpr int32_t largest_exponent = 8;
};
struct E2M1Grid {
  static constexpr float largest = 6, lowest = 1, to_magic = 0x1.8p22f;
  static constexpr int32_t largest_exponent = 2;
};

// To nearest, ties to even: 1.5 * 2^23 steps are added, where f32 has no smaller ones, and taken away.
template <class Grid>
inline float round_to(float x) {
  const uint32_t bits = float_bits(x), size_bits = bits & 0x7fffffffu;
  float size = float_from(size_bits);
  size = size > Grid::largest ? Grid::largest : size;  // NaN stays
  const float power = float_from(float_bits(size) & 0x7f800000u);
  const float magic = (power > Grid::lowest ? power : Grid::lowest) * Grid::to_magic;
  return float_from(float_bits((size + magic) - magic) | (bits & 0x80000000u));
}

inline float largest_magnitude(const float* x, int64_t n) {
  V most = zero();
  for (int64_t i = 0; i < n; i += lanes) most = max(abs(load_n(x + i, n - i)), most);
  return largest(most);
}

template <class Grid>
inline void round_with_scale(const float* x, int64_t n, float scale, float* out) {
  if (scale == 0)
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * 0;
  else
    for (int64_t i = 0; i < n; ++i) out[i] = round_to<Grid>(x[i] / scale) * scale;
}

// 2^e of MxRule::even, where a fraction of 1.75 counts as the next power of two, or of rceil, where one
// above the grid's largest does: `up` is added to the bits of m, and exponents drop the fraction.
template <class Grid>
inline float mx_scale(float m, uint32_t up) {
  if (!(m > 0)) return 0;
  constexpr float normal = 0x1p-126f;
  const bool tiny = m < normal;  // no float of the format gets there: the scale is at least 2^-127
  const int32_t e = static_cast<int32_t>((float_bits(m) + up) >> 23) - 127 - Grid::largest_exponent;
  return tiny || e < -126 ? 0x1p-127f : float_from(static_cast<uint32_t>(e + 127) << 23);
}
constexpr uint32_t even_up = 0x200000u;  // 2 - 1.75
constexpr uint32_t e4m3_up = 0x1fffffu;  // of fractions above 1.75, which is 448's

// Groups of `group` columns, each with the scale that scale_of its largest magnitude gives.
template <class Grid, class ScaleOf>
inline void round_groups(const float* x, int64_t n, int64_t group, float* out, ScaleOf&& scale_of) {
  for (int64_t i = 0; i < n; i += group) {
    const int64_t count = n - i < group ? n - i : group;
    round_with_scale<Grid>(x + i, count, scale_of(largest_magnitude(x + i, count)), out + i);
  }
}

inline void round_row_to(Activations to, const float* x, int64_t n, float* out, float given) {
  switch (to) {
    case Activations::as_they_are:
      __builtin_memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
      return;
    case Activations::int8_per_row:
    case Activations::int8_static: {
      float scale = given;
      round_to_int8(x, n, n, scale,
                    [&](int64_t i, I integers) { store_n(out + i, words_to_f32(integers), n - i); });
      for (int64_t i = 0; i < n; ++i) out[i] *= scale;
      return;
    }
    case Activations::fp8_per_row:
      return round_groups<E4M3Grid>(x, n, n, out, [](float m) { return m / 448; });
    case Activations::fp8_groups:
      return round_groups<E4M3Grid>(x, n, 128, out, [](float m) { return m / 448; });
    case Activations::fp8_static:
      return round_with_scale<E4M3Grid>(x, n, given, out);
    case Activations::nvfp4:
      return round_groups<E2M1Grid>(x, n, 16, out,
                                    [&](float m) { return given * round_to<E4M3Grid>(m / 6 / given); });
    case Activations::mxfp4:
      return round_groups<E2M1Grid>(x, n, 32, out, [](float m) { return mx_scale<E2M1Grid>(m, even_up); });
    case Activations::mxfp8:
      return round_groups<E4M3Grid>(x, n, 32, out, [](float m) { return mx_scale<E4M3Grid>(m, even_up); });
    case Activations::mxfp8_rceil:
      return round_groups<E4M3Grid>(x, n, 32, out, [](float m) { return mx_scale<E4M3Grid>(m, e4m3_up); });
  }
}

inline void rounded_rows(const PackRowsArgs& a, const Share& share) {
  for (int64_t r = share.worker; r < a.m; r += share.workers)
    round_row_to(a.to, a.x + r * a.x_stride, a.k, static_cast<float*>(a.out) + r * a.k, a.scale);
}

}  // namespace
}  // namespace lathe
