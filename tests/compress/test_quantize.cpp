#include <cmath>
#include <cstring>
#include <gtest/gtest.h>

#include "compress/quantize.h"
#include "core/error.h"
#include "core/rng.h"

namespace lathe {
namespace {

Weight random_weight(int64_t rows, int64_t cols, DType dtype = DType::f32) {
  Rng rng(1);
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (float& v : values) v = rng.normal();
  Weight w = make_weight(Numerics::dense(dtype), packing("dense"), {rows, cols});
  w.packing->pack({w.numerics, rows, cols, values, {}, {}, {}}, 0, w);
  return w;
}

bool same_bytes(const Weight& a, const Weight& b) {
  if (a.parts.size() != b.parts.size()) return false;
  for (size_t i = 0; i < a.parts.size(); ++i)
    if (a.parts[i].shape != b.parts[i].shape ||
        std::memcmp(a.parts[i].storage.data, b.parts[i].storage.data, a.parts[i].bytes()) != 0)
      return false;
  return true;
}

const std::vector<Numerics> formats = {Numerics::integer(8, 0, false),
                                       Numerics::integer(8, 32, true),
                                       Numerics::integer(4, 32, true),
                                       Numerics::integer(4, 32, false),
                                       Numerics::integer(4, 128, false),
                                       Numerics::integer(3, 64, true),
                                       Numerics::integer(4, 32, true, DType::f16)};

TEST(QuantizeWeight, IsRoundToNearestOfAllRowsAtOnce) {
  const Weight from = random_weight(300, 256, DType::bf16);  // not a multiple of a strip
  for (const Numerics& n : formats)
    for (const ScaleSearch search : {ScaleSearch::absmax, ScaleSearch::mse}) {
      Weight expected = make_weight(n, storage_packing(n), from.shape);
      expected.packing->pack(round_to_nearest(read_all(from).data(), 300, 256, n, search), 0, expected);
      EXPECT_TRUE(same_bytes(quantize_weight(from, n, search, 1), expected)) << to_string(n);
    }
}

TEST(QuantizeWeight, ThreadsDoNotChangeTheResult) {
  const Weight from = random_weight(1000, 64);
  for (const Numerics& n : {formats[0], formats[2]}) {
    const Weight one = quantize_weight(from, n, ScaleSearch::mse, 1);
    for (int threads : {2, 3, 8})
      EXPECT_TRUE(same_bytes(quantize_weight(from, n, ScaleSearch::mse, threads), one)) << threads;
  }
}

double snr_db(const Weight& before, const Weight& after) {
  const auto a = read_all(before), b = read_all(after);
  double signal = 0, error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    signal += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  }
  return 10 * std::log10(signal / error);
}

// What a uniform grid over normal numbers gives, whoever implements it.
TEST(QuantizeWeight, GivesTheKnownSignalToNoiseOfNormalWeights) {
  const Weight w = random_weight(64, 4096);
  const struct {
    Numerics numerics;
    double db;
  } expected[] = {{Numerics::integer(8, 32, false, DType::f32), 45.5},
                  {Numerics::integer(8, 0, false, DType::f32), 41.6},
                  {Numerics::integer(4, 32, true, DType::f32), 21.7},
                  {Numerics::integer(4, 32, false, DType::f32), 20.4},
                  {Numerics::integer(4, 128, true, DType::f32), 19.8},
                  {Numerics::integer(4, 128, false, DType::f32), 18.9}};
  for (const auto& [numerics, db] : expected)
    EXPECT_NEAR(snr_db(w, quantize_weight(w, numerics, ScaleSearch::absmax)), db, 0.5) << to_string(numerics);
}

TEST(QuantizeWeight, SearchingScalesNeverHurts) {
  const Weight w = random_weight(64, 1024);
  for (const Numerics& n : formats)
    EXPECT_GE(snr_db(w, quantize_weight(w, n, ScaleSearch::mse)),
              snr_db(w, quantize_weight(w, n, ScaleSearch::absmax)))
        << to_string(n);
}

}  // namespace
}  // namespace lathe
