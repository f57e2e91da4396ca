#include <gmock/gmock.h>

#include "core/error.h"
#include "export/gguf_mix.h"

namespace lathe {
namespace {

std::string_view type(std::string_view mix, std::string_view tensor, const Shape& shape, bool head = false,
                      int64_t experts = 0) {
  return GgufMix(mix, 16, experts).type_of(tensor, shape, head).name;
}

TEST(GgufMix, EveryNameGivesEveryMatrixAType) {
  for (const std::string& name : gguf_mix_names())
    for (const int64_t cols : {256, 64, 40}) {
      const GgufType& t = GgufMix(name, 2, 0).type_of("blk.1.ffn_down.weight", {4, cols}, false);
      EXPECT_EQ(cols % t.block, 0) << name;
      EXPECT_TRUE(packing(t.packing).pack) << name;
    }
  EXPECT_EQ(type("q4_k", "output_norm.weight", {256}), "F32");
  EXPECT_THROW(GgufMix("q7_z", 2, 0), InputError);
}

TEST(GgufMix, RowsThatAreNotWholeBlocksTakeALargerType) {
  const std::string_view gate = "blk.0.ffn_gate.weight";
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
    more += type("q4_k_m", fmt::format("blk.{}.attn_v.weight", layer), {8, 256}) == "Q6_K" ? '6' : '4';
  EXPECT_EQ(more, "6644644644644666");
  EXPECT_EQ(type("q4_k_m", "blk.0.ffn_up.weight", {8, 256}), "Q4_K");
  EXPECT_EQ(type("q4_k_m", "output.weight", {8, 256}, true), "Q6_K");
  EXPECT_EQ(type("q4_k_s", "blk.1.ffn_down.weight", {8, 256}), "Q5_K");
  EXPECT_EQ(type("q4_k_s", "blk.2.ffn_down.weight", {8, 256}), "Q4_K");
}

TEST(GgufMix, ExpertsAreAsMlpsAndRoutersStayFloats) {
  EXPECT_EQ(type("q4_k_m", "blk.0.ffn_down_exps.weight", {8, 256}, false, 64), "Q6_K");
  EXPECT_EQ(type("q4_k_m", "blk.2.ffn_down_exps.weight", {8, 256}, false, 64), "Q4_K");
  EXPECT_EQ(type("q4_k_m", "blk.2.ffn_up_exps.weight", {8, 256}, false, 64), "Q4_K");
  EXPECT_EQ(type("q4_k_m", "blk.2.ffn_gate_shexp.weight", {8, 256}, false, 64), "Q4_K");
  for (const std::string& mix : gguf_mix_names())
    EXPECT_EQ(type(mix, "blk.2.ffn_gate_inp.weight", {8, 256}, false, 64), "F32");
}

TEST(GgufMix, ExpertsInMxfp4StayUnlessSmallerOrF32IsAskedFor) {
  const auto of = [](std::string_view mix, int64_t cols) {
    return GgufMix(mix, 16, 32).type_of_mxfp4("blk.2.ffn_up_exps.weight", {32, 8, cols}).name;
  };
  for (const char* mix : {"f16", "bf16", "q8_0", "q6_k", "q4_0", "q4_k", "q4_k_m"})
    EXPECT_EQ(of(mix, 256), "MXFP4") << mix;
  EXPECT_EQ(of("f32", 256), "F32");
  EXPECT_EQ(of("q3_k_m", 256), "Q3_K");
  EXPECT_EQ(of("q2_k", 256), "Q2_K");
  EXPECT_EQ(of("q2_k", 96), "MXFP4");  // Q4_0 otherwise
  EXPECT_EQ(of("q8_0", 40), "F16");
}

TEST(GgufMix, EightExpertsHaveABetterAttention) {
  for (const auto& [tensor, alone, among_eight] : {std::tuple{"blk.4.attn_k.weight", "Q4_K", "Q8_0"},
                                                   {"blk.4.attn_v.weight", "Q4_K", "Q8_0"},
                                                   {"blk.4.attn_output.weight", "Q4_K", "Q5_K"},
                                                   {"blk.4.attn_q.weight", "Q4_K", "Q4_K"}}) {
    EXPECT_EQ(type("q4_k_s", tensor, {8, 256}), alone) << tensor;
    EXPECT_EQ(type("q4_k_s", tensor, {8, 256}, false, 8), among_eight) << tensor;
    EXPECT_EQ(type("q4_k", tensor, {8, 256}, false, 8), "Q4_K") << tensor;  // all matrices alike
  }
}

}  // namespace
}  // namespace lathe
