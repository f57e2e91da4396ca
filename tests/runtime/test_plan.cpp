#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Model tiny(const char* family = "llama3") { return load(Checkpoint::open(golden(family))); }

std::vector<int32_t> random_tokens(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> out(n);
  for (int32_t& t : out) t = static_cast<int32_t>(rng.below(128));
  return out;
}

// Rows of logits as copies: a plan's own memory is overwritten by the next run.
std::vector<float> rows_of(const Tensor& logits) {
  const auto s = logits.as<float>();
  return {s.begin(), s.end()};
}

void expect_close(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (float x : b) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5f * largest) << i;
}

TEST(Plan, ChunkedPrefillAndDecodeEqualOneShot) {
  for (const char* family : {"llama3", "mistral_v01", "qwen3"}) {
    const Model model = tiny(family);
    const std::vector<int32_t> tokens = random_tokens(40, 3);
    Plan whole = Plan::compile(model, {.threads = 2, .max_tokens = 40, .max_outputs = 40});
    const std::vector<float> expected = rows_of(whole.run(SingleSequence(tokens, 0, 40, false)));

    Plan pieces = Plan::compile(model, {.threads = 2, .max_tokens = 16, .max_outputs = 16, .context = 48});
    std::vector<float> got;
    for (size_t at = 0; at < tokens.size();) {
      const size_t n = std::min<size_t>(at < 30 ? 13 : 1, tokens.size() - at);
      const std::vector<float> part = rows_of(pieces.run(
          SingleSequence({tokens.data() + at, n}, static_cast<int32_t>(at), static_cast<int64_t>(n), true)));
      got.insert(got.end(), part.begin(), part.end());
      at += n;
    }
    expect_close(got, expected);
  }
}

TEST(Plan, StartingOnStoredWeightsChangesNoBit) {
  // 'qwen3' ties its head to the embedding: one matrix with two readers.
  for (const char* family : {"llama3", "qwen3", "qwen2"}) {
    Model model = tiny(family);
    for (auto& [name, weight] : model.weights)  // the families' files are f32
      if (weight.shape.size() == 2) {
        Tensor rounded = Tensor::zeros(DType::bf16, weight.shape);
        from_f32(DType::bf16, read_all(weight).data(), rounded.storage.data, elements(weight.shape));
        weight = dense_weight(rounded);
      }
    const std::vector<int32_t> tokens = random_tokens(24, 5);
    Target target{.threads = 2, .max_tokens = 24, .max_outputs = 24, .context = 48};
    Plan packed = Plan::compile(model, target);
    target.ready_at_once = true;
    Plan stored = Plan::compile(model, target);
    int starting = 0;
    for (const Plan::Choice& c : stored.choices()) starting += c.packing == "dense";
    if (target.isa) {
      EXPECT_GT(starting, 0) << family;
    }
    for (int run = 0; run < 4; ++run) {  // of the first run, weights are as stored
      SCOPED_TRACE(fmt::format("{} run {}", family, run));
      EXPECT_EQ(rows_of(stored.run(SingleSequence(tokens, 0, 24, true))),
                rows_of(packed.run(SingleSequence(tokens, 0, 24, true))));
      EXPECT_EQ(rows_of(stored.run(SingleSequence({tokens.data(), 3}, 24, 3, true, Phase::decode))),
                rows_of(packed.run(SingleSequence({tokens.data(), 3}, 24, 3, true, Phase::decode))));
    }
    EXPECT_EQ(stored.weight_bytes(), packed.weight_bytes()) << family;
  }
}

TEST(Plan, SequencesOfABatchDoNotSeeEachOther) {
  const Model model = tiny();
  const std::vector<int32_t> a = random_tokens(9, 1), b = random_tokens(14, 2);
  Plan plan =
      Plan::compile(model, {.threads = 2, .max_tokens = 32, .max_outputs = 32, .slots = 3, .context = 32});
  const std::vector<float> alone_a = rows_of(plan.run(SingleSequence(a, 0, 9, false))),
                           alone_b = rows_of(plan.run(SingleSequence(b, 0, 14, false)));

  std::vector<int32_t> tokens = a, positions(23), outputs(23);
  tokens.insert(tokens.end(), b.begin(), b.end());
  std::iota(positions.begin(), positions.begin() + 9, 0);
  std::iota(positions.begin() + 9, positions.end(), 0);
  std::iota(outputs.begin(), outputs.end(), 0);
  const std::vector<int32_t> starts{0, 9, 23}, slots{2, 0};
  for (const auto& used : {std::vector<int32_t>{}, slots}) {
    const std::vector<float> together = rows_of(plan.run({.tokens = tokens,
                                                          .positions = positions,
                                                          .starts = starts,
                                                          .slots = used,
                                                          .outputs = outputs,
                                                          .prompts = 2}));
    std::vector<float> expected = alone_a;
    expected.insert(expected.end(), alone_b.begin(), alone_b.end());
    expect_close(together, expected);
  }
}

