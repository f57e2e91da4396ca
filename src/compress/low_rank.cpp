#include "compress/low_rank.h"

#include <algorithm>
#include <cmath>

#include "compress/gptq.h"
#include "compress/linalg.h"
#include "core/float.h"
#include "core/rng.h"

namespace lathe {
namespace {

// Directions beyond the rank that are carried along, and rounds: what is left of the error is then within
// 0.1 % of the least for spectra as flat as those of rounding errors.
constexpr int64_t spare = 8;
constexpr int rounds = 8;

std::vector<float> transposed(const float* x, int64_t rows, int64_t cols) {
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[static_cast<size_t>(c * rows + r)] = x[r * cols + c];
  return out;
}

// The columns of x [rows, n], made orthonormal, each against those before it, twice; what is left of one that
// depends on them becomes 0.
void orthonormalize(std::vector<float>& x, int64_t rows, int64_t n) {
  std::vector<std::vector<double>> columns;
  for (int64_t j = 0; j < n; ++j) {
    std::vector<double> v(static_cast<size_t>(rows));
    double size = 0;
    for (int64_t r = 0; r < rows; ++r) {
      v[static_cast<size_t>(r)] = static_cast<double>(x[static_cast<size_t>(r * n + j)]);
      size += v[static_cast<size_t>(r)] * v[static_cast<size_t>(r)];
    }
    for (int twice = 0; twice < 2; ++twice)
      for (const std::vector<double>& u : columns) {
        double along = 0;
        for (size_t r = 0; r < v.size(); ++r) along += u[r] * v[r];
        for (size_t r = 0; r < v.size(); ++r) v[r] -= along * u[r];
      }
    double left = 0;
    for (const double value : v) left += value * value;
    const double scale = left > 1e-12 * size ? 1 / std::sqrt(left) : 0;
    for (double& value : v) value *= scale;
    columns.push_back(std::move(v));
  }
  for (int64_t j = 0; j < n; ++j)
    for (int64_t r = 0; r < rows; ++r)
      x[static_cast<size_t>(r * n + j)] =
          static_cast<float>(columns[static_cast<size_t>(j)][static_cast<size_t>(r)]);
}

void to_bf16(std::vector<float>& values) {
  std::vector<uint16_t> stored(values.size());
  from_f32(DType::bf16, values.data(), stored.data(), std::ssize(values));
  to_f32(DType::bf16, stored.data(), values.data(), std::ssize(values));
}

}  // namespace

LowRank fit_low_rank(ThreadPool& pool, const float* error, int64_t rows, int64_t cols, int64_t rank,
                     const float* hessian) {
  const int64_t n = std::min({rank + spare, rows, cols});
  const std::vector<float> across = transposed(error, rows, cols);
  std::vector<float> basis(static_cast<size_t>(rows * n)), seen(static_cast<size_t>(cols * n)),
      weighted(seen.size());
  Rng rng(0);
  for (float& v : basis) v = rng.normal();
  orthonormalize(basis, rows, n);
  const auto see = [&] {  // E^T basis, and H E^T basis
    multiply(pool, across.data(), basis.data(), seen.data(), cols, n, rows);
    multiply(pool, hessian, seen.data(), weighted.data(), cols, n, cols);
  };
  for (int round = 0; round < rounds; ++round) {
    see();
    multiply(pool, error, weighted.data(), basis.data(), rows, n, cols);
    orthonormalize(basis, rows, n);
  }
  see();
  // Within the basis, E H E^T is small: its eigenvectors are taken whole.
  std::vector<double> within(static_cast<size_t>(n * n));
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        within[static_cast<size_t>(i * n + j)] +=
            static_cast<double>(seen[static_cast<size_t>(c * n + i)]) *
            static_cast<double>(weighted[static_cast<size_t>(c * n + j)]);
  const std::vector<float> turn = leading_eigenvectors(std::move(within), n, rank);
  LowRank out{std::vector<float>(static_cast<size_t>(rank * cols)),
              std::vector<float>(static_cast<size_t>(rows * rank))};
  multiply(pool, basis.data(), turn.data(), out.b.data(), rows, rank, n);
  to_bf16(out.b);
  const std::vector<float> b_across = transposed(out.b.data(), rows, rank);
  multiply(pool, b_across.data(), error, out.a.data(), rank, cols, rows);
  to_bf16(out.a);
  return out;
}

void add_correction(ThreadPool& pool, const LowRank& low, int64_t rows, int64_t cols, float* out) {
  const int64_t rank = std::ssize(low.a) / cols;
  std::vector<float> product(static_cast<size_t>(rows * cols));
  multiply(pool, low.b.data(), low.a.data(), product.data(), rows, cols, rank);
  for (size_t i = 0; i < product.size(); ++i) out[i] += product[i];
}

Corrected round_and_correct(ThreadPool& pool, const float* w, int64_t rows, int64_t cols, int64_t rank,
                            const float* hessian, double noise,
                            const std::function<Codes(const float*)>& round) {
  constexpr int turns = 4;  // whose error is 0.85 to 0.87 of that of one, at 3 and 4 bits
  const auto size = static_cast<size_t>(rows * cols);
  Corrected best;
  double least = INFINITY;
  LowRank low = fit_low_rank(pool, w, rows, cols, rank, hessian);
  std::vector<float> rest(size);
  for (int turn = 0; turn < turns; ++turn) {
    std::vector<float> product(size), values(size);
    add_correction(pool, low, rows, cols, product.data());
    for (size_t i = 0; i < size; ++i) rest[i] = w[i] - product[i];
    Codes codes = round(rest.data());
    dequantize(codes, values.data());
    double loss = 0;
    for (size_t i = 0; i < size; ++i) {
      rest[i] = w[i] - values[i];
      loss += noise * static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    low = fit_low_rank(pool, rest.data(), rows, cols, rank, hessian);
    add_correction(pool, low, rows, cols, values.data());
    loss += output_error(pool, w, values.data(), rows, cols, hessian);
    if (turn > 0 && !(loss < least)) continue;
    least = loss;
    best = {std::move(codes), low, std::move(values)};
  }
  return best;
}

}  // namespace lathe
