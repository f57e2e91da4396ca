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
      grid.scale = storable_scale(scale, numerics.dtype);
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
      start.scale = storable_scale(first.scale * (1 - 0.05f * static_cast<float>(i)), numerics.dtype);
      improve(start);
    }
    return best;
  });
}

Codes half_quadratic(const float* w, int64_t rows, int64_t cols, const Numerics& numerics) {
  if (numerics.offset != Numerics::Offset::zero_point)
    throw input_error("method hqq", "a scheme with zero points", to_string(numerics), "add --asymmetric");
  constexpr int most = 20;
  constexpr float norm = 0.7f;
  return by_group(w, rows, cols, numerics, [&](const Slice& s) {
    const Grid first = fit_grid(s.w, nullptr, s.n, numerics, ScaleSearch::absmax);
    const auto distance = [&](const Grid& grid) {
      double sum = 0;
      for (int64_t i = 0; i < s.n; ++i)
        sum += std::pow(std::abs(static_cast<double>(s.w[i] - grid.value(grid.code(s.w[i])))), 0.7);
      return sum;
    };
    Grid now = first;
    float beta = 10;
    double before = 1e30;
    for (int i = 0; i < most; ++i) {
      float zero = 0, change = 0;
      for (int64_t j = 0; j < s.n; ++j) {
        const float q = now.code(s.w[j]), d = s.w[j] - now.value(q), size = std::abs(d);
        // The shrinkage of |e|^p: what of the difference is left to the outliers.
        const float kept = size > 0 ? std::max(0.0f, size - std::pow(size, norm - 1) / beta) : 0;
        zero += q - (s.w[j] - std::copysign(kept, d)) / now.scale;
        change += size;
      }
      if (static_cast<double>(change) >= before) break;
      before = static_cast<double>(change);
      now.zero = zero / static_cast<float>(s.n);
      beta *= 1.01f;
    }
    now.zero = std::clamp(std::nearbyint(now.zero), now.lo, now.hi);
    return distance(now) < distance(first) ? now : first;
  });
}

}  // namespace lathe
