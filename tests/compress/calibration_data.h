// Inputs and weights that look like a layer's: correlated channels, some of them large.
#pragma once

#include <cmath>
#include <vector>

#include "core/rng.h"

namespace lathe::testing_support {

inline std::vector<float> random_values(int64_t n, uint64_t seed, float size = 1) {
  Rng rng(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = size * rng.normal();
  return v;
}

// x [rows, cols] = mixed normals: neighbours are alike, channel c has size 2^(c % 5 - 2).
inline std::vector<float> correlated_inputs(int64_t rows, int64_t cols, uint64_t seed) {
  const std::vector<float> z = random_values(rows * cols, seed);
  std::vector<float> x(z.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float before =
          c > 0 ? x[static_cast<size_t>(r * cols + c - 1)] / std::exp2(static_cast<float>((c - 1) % 5 - 2))
                : 0;
      x[static_cast<size_t>(r * cols + c)] = std::exp2(static_cast<float>(c % 5 - 2)) *
                                             (0.7f * before + 0.7f * z[static_cast<size_t>(r * cols + c)]);
    }
  return x;
}

// x^T x / rows in double.
inline std::vector<float> plain_hessian(const std::vector<float>& x, int64_t cols) {
  const auto k = static_cast<size_t>(cols), rows = x.size() / k;
  std::vector<float> h(k * k);
  for (size_t i = 0; i < k; ++i)
    for (size_t j = 0; j < k; ++j) {
      double sum = 0;
      for (size_t r = 0; r < rows; ++r)
        sum += static_cast<double>(x[r * k + i]) * static_cast<double>(x[r * k + j]);
      h[i * k + j] = static_cast<float>(sum / static_cast<double>(rows));
    }
  return h;
}

}  // namespace lathe::testing_support
