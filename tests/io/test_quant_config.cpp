#include <gmock/gmock.h>

#include "io/attack.h"
#include "io/quant_config.h"
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

std::optional<QuantConfig> parse(const std::string& text) {
  return QuantConfig::parse(parse_json(text, "config.json"), "config.json");
}

TEST(QuantConfig, ReadsWhatToolsWrite) {
  EXPECT_FALSE(parse("{}"));
  EXPECT_FALSE(parse(R"({"quantization_config":null})"));
  const auto c = parse(config(w4));
  ASSERT_TRUE(c);
  const auto schemes = c->schemes_for("model.layers.0.mlp.up_proj");
  ASSERT_EQ(schemes.size(), 1u);
  EXPECT_EQ(schemes[0]->packing->name, "ct.pack32");
  EXPECT_EQ(schemes[0]->numerics.bits, 4);
  EXPECT_EQ(schemes[0]->numerics.group, 128);
  EXPECT_EQ(schemes[0]->numerics.offset, Numerics::Offset::none);

  const auto int8 = parse(config(R"({"num_bits":8,"strategy":"channel","group_size":null,"symmetric":false})",
                                 R"("int-quantized")"));
  EXPECT_EQ(int8->schemes_for("x")[0]->numerics.group, 0);
  EXPECT_EQ(int8->schemes_for("x")[0]->packing->name, "ct.int8");
  EXPECT_EQ(int8->schemes_for("x")[0]->numerics.offset, Numerics::Offset::zero_point);

  // The legacy key, no quant_method, no strategy.
  const auto legacy = parse(
      R"({"compression_config":{"format":"pack-quantized","config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":3,"group_size":-1}}}}})");
  EXPECT_EQ(legacy->schemes_for("x")[0]->numerics.bits, 3);
  EXPECT_EQ(legacy->schemes_for("x")[0]->numerics.group, 0);
}

TEST(QuantConfig, ExactNamesWinOverPatternsOverClasses) {
  const auto c = parse(
      R"({"quantization_config":{"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{
    "any":{"format":"pack-quantized","targets":["Linear"],"weights":{"num_bits":4,"group_size":32}},
    "pattern":{"format":"pack-quantized","targets":["re:.*\\.mlp\\.down"],"weights":{"num_bits":6,"group_size":32}},
    "exact":{"format":"int-quantized","targets":["lm_head","a.mlp.down_proj"],"weights":{"num_bits":8,"group_size":-1}}}}})");
  auto bits = [&](std::string_view module) { return c->schemes_for(module)[0]->numerics.bits; };
  EXPECT_EQ(bits("a.mlp.down_proj"), 8);
  EXPECT_EQ(bits("lm_head"), 8);
  EXPECT_EQ(bits("b.mlp.down_proj"), 6);  // anchored at the start only, like re.match
  EXPECT_EQ(bits("b.mlp.up_proj"), 4);
}

