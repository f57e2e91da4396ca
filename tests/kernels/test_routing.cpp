// Routing against its definition in double, and rows on their way to experts and back.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/harness.h"
#include "kernels/routing.h"

namespace lathe {
namespace {

struct Kind {
  int64_t experts, top_k;
  bool sigmoid, normalize;
  float scale;
};

std::vector<double> by_definition(const float* logits, const Kind& kind) {
  const auto n = static_cast<size_t>(kind.experts);
  std::vector<double> p(n), out(n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const double e = std::exp(static_cast<double>(logits[i]));
    p[i] = kind.sigmoid ? e / (1 + e) : e;
    sum += e;
  }
  if (!kind.sigmoid)
    for (double& v : p) v /= sum;
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  order.resize(static_cast<size_t>(kind.top_k));
  double kept = 0;
  for (const size_t i : order) kept += p[i];
  for (const size_t i : order) out[i] = p[i] / (kind.normalize ? kept : 1) * static_cast<double>(kind.scale);
  return out;
}

std::vector<float> routed(const std::vector<float>& logits, int64_t rows, const Kind& kind, int workers) {
  std::vector<float> weights(logits.size(), 7);
  for (int w = 0; w < workers; ++w)
    route({.logits = logits.data(),
           .weights = weights.data(),
           .rows = rows,
           .experts = kind.experts,
           .top_k = kind.top_k,
           .sigmoid = kind.sigmoid,
           .normalize = kind.normalize,
           .scale = kind.scale},
          {w, workers, nullptr});
  return weights;
}

// An exponential is within an ulp or two, a sum of n terms within n roundings, and two divisions follow.
TEST(Routing, IsItsDefinition) {
  Rng rng(3);
  for (const Kind& kind :
       {Kind{8, 2, false, true, 1}, Kind{8, 2, false, false, 1}, Kind{128, 8, false, true, 1},
        Kind{60, 4, true, true, 2.5f}, Kind{1, 1, true, false, 1}, Kind{5, 5, false, false, 1}}) {
    constexpr int64_t rows = 33;
    std::vector<float> logits(static_cast<size_t>(rows * kind.experts));
    for (float& x : logits) x = 2 * rng.normal();
    const std::vector<float> weights = routed(logits, rows, kind, 1);
    EXPECT_EQ(routed(logits, rows, kind, 3), weights);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> expected = by_definition(logits.data() + r * kind.experts, kind);
      for (int64_t e = 0; e < kind.experts; ++e) {
        const double want = expected[static_cast<size_t>(e)];
        ASSERT_NEAR(weights[static_cast<size_t>(r * kind.experts + e)], want,
                    want * static_cast<double>(2 * kind.experts + 8) * 0x1p-24)
            << r << ", " << e;
      }
    }
  }
}

// Buffers have room for top_k rows of each token, so exactly so many weights may stay whatever comes in.
TEST(Routing, KeepsTheFirstOfEqualsAndNeverMoreThanItMay) {
  const Kind kind{4, 2, false, true, 1};
  EXPECT_EQ(routed({1, 3, 3, 3}, 1, kind, 1), (std::vector<float>{0, 0.5f, 0.5f, 0}));
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& strange :
       {std::vector<float>{nan, 1, 2, 3}, {nan, nan, nan, nan}, {inf, inf, 1, 2}, {-inf, -inf, -inf, -inf}}) {
    const std::vector<float> weights = routed(strange, 1, kind, 1);
    EXPECT_LE(std::count_if(weights.begin(), weights.end(), [](float w) { return w != 0; }), 2);
  }
}

TEST(Routing, TakesRowsAndAddsThemBack) {
  const std::vector<float> x = {0, 1, 10, 11, 20, 21, 30, 31};
  const std::vector<int32_t> from = {3, 0, 3};
  std::vector<float> taken(6);
  for (int w : {0, 1})
    take_rows({.x = x.data(), .from = from.data(), .out = taken.data(), .rows = 3, .cols = 2},
              {w, 2, nullptr});
  EXPECT_EQ(taken, (std::vector<float>{30, 31, 0, 1, 30, 31}));

  const std::vector<float> base = {100, 100, 200, 200}, scales = {0.5f, 1, 2};
  const std::vector<int32_t> first = {0, 0, 3}, entries = {0, 2, 1};
  std::vector<float> sum(4);
  const CombineArgs args{.base = base.data(),
                         .y = taken.data(),
                         .scales = scales.data(),
                         .first = first.data(),
                         .entries = entries.data(),
                         .out = sum.data(),
                         .rows = 2,
                         .cols = 2};
  for (int w : {0, 1}) combine_rows(args, {w, 2, nullptr});
  EXPECT_EQ(sum, (std::vector<float>{100, 100, 200 + 15 + 60 + 0, 200 + 15.5f + 62 + 1}));
}

}  // namespace
}  // namespace lathe
