#include <bit>
#include <cmath>
#include <gmock/gmock.h>
#include <limits>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"
#include "quant/grid.h"
#include "quant/round.h"

namespace lathe {
namespace {

using testing::Each;
using testing::ElementsAre;

std::vector<float> random_values(int64_t n, Rng& rng) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(0.02f * rng.normal() * (rng.below(50) == 0 ? 6.0f : 1.0f));  // some outliers
  return out;
}

struct Case {
  int bits, group;
  bool asymmetric;
  DType scale;
};
std::vector<Case> cases() {
  std::vector<Case> out;
  for (int bits = 2; bits <= 8; ++bits)
    for (int group : {0, 32, 48})
      for (bool asymmetric : {false, true})
        for (DType scale : {DType::bf16, DType::f16, DType::f32})
          out.push_back({bits, group, asymmetric, scale});
  return out;
}

// A matrix whose last group is ragged under both group sizes.
constexpr int64_t rows = 13, cols = 200;

double group_error(const Codes& c, const std::vector<float>& w, int64_t row, int64_t g) {
  std::vector<float> deq(w.size());
  dequantize(c, deq.data());
  const int64_t group = c.numerics.group == 0 ? cols : c.numerics.group;
  double sum = 0;
  for (int64_t i = row * cols + g * group; i < row * cols + std::min(cols, (g + 1) * group); ++i)
    sum += std::pow(double{w[static_cast<size_t>(i)]} - deq[static_cast<size_t>(i)], 2);
  return sum;
}

TEST(RoundToNearest, IsWithinHalfAStepInsideTheRangeAndSaturatesOutside) {
  Rng rng(1);
  const std::vector<float> w = random_values(rows * cols, rng);
  for (const Case& k : cases())
    for (ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
      const Numerics n = Numerics::integer(k.bits, k.group, k.asymmetric, k.scale);
      SCOPED_TRACE(to_string(n));
      const Codes c = round_to_nearest(w.data(), rows, cols, n, search);
      std::vector<float> deq(w.size());
      dequantize(c, deq.data());
      const int64_t groups = n.groups(cols), group = k.group == 0 ? cols : k.group;
      for (int64_t i = 0; i < rows * cols; ++i) {
        const auto at = static_cast<size_t>(i / cols * groups + i % cols / group);
        const float s = c.scales[at], z = c.zeros.empty() ? 0 : c.zeros[at], x = w[static_cast<size_t>(i)];
        const int q = c.codes[static_cast<size_t>(i)];
        ASSERT_GE(q, n.code_min());
        ASSERT_LE(q, n.code_max());
        const float lo = s * (static_cast<float>(n.code_min()) - z),
                    hi = s * (static_cast<float>(n.code_max()) - z);
        if (x < lo) {
          ASSERT_EQ(q, n.code_min());
        } else if (x > hi) {
          ASSERT_EQ(q, n.code_max());
        } else {
          ASSERT_LE(std::fabs(x - deq[static_cast<size_t>(i)]), s / 2 * 1.0001f);
        }
      }
    }
}

TEST(RoundToNearest, ScalesAndZerosAreStorable) {
  Rng rng(2);
  const std::vector<float> w = random_values(rows * cols, rng);
  for (const Case& k : cases()) {
    const Numerics n = Numerics::integer(k.bits, k.group, k.asymmetric, k.scale);
    const Codes c = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse);
    std::vector<float> back(c.scales.size());
    std::vector<std::byte> stored(c.scales.size() * 4);
    from_f32(k.scale, c.scales.data(), stored.data(), static_cast<int64_t>(back.size()));
    to_f32(k.scale, stored.data(), back.data(), static_cast<int64_t>(back.size()));
    EXPECT_EQ(back, c.scales);
    EXPECT_THAT(c.scales, Each(testing::Gt(0)));
    for (float z : c.zeros) {
      EXPECT_EQ(z, std::nearbyint(z));
      EXPECT_GE(z, n.code_min());
      EXPECT_LE(z, n.code_max());
    }
  }
}

TEST(Storable, IsTheNearestNumberOfTheTypeOrTheNearestPositiveFiniteOne) {
  const auto nearest = [](float x, DType dtype) {
    return dtype == DType::f16 ? f16_to_f32(f32_to_f16(x)) : bf16_to_f32(f32_to_bf16(x));
  };
  for (const DType dtype : {DType::f16, DType::bf16})
    for (uint32_t bits = 1; bits < 0x7f800000u; bits += 4099) {  // all binades, prime steps
      const float x = std::bit_cast<float>(bits), expected = nearest(x, dtype), found = storable(x, dtype);
      if (expected > 0 && std::isfinite(expected))
        ASSERT_EQ(found, expected) << x;
      else
        ASSERT_EQ(found, expected > 0 ? storable(std::numeric_limits<float>::infinity(), dtype)
                                      : storable(0.0f, dtype))
            << x;
    }
}

