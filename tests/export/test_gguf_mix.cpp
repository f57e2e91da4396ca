#include <gmock/gmock.h>

#include "core/error.h"
#include "export/gguf_mix.h"

namespace lathe {
namespace {

std::string_view type(std::string_view mix, std::string_view param, const Shape& shape, bool head = false) {
  return GgufMix(mix, 16).type_of(param, shape, head).name;
}

TEST(GgufMix, EveryNameGivesEveryMatrixAType) {
  for (const std::string& name : gguf_mix_names())
    for (const int64_t cols : {256, 64, 40}) {
      const GgufType& t = GgufMix(name, 2).type_of("model.layers.1.mlp.down_proj.weight", {4, cols}, false);
      EXPECT_EQ(cols % t.block, 0) << name;
      EXPECT_TRUE(packing(t.packing).pack) << name;
    }
  EXPECT_EQ(type("q4_k", "model.norm.weight", {256}), "F32");
  EXPECT_THROW(GgufMix("q7_z", 2), InputError);
}

TEST(GgufMix, RowsThatAreNotWholeBlocksTakeALargerType) {
  const std::string_view gate = "model.layers.0.mlp.gate_proj.weight";
  EXPECT_EQ(type("q4_k", gate, {8, 512}), "Q4_K");
  EXPECT_EQ(type("q4_k", gate, {8, 96}), "Q5_0");
  EXPECT_EQ(type("q5_k", gate, {8, 96}), "Q5_1");
  EXPECT_EQ(type("q6_k", gate, {8, 96}), "Q8_0");
  EXPECT_EQ(type("q2_k", gate, {8, 96}), "Q4_0");
  EXPECT_EQ(type("q4_0", gate, {8, 40}), "F16");
}

TEST(GgufMix,
     MixturesAreLlamaQuantizes) {  // of 16 layers: the first two, the last two, and every third between
  std::string more;
  for (int layer = 0; layer < 16; ++layer)
    more += type("q4_k_m", fmt::format("model.layers.{}.self_attn.v_proj.weight", layer), {8, 256}) == "Q6_K"
                ? '6'
                : '4';
  EXPECT_EQ(more, "6644644644644666");
  EXPECT_EQ(type("q4_k_m", "model.layers.0.mlp.up_proj.weight", {8, 256}), "Q4_K");
  EXPECT_EQ(type("q4_k_m", "lm_head.weight", {8, 256}, true), "Q6_K");
  EXPECT_EQ(type("q4_k_s", "model.layers.1.mlp.down_proj.weight", {8, 256}), "Q5_K");
  EXPECT_EQ(type("q4_k_s", "model.layers.2.mlp.down_proj.weight", {8, 256}), "Q4_K");
}

}  // namespace
}  // namespace lathe
