// GPTQ against the plain form of its papers, and what must hold for any input.
#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>

#include "calibration_data.h"
#include "compress/gptq.h"
#include "compress/linalg.h"
#include "compress/quantize.h"

namespace lathe {
namespace {

using namespace testing_support;

Numerics int4(int group, bool asymmetric = false) {
  return Numerics::integer(4, group, asymmetric, DType::f32);
}

std::vector<float> values_of(const Codes& c) {
  std::vector<float> v(static_cast<size_t>(c.rows * c.cols));
  dequantize(c, v.data());
  return v;
}

bool same(const Codes& a, const Codes& b) {
  return a.codes == b.codes && a.scales == b.scales && a.zeros == b.zeros;
}

// Optimal brain quantization with the columns in a given order, all in double: the inverse Hessian of the
// columns still to come is kept by Gauss-Jordan elimination, where GPTQ reads it off one Cholesky factor.
struct Reference {
  std::vector<int16_t> codes;
  double nearest_tie = 1;  // of any code: how far from half way between two
};
Reference reference(const std::vector<float>& w, int64_t rows, int64_t cols, const GptqFactor& f,
                    const Codes& scales) {
  const auto k = static_cast<size_t>(cols);
  std::vector<double> inverse(k * k), a(k * k);
  for (size_t i = 0; i < k; ++i) {
    inverse[i * k + i] = 1;
    for (size_t j = 0; j < k; ++j) a[i * k + j] = static_cast<double>(f.hessian()[i * k + j]);
    a[i * (k + 1)] += static_cast<double>(f.added());
  }
  for (size_t p = 0; p < k; ++p) {  // positive definite: no pivoting is needed
    const double pivot = a[p * k + p];
    for (size_t j = 0; j < k; ++j) {
      a[p * k + j] /= pivot;
      inverse[p * k + j] /= pivot;
    }
    for (size_t i = 0; i < k; ++i) {
      const double by = a[i * k + p];
      if (i == p || by == 0) continue;
      for (size_t j = 0; j < k; ++j) {
        a[i * k + j] -= by * a[p * k + j];
        inverse[i * k + j] -= by * inverse[p * k + j];
      }
    }
  }
  Reference out{std::vector<int16_t>(w.size()), 1};
  std::vector<double> left(w.begin(), w.end());
  const Numerics& n = scales.numerics;
  const int64_t group = n.group == 0 ? cols : n.group, groups = n.groups(cols);
  for (const int32_t column : f.order()) {
    const auto c = static_cast<size_t>(column);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const auto at = r * static_cast<size_t>(groups) + c / static_cast<size_t>(group);
      const double scale = static_cast<double>(scales.scales[at]);
      const double zero = scales.zeros.empty() ? 0 : static_cast<double>(scales.zeros[at]);
      const double exact = std::clamp(left[r * k + c] / scale + zero, static_cast<double>(n.code_min()),
                                      static_cast<double>(n.code_max()));
      const double code = std::nearbyint(exact);
      out.nearest_tie = std::min(out.nearest_tie, std::abs(std::abs(exact - std::floor(exact)) - 0.5));
      out.codes[r * k + c] = static_cast<int16_t>(code);
      const double error = (left[r * k + c] - scale * (code - zero)) / inverse[c * k + c];
      for (size_t j = 0; j < k; ++j) left[r * k + j] -= error * inverse[c * k + j];
    }
    // Without this column: the inverse of the Hessian's remaining part.
    const double pivot = inverse[c * k + c];
    std::vector<double> row(inverse.begin() + static_cast<ptrdiff_t>(c * k),
                            inverse.begin() + static_cast<ptrdiff_t>((c + 1) * k));
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j) inverse[i * k + j] -= row[i] * row[j] / pivot;
  }
  return out;
}

// Each column is compensated in f32 once per earlier column, at magnitudes of at most 8 steps of the grid: a
// relative 2^-24 each time. A tie nearer than that would make the comparison of codes mean nothing.
double tie_bound(int64_t cols) { return static_cast<double>(cols) * 8 * 0x1p-24; }

TEST(Gptq, GivesTheCodesOfThePlainAlgorithm) {
  ThreadPool pool(2);
  constexpr int64_t rows = 70, cols = 48;  // more than a strip of rows
  const std::vector<float> w = random_values(rows * cols, 1), x = correlated_inputs(300, cols, 2),
                           h = plain_hessian(x, cols);
  for (const bool act_order : {false, true})
    for (const Numerics& n : {int4(16), int4(16, true), int4(0)}) {
      const GptqFactor factor(pool, h.data(), cols, 0.01, act_order);
      const Codes found = gptq(pool, w.data(), rows, cols, n, factor, {});
      const Reference plain = reference(w, rows, cols, factor, found);
      ASSERT_GT(plain.nearest_tie, tie_bound(cols)) << "choose another seed";
      EXPECT_EQ(found.codes, plain.codes) << to_string(n) << act_order;
    }
}

