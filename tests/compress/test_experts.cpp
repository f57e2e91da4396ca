// Mixtures of experts: each expert is rounded for the rows that are routed to it.
#include <cmath>
#include <gmock/gmock.h>

#include "builtin_model.h"
#include "compress/edges.h"
#include "compress/matrices.h"
#include "compress/method.h"
#include "compress/policy.h"
#include "compress/quantize.h"
#include "compress/save.h"
#include "mixture_model.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

std::vector<int32_t> calibration(int64_t n) {
  std::vector<int32_t> tokens =
      builtin().tokenizer.encode(read_text_file(resolve_model("builtin") / "calibration.txt"));
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

SweepOptions sweep_options() { return {.context = 64, .work = {}, .fingerprint = {}, .threads = 2}; }

bool is_expert(const std::string& name) { return name.find(".experts.") != std::string::npos; }

const Numerics int4 = Numerics::integer(4, 32, false);

TEST(MixtureOfExperts, EveryExpertIsCalibrated) {
  const Model original = mixture_of(first_blocks_of(builtin().model, 2), 4, 2);
  const Assignment all = assign_all(original, int4, {});
  const std::vector<int32_t> tokens = calibration(1024);
  for (const char* method : {"gptq", "awq+gptq", "smooth+gptq"}) {
    Model m = original;
    const std::vector<LayerReport> layers =
        quantize_calibrated(m, all, tokens, {.method = parse_method(method), .sweep = sweep_options()});
    EXPECT_EQ(layers.size(), all.size());
    for (const LayerReport& layer : layers) {
      EXPECT_THAT(layer.note, testing::Not(HasSubstr("rounded"))) << layer.module;
      if (is_expert(layer.module)) {
        EXPECT_LT(layer.error.value(), layer.nearest_error) << layer.module;
      }
    }
  }
}

// With a scale of the input that the text gives: those that it did not reach take their block's largest.
TEST(MixtureOfExperts, ExpertsThatNoRowReachesHaveAnInputScaleToo) {
  const Model original = mixture_of(first_blocks_of(builtin().model, 1), 32, 1);
  for (const char* scheme : {"w8a8-static", "w4a4-nvfp4"}) {
    SCOPED_TRACE(scheme);
    Model m = original;
    const Assignment all = assign_all(m, parse_scheme(scheme, -1, false, DType::bf16), {});
    std::set<std::string> unseen;
    for (const LayerReport& layer : quantize_calibrated(
             m, all, calibration(64), {.method = parse_method("rtn"), .sweep = sweep_options()}))
      if (layer.note.find("has 0 rows") != std::string::npos) unseen.insert(layer.module + ".weight");
    EXPECT_FALSE(unseen.empty());
    std::map<std::pair<std::string, int64_t>, float> largest;  // by block and width
    const auto key = [&](const std::string& name) {
      return std::pair(name.substr(0, name.find(".block_sparse_moe")), m.weights.at(name).cols());
    };
    for (const auto& [name, numerics] : all)
      if (is_expert(name) && !unseen.contains(name))
        largest[key(name)] = std::max(largest[key(name)], input_scale(m.weights.at(name)));
    for (const std::string& name : unseen)
      EXPECT_EQ(input_scale(m.weights.at(name)), largest.at(key(name))) << name;
  }
}

// Every row that is routed is seen by as many experts as it is routed to.
TEST(MixtureOfExperts, RowsAreSharedOut) {
  Model m = mixture_of(builtin().model, 4, 2);
  std::map<int, int64_t> rows;  // by block
  sweep(m, calibration(256),
        {{{},
          [&](const InputGroup& g) { return g.nodes.size() == 2 && m.graph.value(g.input).taken == g.input; },
          [&](const InputGroup& g, InputStats& s) {
            EXPECT_EQ(s.rows > 0, s.abs_max[0] > 0);
            rows[g.block] += s.rows;
            return std::vector<float>();
          }}},
        sweep_options());
  ASSERT_FALSE(rows.empty());
  for (const auto& [block, sum] : rows) EXPECT_EQ(sum, 2 * 256) << block;
}

// 16 tokens reach each of 8 experts four times at the mean: never the rows that calibrating takes.
TEST(MixtureOfExperts, ThoseThatSawTooFewRowsAreNamedAndRoundedToNearest) {
  const Model original = load(Checkpoint::open(golden("mixtral")));
  std::vector<int32_t> tokens(16);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(5 * i + 3);
  const Assignment all = assign_all(original, int4, {});
  for (const char* method : {"gptq", "awq+gptq", "gptq+drift", "scale-estimation"}) {
    Model m = original, nearest = original;
    SweepOptions options = sweep_options();
    options.context = 8;
    const std::vector<LayerReport> layers =
        quantize_calibrated(m, all, tokens, {.method = parse_method(method), .sweep = options});
    quantize(nearest, all, ScaleSearch::mse);
    int experts = 0;
    for (const LayerReport& layer : layers) {
      if (!is_expert(layer.module)) continue;
      ++experts;
      EXPECT_THAT(layer.note, HasSubstr("rows for this expert: rounded to nearest")) << layer.module;
      const std::string param = layer.module + ".weight";
      EXPECT_EQ(read_all(m.weights.at(param)), read_all(nearest.weights.at(param))) << method << param;
    }
    EXPECT_EQ(experts, 2 * 8 * 3);
  }
}

// gpt-oss: experts that are views of one tensor, with biases, and nothing to fold behind a clamped product.
TEST(MixtureOfExperts, OfOneTensorAreCalibratedApart) {
  std::vector<int32_t> tokens(512);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * i + 7 * i) % 127);
  for (const char* family : {"gpt_oss", "gpt_oss_mxfp4"})
    for (const char* method : {"gptq", "awq+gptq"}) {
      Model m = load(Checkpoint::open(golden(family)));
      const Assignment all = assign_all(m, int4, {});
      EXPECT_FALSE(all.contains("model.layers.0.mlp.router.weight"));
      const std::vector<LayerReport> layers =
          quantize_calibrated(m, all, tokens, {.method = parse_method(method), .sweep = sweep_options()});
      int experts = 0;
      for (const LayerReport& layer : layers) {
        if (!is_expert(layer.module)) continue;
        ++experts;
        EXPECT_THAT(layer.note, testing::Not(HasSubstr("rounded"))) << layer.module;
        EXPECT_LT(layer.error.value(), layer.nearest_error) << layer.module;
      }
      EXPECT_EQ(experts, 2 * 4 * 3);
    }
}

