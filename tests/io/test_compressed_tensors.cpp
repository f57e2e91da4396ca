#include <gmock/gmock.h>

#include "io/attack.h"
#include "io/compressed_tensors.h"
#include "io/writer.h"

namespace lathe {
namespace {

// One config group with the given JSON for weights, format and targets.
std::string config(const std::string& weights, const std::string& format = R"("pack-quantized")",
                   const std::string& targets = R"(["Linear"])", const std::string& more = "") {
  return R"({"quantization_config":{"quant_method":"compressed-tensors","format":)" + format +
         R"(,"config_groups":{"group_0":{"targets":)" + targets + R"(,"weights":)" + weights + "}}" + more +
         "}}";
}
const std::string w4 = R"({"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":128})";

std::optional<CtConfig> parse(const std::string& text) {
  return CtConfig::parse(parse_json(text, "config.json"), "config.json");
}

TEST(CtConfig, ReadsWhatToolsWrite) {
  EXPECT_FALSE(parse("{}"));
  EXPECT_FALSE(parse(R"({"quantization_config":null})"));
  const auto c = parse(config(w4));
  ASSERT_TRUE(c);
  const auto schemes = c->schemes_for("model.layers.0.mlp.up_proj");
  ASSERT_EQ(schemes.size(), 1u);
  EXPECT_EQ(schemes[0]->packing->name, "ct.pack32");
  EXPECT_EQ(schemes[0]->bits, 4);
  EXPECT_EQ(schemes[0]->group, 128);
  EXPECT_TRUE(schemes[0]->symmetric);

  const auto int8 = parse(config(R"({"num_bits":8,"strategy":"channel","group_size":null,"symmetric":false})",
                                 R"("int-quantized")"));
  EXPECT_EQ(int8->schemes_for("x")[0]->group, 0);
  EXPECT_EQ(int8->schemes_for("x")[0]->packing->name, "ct.int8");
  EXPECT_FALSE(int8->schemes_for("x")[0]->symmetric);

  // The legacy key, no quant_method, no strategy.
  const auto legacy = parse(
      R"({"compression_config":{"format":"pack-quantized","config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":3,"group_size":-1}}}}})");
  EXPECT_EQ(legacy->schemes_for("x")[0]->bits, 3);
  EXPECT_EQ(legacy->schemes_for("x")[0]->group, 0);
}

TEST(CtConfig, ExactNamesWinOverPatternsOverClasses) {
  const auto c = parse(
      R"({"quantization_config":{"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{
    "any":{"format":"pack-quantized","targets":["Linear"],"weights":{"num_bits":4,"group_size":32}},
    "pattern":{"format":"pack-quantized","targets":["re:.*\\.mlp\\.down"],"weights":{"num_bits":6,"group_size":32}},
    "exact":{"format":"int-quantized","targets":["lm_head","a.mlp.down_proj"],"weights":{"num_bits":8,"group_size":-1}}}}})");
  auto bits = [&](std::string_view module) { return c->schemes_for(module)[0]->bits; };
  EXPECT_EQ(bits("a.mlp.down_proj"), 8);
  EXPECT_EQ(bits("lm_head"), 8);
  EXPECT_EQ(bits("b.mlp.down_proj"), 6);  // anchored at the start only, like re.match
  EXPECT_EQ(bits("b.mlp.up_proj"), 4);
}