TEST(QuantConfig, RefusesWhatItCannotRead) {
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
      {"another tool",
       R"({"quantization_config":{"quant_method":"quip","bits":4}})",
       {"quant_method compressed-tensors, gptq, awq, modelopt", "'quip'"}},
      {"GPTQ of five bits",
       R"({"quantization_config":{"quant_method":"gptq","bits":5}})",
       {"2, 3, 4 or 8", "5"}},
      {"GPTQ in a kernel's order",
       R"({"quantization_config":{"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"}})",
       {"gptq or gptq_v2", "'marlin'", "save the model as gptq"}},
      {"GPTQ with groups of none",
       R"({"quantization_config":{"quant_method":"gptq","bits":4,"group_size":0}})",
       {"group_size", "-1 or a positive number", "0"}},
      {"GPTQ with a bad pattern",
       R"({"quantization_config":{"quant_method":"gptq","bits":4,"dynamic":{"+:(":{"bits":8}}}})",
       {"dynamic '+:('", "a regular expression"}},
      {"AWQ in a kernel's order",
       R"({"quantization_config":{"quant_method":"awq","version":"gemv_fast"}})",
       {"version gemm", "'gemv_fast'"}},
      {"AWQ of three bits", R"({"quantization_config":{"quant_method":"awq","bits":3}})", {"bits", "4", "3"}},
      {"ModelOpt's other algorithms",
       R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"fp8_pb_real"}})",
       {"quant_algo MIXED_PRECISION, FP8", "'fp8_pb_real'"}},
      {"ModelOpt in other groups",
       R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","group_size":32}})",
       {"group_size 16 of NVFP4", "32"}},
      {"ModelOpt with zero points",
       R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"W4A16_AWQ","has_zero_point":true}})",
       {"has_zero_point false", "true"}},
      {"ModelOpt, mixed of nothing",
       R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION"}})",
       {"quantized_layers", "none"}},
      {"ModelOpt, mixed of another algorithm",
       R"({"quantization_config":{"quant_algo":"MIXED_PRECISION","quantized_layers":{"a.b":{"quant_algo":"X"}}}})",
       {"quantized_layers 'a.b'", "'X'"}},
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
      {"float", config(R"({"num_bits":8,"type":"float","strategy":"channel"})"), {"type int", "'float'"}},
      {"NVFP4", config(w4, R"("nvfp4-pack-quantized")"), {"type float", "'int'"}},
      {"NVFP4 in other groups",
       config(R"({"num_bits":4,"type":"float","strategy":"tensor_group","group_size":32})",
              R"("nvfp4-pack-quantized")"),
       {"strategy tensor_group and group_size 16", "'tensor_group' and 32"}},
      {"floats of 6 bits",
       config(R"({"num_bits":6,"type":"float","strategy":"channel"})", R"("float-quantized")"),
       {"num_bits 8", "6"}},
      {"a block of one number",
       config(R"({"num_bits":8,"type":"float","strategy":"block","block_structure":[128]})",
              R"("float-quantized")"),
       {"block_structure", "[128]"}},
      {"a sparse format", config(w4, R"("marlin-24")"), {"float-quantized", "'marlin-24'"}},
      {"e5m2",
       R"({"quantization_config":{"quant_method":"fp8","fmt":"e5m2","weight_block_size":[128,128]}})",
       {"fmt e4m3", "'e5m2'"}},
      {"fp4 of bitsandbytes",
       R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true,"bnb_4bit_quant_type":"fp4"}})",
       {"bnb_4bit_quant_type nf4", "fp4"}},
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
      {"act order", config(with("actorder", "7")), {"actorder", "7"}},
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
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string message = refusal([&] { parse(c.text); });
    EXPECT_TRUE(message.starts_with("config.json: ")) << message;
    expect_fragments(message, c.message);
  }
}

