// Rotations are exact: the function of the model in f32 does not change.
#include <cmath>
#include <gmock/gmock.h>

#include "calibration_data.h"
#include "compress/rotate.h"
#include "core/error.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

std::vector<float> logits_of(const Model& model) {
  const std::vector<int32_t> tokens = {1, 5, 9, 2, 30, 7, 7, 63, 12, 40, 3, 11};
  const Tensor t = interpret(model, SingleSequence(tokens, 0, std::ssize(tokens), false));
  return {t.as<float>().begin(), t.as<float>().end()};
}

// Largest difference, of the largest logit.
double relative_change(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    size = std::max(size, std::abs(static_cast<double>(a[i])));
  }
  return most / size;
}

TEST(Rotation, IsOrthogonalForEverySize) {
  for (const int64_t n : {1, 2, 3, 64, 96, 7 * 16, 576})
    for (int64_t i = 0; i < n; i += std::max<int64_t>(1, n / 5)) {
      const Rotation r(n, 3);
      std::vector<double> a(static_cast<size_t>(n)), b(a.size());
      a[static_cast<size_t>(i)] = 1;
      b[static_cast<size_t>((i + 1) % n)] = 1;
      r.apply(a.data());
      r.apply(b.data());
      double aa = 0, ab = 0;
      for (size_t j = 0; j < a.size(); ++j) {
        aa += a[j] * a[j];
        ab += a[j] * b[j];
      }
      EXPECT_NEAR(aa, 1, 1e-12) << n;
      if (n > 1) {
        EXPECT_NEAR(ab, 0, 1e-12) << n;
      }
    }
}

TEST(Rotation, SpreadsAnOutlier) {
  std::vector<double> x(256);
  x[17] = 16;
  Rotation(256, 0).apply(x.data());
  for (const double v : x) EXPECT_NEAR(std::abs(v), 1, 1e-12);
}

class Rotate : public testing::TestWithParam<const char*> {};

// Rotated weights are rounded to f32 once (2^-24 of each element, which add up like noise), and f32 sums run
// over other numbers: the two differ by what any two orders of summation differ by.
TEST_P(Rotate, LeavesTheFunctionAlone) {
  const Model before = load(Checkpoint::open(golden(GetParam())));
  const std::vector<float> expected = logits_of(before);
  for (const auto& [residual, heads] : {std::pair{true, false}, {false, true}, {true, true}}) {
    Model after = before;
    rotate(after, {residual, heads, 5}, 2);
    EXPECT_LE(relative_change(expected, logits_of(after)), 1e-5) << residual << heads;
    double moved = 0;  // and yet the weights are others
    const std::string probe =
        residual ? "model.layers.0.mlp.up_proj.weight" : "model.layers.0.self_attn.o_proj.weight";
    const std::vector<float> a = read_all(before.weights.at(probe)), b = read_all(after.weights.at(probe));
    for (size_t i = 0; i < a.size(); ++i) moved = std::max(moved, std::abs(static_cast<double>(a[i] - b[i])));
    EXPECT_GT(moved, 1e-3);
  }
}
// Tied and untied heads, biases, norms of queries and keys, grouped queries.
INSTANTIATE_TEST_SUITE_P(Families, Rotate,
                         testing::Values("llama3", "llama3.2", "qwen2", "qwen2.5", "qwen3", "smollm2",
                                         "mistral_nemo"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::ranges::replace(name, '.', '_');
                           return name;
                         });

TEST(Rotate, GivesASharedHeadItsOwnTable) {
  Model m = load(Checkpoint::open(golden("llama3.2")));
  ASSERT_FALSE(m.weights.contains("lm_head.weight"));
  rotate(m, {true, true, 0}, 1);
  ASSERT_TRUE(m.weights.contains("lm_head.weight"));
  EXPECT_EQ(m.config["tie_word_embeddings"], false);
}

TEST(Rotate, ThreadsChangeNothing) {
  Model one = load(Checkpoint::open(golden("llama3"))), three = one;
  rotate(one, {true, true, 1}, 1);
  rotate(three, {true, true, 1}, 3);
  for (const auto& [name, weight] : one.weights)
    EXPECT_EQ(read_all(weight), read_all(three.weights.at(name))) << name;
}

}  // namespace
}  // namespace lathe
