#include <gmock/gmock.h>

#include "compress/quantize.h"
#include "core/error.h"
#include "golden_models.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::string> names(const Assignment& a) {
  std::vector<std::string> out;
  for (const auto& [name, numerics] : a) out.push_back(name);
  return out;
}

const Numerics int8 = Numerics::integer(8, 0, false);

TEST(AssignAll, TakesLinearsAndNeitherNormsNorTables) {
  const Model m =
      golden_model("llama3");  // two blocks of seven linears, an embedding and a head of their own
  const Assignment a = assign_all(m, int8, {});
  EXPECT_EQ(a.size(), 14u);
  EXPECT_TRUE(a.contains("model.layers.1.mlp.down_proj.weight"));
  for (const auto& name : names(a)) EXPECT_THAT(name, HasSubstr("_proj.weight"));
  EXPECT_EQ(a.begin()->second, int8);
}

TEST(AssignAll, TablesWhenAskedFor) {
  const Model m = golden_model("llama3");
  EXPECT_TRUE(
      assign_all(m, int8, {.head = true, .embeddings = false, .keep = {}}).contains("lm_head.weight"));
  EXPECT_FALSE(assign_all(m, int8, {.head = true, .embeddings = false, .keep = {}})
                   .contains("model.embed_tokens.weight"));
  EXPECT_TRUE(assign_all(m, int8, {.head = false, .embeddings = true, .keep = {}})
                  .contains("model.embed_tokens.weight"));
}

TEST(AssignAll, ATiedTableCountsAsTheHead) {
  const Model m = golden_model("llama3.2");
  ASSERT_FALSE(m.weights.contains("lm_head.weight"));
  EXPECT_EQ(assign_all(m, int8, {}).size(), 14u);
  EXPECT_EQ(assign_all(m, int8, {.head = false, .embeddings = true, .keep = {}}).size(), 14u);
  const Assignment a = assign_all(m, int8, {.head = true, .embeddings = false, .keep = {}});
  EXPECT_EQ(a.size(), 15u);
  EXPECT_TRUE(a.contains("model.embed_tokens.weight"));
}

TEST(AssignAll, KeepGlobs) {
  const Model m = golden_model("llama3");
  EXPECT_EQ(assign_all(m, int8, {.head = false, .embeddings = false, .keep = {"model.layers.0.*"}}).size(),
            7u);
  EXPECT_EQ(assign_all(m, int8, {.head = false, .embeddings = false, .keep = {"*.down_proj", "*.[qk]_proj"}})
                .size(),
            8u);
  EXPECT_EQ(assign_all(m, int8, {.head = true, .embeddings = false, .keep = {"lm_head"}}).size(), 14u);
  EXPECT_THAT([&] { assign_all(m, int8, {.head = false, .embeddings = false, .keep = {"*.typo"}}); },
              ThrowsMessage<InputError>(HasSubstr("'*.typo', which matches none")));
}

TEST(AssignAll, RefusesRaggedGroupsAndSaysWhatWouldFit) {
  const Model m = golden_model("llama3");  // hidden 64, MLP 96
  EXPECT_NO_THROW(assign_all(m, Numerics::integer(4, 32, false), {}));
  EXPECT_THAT([&] { assign_all(m, Numerics::integer(4, 64, false), {}); },
              ThrowsMessage<InputError>(testing::AllOf(
                  HasSubstr("down_proj.weight: expected columns in whole groups of 64, found 96 columns"),
                  HasSubstr("--group-size 32"))));
}

TEST(AssignedBytes, AreThoseOfTheQuantizedModel) {
  Model m = golden_model("llama3");
  const Assignment a = assign_all(m, Numerics::integer(4, 32, true),
                                  {.head = true, .embeddings = false, .keep = {"*.o_proj"}});
  const size_t predicted = assigned_bytes(m, a);
  EXPECT_EQ(assigned_bytes(m, {}), m.bytes());
  EXPECT_LT(predicted, m.bytes());
  quantize(m, a, ScaleSearch::absmax);
  EXPECT_EQ(m.bytes(), predicted);
}

TEST(ScaleDtype, IsTheCheckpointsOwn) {
  EXPECT_EQ(scale_dtype({{"torch_dtype", "float16"}}), DType::f16);
  EXPECT_EQ(scale_dtype({{"torch_dtype", "bfloat16"}}), DType::bf16);
  EXPECT_EQ(scale_dtype({{"dtype", "float32"}}), DType::f32);
  EXPECT_EQ(scale_dtype(Json::object()), DType::bf16);
}

TEST(ModulePath, DropsTheParameter) {
  EXPECT_EQ(module_path("a.b.weight"), "a.b");
  EXPECT_EQ(module_path("a.b.bias"), "a.b.bias");
}

}  // namespace
}  // namespace lathe
