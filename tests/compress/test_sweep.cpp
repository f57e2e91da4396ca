#include <algorithm>
#include <cmath>
#include <functional>
#include <gmock/gmock.h>
#include <numeric>

#include "compress/method.h"
#include "compress/sweep.h"
#include "core/error.h"
#include "golden_models.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

SweepPass look_at_all(Wanted wanted, std::map<ValueId, InputStats>& seen) {
  return {wanted, [](const InputGroup&) { return true; },
          [&](const InputGroup& g, InputStats& s) {
            seen[g.input] = s;
            return std::vector<float>();
          }};
}

// The interpreter over the same sequences, one at a time.
struct Inputs : Observer {
  std::map<ValueId, std::vector<float>> x;
  void before(const Node& node, std::span<const Tensor> inputs) override {
    if (!std::holds_alternative<op::Linear>(node.op) || seen.contains({node.inputs[0], sequence})) return;
    seen[{node.inputs[0], sequence}] = true;
    const auto v = inputs[0].as<float>();
    x[node.inputs[0]].insert(x[node.inputs[0]].end(), v.begin(), v.end());
  }
  std::map<std::pair<ValueId, int>, bool> seen;
  int sequence = 0;
};

class SweepOf : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, SweepOf, testing::Values("qwen3", "qwen2_moe"));

// An expert's layers see the rows that are routed to it, all others those of the whole text.
TEST_P(SweepOf, SeesWhatTheInterpreterSees) {
  Model m = golden_model(GetParam());
  const std::vector<int32_t> tokens =
      some_tokens(3 * 8 + 5);  // what is left of the last sequence is not used
  std::map<ValueId, InputStats> seen;
  const SweepReport report = sweep(m, tokens, {look_at_all({.hessian = true, .sample = true}, seen)},
                                   {.context = 8, .work = {}, .fingerprint = {}, .threads = 2, .isa = 0});
  EXPECT_EQ(report.tokens, 24);
  Inputs inputs;
  for (; inputs.sequence < 3; ++inputs.sequence)
    interpret(
        m,
        SingleSequence(std::span(tokens).subspan(static_cast<size_t>(8 * inputs.sequence), 8), 0, 8, false),
        &inputs);
  ASSERT_EQ(seen.size(), input_groups(m.graph).size());
  for (const auto& [value, s] : seen) {
    const std::vector<float>& x = inputs.x.at(value);
    const auto k = static_cast<size_t>(s.cols);
    const size_t rows = x.size() / k;
    EXPECT_EQ(s.routed, m.graph.value(value).taken >= 0);
    if (!s.routed) {
      EXPECT_EQ(rows, 24u);
    }
    EXPECT_EQ(s.rows, static_cast<int64_t>(rows));
    EXPECT_EQ(s.sample, x);  // fewer tokens than a sample takes
    for (size_t c = 0; c < k; ++c) {
      double sum = 0, squares = 0, most = 0, cross = 0, cross_size = 0;
      for (size_t r = 0; r < rows; ++r) {
        const double v = static_cast<double>(x[r * k + c]),
                     next = static_cast<double>(x[r * k + (c + 1) % k]);
        sum += v / static_cast<double>(rows);
        squares += v * v / static_cast<double>(rows);
        most = std::max(most, std::abs(v));
        cross += v * next / static_cast<double>(rows);
        cross_size += std::abs(v * next) / static_cast<double>(rows);
      }
      // At most 24 products summed in f32: 24 roundings of 2^-24 of the sum of sizes, twice for the final
      // division.
      const double slack = 26 * 0x1p-24;
      EXPECT_NEAR(s.mean[c], sum, slack * most);
      EXPECT_NEAR(s.mean_square[c], squares, slack * squares);
      EXPECT_EQ(static_cast<double>(s.abs_max[c]), most);
      EXPECT_NEAR(s.hessian[c * (k + 1)], squares, slack * squares);
      EXPECT_NEAR(s.hessian[c * k + (c + 1) % k], cross, slack * cross_size);
    }
  }
}

// A block that follows must see what this one computes now.
TEST(Sweep, LaterLayersSeeChangedWeights) {
  Model m = golden_model("llama3");
  const std::vector<int32_t> tokens = some_tokens(16);
  std::map<ValueId, InputStats> before, after;
  sweep(m, tokens, {look_at_all({}, before)}, {.context = 8, .work = {}, .fingerprint = {}, .isa = 0});
  const std::string silenced = "model.layers.0.self_attn.o_proj.weight";
  SweepPass pass = look_at_all({}, after);
  pass.visit = [&](const InputGroup& g, InputStats& s) {
    after[g.input] = s;
    if (m.graph.node(g.nodes[0]).params[0] == silenced) {
      Weight& w = m.weights.at(silenced);
      w = dense_weight(Tensor::zeros(DType::f32, w.shape));
    }
    return std::vector<float>();
  };
  sweep(m, tokens, {pass}, {.context = 8, .work = {}, .fingerprint = {}, .isa = 0});
  const std::vector<InputGroup> groups = input_groups(m.graph);
  EXPECT_EQ(before[groups[0].input].mean_square, after[groups[0].input].mean_square);  // q, k, v: before it
  EXPECT_EQ(before[groups[1].input].mean_square, after[groups[1].input].mean_square);  // its own input
  for (size_t i = 2; i < groups.size(); ++i)
    EXPECT_NE(before[groups[i].input].mean_square, after[groups[i].input].mean_square) << i;
}

