// Walks the passes over logits of every level against the reference.
#include <limits>

#include "kernels/harness.h"
#include "kernels/ref/ref.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int64_t lengths[] = {1, 3, 15, 16, 17, 63, 64, 65, 1000, 4095, 4096, 4097, 9001};

template <class Check>
void each_row(Check check) {
  for (const ElementwiseKernels& row : elementwise_kernels())
    if (runs_here(row.isa)) {
      SCOPED_TRACE(row.name);
      check(row);
    }
}

std::vector<float> random_logits(int64_t n, Rng& rng) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& f : x) f = 8 * rng.normal();
  return x;
}

TEST(Sample, LargestSeesEveryPlaceAndNoNaN) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(1);
    for (int64_t n : lengths) {
      std::vector<float> x = random_logits(n, rng);
      EXPECT_EQ(row.largest(x.data(), n), largest_ref(x.data(), n));
      for (int64_t at : {int64_t{0}, n / 2, n - 1}) {
        std::vector<float> y = x;
        y[static_cast<size_t>(at)] = 1e30f;
        EXPECT_EQ(row.largest(y.data(), n), 1e30f) << at << " of " << n;
        EXPECT_EQ(most_likely(y, row), at);
        y[static_cast<size_t>(at)] = NAN;
        EXPECT_EQ(row.largest(y.data(), n), largest_ref(y.data(), n)) << at << " of " << n;
      }
      std::vector<float> same(static_cast<size_t>(n), -3.0f), none(static_cast<size_t>(n), NAN);
      EXPECT_EQ(most_likely(same, row), 0) << "the first of equals";
      EXPECT_EQ(most_likely(none, row), -1);
      EXPECT_EQ(row.largest(none.data(), n), -infinity);
    }
    EXPECT_EQ(most_likely({}, row), -1);
  });
}

// Both round the argument alike; then exp is within 1.5e-7 (simd/exp.inl), and the reference's within half a
// unit.
TEST(Sample, ExponentialsAreThoseOfTheReference) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(2);
    for (int64_t n : lengths)
      for (float scale : {1.0f, 0.3f, 5.0f}) {
        std::vector<float> x = random_logits(n, rng);
        if (n > 3) x[1] = NAN, x[2] = -infinity;
        const float peak = largest_ref(x.data(), n);
        std::vector<float> expected(x.size()), got(x.size() + 3, -7.0f);
        exponentials_ref({x.data(), expected.data(), n, peak, scale});
        row.exponentials({x.data(), got.data(), n, peak, scale});
        for (size_t i = 0; i < x.size(); ++i) {
          ASSERT_NEAR(got[i], expected[i], 2.2e-7f * expected[i]) << x[i];
          ASSERT_EQ(got[i] == 0, expected[i] == 0) << x[i];
          ASSERT_TRUE(x[i] != peak || got[i] == 1);
        }
        EXPECT_EQ(got.back(), -7.0f) << "nothing beyond the end";
      }
  });
}

TEST(Sample, CountsAndSumsWhatReachesABound) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(3);
    for (int64_t n : lengths) {
      std::vector<float> x(static_cast<size_t>(n));
      for (float& f : x) f = static_cast<float>(1 + rng.below(1000)) / 1000;
      if (n > 3) x[1] = NAN, x[2] = 0;
      for (float bound : {1e-30f, 0.25f, x[0], x[static_cast<size_t>(n) - 1], 1.0f, 2.0f}) {
        if (!(bound > 0)) continue;
        const Tail expected = at_least_ref(x.data(), n, bound), got = row.at_least(x.data(), n, bound);
        EXPECT_EQ(got.count, expected.count) << n << " from " << bound;
        // A chain of a block's 4096 numbers in at least 4 lanes, and the sum of the lanes.
        const double roundings = static_cast<double>(std::min<int64_t>(n, tail_block)) / 4 + 8;
        EXPECT_NEAR(got.sum, expected.sum, roundings * static_cast<double>(unit_roundoff) * expected.sum);
      }
    }
  });
}

}  // namespace
}  // namespace lathe
