#include <gmock/gmock.h>

#include "core/float.h"
#include "edited_checkpoint.h"
#include "models/model.h"
#include "models/names.h"

namespace lathe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using namespace testing_support;

TEST(Load, BindsEveryParameterInItsShape) {
  const Model m = load(Checkpoint::open(golden("qwen3")));
  const auto shapes = m.graph.param_shapes();
  EXPECT_EQ(m.weights.size(), shapes.size());
  for (const auto& [name, shape] : shapes) EXPECT_EQ(m.weights.at(name).shape, shape) << name;
}

TEST(Load, ShardedCheckpointsAreOneModel) {
  EXPECT_GT(load(Checkpoint::open(golden("sharded"))).bytes(), 0u);
}

TEST(Load, MissingTensorIsNamed) {
  Edited e("llama3");
  e.tensors.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_THAT(load_error(e.write()),
              AllOf(HasSubstr("'model.layers.1.mlp.up_proj.weight'"), HasSubstr("none")));
}

TEST(Load, ExtraTensorIsNamed) {
  Edited e("llama3");
  e.tensors["model.layers.7.mystery.weight"] = Tensor::zeros(DType::f32, {2, 3});
  EXPECT_THAT(load_error(e.write()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("'model.layers.7.mystery.weight'"),
                    HasSubstr("[2, 3]")));
}

TEST(Load, PrecomputedRotaryBuffersAreIgnored) {
  Edited e("llama3");
  e.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = Tensor::zeros(DType::f32, {8});
  EXPECT_EQ(load_error(e.write()), "accepted");
}

TEST(Load, ShapeThatDisagreesWithTheConfigIsNamed) {
  Edited e("llama3");
  e.config["intermediate_size"] = 100;
  EXPECT_THAT(load_error(e.write()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("down_proj.weight"), HasSubstr("[64, 100]")));
}

TEST(Load, IntegersWithoutAFormatAreRefused) {
  Edited e("llama3");
  Tensor& t = e.tensors["model.layers.0.mlp.gate_proj.weight"];
  t = Tensor::zeros(DType::i32, t.shape);
  EXPECT_THAT(load_error(e.write()), AllOf(HasSubstr("gate_proj"), HasSubstr("i32")));
}

TEST(Load, NanIsNamedWithItsPlace) {
  Edited e("llama3");
  Tensor& t = e.tensors["model.layers.0.mlp.gate_proj.weight"];
  Tensor copy = Tensor::zeros(t.dtype, t.shape);
  std::copy_n(t.storage.data, t.bytes(), copy.storage.data);
  copy.as_mutable<uint16_t>()[77] = 0x7fc0;
  t = copy;
  EXPECT_THAT(load_error(e.write()),
              AllOf(HasSubstr("gate_proj"), HasSubstr("element 77"), HasSubstr("finite")));
}

// Of gpt-oss: views of the tensors that hold all experts, transposed, gate and up by turns.
TEST(Load, ExpertsAreSlicesOfTheirStacks) {
  const Edited e("gpt_oss");
  const Model m = load(Checkpoint::open(golden("gpt_oss")));
  const std::string scope = "model.layers.1.mlp.experts";
  const auto floats = [&](const char* name) {
    const Tensor& t = e.tensors.at(scope + name);
    std::vector<float> out(static_cast<size_t>(elements(t.shape)));
    to_f32(t.dtype, t.storage.data, out.data(), std::ssize(out));
    return out;
  };
  const std::vector<float> both = floats(".gate_up_proj"), bias = floats(".gate_up_proj_bias"),
                           down = floats(".down_proj");
  const size_t hidden = 32, width = 32;
  for (const auto& [name, turn] : {std::pair{"gate_proj", size_t{0}}, {"up_proj", size_t{1}}}) {
    const std::vector<float> w = read_all(m.weights.at(fmt::format("{}.2.{}.weight", scope, name))),
                             b = read_all(m.weights.at(fmt::format("{}.2.{}.bias", scope, name)));
    for (size_t row = 0; row < width; ++row) {
      ASSERT_EQ(b[row], bias[2 * 2 * width + 2 * row + turn]);
      for (size_t col = 0; col < hidden; ++col)
        ASSERT_EQ(w[row * hidden + col], both[(2 * hidden + col) * 2 * width + 2 * row + turn]);
    }
  }
  const std::vector<float> w = read_all(m.weights.at(scope + ".3.down_proj.weight"));
  for (size_t row = 0; row < hidden; ++row)
    for (size_t col = 0; col < width; ++col)
      ASSERT_EQ(w[row * width + col], down[(3 * width + col) * hidden + row]);
  EXPECT_EQ(m.bytes(), [&] {
    size_t stored = 0;
    for (const auto& [name, t] : e.tensors) stored += t.bytes();
    return stored;
  }());
}