// More columns than a block of updates: the far ones are compensated by a product of matrices.
TEST(Gptq, BlocksOfColumnsDoNotShow) {
  ThreadPool pool(2);
  constexpr int64_t rows = 3, cols = 320;
  const std::vector<float> w = random_values(rows * cols, 3), x = correlated_inputs(900, cols, 4),
                           h = plain_hessian(x, cols);
  const GptqFactor factor(pool, h.data(), cols, 0.01, true);
  const Codes found = gptq(pool, w.data(), rows, cols, int4(64), factor, {});
  const Reference plain = reference(w, rows, cols, factor, found);
  ASSERT_GT(plain.nearest_tie, tie_bound(cols)) << "choose another seed";
  EXPECT_EQ(found.codes, plain.codes);
}

TEST(Gptq, WithAnIdentityHessianIsRoundingToNearest) {
  ThreadPool pool(2);
  constexpr int64_t rows = 65, cols = 96;
  const std::vector<float> w = random_values(rows * cols, 5);
  std::vector<float> identity(cols * cols);
  for (size_t i = 0; i < cols; ++i) identity[i * cols + i] = 1;
  for (const bool act_order : {false, true})
    for (const bool static_groups : {true, false}) {
      if (act_order && !static_groups) continue;
      for (const int bits : {2, 3, 4, 8}) {
        const Numerics n = Numerics::integer(bits, 32, bits == 3);
        const GptqFactor factor(pool, identity.data(), cols, 0.01, act_order);
        const Codes plain = round_weighted(w.data(), rows, cols, n, nullptr);
        EXPECT_TRUE(
            same(gptq(pool, w.data(), rows, cols, n, factor, {.static_groups = static_groups}), plain));
      }
    }
}

TEST(Gptq, LosesLessThanNearestAndDescentLessThanThat) {
  ThreadPool pool(2);
  constexpr int64_t rows = 64, cols = 128;
  const std::vector<float> w = random_values(rows * cols, 6), x = correlated_inputs(1000, cols, 7),
                           h = plain_hessian(x, cols);
  const GptqFactor factor(pool, h.data(), cols, 0.01, true);
  for (const int bits : {2, 3, 4, 6}) {
    const Numerics n = Numerics::integer(bits, 64, false);
    const auto error = [&](const Codes& c) {
      return output_error(pool, w.data(), values_of(c).data(), rows, cols, h.data());
    };
    const double nearest = error(round_weighted(w.data(), rows, cols, n, nullptr)),
                 weighted = error(round_weighted(w.data(), rows, cols, n, factor.importance().data())),
                 once = error(gptq(pool, w.data(), rows, cols, n, factor, {})),
                 again = error(gptq(pool, w.data(), rows, cols, n, factor, {.descent = 4}));
    EXPECT_LT(weighted, nearest) << bits;
    EXPECT_LT(once, weighted) << bits;
    EXPECT_LT(again, once) << bits;
  }
}

TEST(Gptq, ThreadsChangeNothing) {
  constexpr int64_t rows = 200, cols = 160;
  const std::vector<float> w = random_values(rows * cols, 8), x = correlated_inputs(500, cols, 9),
                           h = plain_hessian(x, cols);
  ThreadPool one(1);
  const GptqFactor factor(one, h.data(), cols, 0.01, true);
  const Codes alone = gptq(one, w.data(), rows, cols, int4(32), factor, {.descent = 2});
  for (const int threads : {2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_TRUE(same(gptq(pool, w.data(), rows, cols, int4(32), factor, {.descent = 2}), alone)) << threads;
  }
}

TEST(Gptq, SaysWhenThereIsNoFactor) {
  ThreadPool pool(2);
  constexpr int64_t cols = 8;
  std::vector<float> none(cols * cols);
  EXPECT_FALSE(GptqFactor(pool, none.data(), cols, 0.01, true).usable());  // an input that is always zero
  // One direction only: singular, which damping mends.
  std::vector<float> one(cols * cols, 1.0f);
  const GptqFactor damped(pool, one.data(), cols, 0.01, true);
  EXPECT_TRUE(damped.usable());
  EXPECT_EQ(damped.damping(), 0.01);
  // Not the Hessian of anything: an eigenvalue of -0.9 takes damping of the mean itself.
  std::vector<float> odd = {1, 1.9f, 1.9f, 1};
  const GptqFactor retried(pool, odd.data(), 2, 0.01, false);
  EXPECT_TRUE(retried.usable());
  EXPECT_EQ(retried.damping(), 1.0);
  odd = {1, 3, 3, 1};
  EXPECT_FALSE(GptqFactor(pool, odd.data(), 2, 0.01, false).usable());
}

TEST(Linalg, InverseFactorInvertsWhatItIsGiven) {
  ThreadPool pool(2);
  for (const int64_t k : {1, 70, 330}) {  // within a block; several, and several tiles
    std::vector<float> h = plain_hessian(correlated_inputs(3 * k, k, 10), k);
    double trace = 0;
    for (int64_t i = 0; i < k; ++i) {
      float& diagonal = h[static_cast<size_t>(i * (k + 1))];
      diagonal += 1;  // the least eigenvalue that is left
      trace += static_cast<double>(diagonal);
    }
    std::vector<float> u = h;
    ASSERT_TRUE(inverse_factor(pool, u.data(), k));
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j) ASSERT_EQ(u[static_cast<size_t>(i * k + j)], 0);
    // U^T U h = I. Factoring in f32 finds the factor of h + E, |E| <= k 2^-24 |R| |R^T|, whose norm is at
    // most the trace; inverting R adds as much. Both count 1 / (least eigenvalue of h) times.
    const double bound = 2 * 0x1p-24 * static_cast<double>(k) * trace;
    std::vector<double> inverse(u.size());
    for (int64_t b = 0; b < k; ++b)
      for (int64_t i = b; i < k; ++i)
        for (int64_t a = b; a < k; ++a)
          inverse[static_cast<size_t>(i * k + a)] += static_cast<double>(u[static_cast<size_t>(b * k + i)]) *
                                                     static_cast<double>(u[static_cast<size_t>(b * k + a)]);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        double sum = 0;
        for (int64_t a = 0; a < k; ++a)
          sum += inverse[static_cast<size_t>(i * k + a)] *
                 static_cast<double>(h[static_cast<size_t>(a * k + j)]);
        ASSERT_NEAR(sum, i == j ? 1 : 0, bound) << k;
      }
  }
}