Model compressed(const SweepOptions& options, const char* method, SweepReport* report = nullptr,
                 const char* family = "qwen2.5") {
  Model m = golden_model(family);
  quantize_calibrated(
      m, assign_all(m, Numerics::integer(4, 8, false), {.head = true, .embeddings = false, .keep = {}}),
      some_tokens(64), {.method = parse_method(method), .sweep = options}, report);
  return m;
}

TEST(Sweep, NeitherThreadsNorFilesNorResumingChangeABit) {
  for (const auto& [family, method] : {std::pair{"qwen2.5", "awq+gptq"},
                                       {"qwen2.5", "gptq+drift"},
                                       {"qwen2.5", "gptq+rank3"},
                                       {"qwen2_moe", "awq+gptq+drift"},
                                       {"qwen2_moe", "smooth+gptq+rank3"}}) {
    const SweepOptions plain{.context = 8, .work = {}, .fingerprint = {}, .threads = 1};
    const std::string expected = hash_of(compressed(plain, method, nullptr, family));
    SweepOptions threads = plain;
    threads.threads = 3;
    EXPECT_EQ(hash_of(compressed(threads, method, nullptr, family)), expected) << method;

    const TemporaryDirectory directory;
    SweepOptions files = plain;
    files.work = directory / "work";
    files.memory = 1;
    files.fingerprint = "one";
    EXPECT_EQ(hash_of(compressed(files, method, nullptr, family)), expected) << method;
    // As if it had been killed after the first block.
    fs::remove_all(files.work / "block-0001");
    SweepReport report;
    EXPECT_EQ(hash_of(compressed(files, method, &report, family)), expected) << method;
    EXPECT_EQ(report.resumed_blocks, 1);
    // Another job's blocks are not this one's.
    files.fingerprint = "two";
    EXPECT_EQ(hash_of(compressed(files, method, &report, family)), expected) << method;
    EXPECT_EQ(report.resumed_blocks, 0);
  }
}

// What is left of a finished block is not what was written: it is computed again, and the rest is taken.
TEST(Sweep, ADamagedBlockIsComputedAgain) {
  const TemporaryDirectory directory;
  const SweepOptions files{.context = 8, .work = directory / "work", .fingerprint = "one", .threads = 2};
  const std::string expected = hash_of(compressed(files, "gptq"));
  const fs::path block = files.work / "block-0000", weights = block / "model.safetensors";
  const auto damages = {
      std::function([&] {
        std::string bytes = read_text_file(weights);
        bytes[bytes.size() - 5] ^= 1;
        write_file_atomically(weights, bytes);
      }),
      std::function([&] { fs::resize_file(weights, fs::file_size(weights) / 2); }),
      std::function([&] { write_file_atomically(block / "config.json", "{"); }),
      std::function([&] { fs::remove(block / "lathe" / "notes"); }),
      std::function([&] { fs::remove(block / "lathe" / "fingerprint"); }),
  };
  for (const auto& damage : damages) {
    damage();
    SweepReport report;
    EXPECT_EQ(hash_of(compressed(files, "gptq", &report)), expected);
    EXPECT_EQ(report.resumed_blocks, 1);
    EXPECT_EQ(hash_of(compressed(files, "gptq", &report)), expected);
    EXPECT_EQ(report.resumed_blocks, 2);
  }
}

TEST(Sweep, AResumedBlocksLayersAreReportedToo) {
  const TemporaryDirectory directory;
  const SweepOptions files{.context = 8, .work = directory / "work", .fingerprint = "one", .threads = 2};
  const auto run = [&] {
    Model m = golden_model("qwen2_moe");  // with experts that see too few rows
    return quantize_calibrated(m, assign_all(m, Numerics::integer(4, 8, false), {}), some_tokens(64),
                               {.method = parse_method("gptq"), .sweep = files});
  };
  const std::vector<LayerReport> whole = run(), resumed = run();
  ASSERT_EQ(resumed.size(), whole.size());
  EXPECT_TRUE(std::ranges::any_of(whole, &LayerReport::fell_back));
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(resumed[i].module, whole[i].module);
    EXPECT_EQ(resumed[i].numerics, whole[i].numerics);
    EXPECT_EQ(resumed[i].error, whole[i].error);
    EXPECT_EQ(resumed[i].nearest_error, whole[i].nearest_error);
    EXPECT_EQ(resumed[i].fell_back, whole[i].fell_back);
    EXPECT_EQ(resumed[i].note, whole[i].note);
  }
}

TEST(Sweep, ForecastIsWhatItHolds) {
  const Model m = golden_model("llama3");
  std::map<ValueId, InputStats> seen;
  const std::vector<SweepPass> passes = {look_at_all({.hessian = true}, seen)};
  const SweepReport ahead = forecast(m, 32, passes);
  const int64_t ffn = m.graph.value(input_groups(m.graph)[3].input).cols;
  EXPECT_EQ(ahead.statistics_bytes, static_cast<size_t>(ffn * ffn) * sizeof(float));
  EXPECT_GT(ahead.activation_bytes, static_cast<size_t>(32 * ffn) * sizeof(float));
}

TEST(Sweep, WantsAWholeSequence) {
  Model m = golden_model("llama3");
  EXPECT_THAT([&] { sweep(m, some_tokens(7), {}, {.context = 8, .work = {}, .fingerprint = {}}); },
              ThrowsMessage<InputError>(HasSubstr("at least 8 tokens")));
}

}  // namespace
}  // namespace lathe
