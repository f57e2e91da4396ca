// Rounding to grids: 8- and 4-bit floats and codebooks.
#include <span>

#include "quant/round_parts.h"

namespace lathe {
namespace {

using Kind = Numerics::Kind;

// A grid's nearest value and its code, both free of branches.
struct E4M3 {
  static constexpr float largest = 448, least_normal = 0x1p-6f, least = 0x1p-9f;
  static float nearest(float x) {
    const float a = std::fabs(x), magnitude = a > largest ? largest : a;
    uint32_t bits = std::bit_cast<uint32_t>(magnitude);
    bits = (bits + 0x7ffffu + (bits >> 20 & 1)) & 0xfff00000u;  // 3 bits of mantissa stay
    const float normal = std::bit_cast<float>(bits), subnormal = round_even(magnitude * (1 / least)) * least;
    return std::copysign(magnitude < least_normal ? subnormal : normal, x);
  }
  static int code(float x) { return f32_to_f8e4m3(x); }
};

struct E2M1 {
  static float nearest(float x) {
    const float a = std::fabs(x);
    const float step = a < 2 ? 0.5f : a < 4 ? 1.0f : 2.0f, steps = a < 2 ? 2.0f : a < 4 ? 1.0f : 0.5f;
    const float rounded = round_even((a > 6 ? 6.0f : a) * steps) * step;
    return std::copysign(rounded, x);
  }
  static int code(float x) {
    const float v = std::fabs(nearest(x));
    const int magnitude = v <= 2 ? static_cast<int>(2 * v) : v <= 4 ? static_cast<int>(v) + 2 : 7;
    return magnitude | (std::signbit(x) ? 8 : 0);
  }
};

struct NF4 {
  static int code(float x) {
    const std::span<const float> values = grid_values(Kind::nf4);
    int above = 0;
    for (size_t i = 0; i + 1 < 16; ++i) above += x > (values[i] + values[i + 1]) / 2;
    return above;
  }
  static float nearest(float x) { return grid_values(Kind::nf4)[static_cast<size_t>(code(x))]; }
};

// What shares a scale: `rows` pieces of n floats.
struct Block {
  const float* x;
  int64_t rows, stride, n;

