// Rotations are exact: the function of the model in f32 does not change.
#include <cmath>
#include <gmock/gmock.h>

#include "calibration_data.h"
#include "compress/rotate.h"
#include "core/error.h"
#include "core/rng.h"
#include "golden_models.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

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
  const struct {
    Rotations what;
    std::string probe;  // whose weight is another
  } cases[] = {{{.residual = true, .heads = false, .seed = 5}, "mlp.up_proj"},
               {{.residual = false, .heads = true, .seed = 5}, "self_attn.o_proj"},
               {{.residual = true, .heads = true, .seed = 5}, "mlp.up_proj"},
               {{.residual = false, .heads = false, .products = true}, "mlp.down_proj"},
               {{.seed = 5, .keys = true, .products = true}, "mlp.down_proj"}};
  for (const auto& [what, part] : cases) {
    const bool experts = std::string(GetParam()).ends_with("_moe") && part.starts_with("mlp.");
    const std::string module = experts ? "mlp.experts.3." + part.substr(4) : part;
    Model after = before;
    rotate(after, what, 2);
    EXPECT_LE(relative_change(expected, logits_of(after)), 1e-5) << module;
    double moved = 0;  // and yet the weights are others
    const std::string probe = "model.layers.0." + module + ".weight";
    const std::vector<float> a = read_all(before.weights.at(probe)), b = read_all(after.weights.at(probe));
    for (size_t i = 0; i < a.size(); ++i) moved = std::max(moved, std::abs(static_cast<double>(a[i] - b[i])));
    EXPECT_GT(moved, 1e-3);
  }
}
// Tied and untied heads, biases, norms of queries and keys, grouped queries.
INSTANTIATE_TEST_SUITE_P(Families, Rotate,
                         testing::Values("llama3", "llama3.2", "qwen2", "qwen2.5", "qwen3", "smollm2",
                                         "mistral_nemo", "qwen3_moe"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::ranges::replace(name, '.', '_');
                           return name;
                         });

// As Gemma's, which are 1 + w and may be near 0, or below.
TEST(Rotate, NormsFarFromOneAreFoldedToo) {
  Model before = load(Checkpoint::open(golden("qwen3")));
  Rng rng(9);
  for (auto& [name, weight] : before.weights) {
    if (!name.ends_with("norm.weight")) continue;
    std::vector<float> values(static_cast<size_t>(elements(weight.shape)));
    for (float& v : values) v = 1 + rng.normal();
    weight = dense_weight(Tensor::of<float>(DType::f32, weight.shape, values));
  }
  Model after = before;
  rotate(after, {.seed = 2, .keys = true, .products = true}, 2);
  EXPECT_LE(relative_change(logits_of(before), logits_of(after)), 1e-5);
}

// R3 changes no weight: its transforms of queries and keys cancel, and keys spread their outliers.
TEST(Rotate, OfKeysIsInTheGraphAlone) {
  const Model before = load(Checkpoint::open(golden("qwen3")));
  Model after = before;
  rotate(after, {.residual = false, .heads = false, .keys = true}, 1);
  for (const auto& [name, weight] : before.weights)
    EXPECT_EQ(weight.parts[0].storage.data, after.weights.at(name).parts[0].storage.data) << name;
  const Graph& g = after.graph;
  for (const char* side : {"q", "k"}) {
    const NodeId id = g.find(fmt::format("model.layers.1.self_attn.{}_hadamard", side));
    ASSERT_GE(id, 0);
    EXPECT_EQ(std::get<op::Hadamard>(g.node(id).op).size, 32);
  }
  EXPECT_LE(relative_change(logits_of(before), logits_of(after)), 1e-5);
}

TEST(Rotate, RefusesWhatItWouldSpoil) {
  Model twice = load(Checkpoint::open(golden("llama3")));
  rotate(twice, {.products = true}, 1);
  EXPECT_THAT([&] { rotate(twice, {}, 1); },
              testing::ThrowsMessage<InputError>(testing::HasSubstr("a model is rotated once")));
  Json config = read_json(golden("llama3") / "config.json");
  config["intermediate_size"] = 4 * 25;  // blocks of 4
  Model narrow{define(config), {}, config, {}};
  for (const auto& [name, shape] : narrow.graph.param_shapes())
    narrow.weights[name] = dense_weight(Tensor::zeros(DType::f32, shape));
  EXPECT_THAT([&] { rotate(narrow, {.residual = false, .heads = false, .products = true}, 1); },
              testing::ThrowsMessage<InputError>(
                  testing::HasSubstr("mlp.down_proj: expected columns in a multiple of 8, found 100")));
}

TEST(Rotate, GivesASharedHeadItsOwnTable) {
  Model m = load(Checkpoint::open(golden("llama3.2")));
  ASSERT_FALSE(m.weights.contains("lm_head.weight"));
  rotate(m, {}, 1);
  ASSERT_TRUE(m.weights.contains("lm_head.weight"));
  EXPECT_EQ(m.config["tie_word_embeddings"], false);
}

TEST(Rotate, ThreadsChangeNothing) {
  Model one = load(Checkpoint::open(golden("llama3"))), three = one;
  rotate(one, {.seed = 1, .products = true}, 1);
  rotate(three, {.seed = 1, .products = true}, 3);
  for (const auto& [name, weight] : one.weights)
    EXPECT_EQ(read_all(weight), read_all(three.weights.at(name))) << name;
}

}  // namespace
}  // namespace lathe
