#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"
#include "quant/packing.h"
#include "runtime/interpreter.h"
#include "runtime/models.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Model tiny(const char* family = "llama3") { return load(Checkpoint::open(golden(family))); }

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

// One sequence over the blocks of a paged cache.
std::vector<float> run_paged(Plan& plan, std::span<const int32_t> tokens, int32_t first,
                             std::span<const int32_t> table, Phase phase) {
  const SingleSequence sequence(tokens, first, static_cast<int64_t>(tokens.size()), false, phase);
  Batch batch = sequence;
  const std::span<const int32_t> tables[] = {table};
  batch.tables = tables;
  return rows_of(plan.run(batch));
}

TEST(Plan, PagesGiveTheBitsOfSlots) {
  for (const IsaLevel& level : isa_levels())
    for (KvType kv : {KvType::f32, KvType::bf16, KvType::int8}) {
      const Target target{.threads = 2, .isa = level.features, .max_tokens = 32, .max_outputs = 32, .kv = kv};
      Target slots = target, paged = target;
      slots.slots = 2;
      slots.context = 48;
      paged.kv_blocks = 9;
      paged.block_tokens = 16;
      const Model model = tiny("qwen3");
      Plan one = Plan::compile(model, slots), two = Plan::compile(model, paged);
      EXPECT_EQ(two.kv_bytes(), one.kv_bytes() / 96 * 144);
      const std::vector<int32_t> a = random_tokens(40, 1), b = random_tokens(21, 2), table_a{7, 0, 3},
                                 table_b{2, 8};
      const auto prompt = [](const std::vector<int32_t>& t) { return std::span(t).first(20); };
      EXPECT_EQ(rows_of(one.run(SingleSequence(prompt(a), 0, 20, true))),
                run_paged(two, prompt(a), 0, table_a, Phase::prefill));
      // One step: a's next chunk of its prompt, and the first of b's.
      std::vector<int32_t> tokens(a.begin() + 20, a.begin() + 30), positions(10), outputs(30),
          starts{0, 10, 30};
      tokens.insert(tokens.end(), b.begin(), b.begin() + 20);
      std::iota(positions.begin(), positions.end(), 20);
      for (int32_t p = 0; p < 20; ++p) positions.push_back(p);
      std::iota(outputs.begin(), outputs.end(), 0);
      const std::vector<int32_t> slots_of{0, 1};
      const std::span<const int32_t> tables[] = {table_a, table_b};
      Batch batch{.tokens = tokens,
                  .positions = positions,
                  .starts = starts,
                  .slots = slots_of,
                  .outputs = outputs,
                  .prompts = 2};
      const std::vector<float> with_slots = rows_of(one.run(batch));
      batch.slots = {};
      batch.tables = tables;
      EXPECT_EQ(rows_of(two.run(batch)), with_slots) << level.name;

      // Copy on write: from a copy of its last block, a goes on as before.
      two.copy_block(0, 5);
      const std::vector<int32_t> copied{7, 5, 3};
      EXPECT_EQ(run_paged(two, std::span(a).subspan(30, 1), 30, copied, Phase::decode),
                rows_of(one.run(SingleSequence({a.data() + 30, 1}, 30, 1, true, Phase::decode))));
    }
}

TEST(Plan, VerifiedDraftsHaveTheBitsOfSingleSteps) {
  for (const IsaLevel& level : isa_levels())
    for (KvType kv : {KvType::f32, KvType::bf16, KvType::int8}) {
      Plan plan = Plan::compile(tiny("mistral_v01"), {.threads = 2,
                                                      .isa = level.features,
                                                      .max_tokens = 64,
                                                      .max_outputs = 63,
                                                      .context = 96,
                                                      .kv = kv});
      const std::vector<int32_t> tokens = random_tokens(83, 4);
      plan.run(SingleSequence({tokens.data(), 20}, 0, 1, true));
      std::vector<float> single;
      for (int32_t at = 20; at < 83; ++at) {
        const auto row =
            rows_of(plan.run(SingleSequence({tokens.data() + at, 1}, at, 1, true, Phase::decode)));
        single.insert(single.end(), row.begin(), row.end());
      }
      const auto drafts = plan.run(SingleSequence({tokens.data() + 20, 63}, 20, 63, true, Phase::decode));
      EXPECT_EQ(rows_of(drafts), single) << level.name;
    }
}