TEST(CtConfig, RefusesWhatItCannotRead) {
  auto with = [](const std::string& key, const std::string& value) {
    return R"({"num_bits":4,"strategy":"group","group_size":128,")" + key + "\":" + value + "}";
  };
  struct Case {
    const char* name;
    std::string text;
    std::vector<std::string> message;
  };
  const Case cases[] = {
      {"not an object", R"({"quantization_config":[1]})", {"quantization_config", "an object", "array"}},
      {"GPTQ",
       R"({"quantization_config":{"quant_method":"gptq","bits":4}})",
       {"compressed-tensors", "'gptq'", "pack-quantized"}},
      {"AWQ", R"({"quantization_config":{"quant_method":"awq"}})", {"'awq'"}},
      {"no method", R"({"quantization_config":{"bits":4}})", {"'none'"}},
      {"method is a number",
       R"({"quantization_config":{"quant_method":4}})",
       {"quant_method", "a string", "4"}},
      {"groups missing",
       R"({"quantization_config":{"quant_method":"compressed-tensors"}})",
       {"config_groups", "none"}},
      {"groups an array", R"({"quantization_config":{"config_groups":[]}})", {"config_groups", "array"}},
      {"group a string",
       R"({"quantization_config":{"config_groups":{"g":"x"}}})",
       {"config_groups.g", "an object", "string"}},
      {"fake-quantized",
       config(w4, R"("pack-quantized")", R"(["Linear"])", R"(,"quantization_status":"frozen")"),
       {"quantization_status", "'frozen'"}},
      {"float",
       config(R"({"num_bits":8,"type":"float","strategy":"channel"})", R"("float-quantized")"),
       {"type int", "'float'"}},
      {"NVFP4", config(w4, R"("nvfp4-pack-quantized")"), {"pack-quantized", "'nvfp4-pack-quantized'"}},
      {"no format", config(w4, "null"), {"format", "'none'"}},
      {"9 bits", config(R"({"num_bits":9,"strategy":"channel"})"), {"num_bits", "2 to 8", "9"}},
      {"negative bits", config(R"({"num_bits":-4,"strategy":"channel"})"), {"num_bits", "-4"}},
      {"float bits", config(R"({"num_bits":4.5,"strategy":"channel"})"), {"num_bits", "4.5"}},
      {"no bits", config(R"({"strategy":"channel"})"), {"num_bits", "none"}},
      {"tensor strategy", config(R"({"num_bits":8,"strategy":"tensor"})"), {"channel or group", "'tensor'"}},
      {"block strategy", config(R"({"num_bits":8,"strategy":"block"})"), {"channel or group", "'block'"}},
      {"group without size",
       config(R"({"num_bits":4,"strategy":"group"})"),
       {"group_size", "a positive number"}},
      {"huge group",
       config(R"({"num_bits":4,"strategy":"group","group_size":1152921504606846976})"),
       {"group_size", "1152921504606846976"}},
      {"act order", config(with("actorder", R"("group")")), {"actorder", "\"group\""}},
      {"targets missing",
       R"({"quantization_config":{"config_groups":{"g":{"format":"pack-quantized","weights":{"num_bits":4,"strategy":"channel"}}}}})",
       {"targets", "none"}},
      {"targets of numbers", config(w4, R"("pack-quantized")", "[1]"), {"targets", "strings", "number"}},
      {"bad pattern", config(w4, R"("pack-quantized")", R"(["re:("])"), {"a regular expression", "'('"}},
      {"many patterns",
       config(w4, R"("pack-quantized")",
              [] {
                std::string out = "[";
                for (int i = 0; i < 65; ++i) out += fmt::format("{}\"re:{}\"", i ? "," : "", i);
                return out + "]";
              }()),
       {"at most 64 regular expressions"}},
      {"sparse",
       config(w4, R"("pack-quantized")", R"(["Linear"])",
              R"(,"sparsity_config":{"format":"sparse-24-bitmask"})"),
       {"sparsity_config", "sparse-24-bitmask"}},
      {"transforms",
       config(w4, R"("pack-quantized")", R"(["Linear"])", R"(,"transform_config":{"config_groups":{}})"),
       {"transform_config"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string message = refusal([&] { parse(c.text); });
    EXPECT_TRUE(message.starts_with("config.json: ")) << message;
    expect_fragments(message, c.message);
  }
}

TEST(CtConfig, PatternsThatExplodeAreRefusedNotWaitedFor) {
  const auto c = parse(config(w4, R"("pack-quantized")", R"(["re:(a+)+(a+)+(a+)+$"])"));
  EXPECT_THAT(refusal([&] { c->schemes_for(std::string(60, 'a') + "b"); }),
              testing::HasSubstr("quickly matched"));
}

PlannedEntry entry(const std::string& name, const Numerics& n, std::string_view packing_name) {
  return {name, n, &packing(packing_name), {64, 256}};
}

TEST(QuantizationConfig, OneGroup) {
  EXPECT_TRUE(quantization_config({entry("norm.weight", Numerics::dense(DType::bf16), "dense")}).is_null());
  const Json c =
      quantization_config({entry("a.q.weight", Numerics::integer(4, 128, false), "ct.pack32"),
                           entry("norm.weight", Numerics::dense(DType::bf16), "dense"),
                           entry("a.k.weight", Numerics::integer(4, 128, false, DType::f16), "ct.pack32")});
  EXPECT_EQ(
      c,
      parse_json(
          R"({"config_groups":{"group_0":{"format":"pack-quantized","input_activations":null,"output_activations":null,
      "targets":["a.q","a.k"],"weights":{"actorder":null,"block_structure":null,"dynamic":false,"group_size":128,"num_bits":4,
      "observer":"minmax","observer_kwargs":{},"strategy":"group","symmetric":true,"type":"int"}}},
      "format":"pack-quantized","global_compression_ratio":null,"ignore":[],"kv_cache_scheme":null,"quant_method":"compressed-tensors",
      "quantization_status":"compressed","sparsity_config":{},"transform_config":{},"version":"0.18.0"})",
          "t"));
}

TEST(QuantizationConfig, MixedPrecision) {
  const Json c = quantization_config({entry("a.weight", Numerics::integer(4, 32, true), "ct.pack32"),
                                      entry("b.weight", Numerics::integer(8, 0, false), "ct.int8"),
                                      entry("c.weight", Numerics::integer(8, 0, false), "ct.pack32")});
  EXPECT_EQ(c["format"], "mixed-precision");
  EXPECT_EQ(c["config_groups"].size(), 3u);
  EXPECT_EQ(c["config_groups"]["group_0"]["weights"]["symmetric"], false);
  EXPECT_EQ(c["config_groups"]["group_1"]["format"], "int-quantized");
  EXPECT_EQ(c["config_groups"]["group_1"]["weights"]["strategy"], "channel");
  EXPECT_TRUE(c["config_groups"]["group_1"]["weights"]["group_size"].is_null());
  const auto back = CtConfig::parse({{"quantization_config", c}}, "config.json");
  EXPECT_EQ(back->schemes_for("b")[0]->packing->name, "ct.int8");
  EXPECT_EQ(back->schemes_for("c")[0]->packing->name, "ct.pack32");
}

}  // namespace
}  // namespace lathe
