#include "compress/fit_grid.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

// Sums in independent chains that a compiler keeps in vector registers of any width, joined in one order.
constexpr int lanes = 16;

template <class Term>
LATHE_ALWAYS_INLINE float sum_of(int64_t n, Term term) {
  float lane[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) lane[j] += term(i + j);
  for (int j = 0; i + j < n; ++j) lane[j] += term(i + j);
  for (int step = lanes / 2; step > 0; step /= 2)
    for (int j = 0; j < step; ++j) lane[j] += lane[j + step];
  return lane[0];
}

struct Group {
  const float *x, *importance;
  int64_t n;
  LATHE_ALWAYS_INLINE float cost(int64_t i) const { return importance ? importance[i] : 1.0f; }
};

LATHE_VECTOR_CLONES float error_of(const Group& v, const Grid& grid) {
  if (!v.importance)
    return sum_of(
        v.n, [&](int64_t i) __attribute__((always_inline)) {
          const float e = v.x[i] - grid.value(grid.code(v.x[i]));
          return e * e;
        });
  return sum_of(
      v.n, [&](int64_t i) __attribute__((always_inline)) {
        const float e = v.x[i] - grid.value(grid.code(v.x[i]));
        return v.importance[i] * e * e;
      });
}

// Least squares of x over q - zero with the codes as they are; 0 when all codes mean 0.
LATHE_VECTOR_CLONES float refitted_scale(const Group& v, const Grid& grid) {
  const float xq = sum_of(
      v.n, [&](int64_t i) __attribute__((always_inline)) {
        return v.cost(i) * v.x[i] * (grid.code(v.x[i]) - grid.zero);
      });
  const float qq = sum_of(
      v.n, [&](int64_t i) __attribute__((always_inline)) {
        const float q = grid.code(v.x[i]) - grid.zero;
        return v.cost(i) * q * q;
      });
  return qq > 0 ? xq / qq : 0;
}

}  // namespace

Grid fit_grid(const float* x, const float* importance, int64_t n, const Numerics& numerics,
              ScaleSearch search) {
  float lo = 0, hi = 0;
  for (int64_t i = 0; i < n; ++i) {
    lo = std::min(lo, x[i]);
    hi = std::max(hi, x[i]);
  }
  Grid best = grid_between(lo, hi, numerics);
  if (search == ScaleSearch::absmax) return best;
  const Group group{x, importance, n};
  float least = error_of(group, best);
  const auto improves = [&](const Grid& grid) {
    const float error = error_of(group, grid);
    if (!(error < least)) return false;
    least = error;
    best = grid;
    return true;
  };
  // Few codes are worth a wide search: at 2 bits the best range is half of what was seen, at 8 bits all of
  // it.
  const int steps = numerics.bits <= 3 ? 18 : numerics.bits <= 5 ? 13 : 6;
  const float step = numerics.bits <= 5 ? 0.04f : 0.03f;
  for (int i = 0; i < steps; ++i) {
    const float part = 1.08f - step * static_cast<float>(i);
    improves(grid_between(lo * part, hi * part, numerics));
  }
  if (numerics.offset != Numerics::Offset::none && numerics.bits <= 4) {
    const float from = best.value(best.lo), to = best.value(best.hi);
    for (int end = 0; end < 2; ++end)
      for (const float part : {0.7f, 0.8f, 0.9f, 1.1f})
        improves(grid_between(end == 0 ? from * part : from, end == 0 ? to : to * part, numerics));
  }
  for (int i = 0; i < 4; ++i) {
    const float scale = refitted_scale(group, best);
    Grid next = best;
    next.scale = storable(scale, numerics.dtype);
    if (scale <= 0 || !improves(next)) break;
  }
  return best;
}

Codes blank_codes(int64_t rows, int64_t cols, const Numerics& numerics) {
  if (!numerics.is_integer() || numerics.offset == Numerics::Offset::minimum)
    fail("cannot round to {}", to_string(numerics));
  Codes c{numerics, rows, cols, {}, {}, {}, {}};
  c.codes.resize(static_cast<size_t>(rows * cols));
  c.scales.resize(static_cast<size_t>(rows * numerics.groups(cols)));
  if (numerics.offset == Numerics::Offset::zero_point) c.zeros.resize(c.scales.size());
  return c;
}

Codes round_weighted(const float* w, int64_t rows, int64_t cols, const Numerics& numerics,
                     const float* importance, ScaleSearch search) {
  Codes c = blank_codes(rows, cols, numerics);
  const int64_t groups = numerics.groups(cols), size = numerics.group == 0 ? cols : numerics.group;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * size, n = std::min(size, cols - begin);
      const float* x = w + r * cols + begin;
      const Grid grid = fit_grid(x, importance ? importance + begin : nullptr, n, numerics, search);
      for (int64_t i = 0; i < n; ++i)
        c.codes[static_cast<size_t>(r * cols + begin + i)] = static_cast<int16_t>(grid.code(x[i]));
      const auto at = static_cast<size_t>(r * groups + g);
      c.scales[at] = grid.scale;
      if (!c.zeros.empty()) c.zeros[at] = grid.zero;
    }
  return c;
}

}  // namespace lathe
