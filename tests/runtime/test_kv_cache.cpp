// Models whose keys and values are rounded: plans against the interpreter, with a cache and without.
#include <cmath>
#include <gmock/gmock.h>

#include "models/kv_cache.h"
#include "runtime/interpreter.h"
#include "runtime/kv_type.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// Keys and values of small random models are of size 1: scales that cut none off and leave large steps.
Model rounded(const char* family, const CacheScheme& scheme) {
  Model model = load(Checkpoint::open(golden(family)));
  const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
  for (const NodeId id : order) {
    if (!std::holds_alternative<op::Attention>(model.graph.node(id).op)) continue;
    const Node node = model.graph.node(set_cache(model.graph, id, scheme));
    if (!scheme.has_scales()) continue;
    const int scales = scheme.count(std::get<op::Attention>(node.op).kv_heads);
    for (const std::string& name : {k_scale_of(node), v_scale_of(node)}) {
      std::vector<float> values;
      for (int i = 0; i < scales; ++i)
        values.push_back((name.ends_with("k_scale") ? 4.0f : 3.0f) * (1 + 0.25f * static_cast<float>(i)) /
                         largest_code(scheme.numerics));
      model.weights[name] = dense_weight(Tensor::of<float>(DType::f32, {scales}, values));
    }
  }
  return model;
}

std::vector<int32_t> text(int n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (7 + i * 5) % 101;
  return out;
}

std::vector<float> floats(const Tensor& t) {
  const auto s = t.as<float>();
  return {s.begin(), s.end()};
}

struct Case {
  const char* family;
  CacheScheme scheme;
};
constexpr CacheScheme fp8{CacheNumerics::fp8}, fp8_heads{CacheNumerics::fp8, CacheScales::head},
    int8{CacheNumerics::int8}, int8_heads{CacheNumerics::int8, CacheScales::head},
    nvfp4{CacheNumerics::nvfp4};

class KvNumerics : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Each, KvNumerics,
                         testing::Values(Case{"llama3", fp8}, Case{"qwen3", fp8_heads},
                                         Case{"mistral_v01", int8}, Case{"qwen3", int8_heads},
                                         Case{"qwen3", nvfp4}));

// A cache changes no bit: rows of the batch are rounded alike.
TEST_P(KvNumerics, RowsHaveTheSameBitsWithACacheAndWithout) {
  const Case& c = GetParam();
  const Model model = rounded(c.family, c.scheme);
  const std::vector<int32_t> tokens = text(40);
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Plan plan = Plan::compile(
        model, {.threads = 2, .isa = level.features, .max_tokens = 40, .max_outputs = 40, .context = 48});
    for (const Phase phase : {Phase::prefill, Phase::decode})
      EXPECT_EQ(floats(plan.run(SingleSequence(tokens, 0, 40, false, phase))),
                floats(plan.run(SingleSequence(tokens, 0, 40, true, phase))));
  }
}

// Rounding is coarse, so that a key on the edge between two codes may fall to either side where kernels sum
// in another order: such a code is off by one step, and moves logits more than sums do. Against the plain
// model, which differs everywhere, plans are near the interpreter.
// Where prompts go through bf16 products, keys come `off` by more than sums do: of codes `step` apart a part
// off / step falls to the other side, so they are off by sqrt(off * step) rms. Rounding itself is off by
// step / sqrt(12) rms, which moves logits by `moved`; so those codes move them by sqrt(sqrt(12) * off *
// moved) = 1.9 sqrt(off * moved), with `off` as it moves logits where nothing is rounded, by the layers' own
// products too.
TEST_P(KvNumerics, PlansMeanWhatTheInterpreterMeans) {
  const Case& c = GetParam();
  const Model model = rounded(c.family, c.scheme), plain = load(Checkpoint::open(golden(c.family)));
  const std::vector<int32_t> tokens = text(40);
  const std::vector<float> expected = floats(interpret(model, SingleSequence(tokens, 0, 40, false))),
                           before = floats(interpret(plain, SingleSequence(tokens, 0, 40, false)));
  const auto distance = [](const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
    return std::sqrt(sum / static_cast<double>(a.size()));
  };
  const double moved = distance(before, expected);
  EXPECT_GT(moved, 1e-3);
  for (const IsaLevel& level : isa_levels())
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      SCOPED_TRACE(fmt::format("{} {}", level.name, phase == Phase::prefill ? "prompt" : "decoding"));
      const SingleSequence sequence(tokens, 0, 40, false, phase);
      Target target{.threads = 2, .isa = level.features, .max_tokens = 40, .max_outputs = 40};
      const std::vector<float> got = floats(Plan::compile(model, target).run(sequence)),
                               unrounded = floats(Plan::compile(plain, target).run(sequence));
      const double off = distance(unrounded, before), most = moved / 10 + off + 1.9 * std::sqrt(off * moved);
      EXPECT_LT(distance(got, expected), most) << off;
      EXPECT_LT(most, moved) << off;  // the derivation must stay a real bound
      // Asked for, floats are floats.
      target.kv = KvType::f32;
      EXPECT_EQ(floats(Plan::compile(model, target).run(sequence)), unrounded);
    }
}

// With scales of powers of two, and a cache asked for in another way, each row of a head finds its own scale.
TEST(KvNumerics, AnotherTypeTakesNoScalesOfTheModel) {
  const Model model = rounded("llama3", int8), plain = load(Checkpoint::open(golden("llama3")));
  const std::vector<int32_t> tokens = text(12);
  const SingleSequence sequence(tokens, 0, 12, false);
  for (const KvType kv : {KvType::fp8, KvType::bf16}) {
    const Target target{.threads = 1, .max_tokens = 12, .max_outputs = 12, .kv = kv};
    EXPECT_EQ(floats(Plan::compile(model, target).run(sequence)),
              floats(Plan::compile(plain, target).run(sequence)));
  }
  EXPECT_EQ(kv_type_of(model.graph), KvType::int8);
  EXPECT_EQ(kv_type_of(model.graph, KvType::bf16), KvType::bf16);
  EXPECT_EQ(kv_type_of(plain.graph), KvType::f32);
  // Rows that find their own scales are what --kv-dtype gives.
  const Model dynamic = rounded("llama3", {CacheNumerics::fp8, CacheScales::row});
  EXPECT_EQ(
      floats(Plan::compile(dynamic, {.threads = 1, .max_tokens = 12, .max_outputs = 12}).run(sequence)),
      floats(Plan::compile(plain, {.threads = 1, .max_tokens = 12, .max_outputs = 12, .kv = KvType::fp8})
                 .run(sequence)));
}

}  // namespace
}  // namespace lathe