TEST(RoundToNearest, SearchIsNeverWorseThanAbsmaxInAnyGroup) {
  Rng rng(3);
  const std::vector<float> w = random_values(rows * cols, rng);
  for (const Case& k : cases()) {
    const Numerics n = Numerics::integer(k.bits, k.group, k.asymmetric, k.scale);
    SCOPED_TRACE(to_string(n));
    const Codes absmax = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::absmax);
    const Codes mse = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse);
    double sum_absmax = 0, sum_mse = 0;
    for (int64_t row = 0; row < rows; row += 4)
      for (int64_t g = 0; g < n.groups(cols); ++g) {
        const double a = group_error(absmax, w, row, g), m = group_error(mse, w, row, g);
        EXPECT_LE(m, a * (1 + 1e-5));
        sum_absmax += a;
        sum_mse += m;
      }
    if (k.bits <= 4) {
      EXPECT_LT(sum_mse, 0.97 * sum_absmax);
    }
  }
}

TEST(RoundToNearest, IsDeterministicAndRowsAreIndependent) {
  Rng rng(4);
  const std::vector<float> w = random_values(rows * cols, rng);
  const Numerics n = Numerics::integer(4, 32, true);
  const Codes all = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse);
  const Codes again = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse);
  EXPECT_EQ(all.codes, again.codes);
  EXPECT_EQ(all.scales, again.scales);
  const Codes row = round_to_nearest(w.data() + 5 * cols, 1, cols, n, ScaleSearch::mse);
  EXPECT_TRUE(std::equal(row.codes.begin(), row.codes.end(), all.codes.begin() + 5 * cols));
  EXPECT_TRUE(std::equal(row.scales.begin(), row.scales.end(), all.scales.begin() + 5 * n.groups(cols)));
}

TEST(RoundToNearest, SymmetricRuleOfCompressedTensors) {
  // scale = 15 / 7.5 = 2; ties to even; +15 clips to 7.
  const std::vector<float> w = {-15, 15, 1, 3, 5, -1, 0, 14};
  const Codes c = round_to_nearest(w.data(), 1, 8, Numerics::integer(4, 0, false), ScaleSearch::absmax);
  EXPECT_THAT(c.scales, ElementsAre(2));
  EXPECT_THAT(c.codes, ElementsAre(-8, 7, 0, 2, 2, 0, 0, 7));
  EXPECT_TRUE(c.zeros.empty());
}

TEST(RoundToNearest, AsymmetricRuleOfCompressedTensors) {
  // The range is widened to hold 0: [0, 30], scale 2, zero point -8.
  const std::vector<float> w = {10, 30, 12, 20};
  const Codes c = round_to_nearest(w.data(), 1, 4, Numerics::integer(4, 0, true), ScaleSearch::absmax);
  EXPECT_THAT(c.scales, ElementsAre(2));
  EXPECT_THAT(c.zeros, ElementsAre(-8));
  EXPECT_THAT(c.codes, ElementsAre(-3, 7, -2, 2));
}

TEST(RoundToNearest, GroupsOfZerosTakeTheEpsilonOfTheScaleType) {
  const std::vector<float> w(8, 0.0f);
  for (const auto& [dtype, epsilon] :
       {std::pair{DType::bf16, 0x1p-7f}, {DType::f16, 0x1p-10f}, {DType::f32, 0x1p-23f}})
    for (bool asymmetric : {false, true})
      for (ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
        const Codes c = round_to_nearest(w.data(), 1, 8, Numerics::integer(4, 4, asymmetric, dtype), search);
        EXPECT_THAT(c.scales, ElementsAre(epsilon, epsilon));
        std::vector<float> deq(8, 1);
        dequantize(c, deq.data());
        EXPECT_THAT(deq, Each(0));
      }
}

TEST(RoundToNearest, ExtremeMagnitudesStayFinite) {
  constexpr float huge = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  for (const std::vector<float>& w :
       {std::vector<float>{huge, -huge, 1, 0}, {tiny, -tiny, 0, tiny}, {1e30f, tiny, 0, 0}})
    for (const Case& k : cases())
      for (ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
        const Codes c =
            round_to_nearest(w.data(), 1, 4, Numerics::integer(k.bits, 0, k.asymmetric, k.scale), search);
        EXPECT_TRUE(std::isfinite(c.scales[0]) && c.scales[0] > 0) << c.scales[0];
      }
}

TEST(RoundToNearest, RefusesWhatHasNoNearest) {
  const Numerics n = Numerics::integer(4, 0, false);
  for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> w = {1, bad};
    EXPECT_THROW(round_to_nearest(w.data(), 1, 2, n, ScaleSearch::absmax), Error);
  }
  const float one = 1;
  EXPECT_THROW(round_to_nearest(&one, 1, 1, Numerics::dense(DType::bf16), ScaleSearch::absmax), Error);
}

}  // namespace
}  // namespace lathe