// A layer of attention alone: queries from one table, keys and values from another, whose rows are
// integers that bf16 and int4 hold exactly.
Model attention_alone(const std::string& attributes) {
  constexpr int64_t vocab = 16, heads = 4, dim = 32;
  Model model;
  const bool sinks = attributes.find("sinks") != std::string::npos;
  model.graph = parse_graph(
      fmt::format("%1 = embedding q(%0) {{vocab={0}}} [q] : tokens x {1}\n"
                  "%2 = embedding kv(%0) {{vocab={0}}} [kv] : tokens x {2}\n"
                  "%3 = attention a(%1, %2, %2) {{heads={3}, kv_heads=2, head_dim={4}, "
                  "scale=0.0625{5}}}{6} : tokens x {1}\n"
                  "%4 = take_rows t(%3) : outputs x {1}\n"
                  "return %4\n",
                  vocab, heads * dim, 2 * dim, heads, dim, attributes, sinks ? " [a.sinks]" : ""));
  Rng rng(5);
  const auto add = [&](const char* name, Shape shape, auto&& number) {
    Codes codes;
    codes.numerics = Numerics::dense(DType::f32);
    codes.rows = shape.size() > 1 ? shape[0] : 1;
    codes.cols = shape.back();
    for (int64_t i = 0; i < codes.rows * codes.cols; ++i) codes.values.push_back(number(i));
    Weight weight = make_weight(codes.numerics, packing("dense"), shape);
    weight.packing->pack(codes, 0, weight);
    model.weights.emplace(name, std::move(weight));
  };
  add("q", {vocab, heads * dim}, [&](int64_t) { return rng.normal(); });
  // Both ends of 0 to 15 in each 32, and in each channel of the tokens 0 and 1: int4's scale is 1 and its
  // minimum 0.
  add("kv", {vocab, 2 * dim}, [&](int64_t i) {
    if (i < 4 * dim) return (i / (2 * dim) + i) % 2 == 0 ? 0.0f : 15.0f;
    return i % 32 == 0 ? 0.0f : i % 32 == 1 ? 15.0f : static_cast<float>(rng.below(16));
  });
  if (sinks) add("a.sinks", {heads}, [&](int64_t) { return 3 * rng.normal(); });
  return model;
}

TEST(Plan, EveryAttentionAgreesWithTheInterpreter) {
  std::vector<int32_t> tokens = random_tokens(50, 6);
  for (int32_t& t : tokens) t %= 16;
  for (const char* attributes : {"", ", causal=false", ", window=7, causal=false", ", soft_cap=5",
                                 ", sinks=true", ", window=9, soft_cap=20, sinks=true"}) {
    const Model model = attention_alone(attributes);
    const SingleSequence batch(tokens, 0, 50, false, Phase::decode);
    const std::vector<float> expected = rows_of(interpret(model, batch));
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(fmt::format("{} {}", level.name, attributes));
      Plan plan = Plan::compile(
          model, {.threads = 2, .isa = level.features, .max_tokens = 50, .max_outputs = 50, .context = 50});
      expect_close(rows_of(plan.run(batch)), expected);
      expect_close(rows_of(plan.run(SingleSequence(tokens, 0, 50, true, Phase::decode))), expected);
    }
  }
}

