#include <gtest/gtest.h>

#include "core/error.h"
#include "eval/report.h"
#include "eval/speed.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

const Roof some_roof{.read_bytes_per_s = 1e10, .f32_flops_per_s = 1e11};

Model builtin() { return load(Checkpoint::open(source_dir() / "models/builtin")); }
SpeedOptions small() {
  return {.prompt_tokens = 40,
          .gen_tokens = 5,
          .batch = 1,
          .repeats = 1,
          .target = {.threads = 1},
          .roof = &some_roof};
}

TEST(Speed, MeasuresAndCounts) {
  const Model model = builtin();
  const Speed s = measure_speed(model, small());
  EXPECT_GT(s.prefill_tokens_per_s, 0);
  EXPECT_GT(s.decode_tokens_per_s, 0);
  EXPECT_GT(s.ttft_ms, 0);
  EXPECT_EQ(s.threads, 1);
  EXPECT_EQ(s.prompt_tokens, 40);
  EXPECT_GT(s.model_memory_bytes, model.bytes() / 2);
  EXPECT_GT(s.peak_memory_bytes, model.bytes());

  // Per cents follow from the rates: about 2 operations per weight and prompt token; every matrix once per
  // token.
  const double matrices = 5.7e6;
  // The head runs once, and so does the last layer behind its attention: o, gate, up and down.
  const double once = 4096.0 * 256 + 256.0 * 256 + 3 * 256.0 * 768;
  const double flops = s.prefill_tokens_per_s * 2 * (matrices - once * 39 / 40);
  EXPECT_NEAR(s.prefill_percent_of_roof / (100 * flops / some_roof.f32_flops_per_s), 1, 0.1);
  const double bytes = s.decode_percent_of_roof / 100 * some_roof.read_bytes_per_s / s.decode_tokens_per_s;
  EXPECT_GT(bytes, 5e6);
  EXPECT_LT(bytes, 25e6);
}

TEST(Speed, TheLogitsHashNamesTheModelAndTheWorkload) {
  const Model model = builtin();
  const std::string hash = measure_speed(model, small()).logits_hash;
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(measure_speed(model, small()).logits_hash, hash);
  auto longer = small();
  longer.gen_tokens = 6;
  EXPECT_NE(measure_speed(model, longer).logits_hash, hash);
  Model other = model;
  auto& norm = other.weights.at("model.norm.weight");
  std::vector<float> values = read_all(norm);
  values[0] *= 1.5f;
  norm = dense_weight(Tensor::of<float>(DType::f32, norm.shape, values));
  EXPECT_NE(measure_speed(other, small()).logits_hash, hash);
}

TEST(Speed, MeasuresItsOwnRoofsWhereNoneAreGiven) {
  auto o = small();
  o.roof = nullptr;
  o.repeats = 2;
  const Speed s = measure_speed(builtin(), o);
  EXPECT_GT(s.roof.read_bytes_per_s, 0);
  EXPECT_GT(s.roof.*s.prefill_roof->value, 0);
  EXPECT_GT(s.prefill_percent_of_roof, 0);
  EXPECT_GT(s.decode_percent_of_roof, 0);
}

TEST(Speed, AModelInTheCacheIsComparedWithItsReadsToo) {
  Roof roof = some_roof;
  roof.l3_bytes_per_s = 4e10;
  auto o = small();
  o.roof = &roof;
  const Speed s = measure_speed(builtin(), o);
  if (!s.fits_cache) GTEST_SKIP() << "no cache here holds the built-in model";
  EXPECT_NEAR(s.decode_percent_of_l3, s.decode_percent_of_roof / 4, 1e-9);
  EXPECT_EQ(measure_speed(builtin(), small()).decode_percent_of_l3, 0);  // not measured by the caller
  o.roof = nullptr;
  const Speed own = measure_speed(builtin(), o);
  EXPECT_EQ(own.decode_percent_of_l3 > 0, cache_bytes(3) > 0);
  EXPECT_EQ(to_json(own).contains("decode_percent_of_l3"), cache_bytes(3) > 0);
}

TEST(Speed, RunsBatchesAndPromptsLongerThanAChunk) {
  const Model model = builtin();
  auto o = small();
  o.batch = 3;
  o.target.max_tokens = 16;
  const Speed s = measure_speed(model, o);
  EXPECT_EQ(s.batch, 3);
  EXPECT_GT(s.decode_tokens_per_s, 0);
}

TEST(Speed, RefusesWhatTheContextCannotHold) {
  auto o = small();
  o.prompt_tokens = 1020;
  EXPECT_THROW(measure_speed(builtin(), o), InputError);
  o.prompt_tokens = 0;
  EXPECT_THROW(measure_speed(builtin(), o), InputError);
}

}  // namespace
}  // namespace lathe
