#include <gmock/gmock.h>

#include "core/float.h"
#include "edited_checkpoint.h"
#include "models/model.h"

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