TEST(Plan, KvTypesHoldWhatTheyCanExactly) {
  std::vector<int32_t> tokens = random_tokens(50, 6);
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = i % 32 < 2 ? static_cast<int32_t>(i % 2) : tokens[i] % 16;
  const Model model = attention_alone("");
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    const auto run = [&](KvType kv, Phase phase) {
      Plan plan = Plan::compile(model, {.threads = 2,
                                        .isa = level.features,
                                        .max_tokens = 50,
                                        .max_outputs = 50,
                                        .context = 64,
                                        .kv = kv});
      return rows_of(plan.run(SingleSequence(tokens, 0, 50, true, phase)));
    };
    for (Phase phase : {Phase::prefill, Phase::decode}) {
      const std::vector<float> expected = run(KvType::f32, phase);
      EXPECT_EQ(run(KvType::bf16, phase), expected);
      EXPECT_EQ(run(KvType::int4, phase), expected);
      // Tiles, which round queries, do not take it.
      EXPECT_EQ(run(KvType::int4_channel, phase), run(KvType::f32, Phase::decode));
    }
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

// A layer of a Llama of width 2,048 whose weights are all zero: only what a step does counts.
Model wide_model(int layers, const Numerics& numerics, std::string_view stored_as) {
  Json config = read_json(golden("llama3") / "config.json");
  config["hidden_size"] = config["intermediate_size"] = 2048;
  config["num_attention_heads"] = 32;
  config["num_key_value_heads"] = 8;
  config["num_hidden_layers"] = layers;
  Model model{define(config), {}, config, {}};
  for (const auto& [name, shape] : model.graph.param_shapes())
    model.weights.emplace(name, shape.size() == 2
                                    ? make_weight(numerics, packing(stored_as), shape)
                                    : make_weight(Numerics::dense(DType::f32), packing("dense"), shape));
  return model;
}

// Rows of a batch are worth sharing out, so what goes row by row is a region of its own: norm and packing of
// rows, rotation into the cache, rows for o_proj, silu * up and packing. Beside the five of matrices and
// attention that is four or five.
TEST(Plan, BatchesAndPromptsHaveTenParallelRegionsPerLayer) {
  const struct {
    Numerics numerics;
    const char* stored_as;
  } formats[] = {{Numerics::dense(DType::bf16), "dense"},
                 {Numerics::integer(4, 32, false), "ct.pack32"},
                 {Numerics::w8a8(), "ct.int8"}};
  for (const auto& [numerics, stored_as] : formats)
    for (const IsaLevel& level : isa_levels()) {
      if (level.features == 0) continue;  // minutes
      SCOPED_TRACE(fmt::format("{} {}", to_string(numerics), level.name));
      int64_t of_batch[2], of_prompt[2];
      bool packs = false;
      for (int layers : {2, 3}) {  // the last one takes the wanted rows, beside its norms
        Plan plan = Plan::compile(wide_model(layers, numerics, stored_as), {.threads = 2,
                                                                            .isa = level.features,
                                                                            .max_tokens = 64,
                                                                            .max_outputs = 16,
                                                                            .slots = 16,
                                                                            .context = 64});
        for (const Plan::Choice& c : plan.choices()) packs |= !c.decode_rows.empty();
        const std::vector<int32_t> tokens(16, 1), positions(16, 0);
        std::vector<int32_t> each(17);
        std::iota(each.begin(), each.end(), 0);
        const std::span<const int32_t> sequences = std::span(each).first(16);
        plan.run({.tokens = tokens,
                  .positions = positions,
                  .starts = each,
                  .slots = sequences,
                  .outputs = sequences});
        of_batch[layers - 2] = plan.regions_per_step();
        plan.run(SingleSequence(random_tokens(64, 1), 0, 1, true));
        of_prompt[layers - 2] = plan.regions_per_step();
      }
      EXPECT_EQ(of_batch[1] - of_batch[0], packs ? 10 : 9);
      EXPECT_LE(of_prompt[1] - of_prompt[0], 10);
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
  const std::vector<int32_t> positions{0, 1}, starts{0, 2}, outputs{1, 0}, slots{1}, past_rows{0, 9, 2};
  EXPECT_THAT(
      [&] {
        plan.run({.tokens = two, .positions = positions, .starts = past_rows, .slots = {}, .outputs = {}});
      },
      testing::ThrowsMessage<Error>(testing::HasSubstr("ends at row 9 of 2")));
  EXPECT_THROW(
      plan.run({.tokens = two, .positions = positions, .starts = starts, .slots = {}, .outputs = outputs}),
      Error);
  EXPECT_THROW(
      plan.run({.tokens = two, .positions = positions, .starts = starts, .slots = slots, .outputs = {}}),
      Error);
  EXPECT_THROW(plan.copy_block(0, 1), Error);

  Plan paged = Plan::compile(tiny(), {.threads = 1, .max_tokens = 4, .kv_blocks = 3, .block_tokens = 16});
  const std::vector<int32_t> good{2, 0}, beyond{2, 3}, negative{-1, 0}, too_short{2};
  EXPECT_NO_THROW(run_paged(paged, two, 16, good, Phase::decode));
  for (const auto& table : {beyond, negative, too_short})
    EXPECT_THROW(run_paged(paged, two, 16, table, Phase::decode), Error);
  Plan uncached = Plan::compile(tiny(), {.threads = 1, .max_tokens = 4});
  EXPECT_THROW(uncached.run(SingleSequence(two, 0, 1, true)), Error);
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