// What their owners' classes write, all keys of them: accepted.
TEST(QuantConfig, KnowsTheKeysThatToolsWrite) {
  const std::string args = R"("actorder":null,"block_structure":null,"group_size":128,"num_bits":4,)"
                           R"("observer":"minmax","observer_kwargs":{},"strategy":"group","symmetric":true,)"
                           R"("type":"int")",
                    group = R"("input_activations":null,"output_activations":null,"targets":["Linear"])";
  const auto tensors = [](const std::string& groups, const std::string& more) {
    return R"("quant_method":"compressed-tensors","format":"pack-quantized",)"
           R"("global_compression_ratio":1.89,"ignore":["lm_head"],"kv_cache_scheme":null,)"
           R"("quantization_status":"compressed","config_groups":{)" +
           groups + "}" + more;
  };
  const struct {
    const char* name;
    std::string config;
  } cases[] = {
      {"compressed-tensors 0.8",
       tensors("\"group_0\":{\"weights\":{\"dynamic\":false," + args + "}," + group + "}",
               R"(,"version":"0.8.1","sparsity_config":{"format":"dense","global_sparsity":0.1,"ignore":[],)"
               R"("registry_requires_subclass":false,"sparsity_structure":"unstructured","targets":[]})")},
      {"compressed-tensors 0.20",
       tensors(
           "\"group_0\":{\"format\":\"pack-quantized\",\"weights\":{\"dynamic\":false," + args +
               R"(,"scale_dtype":null,"zp_dtype":"torch.int8"},)" + group + "}",
           R"(,"version":"0.20.0","moe_sparsity_config":null,"sparsity_config":{},"transform_config":{})")},
      {"compressed-tensors as transformers saves it",
       tensors("\"group_0\":{\"weights\":{" + args + "}," + group + "}",
               R"(,"run_compressed":true,"dequantize":false,"use_optimized_inference":false)")},
      {"queries, keys and values of attentions, in floats",
       tensors("\"group_0\":{\"weights\":{" + args + "}," + group +
                   R"(},"group_1":{"weights":null,"output_activations":null,"targets":["LlamaAttention"],)"
                   R"("input_activations":{"num_bits":8,"type":"float","strategy":"tensor"}})",
               "")},
      {"AutoGPTQ",
       R"("quant_method":"gptq","bits":4,"group_size":128,"damp_percent":0.1,"desc_act":true,"static_groups":false,
      "sym":true,"true_sequential":true,"model_name_or_path":null,"model_file_base_name":"model",
      "is_marlin_format":false,"awq_gemm_checkpoint":false,"checkpoint_format":"gptq")"},
      {"optimum and transformers",
       R"("quant_method":"gptq","bits":4,"tokenizer":null,"dataset":"c4","group_size":128,"damp_percent":0.1,
      "desc_act":false,"act_group_aware":true,"sym":true,"true_sequential":true,"format":"gptq","checkpoint_format":"gptq",
      "meta":null,"backend":"auto","use_cuda_fp16":false,"model_seqlen":2048,"block_name_to_quantize":"model.layers",
      "module_name_preceding_first_block":["model.embed_tokens"],"batch_size":1,"pad_token_id":null,"use_exllama":true,
      "exllama_config":{"version":1},"max_input_length":null,"cache_block_outputs":true,
      "modules_in_block_to_quantize":[["q"]])"},
      {"GPTQModel",
       R"("quant_method":"gptq","method":"gptq","bits":4,"dynamic":{"+:.*up":{"bits":8,"group_size":32,"sym":true,
      "desc_act":false,"mse":2.4},"-:.*down":{}},"group_size":128,"desc_act":false,"lm_head":false,"format":"gptq",
      "checkpoint_format":"gptq","pack_dtype":"int32","rotation":null,"sym":true,
      "meta":{"quantizer":["gptqmodel:5.4"],"damp_percent":0.05})"},
      {"AutoRound as GPTQ",
       R"("quant_method":"gptq","bits":4,"group_size":128,"sym":true,"data_type":"int","enable_quanted_input":true,
      "enable_minmax_tuning":true,"enable_norm_bias_tuning":false,"seqlen":2048,"batch_size":8,"train_bs":8,
      "scale_dtype":"torch.float16","lr":0.005,"minmax_lr":0.005,"gradient_accumulate_steps":1,"iters":200,"amp":true,
      "nsamples":512,"low_gpu_mem_usage":false,"quant_block_list":null,"autoround_version":"0.4","desc_act":false,
      "true_sequential":false,"damp_percent":0.01)"},
      {"AutoAWQ",
       R"("quant_method":"awq","bits":4,"group_size":128,"modules_to_not_convert":null,"version":"gemm","zero_point":true)"},
      {"AWQ as transformers saves it",
       R"("quant_method":"awq","bits":4,"group_size":128,"zero_point":true,"version":"gemm","backend":"autoawq",
      "do_fuse":false,"exllama_config":null,"fuse_max_seq_len":null,"modules_to_fuse":null,
      "modules_to_not_convert":["visual"],"format":"GEMM","checkpoint_format":"gemm","sym":true,"desc_act":false)"},
      {"ModelOpt in config.json",
       R"("quant_method":"modelopt","quant_algo":"NVFP4","config_groups":{"group_0":{"input_activations":{"dynamic":false,
      "num_bits":4,"type":"float","group_size":16},"targets":["Linear"]}},"ignore":["lm_head"],
      "kv_cache_scheme":{"dynamic":false,"num_bits":8,"type":"float"},"producer":{"name":"modelopt","version":"0.47"})"},
      {"ModelOpt with a cache of another kind",
       R"("quant_method":"modelopt","quant_algo":"FP8","ignore":[],"kv_cache_scheme":"NVFP4")"},
      {"ModelOpt, a layer at a time",
       R"("quant_algo":"MIXED_PRECISION","kv_cache_quant_algo":"NVFP4_AFFINE","exclude_modules":["lm_head*"],
      "quantized_layers":{"a":{"quant_algo":"NVFP4_SVD","group_size":16,"has_zero_point":false,"pre_quant_scale":true,"lora_rank":32}})"},
      {"transformers' FP8",
       R"("quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[128,128],
      "modules_to_not_convert":["lm_head"],"modules_to_convert":null,"dequantize":false,"scale_fmt":"float","expert_dtype":"fp8")"},
      {"AutoFP8",
       R"("quant_method":"fp8","activation_scheme":"static","ignored_layers":["lm_head"],"kv_cache_scheme":null)"},
      {"FP8 under its other name",
       R"("quant_method":"fp8","fmt":"float8_e4m3fn","activation_scheme":"dynamic","weight_block_size":[128,128])"},
      {"gpt-oss", R"("quant_method":"mxfp4","modules_to_not_convert":["lm_head"],"dequantize":false)"},
      {"bitsandbytes",
       R"("quant_method":"bitsandbytes","load_in_4bit":true,"_load_in_4bit":true,"load_in_8bit":false,"_load_in_8bit":false,
      "bnb_4bit_compute_dtype":"bfloat16","bnb_4bit_quant_storage":"uint8","bnb_4bit_quant_type":"nf4",
      "bnb_4bit_use_double_quant":false,"llm_int8_enable_fp32_cpu_offload":false,"llm_int8_has_fp16_weight":false,
      "llm_int8_skip_modules":null,"llm_int8_threshold":6.0)"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_NO_THROW(EXPECT_TRUE(parse("{\"quantization_config\":{" + c.config + "}}")));
  }
}

