#include <cmath>
#include <cstring>
#include <gmock/gmock.h>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"
#include "quant/round.h"
#include "quant/round_parts.h"

namespace lathe {
namespace {

using Kind = Numerics::Kind;
using testing::ElementsAre;
using testing::ElementsAreArray;

constexpr Kind kinds[] = {Kind::e4m3, Kind::e2m1, Kind::nf4};

std::vector<Numerics> all_grids() {
  std::vector<Numerics> out = {Numerics::mxfp8(), Numerics::mxfp4(), Numerics::nvfp4(), Numerics::nf4()};
  for (DType d : {DType::f32, DType::bf16, DType::f16})
    for (const Numerics& n : {Numerics::fp8(d), Numerics::fp8_tensor(d), Numerics::fp8_block(d)})
      out.push_back(n);
  return out;
}

// Every number half way between two values of the grid, its neighbours, and every value.
TEST(NearestCode, IsTheNearestValueOfTheGridAtEveryBoundary) {
  for (const Kind kind : kinds) {
    std::vector<float> values;
    for (const float v : grid_values(kind))
      if (!std::isnan(v)) values.push_back(v);
    std::sort(values.begin(), values.end());
    std::vector<float> inputs = {1e30f, -1e30f, 0.0f, -0.0f, 1e-30f};
    for (size_t i = 0; i < values.size(); ++i) {
      inputs.push_back(values[i]);
      if (i == 0) continue;
      const float half = (values[i - 1] + values[i]) / 2;
      inputs.insert(inputs.end(), {half, std::nextafter(half, -1e30f), std::nextafter(half, 1e30f)});
    }
    for (const float x : inputs) {
      const int code = nearest_code(kind, x);
      const float found = grid_values(kind)[static_cast<size_t>(code)];
      double least = INFINITY;
      for (const float v : values) least = std::min(least, std::fabs(double{v} - x));
      // Half way between two values of nf4 is no f32.
      ASSERT_LE(std::fabs(double{found} - x), least + (kind == Kind::nf4 ? 0x1p-24 : 0))
          << static_cast<int>(kind) << " " << std::hexfloat << x;
      if (kind == Kind::nf4 || std::fabs(x) > largest_of_grid(kind)) continue;
      ASSERT_EQ(std::signbit(found), std::signbit(x)) << x;
      // Half way: the even code.
      for (const int other : {code - 1, code + 1})
        if (other >= 0 && other < (kind == Kind::e4m3 ? 255 : 16) && found != 0 &&
            grid_values(kind)[static_cast<size_t>(other)] != found &&
            std::fabs(double{grid_values(kind)[static_cast<size_t>(other)]} - x) == least) {
          ASSERT_EQ(code % 2, 0) << x;
        }
    }
  }
  EXPECT_EQ(nearest_code(Kind::e2m1, -0.1f), 8);  // -0, as others store it
  EXPECT_THROW(nearest_code(Kind::integer, 1), Error);
}

TEST(NearestCode, TiesOfFourBits) {
  const std::vector<float> ties = {.25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
  std::vector<float> found;
  for (const float x : ties)
    found.push_back(grid_values(Kind::e2m1)[static_cast<size_t>(nearest_code(Kind::e2m1, x))]);
  EXPECT_THAT(found, ElementsAre(0, 1, 1, 2, 2, 4, 4));
}

TEST(MxExponent, TheFourRules) {
  struct Case {
    float amax;
    int floor, even, ceil, rceil;
  };
  for (const Case& c : {Case{1.0f, 125, 125, 125, 125},
                        {1.75f, 125, 126, 126, 126},
                        {4, 127, 127, 127, 127},
                        {5.9f, 127, 127, 128, 127},
                        {6, 127, 127, 128, 127},
                        {6.5f, 127, 127, 128, 128},
                        {7, 127, 128, 128, 128},
                        {8, 128, 128, 128, 128},
                        {448, 133, 134, 134, 134}}) {
    EXPECT_EQ(mx_exponent(c.amax, MxRule::floor, Kind::e2m1) + 127, c.floor) << c.amax;
    EXPECT_EQ(mx_exponent(c.amax, MxRule::even, Kind::e2m1) + 127, c.even) << c.amax;
    EXPECT_EQ(mx_exponent(c.amax, MxRule::ceil, Kind::e2m1) + 127, c.ceil) << c.amax;
    EXPECT_EQ(mx_exponent(c.amax, MxRule::rceil, Kind::e2m1) + 127, c.rceil) << c.amax;
  }
  EXPECT_EQ(mx_exponent(448, MxRule::even, Kind::e4m3), 1);
  EXPECT_EQ(mx_exponent(448, MxRule::rceil, Kind::e4m3), 0);
  EXPECT_EQ(mx_exponent(0, MxRule::floor, Kind::e2m1), -127);
}

// Two blocks, the second a quarter of the first: what compressed-tensors and ModelOpt store.
TEST(RoundToGrid, Nvfp4AsOthersDo) {
  std::vector<float> w = {-1,  -.75f, -.5f, -.25f, 0,   .1f, .2f,  .3f,
                          .4f, .5f,   .6f,  .7f,   .8f, .9f, 1.2f, -1.5f};
  for (int i = 0; i < 16; ++i) w.push_back(w[static_cast<size_t>(i)] / 4);
  const Codes c = round_to_nearest(w.data(), 1, 32, Numerics::nvfp4(), ScaleSearch::absmax);
  EXPECT_EQ(c.global, 1 / 1792.0f);
  EXPECT_THAT(c.scales, ElementsAre(448, 112));
  const std::vector<int16_t> block = {14, 13, 12, 10, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 15};
  EXPECT_THAT(std::vector(c.codes.begin(), c.codes.begin() + 16), ElementsAreArray(block));
  EXPECT_THAT(std::vector(c.codes.begin() + 16, c.codes.end()), ElementsAreArray(block));
}

constexpr MxRule mx_rules[] = {MxRule::floor, MxRule::even, MxRule::ceil, MxRule::rceil};

// Whatever the search, which is that of the other formats: the exponent is the rule's.
TEST(RoundToGrid, MxBlocksHaveTheExponentOfTheRuleThatIsAskedFor) {
  Rng rng(12);
  std::vector<float> w(64 * 32);
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::exp2(static_cast<float>(i / 32 % 9) - 4) * rng.normal();
  for (const Numerics& n : {Numerics::mxfp4(), Numerics::mxfp8()})
    for (const MxRule rule : mx_rules)
      for (const ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
        const Codes c = round_to_nearest(w.data(), 16, 128, n, {search, rule});
        for (size_t block = 0; block < c.scales.size(); ++block) {
          float most = 0;
          for (size_t i = 0; i < 32; ++i) most = std::max(most, std::fabs(w[32 * block + i]));
          ASSERT_EQ(c.scales[block], std::ldexp(1.0f, mx_exponent(most, rule, n.kind)))
              << to_string(n) << " " << mx_rule_names[static_cast<size_t>(rule)] << " " << most;
        }
      }
  const std::vector<int16_t> plain =
      round_to_nearest(w.data(), 16, 128, Numerics::nvfp4(), ScaleSearch::absmax).codes;
  EXPECT_EQ(round_to_nearest(w.data(), 16, 128, Numerics::nvfp4(), {ScaleSearch::absmax, MxRule::ceil}).codes,
            plain);
}

double decibels(const std::vector<float>& w, const std::vector<float>& deq) {
  double signal = 0, noise = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    signal += std::pow(double{w[i]}, 2);
    noise += std::pow(double{w[i]} - deq[i], 2);
  }
  return 10 * std::log10(signal / noise);
}

double decibels(const std::vector<float>& w, int64_t cols, const Numerics& n, ScaleRule rule) {
  const Codes c = round_to_nearest(w.data(), std::ssize(w) / cols, cols, n, rule);
  std::vector<float> deq(w.size());
  dequantize(c, deq.data());
  return decibels(w, deq);
}

// Signal to noise of 98,304 normal numbers, as independent scalar implementations found it.
TEST(RoundToGrid, SignalToNoiseOfNormalNumbers) {
  Rng rng(5);
  std::vector<float> w(98304);
  for (float& x : w) x = rng.normal();
  struct Case {
    Numerics numerics;
    double expected;
  };
  for (const Case& c : {Case{Numerics::fp8_tensor(DType::f32), 31.6},
                        {Numerics::mxfp8(), 31.5},
                        {Numerics::nf4(), 20.8},
                        {Numerics::nvfp4(), 20.4}}) {
    const double absmax = decibels(w, 4096, c.numerics, ScaleSearch::absmax),
                 mse = decibels(w, 4096, c.numerics, ScaleSearch::mse);
    EXPECT_NEAR(absmax, c.expected, 0.2) << to_string(c.numerics);
    EXPECT_GE(mse, absmax) << to_string(c.numerics);
  }
  for (const MxRule rule : {MxRule::floor, MxRule::rceil})
    EXPECT_NEAR(decibels(w, 4096, Numerics::mxfp4(), {ScaleSearch::mse, rule}), 18.8, 0.2);
  for (const MxRule rule : mx_rules)
    EXPECT_GE(decibels(w, 4096, Numerics::mxfp4(), ScaleSearch::mse),
              decibels(w, 4096, Numerics::mxfp4(), {ScaleSearch::mse, rule}));
  EXPECT_GT(decibels(w, 4096, Numerics::nvfp4(), ScaleSearch::mse), 21.2);  // sweep and 4/6 gain a decibel
}

constexpr int64_t rows = 150, cols = 200;  // ragged groups and blocks

std::vector<float> some_weights(uint64_t seed) {
  Rng rng(seed);
  std::vector<float> w;
  for (int64_t i = 0; i < rows * cols; ++i)
    w.push_back(0.02f * rng.normal() * (rng.below(50) == 0 ? 6.0f : 1.0f));
  return w;
}

TEST(RoundToGrid, ScalesAreStorableAndSharedByTheRowsOfABlock) {
  const std::vector<float> w = some_weights(6);
  for (const Numerics& n : all_grids())
    for (const ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
      SCOPED_TRACE(to_string(n));
      const Codes c = round_to_nearest(w.data(), rows, cols, n, search);
      std::vector<std::byte> stored(c.scales.size() * 4);
      std::vector<float> back(c.scales.size());
      from_f32(n.dtype, c.scales.data(), stored.data(), std::ssize(back));
      to_f32(n.dtype, stored.data(), back.data(), std::ssize(back));
      EXPECT_EQ(back, c.scales);
      EXPECT_THAT(c.scales, testing::Each(testing::Gt(0)));
      const int64_t groups = n.groups(cols), block = n.block_rows == 0 ? rows : n.block_rows;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t g = 0; g < groups; ++g)
          ASSERT_EQ(c.scales[static_cast<size_t>(r * groups + g)],
                    c.scales[static_cast<size_t>(r / block * block * groups + g)]);
    }
}

TEST(RoundToGrid, CodesAreTheNearestUnderTheirScale) {
  const std::vector<float> w = some_weights(7);
  for (const Numerics& n : all_grids()) {
    SCOPED_TRACE(to_string(n));
    const Codes c = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse);
    const int64_t groups = n.groups(cols), group = n.group == 0 ? cols : n.group;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float whole = c.scales[static_cast<size_t>(i / cols * groups + i % cols / group)] * c.global;
      ASSERT_EQ(c.codes[static_cast<size_t>(i)], nearest_code(n.kind, w[static_cast<size_t>(i)] / whole));
    }
  }
}