TEST(Load, StacksOfExpertsThatDoNotFitAreNamed) {
  const std::string scope = "model.layers.0.mlp.experts";
  const auto with = [&](const char* family, const std::string& name, const Tensor& tensor) {
    Edited e(family);
    e.tensors[scope + name] = tensor;
    return load_error(e.write());
  };
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj", Tensor::zeros(DType::bf16, {3, 32, 64})),
              AllOf(HasSubstr("experts.gate_up_proj'"), HasSubstr("4 experts"), HasSubstr("[3, 32, 64]")));
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj", Tensor::zeros(DType::bf16, {4, 32, 63})),
              AllOf(HasSubstr("gate and up by turns"), HasSubstr("[4, 32, 63]")));
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj", Tensor::zeros(DType::bf16, {4, 32})), HasSubstr("[4, 32]"));
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj", Tensor::zeros(DType::bf16, {4, 33, 64})),
              AllOf(HasSubstr("experts.gate_up_proj'"), HasSubstr("shape [32, 32]")));
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj", Tensor::zeros(DType::i16, {4, 32, 64})), HasSubstr("i16"));
  EXPECT_THAT(with("gpt_oss", ".gate_up_proj_bias", Tensor::zeros(DType::bf16, {4, 62})),
              HasSubstr("shape [32]"));
  EXPECT_THAT(with("gpt_oss", ".down_proj_bias", Tensor::zeros(DType::bf16, {4, 0})), HasSubstr("[4, 0]"));
  EXPECT_THAT(with("gpt_oss", ".1.up_proj.weight", Tensor::zeros(DType::bf16, {32, 32})),
              AllOf(HasSubstr("experts.1.up_proj.weight' stored once"), HasSubstr("twice")));
  EXPECT_THAT(with("gpt_oss_mxfp4", ".gate_up_proj_scales", Tensor::zeros(DType::u8, {4, 64, 2})),
              AllOf(HasSubstr("scales"), HasSubstr("[4, 64, 2]")));
  EXPECT_THAT(with("gpt_oss_mxfp4", ".gate_up_proj_blocks", Tensor::zeros(DType::u8, {4, 64, 1, 15})),
              HasSubstr("gate_up_proj"));
  Tensor scales = Tensor::zeros(DType::u8, {4, 64, 1});
  scales.as_mutable<uint8_t>()[200] = 255;
  EXPECT_THAT(with("gpt_oss_mxfp4", ".gate_up_proj_scales", scales),
              AllOf(HasSubstr("gate_up_proj"), HasSubstr("finite scales"), HasSubstr("block 200")));
  Edited e("gpt_oss");
  e.tensors.erase(scope + ".down_proj_bias");
  EXPECT_THAT(load_error(e.write()), AllOf(HasSubstr("experts.0.down_proj.bias"), HasSubstr("none")));
}

TEST(Load, HeadsOfNoRowsAreRefused) {
  const auto transform = gguf_binding("model.layers.0.self_attn.q_proj.weight",
                                      {{"model_type", "llama"}, {"num_attention_heads", 2}})
                             .transform;
  EXPECT_NO_THROW(transform(dense_weight(Tensor::zeros(DType::f32, {4, 8}))));
  EXPECT_THROW(transform(dense_weight(Tensor::zeros(DType::f32, {0, 8}))), InputError);
}

TEST(Load, TiedHeadStoredUnderEitherName) {
  Edited e("qwen3");
  ASSERT_TRUE(e.tensors.contains("model.embed_tokens.weight"));
  ASSERT_FALSE(e.tensors.contains("lm_head.weight"));
  const Tensor table = e.tensors["model.embed_tokens.weight"];
  e.tensors["lm_head.weight"] = table;  // both: transformers ignores the copy
  EXPECT_EQ(load_error(e.write()), "accepted");
  e.tensors.erase("model.embed_tokens.weight");  // the head only
  EXPECT_EQ(load_error(e.write()), "accepted");
}

TEST(ResolveModel, NothingThereIsAnInputError) { EXPECT_THROW(resolve_model("/no/such/model"), InputError); }

TEST(StopTokens, ListOrNumber) {
  const Checkpoint listed = Checkpoint::open(golden("llama3.1"));
  EXPECT_GT(stop_tokens(listed).size(), 1u);
  EXPECT_EQ(stop_tokens(Checkpoint::open(source_dir() / "models/builtin")), std::vector<int32_t>{0});
}

}  // namespace
}  // namespace lathe