// Any other is an error that names it, and so is what would change the numbers.
TEST(QuantConfig, RefusesKeysThatItDoesNotKnow) {
  const auto in_weights = [](const std::string& more) {
    return config(R"({"num_bits":4,"strategy":"channel",)" + more + "}");
  };
  const auto in_group = [](const std::string& more) { return config(w4 + "," + more); };
  const auto on_top = [](const std::string& more) {
    return config(w4, R"("pack-quantized")", R"(["Linear"])", "," + more);
  };
  const auto of = [](const std::string& text) { return "{\"quantization_config\":{" + text + "}}"; };
  const std::string gptq = R"("quant_method":"gptq","bits":4,)", awq = R"("quant_method":"awq","bits":4,)",
                    fp8 = R"("quant_method":"fp8","weight_block_size":[128,128],)",
                    modelopt = R"("quant_method":"modelopt","quant_algo":"FP8",)",
                    nf4 = R"("quant_method":"bitsandbytes","load_in_4bit":true,"bnb_4bit_quant_type":"nf4",)";
  const struct {
    std::string config;
    std::vector<std::string> message;
  } cases[] = {
      {on_top(R"("foo":1)"), {"one of config_groups, ", "key 'foo'"}},
      {on_top(R"("ignore":7)"), {"key 'ignore': expected an array of strings or null, found 7"}},
      {on_top(R"("sparsity_config":{"foo":1})"), {"sparsity_config", "key 'foo'"}},
      {on_top(R"("moe_sparsity_config":{"method":"prune"})"), {"'moe_sparsity_config': expected null"}},
      {on_top(R"("kv_cache_scheme":{"num_bits":8,"foo":1})"), {"kv_cache_scheme", "key 'foo'"}},
      {in_group(R"("foo":1)"), {"config_groups.group_0: expected one of targets, ", "key 'foo'"}},
      {in_group(R"("output_activations":{"num_bits":8})"), {"'output_activations': expected null"}},
      {in_group(R"("input_activations":{"num_bits":8,"dynamic":true,"foo":1})"),
       {"input_activations", "key 'foo'"}},
      {in_weights(R"("foo":1)"), {"config_groups.group_0.weights: expected one of num_bits", "key 'foo'"}},
      {in_weights(R"("dynamic":true)"), {"weights: expected dynamic false, found true"}},
      {config(R"(null,"input_activations":{"num_bits":8,"strategy":"token","dynamic":true})"),
       {"config_groups.group_0: expected weights beside input_activations of integers"}},
      {of(gptq + R"("foo":1)"), {"expected keys that Lathe knows, found key 'foo'"}},
      {of(gptq + R"("dynamic":{"+:a":{"foo":1}})"), {"dynamic '+:a'", "key 'foo'"}},
      {of(gptq + R"("rotation":"hadamard")"), {"key 'rotation': expected null, found \"hadamard\""}},
      {of(gptq + R"("is_marlin_format":true)"), {"key 'is_marlin_format': expected false, found true"}},
      {of(gptq + R"("data_type":"fp")"), {"key 'data_type': expected \"int\", found \"fp\""}},
      {of(gptq + R"("format":"marlin")"), {"checkpoint_format gptq or gptq_v2", "'marlin'"}},
      {of(gptq + R"("format":"gptq","checkpoint_format":"gptq_v2")"), {"format: expected 'gptq_v2'"}},
      {of(awq + R"("foo":1)"), {"key 'foo'"}},
      {of(awq + R"("modules_to_not_convert":[7])"), {"'modules_to_not_convert'", "an array of strings"}},
      {of(awq + R"("format":"gemv")"), {"version gemm", "'gemv'"}},
      {of(modelopt + R"("foo":1)"), {"key 'foo'"}},
      {of(R"("quant_method":"modelopt","foo":1,"quantization":{"quant_algo":"FP8"})"),
       {"expected one of producer, quantization, quant_method, found key 'foo'"}},
      {of(R"("quant_method":"modelopt","quantization":{"quant_algo":"FP8","foo":1})"),
       {": quantization: expected one of quant_algo", "key 'foo'"}},
      {of(R"("quant_algo":"MIXED_PRECISION","quantized_layers":{"a":{"quant_algo":"FP8","foo":1}})"),
       {"quantized_layers 'a': expected one of quant_algo", "key 'foo'"}},
      {of(modelopt + R"("kv_cache_quant_algo":"banana")"),
       {"kv_cache_quant_algo FP8, INT8, NVFP4 or NVFP4_AFFINE", "'banana'"}},
      {of(fp8 + R"("foo":1)"), {"key 'foo'"}},
      {of(fp8 + R"("scale_fmt":"e5m3")"), {"scale_fmt float or ue8m0", "'e5m3'"}},
      {of(fp8 + R"("expert_dtype":"fp4")"), {"'expert_dtype': expected \"fp8\", found \"fp4\""}},
      {of(fp8 + R"("kv_cache_scheme":"static")"), {"'kv_cache_scheme': expected null"}},
      {of(R"("quant_method":"mxfp4","foo":1)"), {"key 'foo'"}},
      {of(nf4 + R"("foo":1)"), {"key 'foo'"}},
      {of(nf4 + R"("load_in_8bit":true)"), {"'load_in_8bit': expected false, found true"}},
  };
  for (const auto& c : cases) {
    const std::string message = refusal([&] { parse(c.config); });
    EXPECT_TRUE(message.starts_with("config.json: quantization_config")) << c.config << message;
    expect_fragments(message, c.message);
  }
}

