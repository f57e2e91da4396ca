// What each observer must do with outliers, against the elements themselves.
#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include "calibration_data.h"
#include "compress/observers.h"
#include "core/error.h"

namespace lathe {
namespace {

using namespace testing_support;

constexpr int64_t cols = 64, rows = 4096;

Magnitudes seen(const std::vector<float>& x, int threads = 1, int64_t step = rows) {
  ThreadPool pool(threads);
  Magnitudes m;
  for (int64_t r = 0; r < std::ssize(x) / cols; r += step)
    m.add(pool, x.data() + r * cols, r, std::min(step, std::ssize(x) / cols - r), cols);
  return m;
}

float limit(std::string_view name, const std::vector<float>& x) {
  return input_observer(name).limit(seen(x), Activations::int8_static);
}

// A normal of size 1; `outliers` elements, far from each other, have size `size`.
std::vector<float> normal_with(int outliers, float size) {
  std::vector<float> x = random_values(rows * cols, 3);
  for (int i = 0; i < outliers; ++i)
    x[static_cast<size_t>(i) * x.size() / static_cast<size_t>(outliers)] = size;
  return x;
}

double squared_error(const std::vector<float>& x, float limit) {
  const double scale = static_cast<double>(limit) / 127;
  double sum = 0;
  for (const float v : x) {
    const double q =
        std::rint(std::min(std::fabs(static_cast<double>(v)), static_cast<double>(limit)) / scale);
    const double off = std::fabs(static_cast<double>(v)) - q * scale;
    sum += off * off;
  }
  return sum / static_cast<double>(x.size());
}

std::vector<float> sorted_magnitudes(std::vector<float> x) {
  for (float& v : x) v = std::fabs(v);
  std::ranges::sort(x);
  return x;
}

TEST(Observers, CountsDependNeitherOnThreadsNorOnTheCut) {
  const std::vector<float> x = normal_with(5, -37);
  const Magnitudes once = seen(x);
  EXPECT_EQ(std::accumulate(once.counts.begin(), once.counts.end(), int64_t{0}), rows * cols);
  EXPECT_EQ(once.maxima.size(), rows / Magnitudes::batch);
  for (const int64_t step : {rows, int64_t{200}, int64_t{1}}) {
    const Magnitudes again = seen(x, 3, step);
    EXPECT_EQ(again.counts, once.counts);
    EXPECT_EQ(again.maxima, once.maxima);
  }
}

TEST(Observers, MinmaxTakesTheOutlierWhateverItCosts) {
  EXPECT_EQ(limit("minmax", normal_with(1, -1000)), 1000);
  EXPECT_EQ(limit("minmax", std::vector<float>(cols, 0.0f)), 0);
}

TEST(Observers, AMovingAverageGoesAHundredthOfTheWay) {
  std::vector<float> x(static_cast<size_t>(2 * Magnitudes::batch * cols), 1.0f);
  x.back() = -11;
  EXPECT_FLOAT_EQ(limit("moving-average", x), 1.1f);
  x.back() = 1, x.front() = -11;  // the first batch's is where it starts
  EXPECT_FLOAT_EQ(limit("moving-average", x), 10.9f);
}

TEST(Observers, APercentileDoesNotSeeAFewOutliers) {
  // Bins are 1/128 wide; of 262,144 elements 26.2 are beyond.
  const float without = limit("percentile", normal_with(0, 0)),
              with = limit("percentile", normal_with(20, 1000));
  EXPECT_LE(with, sorted_magnitudes(normal_with(0, 0)).back() * (1 + 1 / 128.f));
  EXPECT_GE(with, without);
  EXPECT_EQ(limit("percentile", normal_with(40, 1000)), 1000);
  const std::vector<float> sorted = sorted_magnitudes(normal_with(0, 0));
  const float exact = sorted[static_cast<size_t>(0.9999 * static_cast<double>(sorted.size()))];
  EXPECT_NEAR(without, exact, exact / 64);
}

TEST(Observers, SquaredErrorIsTheLeastOfAllLimits) {
  for (const float size : {0.0f, 20.0f, 1000.0f}) {
    SCOPED_TRACE(size);
    const std::vector<float> x = normal_with(size > 0 ? 8 : 0, size);
    const float chosen = limit("mse", x), most = sorted_magnitudes(x).back();
    double least = INFINITY;
    for (int step = 0; step <= 160; ++step)
      least = std::min(least, squared_error(x, most * std::exp2(-static_cast<float>(step) / 20)));
    // Between two limits 9 % apart lies one at most 4.4 % off the best: its step is as much wider (9 % of the
    // squared error) or as much more is cut off; bins move elements by at most 1/256.
    EXPECT_LE(squared_error(x, chosen), 1.15 * least);
    EXPECT_LE(squared_error(x, chosen), squared_error(x, most) * (1 + 1e-6));
  }
  // A few numbers of size 20 are worth a coarser step; cutting them off would cost more than it gains.
  EXPECT_GT(limit("mse", normal_with(300, 20)), 18);
}

TEST(Observers, EntropyCutsThinTailsAndKeepsUniformOnes) {
  const float with = limit("entropy", normal_with(8, 60));
  EXPECT_LT(with, 12);
  EXPECT_GT(with, 2);
  std::vector<float> uniform(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < uniform.size(); ++i)
    uniform[i] = static_cast<float>(i * 7919 % uniform.size()) / static_cast<float>(uniform.size()) - 0.5f;
  EXPECT_GT(limit("entropy", uniform), 0.45f);
}

TEST(Observers, EveryOneIsPositiveAndAtMostTheLargest) {
  const std::vector<float> x = normal_with(3, 500);
  for (const InputObserver& o : input_observers()) {
    EXPECT_GT(o.limit(seen(x), Activations::int8_static), 0) << o.name;
    EXPECT_LE(o.limit(seen(x), Activations::int8_static), 500 * (1 + 1e-6f)) << o.name;
  }
  EXPECT_THROW(input_observer("median"), InputError);
}

}  // namespace
}  // namespace lathe
