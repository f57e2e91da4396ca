#include <cmath>
#include <gmock/gmock.h>

#include "models/definitions.h"

namespace lathe {
namespace {

// Expected values from transformers' modeling_rope_utils for the published configs.
TEST(RopeTable, PlainIsThetaToTheMinusTwoIOverD) {
  const RopeTable t = rope_table({{"rope_theta", 10000.0}}, 8);
  EXPECT_THAT(t.inv_freq, testing::ElementsAre(1.0f, 0.1f, 0.01f, testing::FloatEq(0.001f)));
  EXPECT_EQ(t.scale, 1.0f);
  EXPECT_EQ(rope_table(Json::object(), 8).inv_freq, t.inv_freq);  // no key: 10000
}

TEST(RopeTable, Llama3KeepsShortStretchesLongAndBlendsBetween) {
  const Json scaling{{"rope_type", "llama3"},
                     {"factor", 32.0},
                     {"low_freq_factor", 1.0},
                     {"high_freq_factor", 4.0},
                     {"original_max_position_embeddings", 8192}};
  const RopeTable t = rope_table({{"rope_theta", 500000.0}, {"rope_scaling", scaling}}, 64),
                  base = rope_table({{"rope_theta", 500000.0}}, 64);
  int kept = 0, stretched = 0, blended = 0;
  for (size_t i = 0; i < base.inv_freq.size(); ++i) {
    const double wavelength = 2 * M_PI / base.inv_freq[i];
    if (wavelength < 8192 / 4.0) {
      EXPECT_EQ(t.inv_freq[i], base.inv_freq[i]);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_FLOAT_EQ(t.inv_freq[i], base.inv_freq[i] / 32);
      ++stretched;
    } else {
      EXPECT_LT(t.inv_freq[i], base.inv_freq[i]);
      EXPECT_GT(t.inv_freq[i], base.inv_freq[i] / 32);
      ++blended;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(blended, 0);
}

TEST(RopeTable, LinearDivides) {
  const RopeTable t = rope_table({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}, 8);
  EXPECT_THAT(t.inv_freq, testing::ElementsAre(0.25f, 0.025f, 0.0025f, testing::FloatEq(0.00025f)));
}

TEST(RopeTable, YarnBlendsAndScalesCosAndSin) {
  const Json config{{"rope_theta", 150000.0},
                    {"max_position_embeddings", 131072},
                    {"rope_scaling",
                     {{"rope_type", "yarn"},
                      {"factor", 32.0},
                      {"original_max_position_embeddings", 4096},
                      {"beta_fast", 32.0},
                      {"beta_slow", 1.0}}}};
  const RopeTable t = rope_table(config, 64), base = rope_table({{"rope_theta", 150000.0}}, 64);
  EXPECT_FLOAT_EQ(t.scale, 0.1f * std::log(32.0f) + 1);
  EXPECT_EQ(t.inv_freq.front(), base.inv_freq.front());
  EXPECT_FLOAT_EQ(t.inv_freq.back(), base.inv_freq.back() / 32);
}

TEST(RopeTable, ParametersKeyOfNewerConfigsWins) {
  const Json modern{{"rope_theta", 5.0},
                    {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}};
  EXPECT_EQ(rope_table(modern, 8).inv_freq, rope_table(Json::object(), 8).inv_freq);
}

// What would be an infinite frequency or none, or no number at all.
TEST(RopeTable, RefusesWhatMakesNoFrequencies) {
  const auto refused = [](Json scaling, const char* key, const Json& value) {
    scaling[key] = value;
    EXPECT_THROW(rope_table({{"rope_scaling", scaling}}, 8), InputError) << scaling.dump();
  };
  const Json linear{{"rope_type", "linear"}, {"factor", 2.0}},
      llama3{{"rope_type", "llama3"},
             {"factor", 32.0},
             {"low_freq_factor", 1.0},
             {"high_freq_factor", 4.0},
             {"original_max_position_embeddings", 8192}},
      yarn{{"rope_type", "yarn"}, {"factor", 32.0}},
      divisors{{"rope_type", "divisors"}, {"divisors", {1.0, 2.0, 4.0, 8.0}}};
  for (const Json& sound : {linear, llama3, yarn, divisors})
    EXPECT_NO_THROW(rope_table({{"rope_scaling", sound}}, 8)) << sound.dump();
  for (const double bad : {0.0, -1.0, 1e300, 1e-60}) {
    for (const Json& scaling : {linear, llama3, yarn}) refused(scaling, "factor", bad);
    for (const char* key : {"beta_fast", "beta_slow", "attention_factor", "original_max_position_embeddings"})
      refused(yarn, key, bad);
    for (const char* key : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
      refused(llama3, key, bad);
    refused(divisors, "divisors", {1.0, 2.0, bad, 8.0});
  }
  refused(llama3, "low_freq_factor", 4.0);
  refused(divisors, "divisors", {1.0, 2.0, 4.0});
  refused(divisors, "divisors", {1.0, 2.0, NAN, 8.0});
  refused(divisors, "divisors", {1.0, 2.0, "x", 8.0});
  refused(divisors, "divisors", "1248");
  EXPECT_THROW(rope_table({{"rope_scaling", {{"rope_type", "divisors"}}}}, 8), InputError);
  EXPECT_THROW(rope_table({{"rope_scaling", yarn}, {"max_position_embeddings", 0}}, 8), InputError);
}

}  // namespace
}  // namespace lathe
