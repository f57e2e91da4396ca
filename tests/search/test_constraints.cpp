#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "search/constraints.h"

namespace lathe {
namespace {

using testing::HasSubstr;

TEST(Constraints, Sizes) {
  EXPECT_EQ(parse_bytes("4096", "--x"), 4096u);
  EXPECT_EQ(parse_bytes("12MB", "--x"), 12'000'000u);
  EXPECT_EQ(parse_bytes("12mb", "--x"), 12'000'000u);
  EXPECT_EQ(parse_bytes("2.5GiB", "--x"), 2684354560u);
  EXPECT_EQ(parse_bytes("1.5 kB", "--x"), 1500u);
  EXPECT_EQ(parse_bytes("3g", "--x"), 3'000'000'000u);
  for (const char* wrong :
       {"", "MB", "12XB", "-5MB", "0", "nan", "inf", "1e40TB", "12MBx", "0x10", "1..5MB", "12 M B"})
    EXPECT_THROW(parse_bytes(wrong, "--max-memory"), InputError) << wrong;
  try {
    parse_bytes("12XB", "--max-memory");
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("--max-memory"));
    EXPECT_THAT(e.what(), HasSubstr("12XB"));
    EXPECT_THAT(e.what(), HasSubstr("2.5GiB"));
  }
}

TEST(Constraints, PerCent) {
  EXPECT_DOUBLE_EQ(parse_percent("1.5%", "--x"), 0.015);
  EXPECT_DOUBLE_EQ(parse_percent("1.5", "--x"), 0.015);
  EXPECT_DOUBLE_EQ(parse_percent("0", "--x"), 0);
  for (const char* wrong : {"", "%", "-1", "1.5%%", "one", "1,5", "nan", "2 percent"})
    EXPECT_THROW(parse_percent(wrong, "--x"), InputError) << wrong;
}

Quality quality(double nll, double kl) {
  Quality q;
  q.nll = nll;
  q.perplexity = std::exp(nll);
  q.kl_mean = kl;
  return q;
}

TEST(Constraints, QualityAgainstTheBase) {
  Constraints c;
  c.max_ppl_increase = 0.02;
  c.max_kl = 0.01;
  const auto good = check_quality(c, quality(std::log(10.1), 0.005), quality(std::log(10.0), 0));
  ASSERT_EQ(good.size(), 2u);
  EXPECT_TRUE(good[0].met() && good[1].met());
  EXPECT_NEAR(good[0].value, 1.0, 1e-9);  // per cent
  EXPECT_NEAR(stress(good), 0.5, 1e-9);
  const auto bad = check_quality(c, quality(std::log(10.1), 0.015), quality(std::log(10.0), 0));
  EXPECT_FALSE(bad[1].met());
  EXPECT_THAT(
      describe(bad[1]),
      HasSubstr(
          "--max-kl: at most 0.01 nats/token, measured 0.015 nats/token (0.005 nats/token over, 50.0 %)"));
}

TEST(Constraints, ALimitOfZeroIsMetByNoChange) {
  Constraints c;
  c.max_kl = 0;
  EXPECT_TRUE(check_quality(c, quality(1, 0), quality(1, 0))[0].met());
  EXPECT_FALSE(check_quality(c, quality(1, 1e-9), quality(1, 0))[0].met());
}

TEST(Constraints, Resources) {
  Constraints c;
  c.max_memory = 1000;
  c.min_decode = 50;
  c.max_ttft = 20;
  Speed speed;
  speed.decode_tokens_per_s = 40;
  speed.ttft_ms = 10;
  const auto bounds = check_resources(c, 900, &speed);
  ASSERT_EQ(bounds.size(), 3u);
  EXPECT_TRUE(bounds[0].met());
  EXPECT_FALSE(bounds[1].met());
  EXPECT_TRUE(bounds[2].met());
  EXPECT_THAT(
      describe(bounds[1]),
      HasSubstr("--min-decode: at least 50 tokens/s, measured 40 tokens/s (10 tokens/s short, 20.0 %)"));
  EXPECT_THAT(describe(check_resources(c, 2500, &speed)[0]),
              HasSubstr("at most 1.00 kB, measured 2.50 kB (1.50 kB over, 150.0 %)"));
  EXPECT_TRUE(c.bounds_resources());
  EXPECT_FALSE(c.bounds_quality());
}

}  // namespace
}  // namespace lathe
