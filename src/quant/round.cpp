#include "quant/grid.h"
#include "quant/round_parts.h"

namespace lathe {
namespace {

// Groups are searched eight at a time, those of eight rows in the same columns: what a search does once per
// group, and its sums over a group, cost an eighth: on a core with AVX2 int4 g32 takes 7 ns per weight in
// place of 18, g128 5 in place of 9.
using Grids = GridOf<Floats>;
constexpr int64_t width = sizeof(Floats) / sizeof(float);

// x[i]: element i of each group.
struct Groups {
  const Floats* x;
  int64_t n;
};

// The sum of term(x) over each group: sixteen independent chains, joined in the order of Sum (round_parts.h).
// Four at a time stay in registers.
template <class Sums, class Term>
LATHE_ALWAYS_INLINE void add_up(const Groups& groups, Sums& sum, Term term) {
  Sums quarter[4];
  for (int64_t j = 0; j < 4; ++j) {
    Sums a = {}, b = {}, c = {}, d = {};
    int64_t i = j;
    for (; i + 12 < groups.n; i += lanes) {
      term(groups.x[i], a);
      term(groups.x[i + 4], b);
      term(groups.x[i + 8], c);
      term(groups.x[i + 12], d);
    }
    if (i < groups.n) term(groups.x[i], a);
    if (i + 4 < groups.n) term(groups.x[i + 4], b);
    if (i + 8 < groups.n) term(groups.x[i + 8], c);
    quarter[j] = (a + b) + (c + d);
  }
  sum = (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

// By the inverse scale: codes of ties may differ from what division says, their errors do not.
template <bool has_zero>
LATHE_ALWAYS_INLINE void add_up_errors(const Groups& groups, const Grids& grids, Floats& errors) {
  const Floats scale = grids.scale, inverse = 1 / scale, zero = grids.zero;
  const float lo = grids.lo, hi = grids.hi;
  add_up(
      groups, errors, [&](const Floats& v, Floats& sum) __attribute__((always_inline)) {
        const Floats steps = v * inverse, q = has_zero ? steps + zero : steps,
                     code = round_even(clamped(q, lo, hi)), e = v - scale * (has_zero ? code - zero : code);
        sum += e * e;
      });
}

LATHE_VECTOR_CLONES void squared_errors(const Groups& groups, const Grids& grids, bool has_zero,
                                        Floats& errors) {
  has_zero ? add_up_errors<true>(groups, grids, errors) : add_up_errors<false>(groups, grids, errors);
}

struct Products {
  Floats xq, qq;
  LATHE_ALWAYS_INLINE Products operator+(const Products& o) const { return {xq + o.xq, qq + o.qq}; }
};

// The scales that fit best once the codes are fixed: least squares of x over q - zero. 0 where all codes mean
// 0.
LATHE_VECTOR_CLONES void fitted_scales(const Groups& groups, const Grids& grids, Floats& scales) {
  Products all;
  add_up(
      groups, all, [&](const Floats& v, Products& sum) __attribute__((always_inline)) {
        const Floats q = grids.code(v) - grids.zero;
        sum.xq += v * q;
        sum.qq += q * q;
      });
  scales = all.qq == 0 ? Floats{} : all.xq / all.qq;
}

struct Ranges {
  Floats lo, hi;
};

// The same columns of `width` rows side by side, and their ranges.
LATHE_VECTOR_CLONES void take_rows(const float* const* rows, int64_t n, Floats* x, Ranges& ranges) {
  Floats lo = {}, hi = {};
  for (int64_t i = 0; i < n; ++i) {
    const Floats v = {rows[0][i], rows[1][i], rows[2][i], rows[3][i],
                      rows[4][i], rows[5][i], rows[6][i], rows[7][i]};
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
    x[i] = v;
  }
  ranges = {lo, hi};
}

// Ranges from 1.08 to 0.58 of the seen one: above 1 because the absmax rule clips the largest positive weight
// by half a step. On trained weights a finer or wider search, or one of both ends apart, gains less than 0.03
// dB from int2 to int6; two least-squares refinements gain up to 0.09 dB.
constexpr int candidates = 11, refinements = 2;

LATHE_VECTOR_CLONES void choose_grids(const Groups& groups, const Ranges& seen, const Numerics& numerics,
                                      ScaleSearch search, Grids& best) {
  const bool has_zero = numerics.offset == Numerics::Offset::zero_point;
  best = grid_between(seen.lo, seen.hi, numerics);
  if (search == ScaleSearch::absmax) return;
  Floats least, errors;
  squared_errors(groups, best, has_zero, least);
  for (int i = 0; i < candidates; ++i) {
    const float part = 1.08f - 0.05f * static_cast<float>(i);
    const Grids other = grid_between<Floats>(seen.lo * part, seen.hi * part, numerics);
    squared_errors(groups, other, has_zero, errors);
    const auto better = errors < least;
    least = better ? errors : least;
    best.scale = better ? other.scale : best.scale;
    best.zero = better ? other.zero : best.zero;
  }
  auto refining = best.scale > 0;
  for (int i = 0; i < refinements; ++i) {
    Floats scales;
    fitted_scales(groups, best, scales);
    Grids other = best;
    other.scale = storable(scales, numerics.dtype);
    squared_errors(groups, other, has_zero, errors);
    refining &= (scales > 0) & (errors < least);
    least = refining ? errors : least;
    best.scale = refining ? other.scale : best.scale;
  }
}

LATHE_VECTOR_CLONES void write_codes(const float* x, int64_t n, const Grid& grid, int16_t* out) {
  const Grid g = grid;
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(g.code(x[i]));
}

LATHE_VECTOR_CLONES bool all_finite(const float* x, int64_t n) {
  constexpr uint32_t exponent = 0x7f800000u;
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= (std::bit_cast<uint32_t>(x[i]) & exponent) == exponent;
  return bad == 0;
}

}  // namespace

Codes round_to_nearest(const float* values, int64_t rows, int64_t cols, const Numerics& numerics,
                       ScaleRule rule, float largest) {
  if (numerics.is_dense() || numerics.offset == Numerics::Offset::minimum)
    fail("cannot round to {}", to_string(numerics));
  if (!all_finite(values, rows * cols)) fail("cannot round infinities or NaNs to {}", to_string(numerics));
  if (numerics.is_grid()) return round_to_grid(values, rows, cols, numerics, rule, largest);
  const int64_t groups = numerics.groups(cols), size = numerics.group == 0 ? cols : numerics.group;
  Codes c{numerics, rows, cols, {}, {}, {}, {}};
  c.codes.resize(static_cast<size_t>(rows * cols));
  c.scales.resize(static_cast<size_t>(rows * groups));
  if (numerics.offset == Numerics::Offset::zero_point) c.zeros.resize(c.scales.size());
  const Storage storage = Storage::allocate(static_cast<size_t>(size) * sizeof(Floats));  // aligned
  auto* side_by_side = reinterpret_cast<Floats*>(storage.data);
  for (int64_t row = 0; row < rows; row += width)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * size, n = std::min(size, cols - begin),
                    last = std::min(row + width, rows) - 1;
      const float* x[width];  // where there are no more rows, the last one
      for (int64_t r = 0; r < width; ++r) x[r] = values + std::min(row + r, last) * cols + begin;
      Ranges seen;
      take_rows(x, n, side_by_side, seen);
      Grids grids;
      choose_grids({side_by_side, n}, seen, numerics, rule.search, grids);
      for (int64_t r = 0; row + r <= last; ++r) {
        const Grid grid{grids.scale[r], grids.zero[r], grids.lo, grids.hi};
        write_codes(x[r], n, grid, c.codes.data() + (row + r) * cols + begin);
        const auto at = static_cast<size_t>((row + r) * groups + g);
        c.scales[at] = grid.scale;
        if (!c.zeros.empty()) c.zeros[at] = grid.zero;
      }
    }
  return c;
}

}  // namespace lathe