// Powers of two as scales of activations: not computed, and said so.
TEST(QuantConfig, Fp8ActivationsWithScalesOfPowersOfTwoStayAsTheyAre) {
  const auto c = parse(
      R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[128,128],"scale_fmt":"ue8m0"}})");
  EXPECT_EQ(c->schemes_for("x")[0]->numerics, Numerics::fp8_block(DType::f32));
}

TEST(QuantConfig, PatternsThatExplodeAreRefusedNotWaitedFor) {
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
  const auto back = QuantConfig::parse({{"quantization_config", c}}, "config.json");
  EXPECT_EQ(back->schemes_for("b")[0]->packing->name, "ct.int8");
  EXPECT_EQ(back->schemes_for("c")[0]->packing->name, "ct.pack32");
}

TEST(QuantConfig, Int8ActivationsPerTokenOrWithAStoredScale) {
  const std::string w8 =
      R"({"num_bits":8,"strategy":"channel"},"input_activations":{"num_bits":8,"type":"int",)";
  const auto scheme = [&](const std::string& activations) {
    return parse(config(w8 + activations, R"("int-quantized")"))->schemes_for("x")[0]->numerics;
  };
  EXPECT_EQ(scheme(R"("strategy":"token","dynamic":true})"), Numerics::w8a8());
  EXPECT_EQ(scheme(R"("strategy":"tensor","dynamic":false})"), Numerics::w8a8_static());
  EXPECT_EQ(scheme(R"("strategy":"tensor","observer":"minmax"})"), Numerics::w8a8_static());
  for (const char* other :
       {R"("strategy":"tensor","dynamic":true})", R"("strategy":"token","dynamic":false})",
        R"("strategy":"tensor","symmetric":false})", R"("strategy":"tensor","dynamic":"local"})"})
    EXPECT_THAT(refusal([&] { scheme(other); }), testing::HasSubstr("static per tensor")) << other;
  // W4A8: packed as we write it, and a byte for each code as llm-compressor does: then the same numbers of
  // int8.
  const std::string w4a8 =
      R"({"num_bits":4,"strategy":"group","group_size":32},"input_activations":{"num_bits":8,"type":"int",)"
      R"("strategy":"token","dynamic":true})";
  Numerics four = Numerics::integer(4, 32, false), eight = Numerics::integer(8, 32, false);
  four.activations = eight.activations = Numerics::Activations::int8_per_row;
  EXPECT_EQ(parse(config(w4a8, R"("pack-quantized")"))->schemes_for("x")[0]->numerics, four);
  EXPECT_EQ(parse(config(w4a8, R"("int-quantized")"))->schemes_for("x")[0]->numerics, eight);
  const std::string with_scale =
      R"({"num_bits":4,"strategy":"group","group_size":32},"input_activations":{"num_bits":8,"type":"int",)"
      R"("strategy":"tensor","dynamic":false})";
  const Numerics four_static = four.over(Activations::int8_static);
  EXPECT_EQ(parse(config(with_scale, R"("pack-quantized")"))->schemes_for("x")[0]->numerics, four_static);
  for (const auto& [n, stored_as] : {std::pair{Numerics::w8a8(), "ct.int8"},
                                     {four_static, "ct.pack32"},
                                     {Numerics::w8a8_static(), "ct.int8"},
                                     {four, "ct.pack32"},
                                     {eight, "ct.int8"}}) {
    const Json written = quantization_config({entry("a.weight", n, stored_as)});
    const auto back = QuantConfig::parse({{"quantization_config", written}}, "config.json");
    EXPECT_EQ(back->schemes_for("a")[0]->numerics, n);
  }
}

