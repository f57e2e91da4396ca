#include "compress/estimate.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace lathe {
namespace {

struct Slice {
  const float* w;
  int64_t begin, n;  // columns of the row
};

// fn(group, slice, grid) -> grid for every group of every row; the codes are then the nearest.
template <class Choose>
Codes by_group(const float* w, int64_t rows, int64_t cols, const Numerics& numerics, Choose choose) {
  Codes c = blank_codes(rows, cols, numerics);
  const int64_t groups = numerics.groups(cols), size = numerics.group == 0 ? cols : numerics.group;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g) {
      const Slice slice{w + r * cols + g * size, g * size, std::min(size, cols - g * size)};
      const Grid grid = choose(slice);
      for (int64_t i = 0; i < slice.n; ++i)
        c.codes[static_cast<size_t>(r * cols + slice.begin + i)] =
            static_cast<int16_t>(grid.code(slice.w[i]));
      const auto at = static_cast<size_t>(r * groups + g);
      c.scales[at] = grid.scale;
      if (!c.zeros.empty()) c.zeros[at] = grid.zero;
    }
  return c;
}

// Mean square of the group's part of the output over the sampled inputs.
double sampled_error(const Slice& s, const Grid& grid, const InputStats& stats) {
  std::vector<float> moved(static_cast<size_t>(s.n));
  for (int64_t i = 0; i < s.n; ++i) moved[static_cast<size_t>(i)] = grid.value(grid.code(s.w[i])) - s.w[i];
  double sum = 0;
  const int64_t rows = std::min<int64_t>(stats.sample_rows, 64);
  for (int64_t t = 0; t < rows; ++t) {
    const float* x = stats.sample.data() + t * stats.cols + s.begin;
    float y = 0;
    for (int64_t i = 0; i < s.n; ++i) y += moved[static_cast<size_t>(i)] * x[i];
    sum += static_cast<double>(y) * static_cast<double>(y);
  }
  return sum;
}

// The scale that the codes of `grid` suggest; 0 when all of them mean 0.
float suggested_scale(const Slice& s, const Grid& grid, const InputStats& stats) {
  float sum = 0, weight = 0;
  for (int64_t i = 0; i < s.n; ++i) {
    const float q = grid.code(s.w[i]) - grid.zero;
    if (q == 0) continue;
    const float p = stats.mean_abs[static_cast<size_t>(s.begin + i)];
    sum += p * std::abs(s.w[i]) / std::abs(q);
    weight += p;
  }
  return weight > 0 ? sum / weight : 0;
}

double fractional_norm(const Slice& s, const Grid& grid, float norm) {
  double sum = 0;
  for (int64_t i = 0; i < s.n; ++i)
    sum += static_cast<double>(std::pow(std::abs(s.w[i] - grid.value(grid.code(s.w[i]))), norm));
  return sum;
}

// With the codes q as they are, what the shrinkage of |e|^norm takes for outliers is left out of w; the line
// through the rest over q gives the zero point, and, once that is an integer, least squares the scale.
Grid half_quadratic_step(const Slice& s, const Grid& now, float norm, float beta, DType dtype) {
  double of_q = 0, of_w = 0, qq = 0, qw = 0;
  for (int64_t i = 0; i < s.n; ++i) {
    const float q = now.code(s.w[i]), d = s.w[i] - now.value(q), steps = std::abs(d) / now.scale;
    const float kept = steps > 0 ? std::max(0.0f, steps - std::pow(steps, norm - 1) / beta) * now.scale : 0;
    const double w = static_cast<double>(s.w[i] - std::copysign(kept, d)), code = static_cast<double>(q);
    of_q += code, of_w += w, qq += code * code, qw += code * w;
  }
  const auto n = static_cast<double>(s.n);
  const double slope = (qw - of_q * of_w / n) / (qq - of_q * of_q / n);
  if (!(slope > 0 && std::isfinite(slope))) return now;
  Grid next = now;
  next.zero = std::clamp(std::nearbyint(static_cast<float>((of_q - of_w / slope) / n)), now.lo, now.hi);
  const double zero = static_cast<double>(next.zero);
  const double scale = (qw - zero * of_w) / (qq - 2 * zero * of_q + n * zero * zero);
  if (!(scale > 0 && std::isfinite(scale))) return now;
  next.scale = storable(static_cast<float>(scale), dtype);
  return next;
}

}  // namespace

Codes estimate_scales(const float* w, int64_t rows, int64_t cols, const Numerics& numerics,
                      const InputStats& stats) {
  constexpr int rectifications = 5, starts = 10;
  return by_group(w, rows, cols, numerics, [&](const Slice& s) {
    const Grid first = fit_grid(s.w, nullptr, s.n, numerics, ScaleSearch::absmax);
    Grid best = first;
    double least = sampled_error(s, best, stats);
    const auto improve = [&](Grid grid) {
      const float scale = suggested_scale(s, grid, stats);
      if (scale <= 0) return false;
      grid.scale = storable(scale, numerics.dtype);
      const double error = sampled_error(s, grid, stats);
      if (!(error < least)) return false;
      least = error;
      best = grid;
      return true;
    };
    for (int i = 0; i < rectifications; ++i)
      if (!improve(best)) break;
    for (int i = 0; i < starts; ++i) {
      Grid start = first;
      start.scale = storable(first.scale * (1 - 0.05f * static_cast<float>(i)), numerics.dtype);
      improve(start);
    }
    return best;
  });
}

Codes half_quadratic(const float* w, int64_t rows, int64_t cols, const Numerics& numerics) {
  if (numerics.offset != Numerics::Offset::zero_point)
    throw input_error("method hqq", "a scheme with zero points", to_string(numerics), "add --asymmetric");
  // An element that is off by more than half a step was cut off: there the shrinkage starts.
  constexpr float norm = 0.7f, growth = 1.01f;
  const float threshold = std::pow(0.5f, norm - 2);
  constexpr int most = 20;
  return by_group(w, rows, cols, numerics, [&](const Slice& s) {
    Grid best = fit_grid(s.w, nullptr, s.n, numerics, ScaleSearch::absmax);
    double least = fractional_norm(s, best, norm);
    float beta = threshold;
    for (int i = 0; i < most; ++i, beta *= growth) {
      const Grid next = half_quadratic_step(s, best, norm, beta, numerics.dtype);
      const double now = fractional_norm(s, next, norm);
      if (!(now < least)) break;
      least = now;
      best = next;
    }
    return best;
  });
}

}  // namespace lathe