TEST(Linalg, InverseFactorDoesNotDependOnThreads) {
  constexpr int64_t k = 700;  // three tiles
  const std::vector<float> h = plain_hessian(correlated_inputs(900, k, 12), k);
  ThreadPool one(1);
  std::vector<float> alone = h;
  ASSERT_TRUE(inverse_factor(one, alone.data(), k));
  for (const int threads : {2, 5}) {
    ThreadPool pool(threads);
    std::vector<float> u = h;
    ASSERT_TRUE(inverse_factor(pool, u.data(), k));
    EXPECT_EQ(u, alone) << threads;
  }
}

TEST(Linalg, GramOfManyTilesIsTheSumOfProducts) {
  ThreadPool pool(3);
  constexpr int64_t rows = 33, k = 300;
  const std::vector<float> x = random_values(rows * k, 11), plain = plain_hessian(x, k);
  std::vector<float> h(k * k);
  add_gram(pool, x.data(), rows, k, h.data());
  mirror_upper(pool, h.data(), k);
  for (size_t i = 0; i < h.size(); ++i)  // 33 products of normals: sums below 2^7, 33 roundings of 2^-24
    ASSERT_NEAR(h[i], plain[i] * rows, 33 * 0x1p-24 * 128) << i;
}

TEST(Gptq, RoundsToGridsWithTheScalesOfPlainRounding) {
  ThreadPool pool(2);
  constexpr int64_t rows = 160, cols = 256;
  const std::vector<float> w = random_values(rows * cols, 4), x = correlated_inputs(1000, cols, 5);
  const std::vector<float> hessian = plain_hessian(x, cols);
  std::vector<float> identity(cols * cols);
  for (size_t c = 0; c < cols; ++c) identity[c * (cols + 1)] = 1;
  const GptqFactor factor(pool, hessian.data(), cols, 0.01, true),
      none(pool, identity.data(), cols, 0.01, true);
  for (const Numerics& n : {Numerics::fp8(), Numerics::fp8_tensor(), Numerics::fp8_block(), Numerics::mxfp8(),
                            Numerics::nvfp4(), Numerics::mxfp4(), Numerics::nf4()}) {
    SCOPED_TRACE(to_string(n));
    const Codes plain = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse),
                better = gptq(pool, w.data(), rows, cols, n, factor, {});
    EXPECT_EQ(better.scales, plain.scales);
    EXPECT_EQ(better.global, plain.global);
    const auto error = [&](const Codes& c) {
      return output_error(pool, w.data(), values_of(c).data(), rows, cols, hessian.data());
    };
    EXPECT_LT(error(better), 0.8 * error(plain));
    // Where columns have nothing to do with each other there is nothing to make up for.
    EXPECT_EQ(gptq(pool, w.data(), rows, cols, n, none, {}).codes, plain.codes);
    const Codes stored = unpack(pack_codes(better, {rows, cols}), 0, rows);
    EXPECT_EQ(values_of(stored), values_of(better));
  }
  const ScaleRule ceil(ScaleSearch::mse, MxRule::ceil);
  EXPECT_EQ(gptq(pool, w.data(), rows, cols, Numerics::mxfp4(), factor, {.scales = ceil}).scales,
            round_to_nearest(w.data(), rows, cols, Numerics::mxfp4(), ceil).scales);
}

}  // namespace
}  // namespace lathe