TEST(QuantConfig, Floats) {
  const auto scheme = [&](const std::string& weights, const std::string& format) {
    return parse(config(weights, '"' + format + '"'))->schemes_for("x")[0]->numerics;
  };
  const std::string fp8 = R"({"num_bits":8,"type":"float",)";
  EXPECT_EQ(scheme(fp8 + R"("strategy":"tensor"})", "float-quantized"), Numerics::fp8_tensor());
  EXPECT_EQ(scheme(fp8 + R"("strategy":"channel"})", "naive-quantized"), Numerics::fp8());
  EXPECT_EQ(scheme(fp8 + R"("strategy":"block","block_structure":[128,128]})", "float-quantized"),
            Numerics::fp8_block());
  EXPECT_EQ(scheme(fp8 + R"("strategy":"block","block_structure":"128x128"})", "float-quantized"),
            Numerics::fp8_block());
  EXPECT_EQ(scheme(fp8 + R"("strategy":"group","group_size":32})", "mxfp8-quantized"), Numerics::mxfp8());
  const std::string fp4 = R"({"num_bits":4,"type":"float",)";
  EXPECT_EQ(scheme(fp4 + R"("strategy":"group","group_size":32})", "mxfp4-pack-quantized"),
            Numerics::mxfp4());
  EXPECT_EQ(scheme(fp4 + R"("strategy":"tensor_group","group_size":16})", "nvfp4-pack-quantized"),
            Numerics::nvfp4());
  const auto hf = parse(
      R"({"quantization_config":{"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,64]}})");
  EXPECT_EQ(hf->schemes_for("x")[0]->numerics, Numerics::grid(Numerics::Kind::e4m3, 64, DType::f32, 128));
  EXPECT_EQ(hf->schemes_for("x")[0]->packing->name, "hf.fp8");
  const auto hf_scheme = [](const std::string& rest) {
    return parse(R"({"quantization_config":{"quant_method":"fp8",)" + rest + "}}")
        ->schemes_for("x")[0]
        ->numerics;
  };
  EXPECT_EQ(hf_scheme(R"("weight_block_size":[128,128])"),
            Numerics::fp8_block(DType::f32).over(Activations::fp8_groups));
  EXPECT_EQ(hf_scheme(R"("activation_scheme":"dynamic")"),
            Numerics::fp8_tensor(DType::f32).over(Activations::fp8_per_row));
  EXPECT_EQ(hf_scheme(R"("activation_scheme":"static")"),
            Numerics::fp8_tensor(DType::f32).over(Activations::fp8_static));
  EXPECT_THROW(hf_scheme(R"("activation_scheme":"none")"), InputError);
}

