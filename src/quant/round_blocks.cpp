#include "quant/round_blocks.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/float.h"
#include "quant/levels.h"

namespace lathe {
namespace {

float to_f16(float f) { return f16_to_f32(f32_to_f16(std::clamp(f, -65504.0f, 65504.0f))); }

// Round to nearest even for |x| < 2^22 without a call.
inline float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }
inline float clamped(float q, float lo, float hi) {
  const float above = q < lo ? lo : q;
  return above > hi ? hi : above;
}

// Sums by halving: loops that vectorize without reordering anything, so results are the same everywhere.
template <int n>
float total(float (&v)[n]) {
  for (int half = n / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// value = scale * q - minimum.
struct Grid {
  float scale = 0, minimum = 0;
};

// A group of n values and what each one's squared error counts.
template <int n>
struct Group {
  const float *x, *w;
  float lo, hi;  // of codes

  void codes(Grid grid, float* q) const {
    const float inverse = grid.scale != 0 ? 1 / grid.scale : 0;
    for (int i = 0; i < n; ++i) q[i] = clamped(round_even((x[i] + grid.minimum) * inverse), lo, hi);
  }
  float error(Grid grid, const float* q) const {
    float e[n];
    for (int i = 0; i < n; ++i) {
      const float d = x[i] - (grid.scale * q[i] - grid.minimum);
      e[i] = w[i] * d * d;
    }
    return total(e);
  }
  float error(Grid grid) const {
    float q[n];
    codes(grid, q);
    return error(grid, q);
  }
  // The grid that fits best once the codes are fixed; `offset`: with a minimum, of any sign or not negative.
  enum class Minimum { none, positive, free };
  Grid fitted(const float* q, Minimum offset) const {
    float xq[n], qq[n], q1[n], x1[n], w1[n];
    for (int i = 0; i < n; ++i) {
      q1[i] = w[i] * q[i];
      qq[i] = q1[i] * q[i];
      xq[i] = q1[i] * x[i];
      x1[i] = w[i] * x[i];
      w1[i] = w[i];
    }
    const float sum_xq = total(xq), sum_qq = total(qq);
    const Grid alone{sum_qq > 0 ? sum_xq / sum_qq : 0, 0};
    if (offset == Minimum::none) return alone;
    const float sum_q = total(q1), sum_x = total(x1), sum_w = total(w1);
    const float determinant = sum_w * sum_qq - sum_q * sum_q;
    if (!(determinant > 0))
      return {0, offset == Minimum::free ? -sum_x / sum_w : std::max(0.0f, -sum_x / sum_w)};
    const Grid grid{(sum_w * sum_xq - sum_x * sum_q) / determinant,
                    (sum_q * sum_xq - sum_qq * sum_x) / determinant};
    return grid.minimum < 0 && offset == Minimum::positive ? alone : grid;
  }
};

// Ranges around the seen one, each fitted by least squares; then the best is fitted again.
constexpr int candidates = 21, refinements = 3;

template <int n>
Grid search(const Group<n>& group, typename Group<n>::Minimum offset) {
  using Minimum = typename Group<n>::Minimum;
  float lowest = group.x[0], highest = group.x[0], extreme = 0;
  for (int i = 0; i < n; ++i) {
    lowest = std::min(lowest, group.x[i]);
    highest = std::max(highest, group.x[i]);
    if (std::fabs(group.x[i]) > std::fabs(extreme)) extreme = group.x[i];
  }
  if (offset == Minimum::positive) lowest = std::min(lowest, 0.0f);
  if (offset == Minimum::none ? extreme == 0 : highest == lowest)
    return {0, offset == Minimum::none ? 0 : -lowest};
  Grid best;
  float least = INFINITY, q[n];
  const auto improves = [&](Grid grid) {
    const float error = group.error(grid);
    if (!(error < least)) return false;
    least = error;
    best = grid;
    return true;
  };
  for (int i = 0; i < candidates; ++i) {
    const float shift = 0.1f * static_cast<float>(i - candidates / 2);
    // Without a minimum the largest value takes the one code that has no opposite, whatever its sign.
    const Grid start = offset == Minimum::none ? Grid{extreme / (group.lo + shift), 0}
                                               : Grid{(highest - lowest) / (group.hi + shift), -lowest};
    group.codes(start, q);
    improves(group.fitted(q, offset));
  }
  for (int i = 0; i < refinements; ++i) {
    group.codes(best, q);
    if (!improves(group.fitted(q, offset))) break;
  }
  return best;
}

template <int n>
void store(const float* q, int16_t* codes) {
  for (int i = 0; i < n; ++i) codes[i] = static_cast<int16_t>(q[i]);
}

// One level: f16 scales, and minima.
template <int n>
void round_groups(const float* x, const float* w, int64_t cols, const Numerics& numerics, int16_t* codes,
                  float* scales, float* minima) {
  using Minimum = typename Group<n>::Minimum;
  for (int64_t g = 0; g < cols / n; ++g) {
    const Group<n> group{x + g * n, w + g * n, static_cast<float>(numerics.code_min()),
                         static_cast<float>(numerics.code_max())};
    Grid grid = search(group, minima ? Minimum::free : Minimum::none);
    grid = {to_f16(grid.scale), to_f16(grid.minimum)};
    float q[n];
    group.codes(grid, q);
    store<n>(q, codes + g * n);
    scales[g] = grid.scale;
    if (minima) minima[g] = grid.minimum;
  }
}

// A super-block of 256 values in groups of n: the groups' grids, then the units, then for each group the best
// multiples around the nearest ones.
template <int n>
struct SuperBlock {
  static constexpr int groups = 256 / n;
  using Minimum = typename Group<n>::Minimum;
  const float *x, *w;
  Numerics numerics;
  LevelRange range;
  float unit = 0, unit_of_minimum = 0;
  float scale[groups] = {}, minimum[groups] = {};  // multiples

  Group<n> group(int g) const {
    return {x + g * n, w + g * n, static_cast<float>(numerics.code_min()),
            static_cast<float>(numerics.code_max())};
  }
  bool has_minimum() const { return numerics.offset == Numerics::Offset::minimum; }
  Grid grid(int g) const { return {unit * scale[g], unit_of_minimum * minimum[g]}; }
  float nearest(float value, float of_unit) const {
    return of_unit == 0 ? 0
                        : clamped(std::nearbyint(value / of_unit), static_cast<float>(range.lo),
                                  static_cast<float>(range.hi));
  }
  // The largest multiple that there is, for the largest grid.
  float unit_for(const float* values) const {
    float extreme = 0;
    for (int g = 0; g < groups; ++g)
      if (std::fabs(values[g]) > std::fabs(extreme)) extreme = values[g];
    return to_f16(extreme / static_cast<float>(range.lo < 0 ? range.lo : range.hi));
  }

  // Multiples within one of the nearest; returns the error of all groups.
  float choose_multiples(const float* scales, const float* minima) {
    float sum = 0;
    for (int g = 0; g < groups; ++g) {
      const float at = nearest(scales[g], unit), from = nearest(minima[g], unit_of_minimum);
      const Group<n> of = group(g);
      float least = INFINITY;
      for (int i = -1; i <= 1; ++i)
        for (int j = -1; j <= 1; ++j) {
          if ((j != 0 && !has_minimum()) || (i != 0 && unit == 0) || (j != 0 && unit_of_minimum == 0))
            continue;
          const float s = at + static_cast<float>(i), m = from + static_cast<float>(j);
          const auto lo = static_cast<float>(range.lo), hi = static_cast<float>(range.hi);
          if (s < lo || s > hi || (has_minimum() && (m < lo || m > hi))) continue;
          const float error = of.error({unit * s, unit_of_minimum * m});
          if (!(error < least)) continue;
          least = error;
          scale[g] = s;
          minimum[g] = m;
        }
      sum += least;
    }
    return sum;
  }

  // Units of least squares once codes and multiples are fixed.
  void fit_units() {
    double ss = 0, mm = 0, sm = 0, xs = 0, xm = 0;
    for (int g = 0; g < groups; ++g) {
      float q[n];
      group(g).codes(grid(g), q);
      for (int i = 0; i < n; ++i) {
        const double weight = static_cast<double>(w[g * n + i]), value = static_cast<double>(x[g * n + i]);
        const double s = static_cast<double>(scale[g] * q[i]), m = -static_cast<double>(minimum[g]);
        ss += weight * s * s, mm += weight * m * m, sm += weight * s * m;
        xs += weight * value * s, xm += weight * value * m;
      }
    }
    const double determinant = ss * mm - sm * sm;
    if (has_minimum() && determinant > 0) {
      unit = to_f16(static_cast<float>((xs * mm - xm * sm) / determinant));
      unit_of_minimum = to_f16(static_cast<float>((xm * ss - xs * sm) / determinant));
    } else if (ss > 0) {
      unit = to_f16(
          static_cast<float>((xs - (has_minimum() ? sm * static_cast<double>(unit_of_minimum) : 0)) / ss));
    }
  }

  void round(int16_t* codes, float* scales, float* minima) {
    float s[groups], m[groups];
    for (int g = 0; g < groups; ++g) {
      const Grid best = search(group(g), has_minimum() ? Minimum::positive : Minimum::none);
      s[g] = best.scale;
      m[g] = best.minimum;
    }
    unit = unit_for(s);
    unit_of_minimum = has_minimum() ? unit_for(m) : 0;
    const float error = choose_multiples(s, m);
    SuperBlock again = *this;
    again.fit_units();
    if (again.choose_multiples(s, m) < error) *this = again;
    for (int g = 0; g < groups; ++g) {
      float q[n];
      group(g).codes(grid(g), q);
      store<n>(q, codes + g * n);
      scales[g] = grid(g).scale;
      if (minima) minima[g] = grid(g).minimum;
    }
  }
};

template <int n>
void round_row(const float* x, const float* w, int64_t cols, const Numerics& numerics, int16_t* codes,
               float* scales, float* minima) {
  if (numerics.super == 0) return round_groups<n>(x, w, cols, numerics, codes, scales, minima);
  for (int64_t s = 0; s < cols / numerics.super; ++s) {
    const int64_t at = s * numerics.super, g = at / n;
    SuperBlock<n> block{x + at, w + at, numerics, level_range(numerics)};
    block.round(codes + at, scales + g, minima ? minima + g : nullptr);
  }
}

}  // namespace

Codes round_blocks(const float* values, int64_t rows, int64_t cols, const Numerics& numerics,
                   const float* importance) {
  const bool known =
      !numerics.is_dense() && numerics.offset != Numerics::Offset::zero_point &&
      (numerics.super == 0 ? numerics.group == 32 && numerics.dtype == DType::f16
                           : numerics.super == 256 && (numerics.group == 16 || numerics.group == 32));
  const int64_t whole = numerics.super ? numerics.super : numerics.group;
  if (!known || cols % whole != 0) fail("cannot round {} columns to blocks of {}", cols, to_string(numerics));
  for (int64_t i = 0; i < rows * cols; ++i)
    if (!std::isfinite(values[i])) fail("cannot round infinities or NaNs to {}", to_string(numerics));
  const std::vector<float> alike(importance ? 0 : static_cast<size_t>(cols), 1.0f);
  const float* w = importance ? importance : alike.data();
  const int64_t groups = numerics.groups(cols);
  const bool minima = numerics.offset == Numerics::Offset::minimum;
  Codes c;
  c.numerics = numerics;
  c.rows = rows;
  c.cols = cols;
  c.codes.resize(static_cast<size_t>(rows * cols));
  c.scales.resize(static_cast<size_t>(rows * groups));
  if (minima) c.zeros.resize(c.scales.size());
  for (int64_t r = 0; r < rows; ++r)
    (numerics.group == 16 ? round_row<16> : round_row<32>)(values + r * cols, w, cols, numerics,
                                                           c.codes.data() + r * cols,
                                                           c.scales.data() + r * groups,
                                                           minima ? c.zeros.data() + r * groups : nullptr);
  return c;
}

}  // namespace lathe