// Each expert gets tensors of its own; numbers that compressed-tensors holds stay what they are.
TEST(MixtureOfExperts, OfOneTensorAreWrittenApart) {
  for (const char* family : {"gpt_oss", "gpt_oss_mxfp4"})
    for (const bool rounded : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {}", family, rounded));
      const TemporaryDirectory dir;
      const Checkpoint from = Checkpoint::open(golden(family));
      Model m = load(from);
      const Assignment assignment = rounded ? assign_all(m, int4, {}) : Assignment{};
      testing::internal::CaptureStderr();
      save(m, from, assignment, ScaleSearch::mse, dir.path(), 2);
      const std::string warned = testing::internal::GetCapturedStderr();
      if (family == std::string("gpt_oss") && !rounded) {
        EXPECT_THAT(warned, HasSubstr("model.layers.0.mlp.experts.0.down_proj.weight: it and 23 others are"));
      } else {
        EXPECT_THAT(warned, testing::Not(HasSubstr("tensors of their own")));
      }
      quantize(m, assignment, ScaleSearch::mse);
      const Checkpoint written = Checkpoint::open(dir.path());
      EXPECT_TRUE(written.find("model.layers.1.mlp.experts.3.up_proj.weight"));
      EXPECT_FALSE(written.find("model.layers.1.mlp.experts.gate_up_proj"));
      const Model again = load(written);
      for (const auto& [name, weight] : m.weights) {
        EXPECT_EQ(again.weights.at(name).numerics, weight.numerics) << name;
        ASSERT_EQ(read_all(again.weights.at(name)), read_all(weight)) << name;
      }
    }
}