  template <class Step>
  void for_each(Step step) const {
    for (int64_t r = 0; r < rows; ++r) for_lanes(x + r * stride, n, step);
  }
  float largest() const {
    float most[lanes] = {};
    for_each([&](int j, float v) { most[j] = std::fabs(v) > most[j] ? std::fabs(v) : most[j]; });
    return *std::max_element(most, most + lanes);
  }
};

template <class Grid>
float squared_error(const Block& b, float scale) {
  Sum sum;
  b.for_each([&](int j, float v) {
    const float e = v - scale * Grid::nearest(v / scale);
    sum.lane[j] += e * e;
  });
  return sum.total();
}

// Least squares of x over its rounded values. 0 when these are all 0.
template <class Grid>
float fitted_scale(const Block& b, float scale) {
  Sum xq, qq;
  b.for_each([&](int j, float v) {
    const float q = Grid::nearest(v / scale);
    xq.lane[j] += v * q;
    qq.lane[j] += q * q;
  });
  const float denominator = qq.total();
  return denominator == 0 ? 0 : xq.total() / denominator;
}

constexpr int largest_e4m3 = 0x7e;

// The scale of a block, before the global one.
template <class Grid>
float choose_scale(const Block& block, const Numerics& n, ScaleRule rule, float global) {
  const float amax = block.largest(), wanted = amax / largest_of_grid(n.kind) / global;
  const bool try_others = rule.search == ScaleSearch::mse && amax > 0;
  float best = 0, least = std::numeric_limits<float>::infinity();
  const auto consider = [&](float scale) {
    const float error = try_others ? squared_error<Grid>(block, scale * global) : 0;
    if (best > 0 && !(error < least)) return false;
    least = error;
    best = scale;
    return true;
  };
  if (n.dtype == DType::f8e8m0) {
    if (!try_others || rule.mx != MxRule::by_search)
      return std::ldexp(1.0f, mx_exponent(amax, rule.mx, n.kind));
    const int e = mx_exponent(amax, MxRule::floor, n.kind);
    consider(std::ldexp(1.0f, e));
    consider(std::ldexp(1.0f, std::min(e + 1, 127)));
    return best;
  }
  if (n.dtype == DType::f8e4m3) {
    const int code = f32_to_f8e4m3(wanted);
    consider(code == 0 ? 0.125f : f8e4m3_to_f32(static_cast<uint8_t>(code)));
    // Eight codes are an octave: from 0.6 to 2 of the rule's scale. Beyond, no block of normal or
    // heavy-tailed numbers gained.
    for (int c = code - 6; try_others && c <= code + 8; ++c)
      if (c > 0 && c <= largest_e4m3) consider(f8e4m3_to_f32(static_cast<uint8_t>(c)));
    return best;
  }
  consider(storable(wanted, n.dtype));
  if (!try_others) return best;
  if (n.kind == Kind::e4m3) {
    // A float grid looks the same an octave further, and must not saturate: only the fraction matters.
    for (int i = 1; i < 8; ++i) consider(storable(wanted * (1 + static_cast<float>(i) / 8), n.dtype));
    return best;
  }
  for (int i = 0; i < 9; ++i) consider(storable(wanted * (1.0f - 0.05f * static_cast<float>(i)), n.dtype));
  for (int i = 0; i < 2; ++i) {
    const float scale = fitted_scale<Grid>(block, best);
    if (!(scale > 0) || !consider(storable(scale, n.dtype))) break;
  }
  return best;
}

template <class Grid>
void round_blocks(const float* values, Codes& c, ScaleRule rule, float largest) {
  const Numerics& n = c.numerics;
  const int64_t groups = n.groups(c.cols), group = n.group == 0 ? c.cols : n.group,
                tall = n.block_rows == 0 ? std::max<int64_t>(c.rows, 1) : n.block_rows;
  for (int64_t top = 0; top < c.rows; top += tall)
    for (int64_t g = 0; g < groups; ++g) {
      const Block block{values + top * c.cols + g * group, std::min(tall, c.rows - top), c.cols,
                        std::min(group, c.cols - g * group)};
      const float scale = n.block_rows == 0 ? storable(largest / largest_of_grid(n.kind), n.dtype)
                                            : choose_scale<Grid>(block, n, rule, c.global);
      const float whole = scale * c.global;
      for (int64_t r = 0; r < block.rows; ++r) {
        const float* x = block.x + r * block.stride;
        int16_t* codes = c.codes.data() + (x - values);
        for (int64_t i = 0; i < block.n; ++i) codes[i] = static_cast<int16_t>(Grid::code(x[i] / whole));
        c.scales[static_cast<size_t>((top + r) * groups + g)] = scale;
      }
    }
}

}  // namespace

int nearest_code(Kind kind, float x) {
  if (kind == Kind::e4m3) return E4M3::code(x);
  if (kind == Kind::e2m1) return E2M1::code(x);
  if (kind == Kind::nf4) return NF4::code(x);
  fail("only grids have a nearest code");
}

float global_scale(const Numerics& n, ScaleSearch search, float largest) {
  if (!n.global) return 1;
  const float most = search == ScaleSearch::mse ? 256 : 448;
  // Stored inverted by compressed-tensors: the number that 1 / f32 gives back.
  const float divisor = most * largest_of_grid(n.kind) / largest, global = 1 / divisor;
  return std::isnormal(divisor) && std::isnormal(global) ? global : 1;
}

int mx_exponent(float amax, MxRule rule, Kind kind) {
  const int emax = kind == Kind::e4m3 ? 8 : 2;
  if (!(amax > 0)) return -127;
  int e = 0;
  const float fraction = 2 * std::frexp(amax, &e);  // amax = fraction * 2^(e - 1), fraction in [1, 2)
  int exponent = e - 1 - emax;
  if (rule == MxRule::even || rule == MxRule::by_search) exponent += fraction >= 1.75f;
  if (rule == MxRule::ceil) exponent += fraction > 1;
  if (rule == MxRule::rceil) exponent += fraction > std::ldexp(largest_of_grid(kind), -emax);
  return std::clamp(exponent, -127, 127);
}

Codes round_to_grid(const float* values, int64_t rows, int64_t cols, const Numerics& numerics, ScaleRule rule,
                    float largest) {
  if (numerics.scales_by_whole() && largest < 0) largest = Block{values, 1, 0, rows * cols}.largest();
  Codes c{numerics, rows, cols, {}, {}, {}, {}, global_scale(numerics, rule.search, largest)};
  c.codes.resize(static_cast<size_t>(rows * cols));
  c.scales.resize(static_cast<size_t>(rows * numerics.groups(cols)));
  switch (numerics.kind) {
    case Kind::e4m3:
      round_blocks<E4M3>(values, c, rule, largest);
      return c;
    case Kind::e2m1:
      round_blocks<E2M1>(values, c, rule, largest);
      return c;
    case Kind::nf4:
      round_blocks<NF4>(values, c, rule, largest);
      return c;
    default:
      fail("{} is not a grid of floats that is rounded to", to_string(numerics));
  }
}

}  // namespace lathe