TEST(RoundToGrid, SearchIsNeverWorse) {
  const std::vector<float> w = some_weights(8);
  for (const Numerics& n : all_grids())
    EXPECT_GE(decibels(w, cols, n, ScaleSearch::mse), decibels(w, cols, n, ScaleSearch::absmax))
        << to_string(n);
}

TEST(RoundToGrid, PartsOfAWeightRoundAsTheWhole) {
  const std::vector<float> w = some_weights(9);
  float largest = 0;
  for (const float x : w) largest = std::max(largest, std::fabs(x));
  for (const Numerics& n : all_grids()) {
    SCOPED_TRACE(to_string(n));
    const Codes all = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::mse),
                tail =
                    round_to_nearest(w.data() + 128 * cols, rows - 128, cols, n, ScaleSearch::mse, largest);
    EXPECT_TRUE(std::equal(tail.codes.begin(), tail.codes.end(), all.codes.begin() + 128 * cols));
    EXPECT_EQ(tail.global, all.global);
  }
}

TEST(RoundToGrid, ZerosAndExtremesStayFinite) {
  // (The nearest value to the largest f32 can be 2^128.)
  constexpr float huge = 0x1p127f, tiny = std::numeric_limits<float>::denorm_min();
  for (const std::vector<float>& w : {std::vector<float>(64, 0.0f), std::vector<float>(64, tiny),
                                      std::vector<float>(64, huge), std::vector<float>(64, -huge)})
    for (const Numerics& n : all_grids())
      for (const ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
        const Codes c = round_to_nearest(w.data(), 2, 32, n, search);
        std::vector<float> deq(64);
        dequantize(c, deq.data());
        for (const float v : deq) ASSERT_TRUE(std::isfinite(v)) << to_string(n) << " " << w[0];
        if (w[0] == 0) {
          EXPECT_THAT(deq, testing::Each(0)) << to_string(n);
        }
      }
}

TEST(RoundToGrid, AGridThatNothingRoundsToIsAnError) {
  const std::vector<float> w(64, 1.0f);
  EXPECT_THROW(round_to_grid(w.data(), 2, 32, Numerics::iq4_nl(), {}, 1), Error);
}

}  // namespace
}  // namespace lathe