TEST(Plan, OnlyTheWantedRowsReachTheHead) {
  const Model model = tiny();
  const std::vector<int32_t> tokens = random_tokens(12, 5), outputs{0, 4, 11};
  std::vector<int32_t> positions(12);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> starts{0, 12};
  Plan plan = Plan::compile(model, {.threads = 1, .max_tokens = 12, .max_outputs = 12});
  const std::vector<float> all = rows_of(plan.run(SingleSequence(tokens, 0, 12, false)));
  const Tensor& some = plan.run({.tokens = tokens,
                                 .positions = positions,
                                 .starts = starts,
                                 .slots = {},
                                 .outputs = outputs,
                                 .prompts = 1});
  ASSERT_EQ(some.shape, (Shape{3, 128}));
  for (size_t r = 0; r < outputs.size(); ++r)
    expect_close({some.as<float>().begin() + static_cast<long>(r) * 128,
                  some.as<float>().begin() + static_cast<long>(r + 1) * 128},
                 {all.begin() + outputs[r] * 128, all.begin() + (outputs[r] + 1) * 128});
}

TEST(Plan, ThreadCountChangesNoBit) {
  const Model model = tiny("qwen3");
  const std::vector<int32_t> tokens = random_tokens(33, 8);
  std::vector<float> first;
  for (int threads : {1, 2, 3, 5}) {
    Plan plan = Plan::compile(model, {.threads = threads, .max_tokens = 33, .max_outputs = 33});
    const std::vector<float> got = rows_of(plan.run(SingleSequence(tokens, 0, 33, false)));
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << threads << " threads";
  }
}

// Each region is a barrier of about 1 us; elementwise work of one row is done by the calling thread.
TEST(Plan, DecodingHasFiveParallelRegionsPerLayer) {
  for (const char* family : {"llama3", "qwen2", "qwen3", "mistral_v01"})
    for (const IsaLevel& level : isa_levels()) {
      const Model model = tiny(family);
      int64_t layers = 0;
      for (NodeId id : model.graph.order())
        layers += std::holds_alternative<op::Attention>(model.graph.node(id).op);
      Plan plan = Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = 8, .context = 16});
      plan.run(SingleSequence(random_tokens(5, 1), 0, 1, true));
      plan.run(SingleSequence(random_tokens(1, 2), 5, 1, true, Phase::decode));
      EXPECT_LE(plan.regions_per_step(), 5 * layers + 1) << family << " " << level.name;
    }
}

TEST(Plan, AStepWithoutOutputsEndsAtTheLastAttention) {
  Plan plan = Plan::compile(tiny(), {.threads = 2, .max_tokens = 8, .context = 16});
  plan.run(SingleSequence(random_tokens(5, 1), 0, 1, true));
  const int64_t whole = plan.regions_per_step();
  const Tensor& none = plan.run(SingleSequence(random_tokens(5, 1), 5, 0, true));
  EXPECT_EQ(none.shape[0], 0);
  EXPECT_EQ(plan.regions_per_step(), whole - 4);  // o, gate and up, down, and the head
}

TEST(Plan, RefusesWhatItWasNotCompiledFor) {
  Plan plan =
      Plan::compile(tiny(), {.threads = 1, .max_tokens = 4, .max_outputs = 2, .slots = 1, .context = 8});
  const std::vector<int32_t> five = random_tokens(5, 1), two{1, 2}, bad{1, 128};
  EXPECT_THROW(plan.run(SingleSequence(five, 0, 1, false)), Error);
  EXPECT_THROW(plan.run(SingleSequence(two, 7, 1, true)), Error);  // position 8 of 8
  EXPECT_THROW(plan.run(SingleSequence(bad, 0, 1, false)), InputError);
  EXPECT_THROW(plan.run(SingleSequence(two, 3, 1, false)),
               Error);  // within the batch, a sequence starts at 0
  const std::vector<int32_t> positions{0, 1}, starts{0, 2}, outputs{1, 0}, slots{1};
  EXPECT_THROW(
      plan.run({.tokens = two, .positions = positions, .starts = starts, .slots = {}, .outputs = outputs}),
      Error);
  EXPECT_THROW(
      plan.run({.tokens = two, .positions = positions, .starts = starts, .slots = slots, .outputs = {}}),
      Error);
}

TEST(Interpreter, ShowsAnObserverEveryNodeInOrder) {
  struct Recorder : Observer {
    std::vector<NodeId> entered, left;
    std::map<NodeId, std::vector<Shape>> outputs;
    void before(const Node& node, std::span<const Tensor>) override { entered.push_back(node.id); }
    void after(const Node& node, std::span<const Tensor> made) override {
      left.push_back(node.id);
      for (const Tensor& t : made) outputs[node.id].push_back(t.shape);
    }
  } recorder;
  const Model model = tiny();
  const std::vector<int32_t> tokens = random_tokens(6, 4);
  interpret(model, SingleSequence(tokens, 0, 2, false), &recorder);
  EXPECT_THAT(recorder.entered, testing::ElementsAreArray(model.graph.order()));
  EXPECT_EQ(recorder.left, recorder.entered);
  EXPECT_THAT(recorder.outputs.at(model.graph.find("model.norm")), testing::ElementsAre(Shape{6, 64}));
  EXPECT_THAT(recorder.outputs.at(model.graph.find("lm_head")), testing::ElementsAre(Shape{2, 128}));
}

TEST(Plan, NamesTheKernelOfEveryNode) {
  Plan plan = Plan::compile(tiny(), {.threads = 1});
  std::vector<std::string> nodes;
  for (const Plan::Choice& c : plan.choices()) {
    EXPECT_FALSE(c.kernel.empty()) << c.node;
    nodes.push_back(c.node);
  }
  EXPECT_THAT(nodes, testing::IsSupersetOf({"model.embed_tokens", "model.layers.1.mlp.down_proj",
                                            "model.layers.0.self_attn.attention", "lm_head"}));
}

}  // namespace
}  // namespace lathe