// Two models that differ in one byte of up's last row, between rows of gate, are not taken for the same.
TEST(MixtureOfExperts, HashesSeeEveryByteOfAView) {
  Model m = load(Checkpoint::open(golden("gpt_oss_mxfp4")));
  Weight& up = m.weights.at("model.layers.0.mlp.experts.1.up_proj.weight");
  const std::string before = hash_of(m);
  Tensor& blocks = up.parts[0];
  Storage copy = Storage::allocate(blocks.storage.bytes);
  std::copy_n(blocks.storage.data, blocks.storage.bytes, copy.data);
  blocks.storage = copy;
  EXPECT_EQ(hash_of(m), before);
  copy.data[copy.bytes - 1] ^= std::byte{1};
  EXPECT_NE(hash_of(m), before);
}

TEST(MixtureOfExperts, CorrectionsAreOfTheirOwnRows) {
  Model m = mixture_of(builtin().model, 4, 2);
  const Assignment all = assign_all(m, int4, {});
  for (const LayerReport& layer : quantize_calibrated(
           m, all, calibration(512), {.method = parse_method("rtn+rank4"), .sweep = sweep_options()}))
    if (is_expert(layer.module)) {
      EXPECT_LT(layer.error.value(), layer.nearest_error) << layer.module;
    }
  const std::vector<int32_t> tokens = calibration(24);
  const Tensor logits = interpret(m, SingleSequence(tokens, 0, 24, false));
  for (const float v : logits.as<float>()) ASSERT_TRUE(std::isfinite(v));
}

// Moving scales into up's rows is exact: at 8 bits in groups of 32 it shows as little as rounding does.
TEST(MixtureOfExperts, RoutersStayAndScalesMoveWithinAnExpert) {
  const Model m = load(Checkpoint::open(golden("qwen2_moe")));
  const Assignment all = assign_all(m, Numerics::integer(4, 8, false), {});
  EXPECT_FALSE(all.contains("model.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(all.contains("model.layers.0.mlp.shared_expert_gate.weight"));
  EXPECT_TRUE(all.contains("model.layers.0.mlp.shared_expert.up_proj.weight"));
  EXPECT_TRUE(all.contains("model.layers.1.mlp.experts.7.down_proj.weight"));
  EXPECT_TRUE(matrices(m.graph).at("model.layers.0.mlp.gate.weight").router);
  int folded = 0;
  for (const InputGroup& group : input_groups(m.graph)) {
    if (m.graph.value(group.input).taken < 0) continue;
    const auto site = fold_site(m.graph, group);
    const std::string name = m.graph.node(group.nodes[0]).name;
    EXPECT_EQ(site.has_value(), name.ends_with("down_proj")) << name;
    if (!site) continue;
    EXPECT_EQ(site->param, name.substr(0, name.size() - 9) + "up_proj.weight");
    ++folded;
  }
  EXPECT_EQ(folded, 2 * 9);
}

TEST(MixtureOfExperts, GateAndUpHaveOneFormat) {
  const Model m = load(Checkpoint::open(golden("mixtral")));
  Assignment assignment = assign_all(m, int4, {});
  const Policy policy = parse_policy("*.experts.1.w1=w8a16");
  const std::string scope = "model.layers.0.block_sparse_moe.experts.1.";
  EXPECT_THROW(apply_policies(m, {&policy, 1}, Fused::error, "policy", assignment), InputError);
  assignment = assign_all(m, int4, {});
  apply_policies(m, {&policy, 1}, Fused::promote, "policy", assignment);
  EXPECT_EQ(assignment.at(scope + "w3.weight").bits, 8);
  EXPECT_EQ(assignment.at(scope + "w2.weight").bits, 4);
}

}  // namespace
}  // namespace lathe