// input_activations as llm-compressor's presets write them: FP8_DYNAMIC, FP8, FP8_BLOCK, MXFP8, MXFP4, NVFP4.
TEST(QuantConfig, FloatActivations) {
  using A = Activations;
  const auto scheme = [&](const std::string& weights, const std::string& activations,
                          const std::string& format) {
    return parse(config(weights + R"(,"input_activations":)" + activations, '"' + format + '"'))
        ->schemes_for("x")[0]
        ->numerics;
  };
  const std::string fp8 = R"({"num_bits":8,"type":"float","strategy":)",
                    fp4 = R"({"num_bits":4,"type":"float","strategy":)";
  EXPECT_EQ(
      scheme(fp8 + R"("channel"})", fp8 + R"("token","dynamic":true,"symmetric":true})", "float-quantized"),
      Numerics::fp8().over(A::fp8_per_row));
  EXPECT_EQ(scheme(fp8 + R"("tensor"})", fp8 + R"("tensor","dynamic":false})", "float-quantized"),
            Numerics::fp8_tensor().over(A::fp8_static));
  EXPECT_EQ(scheme(fp8 + R"("block","block_structure":[128,128]})",
                   fp8 + R"("group","group_size":128,"dynamic":true})", "float-quantized"),
            Numerics::fp8_block().over(A::fp8_groups));
  const std::string of_32 = R"("group","group_size":32)";
  EXPECT_EQ(scheme(fp8 + of_32 + "}", fp8 + of_32 + R"(,"dynamic":true,"scale_dtype":"torch.uint8"})",
                   "mxfp8-quantized"),
            Numerics::mxfp8().over(A::mxfp8));
  EXPECT_EQ(scheme(fp4 + of_32 + "}", fp4 + of_32 + R"(,"dynamic":true})", "mxfp4-pack-quantized"),
            Numerics::mxfp4().over(A::mxfp4));
  const std::string of_16 = R"("tensor_group","group_size":16)";
  EXPECT_EQ(scheme(fp4 + of_16 + "}", fp4 + of_16 + R"(,"dynamic":"local"})", "nvfp4-pack-quantized"),
            Numerics::nvfp4().over(A::nvfp4));
  EXPECT_EQ(scheme(R"({"num_bits":4,"strategy":"group","group_size":128})",
                   fp8 + R"("token","dynamic":true})", "pack-quantized"),  // W4AFP8
            Numerics::integer(4, 128, false).over(A::fp8_per_row));
  // What nobody computes here stays as it is: a scale of all rows that run at once, floats of 6 bits.
  for (const std::string& other :
       {fp8 + R"("tensor","dynamic":true})", fp8 + R"("group","group_size":64,"dynamic":true})",
        fp8 + R"("token","dynamic":false})",
        std::string(R"({"num_bits":6,"type":"float","strategy":"token","dynamic":true})")})
    EXPECT_EQ(scheme(fp8 + R"("channel"})", other, "float-quantized"), Numerics::fp8()) << other;
}

TEST(QuantConfig, WhatIsWrittenForFloatsIsReadBack) {
  for (const auto& [weights, name, format] : {std::tuple{Numerics::fp8(), "ct.fp8", "float-quantized"},
                                              {Numerics::fp8_tensor(), "ct.fp8", "float-quantized"},
                                              {Numerics::fp8_block(), "ct.fp8", "float-quantized"},
                                              {Numerics::mxfp8(), "ct.mxfp8", "mxfp8-quantized"},
                                              {Numerics::mxfp4(), "ct.mxfp4", "mxfp4-pack-quantized"},
                                              {Numerics::nvfp4(), "ct.nvfp4", "nvfp4-pack-quantized"}})
    for (const Activations to :
         {Activations::as_they_are, Activations::fp8_per_row, Activations::fp8_static,
          Activations::fp8_groups, Activations::mxfp8, Activations::mxfp4, Activations::nvfp4}) {
      const Numerics numerics = weights.over(to);
      if (!packing(name).holds(numerics)) continue;  // nvfp4 activations beside fp8
      const Json c = quantization_config({{"a.weight", numerics, &packing(name), {256, 256}}});
      EXPECT_EQ(c["format"], format);
      const auto back = QuantConfig::parse({{"quantization_config", c}}, "c");
      EXPECT_EQ(back->schemes_for("a")[0]->numerics, numerics) << format;
      EXPECT_EQ(back->schemes_for("a")[0]->packing->name, name);
    }
  EXPECT_THROW(
      quantization_config({entry("a.weight", Numerics::mxfp8().over(Activations::mxfp8_rceil), "ct.mxfp8")}),
      InputError);  // a rule that only ModelOpt has
  const Json nf4 =
      quantization_config({{"a.weight", Numerics::nf4(), &packing("bnb.nf4"), {256, 256}},
                           {"head.weight", Numerics::dense(DType::bf16), &packing("dense"), {9, 9}}});
  EXPECT_EQ(nf4["quant_method"], "bitsandbytes");
  EXPECT_EQ(nf4["llm_int8_skip_modules"], Json::array({"head"}));
  EXPECT_EQ(QuantConfig::parse({{"quantization_config", nf4}}, "c")->schemes_for("a")[0]->packing->name,
            "bnb.nf4");
  EXPECT_THROW(quantization_config({{"a.weight", Numerics::nf4(), &packing("bnb.nf4"), {256, 256}},
                                    {"b.weight", Numerics::fp8(), &packing("ct.fp8"), {256, 256}}}),
               InputError);
}

}  // namespace
}  // namespace lathe
