// Directories that other tools wrote: tensors of their names become entries, in their numbers, or are refused
// by name.
#include <bit>
#include <gmock/gmock.h>
#include <numeric>

#include "core/float.h"
#include "io/checkpoint.h"
#include "io/directory.h"

namespace lathe {
namespace {

using testing::Each;
using testing::ElementsAre;

std::string method(const std::string& text) { return "{\"quantization_config\":{" + text + "}}"; }

template <class T>
std::string bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// All tensors with their bytes.
struct Given {
  std::string name, dtype, shape, data;
};
std::string file_with(const std::vector<Given>& given) {
  Tensors tensors;
  std::string data;
  for (const Given& g : given) {
    tensors.emplace_back(g.name, g.dtype, g.shape, g.data.size());
    data += g.data;
  }
  return file_of(tensors, data);
}

struct Opened {
  testing_support::TemporaryDirectory dir;
  Checkpoint checkpoint;

  Opened(const std::string& config, const std::vector<Given>& given, const std::string& beside,
         const std::string& beside_text)
      : checkpoint([&] {
          dir.put("config.json", config);
          if (!beside.empty()) dir.put(beside, beside_text);
          dir.put("model.safetensors", file_with(given));
          return Checkpoint::open(dir.path());
        }()) {}
};
Opened open(const std::string& config, const std::vector<Given>& given, const std::string& beside = "",
            const std::string& beside_text = "") {
  return {config, given, beside, beside_text};
}

const std::string ones_f16 = bytes(std::vector<uint16_t>(64, 0x3c00)).substr(0, 64);  // 32 numbers

// Module "m" of 32 x 32, all codes 9 and all zero points `zero` as stored.
std::vector<Given> gptq(uint32_t zero) {
  return {{"m.qweight", "I32", "[4,32]", bytes(std::vector<uint32_t>(128, 0x99999999))},
          {"m.qzeros", "I32", "[1,4]", bytes(std::vector<uint32_t>(4, zero))},
          {"m.scales", "F16", "[1,32]", ones_f16}};
}
const std::string gptq4 = R"("quant_method":"gptq","bits":4,"group_size":-1,)";

TEST(Gptq, VersionsDifferInTheirZeroPoints) {
  for (const auto& [more, stored, expected] :
       {std::tuple{R"("sym":true)", 0x77777777u, 1.0f},
        {R"("sym":true,"checkpoint_format":"gptq_v2")", 0x88888888u, 1.0f},
        {R"("sym":false)", 0x33333333u, 5.0f},
        {R"("sym":false,"checkpoint_format":"gptq_v2")", 0x33333333u, 6.0f}}) {
    SCOPED_TRACE(more);
    const auto opened = open(method(gptq4 + more), gptq(stored));
    const Checkpoint& c = opened.checkpoint;
    ASSERT_EQ(c.entries().size(), 1u);
    const Entry& e = *c.find("m.weight");
    EXPECT_EQ(e.numerics, Numerics::integer(4, 0, expected != 1, DType::f16));
    EXPECT_EQ(e.shape, (Shape{32, 32}));
    const Weight w = c.load("m.weight");
    check_parts(w, "m");
    EXPECT_THAT(read_all(w), Each(expected));
    c.forget("m.weight");
  }
}

TEST(Gptq, ConfigsBesideConfigJsonAndOverrides) {
  const std::string config = R"({"bits":8,"group_size":16,"sym":false,"desc_act":false,"dynamic":{
      "-:.*head":{},"+:m":{"bits":4,"group_size":32},"n":{"sym":false}}})";
  const auto opened = open("{}", gptq(0x33333333), "quantize_config.json", config);
  EXPECT_EQ(opened.checkpoint.find("m.weight")->numerics, Numerics::integer(4, 32, true, DType::f16));
}

TEST(Gptq, ColumnsInActivationOrder) {
  std::vector<int32_t> order(32), runs(32);
  for (int k = 0; k < 32; ++k) order[static_cast<size_t>(k)] = k % 2, runs[static_cast<size_t>(k)] = k / 16;
  std::vector<Given> given = gptq(0);
  std::vector<uint16_t> scales(64, 0x3c00);
  std::fill_n(scales.begin() + 32, 32, uint16_t{0x4000});  // the second group: 2
  given[1] = {"m.qzeros", "I32", "[2,4]", bytes(std::vector<uint32_t>(8, 0x77777777))};
  given[2] = {"m.scales", "F16", "[2,32]", bytes(scales)};
  given.push_back({"m.g_idx", "I32", "[32]", bytes(order)});
  const std::string config =
      method(R"("quant_method":"gptq","bits":4,"group_size":16,"sym":true,"desc_act":true)");
  {
    const auto opened = open(config, given);
    const Weight w = opened.checkpoint.load("m.weight");
    EXPECT_TRUE(w.numerics.act_order);
    EXPECT_EQ(to_string(w.numerics), "int4 g16 act-order");
    const std::vector<float> values = read_all(w);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i % 2 ? 2 : 1);
  }
  given[3].data = bytes(runs);
  EXPECT_FALSE(open(config, given).checkpoint.find("m.weight")->numerics.act_order);
  given[3].data = bytes(std::vector<int32_t>(32, -1));  // as where there is none
  EXPECT_FALSE(open(config, given).checkpoint.find("m.weight")->numerics.act_order);
}

TEST(CompressedTensors, ColumnsInActivationOrderAreReadAndKept) {
  std::vector<int32_t> order(64);
  for (int k = 0; k < 64; ++k) order[static_cast<size_t>(k)] = 1 - k % 2;
  const auto opened = open(
      R"({"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"g":{"targets":["Linear"],
      "weights":{"num_bits":4,"strategy":"group","group_size":32,"symmetric":true,"actorder":"group"}}}}})",
      {{"m.weight_packed", "I32", "[1,8]", bytes(std::vector<uint32_t>(8, 0x99999999))},
       {"m.weight_scale", "F32", "[1,2]", bytes(std::vector<float>{1, 3})},
       {"m.weight_g_idx", "I32", "[64]", bytes(order)}});
  const Weight w = opened.checkpoint.load("m.weight");
  EXPECT_TRUE(w.numerics.act_order);
  const std::vector<float> values = read_all(w);
  for (size_t i = 0; i < 64; ++i) ASSERT_EQ(values[i], i % 2 ? 1 : 3);
}

TEST(CompressedTensors, TwoPackingsOfThreeBits) {
  const auto config = [](const std::string& version) {
    return R"({"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized",)" +
           version +
           R"("config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":3,"strategy":"channel"}}}}})";
  };
  const std::string scale = bytes(std::vector<float>{1}), shape = le<int64_t>(1) + le<int64_t>(32);
  const std::vector<uint32_t> stream = {0x88FAC688, 0xC688FAC6, 0xFAC688FA},
                              whole = {0x08FAC688, 0x1A23EB1A, 0x2C688FAC, 0x0000003E};
  const auto tensors = [&](const std::vector<uint32_t>& words, bool with_shape) {
    std::vector<Given> out = {{"m.weight_packed", "I32", fmt::format("[1,{}]", words.size()), bytes(words)},
                              {"m.weight_scale", "F32", "[1,1]", scale}};
    if (with_shape) out.push_back({"m.weight_shape", "I64", "[2]", shape});
    return out;
  };
  std::vector<float> expected;
  for (int i = 0; i < 32; ++i) expected.push_back(static_cast<float>(i % 8 - 4));
  // The number of columns tells, whatever the version; without it the version does.
  for (const char* version : {"", R"("version":"0.17.1",)", R"("version":"0.18.0",)", R"("version":"1.0",)"})
    for (const auto& [words, name] : {std::pair{stream, "ct.pack32"}, {whole, "ct.words32"}}) {
      SCOPED_TRACE(fmt::format("{} {}", version, name));
      const auto opened = open(config(version), tensors(words, true));
      const Weight w = opened.checkpoint.load("m.weight");
      EXPECT_EQ(w.packing->name, name);
      EXPECT_EQ(read_all(w), expected);
    }
  EXPECT_EQ(open(config(R"("version":"0.17.1",)"), tensors(whole, false)).checkpoint.find("m.weight")->shape,
            (Shape{1, 40}));
  EXPECT_EQ(open(config(""), tensors(stream, false)).checkpoint.find("m.weight")->shape, (Shape{1, 32}));
}

// A tensor of another scheme in a quantized module would mean other numbers.
TEST(CompressedTensors, TensorsOfOtherSchemesAreErrors) {
  const auto config = [](const std::string& format, const std::string& weights,
                         const std::string& activations = "null", const std::string& more = "") {
    return R"({"quantization_config":{"quant_method":"compressed-tensors","format":")" + format + "\"" +
           more + R"(,"config_groups":{"g":{"targets":["Linear"],"weights":)" + weights +
           R"(,"input_activations":)" + activations + "}}}}";
  };
  const std::string one = bytes(std::vector<float>{1}), channel = R"({"num_bits":4,"strategy":"channel"})",
                    eight = R"({"num_bits":8,"strategy":"channel"})",
                    given = R"({"num_bits":8,"strategy":"tensor","dynamic":false})";
  const std::vector<Given> packed = {{"a.k_proj.weight_packed", "I32", "[1,1]", std::string(4, '\x99')},
                                     {"a.k_proj.weight_scale", "F32", "[1,1]", one}},
                           int8 = {{"a.k_proj.weight", "I8", "[1,8]", std::string(8, '\x01')},
                                   {"a.k_proj.weight_scale", "F32", "[1,1]", one}};
  const auto and_also = [](std::vector<Given> out, const std::vector<Given>& more) {
    out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  const auto files = [](const std::string& text, const std::vector<Given>& tensors) {
    return std::vector<std::pair<std::string, std::string>>{{"config.json", text},
                                                            {"model.safetensors", file_with(tensors)}};
  };
  const Given input{"a.k_proj.input_scale", "F32", "[1]", one};
  const auto zero_point = [](char zero) {
    return Given{"a.k_proj.input_zero_point", "I8", "[1]", std::string(1, zero)};
  };
  std::vector<Attack> attacks;
  const std::string w4 = config("pack-quantized", channel), w8 = config("int-quantized", eight),
                    w8a8 = config("int-quantized", eight, given);
  for (const char* part : {"weight_scale_2", "weight_global_scale", "input_scale", "input_global_scale",
                           "output_scale", "output_zero_point", "scales", "qzeros", "weight.absmax"})
    attacks.push_back({part,
                       files(w4, and_also(packed, {{fmt::format("a.k_proj.{}", part), "F32", "[1]", one}})),
                       {"module 'a.k_proj': expected tensors of int4 (ct.pack32, as g says), found",
                        fmt::format("found {} too", part)}});
  attacks.push_back({"g_idx",
                     files(w4, and_also(packed, {{"a.k_proj.g_idx", "I32", "[8]", std::string(32, '\0')}})),
                     {"module 'a.k_proj'", "found g_idx too"}});
  attacks.push_back({"a zero point of activations",
                     files(w8a8, and_also(int8, {input, zero_point(5)})),
                     {"module 'a.k_proj'", "found input_zero_point too"}});
  attacks.push_back({"a scale of activations that are not rounded",
                     files(w8, and_also(int8, {input})),
                     {"module 'a.k_proj'", "found input_scale too"}});
  attacks.push_back(
      {"columns in another order beside int8",
       files(config("int-quantized", R"({"num_bits":8,"strategy":"group","group_size":4})"),
             {int8[0],
              {"a.k_proj.weight_scale", "F32", "[1,2]", one + one},
              {"a.k_proj.weight_g_idx", "I32", "[8]", bytes(std::vector<int32_t>{1, 1, 1, 1, 0, 0, 0, 0})}}),
       {"module 'a.k_proj'", "found weight_g_idx too"}});
  expect_refused(attacks);
  // Those that mean nothing more: zero points of zero; scales where the config has floats that are not
  // computed; groups that are runs; scales of keys as they were stored before 0.8.
  open(w8a8, and_also(int8, {input, zero_point(0)}));
  open(config("int-quantized", eight, R"({"num_bits":6,"type":"float","strategy":"tensor"})"),
       and_also(int8, {input}));
  open(w8, and_also(int8, {{"a.k_proj.weight_g_idx", "I32", "[8]", std::string(32, '\0')}}));
  const auto cache =
      open(config("int-quantized", eight, "null",
                  R"(,"kv_cache_scheme":{"num_bits":8,"type":"float","strategy":"tensor"})"),
           and_also(int8, {{"a.k_proj.output_scale", "F32", "[1]", one},
                           {"a.k_proj.output_zero_point", "F32", "[1]", std::string(4, '\0')}}));
  EXPECT_NE(cache.checkpoint.find("a.k_scale"), nullptr);
}

TEST(Awq, Opens) {
  const std::vector<Given> given = {
      {"m.qweight", "I32", "[32,1]", bytes(std::vector<uint32_t>(32, 0x75316420))},
      {"m.qzeros", "I32", "[2,1]", bytes(std::vector<uint32_t>{0, 0x75316420})},
      {"m.scales", "F16", "[2,8]", ones_f16.substr(0, 32)},
      {"m.bias", "F16", "[8]", ones_f16.substr(0, 16)}};
  const auto opened = open("{}", given, "quant_config.json",
                           R"({"zero_point":true,"q_group_size":16,"w_bit":4,"version":"GEMM"})");
  const Checkpoint& c = opened.checkpoint;
  ASSERT_EQ(c.entries().size(), 2u);
  EXPECT_EQ(c.find("m.weight")->numerics, Numerics::integer(4, 16, true, DType::f16));
  const std::vector<float> values = read_all(c.load("m.weight"));
  for (size_t n = 0; n < 8; ++n)
    for (size_t k = 0; k < 32; ++k) ASSERT_EQ(values[32 * n + k], k < 16 ? n : 0);
  // Without zero points all are 8.
  const auto symmetric = open(method(R"("quant_method":"awq","bits":4,"group_size":16,"zero_point":false)"),
                              {given[0], given[2]});
  EXPECT_EQ(read_all(symmetric.checkpoint.load("m.weight"))[0], -8);
}

TEST(GptqAndAwq, RefuseWhatDoesNotFit) {
  const auto files = [](const std::string& more, const std::vector<Given>& given) {
    return std::vector<std::pair<std::string, std::string>>{{"config.json", method(gptq4 + more)},
                                                            {"model.safetensors", file_with(given)}};
  };
  const std::vector<Given> good = gptq(0x77777777);
  const auto with = [&](size_t i, const Given& other) {
    std::vector<Given> out = good;
    out[i] = other;
    return out;
  };
  const auto and_also = [&](const Given& other) {
    std::vector<Given> out = good;
    out.push_back(other);
    return out;
  };
  expect_refused({
      {"zero points of the other version",
       files(R"("sym":true)", gptq(0x88888888)),
       {"module 'm': qzeros", "words 77777777", "88888888", "checkpoint_format"}},
      {"zero points of another width",
       files(R"("sym":true)", with(1, {"m.qzeros", "I32", "[1,3]", std::string(12, 'w')})),
       {"module 'm': qzeros", "i32 [1, 4]", "i32 [1, 3]"}},
      {"no zero points", files(R"("sym":false)", {good[0], good[2]}), {"module 'm'", "qzeros", "none"}},
      {"no scales", files("\"sym\":true", {good[0], good[1]}), {"module 'm'", "tensor scales", "none"}},
      {"scales of another shape",
       files("\"sym\":true", with(2, {"m.scales", "F16", "[2,16]", ones_f16})),
       {"module 'm': scales", "f16 [1, 32]", "f16 [2, 16]"}},
      {"integer scales",
       files("\"sym\":true", with(2, {"m.scales", "I16", "[1,32]", ones_f16})),
       {"module 'm': scales", "f32, f16 or bf16", "i16"}},
      {"rows that fill no words",
       files("\"sym\":true", with(0, {"m.qweight", "I32", "[4,31]", std::string(496, 'w')})),
       {"module 'm'", "gptq.v1", "[31, 32]"}},
      {"columns that fill no words",
       files("\"sym\":true", with(0, {"m.qweight", "I32", "[3,32]", std::string(384, 'w')})),
       {"module 'm'", "gptq.v1", "[32, 24]"}},
      {"codes in bytes",
       files("\"sym\":true", with(0, {"m.qweight", "U8", "[16,32]", std::string(512, 'w')})),
       {"module 'm'", "qweight i32 (gptq.v1, as gptq says)", "qweight u8"}},
      {"both weights",
       files("\"sym\":true", and_also({"m.weight", "F16", "[1,32]", ones_f16})),
       {"module 'm'", "one of weight and qweight", "both"}},
      {"a group that is none",
       files("\"sym\":true", and_also({"m.g_idx", "I32", "[32]", bytes(std::vector<int32_t>(32, 1))})),
       {"module 'm': g_idx", "groups from 0 to 0", "1 for column 0"}},
      {"a group for half the columns",
       files("\"sym\":true", and_also({"m.g_idx", "I32", "[16]", std::string(64, '\0')})),
       {"module 'm': g_idx", "i32 [32]", "i32 [16]"}},
      {"no config",
       {{"config.json", "{}"}, {"model.safetensors", file_with(good)}},
       {"config.json", "a quantization_config that explains qweight of 'm'"}},
      {"another method's tensors",
       {{"config.json", method(R"("quant_method":"fp8","weight_block_size":[128,128])")},
        {"model.safetensors", file_with(good)}},
       {"module 'm'", "weight f8e4m3 (hf.fp8, as fp8 says)", "qweight i32"}},
  });
}

TEST(ModelOpt, OpensWhatItsExportWrites) {
  const std::string one = bytes(std::vector<float>{1}), half = bytes(std::vector<float>{0.5f});
  const std::string fp8(32, '\x38');  // 32 ones
  const std::vector<Given> per_tensor = {{"m.weight", "F8_E4M3", "[2,16]", fp8},
                                         {"m.weight_scale", "F32", "[]", half},
                                         {"m.input_scale", "F32", "[]", one},
                                         {"m.bias", "F32", "[]", one}};
  {
    const auto opened = open(
        "{}", per_tensor, "hf_quant_config.json",
        R"({"producer":{"name":"modelopt"},"quantization":{"quant_algo":"FP8","kv_cache_quant_algo":null,"exclude_modules":["lm_head"]}})");
    EXPECT_EQ(opened.checkpoint.find("m.weight")->numerics,
              Numerics::fp8_tensor(DType::f32).over(Activations::fp8_static));
    EXPECT_EQ(opened.checkpoint.entries().size(), 2u);
    EXPECT_THAT(read_all(opened.checkpoint.load("m.weight")), Each(0.5f));
    EXPECT_EQ(input_scale(opened.checkpoint.load("m.weight")), 1);
  }
  {  // Without its scale the input stays as it is.
    const auto opened = open(method(R"("quant_method":"modelopt","quant_algo":"FP8")"),
                             {per_tensor[0], per_tensor[1], per_tensor[3]});
    EXPECT_EQ(opened.checkpoint.find("m.weight")->numerics, Numerics::fp8_tensor(DType::f32));
  }
  {
    const auto opened = open(method(R"("quant_method":"modelopt","quant_algo":"FP8_PER_CHANNEL_PER_TOKEN")"),
                             {per_tensor[0], {"m.weight_scale", "F32", "[2]", one + half}});
    const std::vector<float> values = read_all(opened.checkpoint.load("m.weight"));
    EXPECT_EQ(values[0], 1);
    EXPECT_EQ(values[16], 0.5f);
    EXPECT_EQ(opened.checkpoint.find("m.weight")->numerics,
              Numerics::fp8(DType::f32).over(Activations::fp8_per_row));
  }
  {
    const auto opened = open(method(R"("quant_method":"modelopt","quant_algo":"FP8_PB_WO")"),
                             {per_tensor[0], {"m.weight_scale", "F32", "[1,1,1,1]", half}});
    EXPECT_EQ(opened.checkpoint.find("m.weight")->numerics, Numerics::fp8_block(DType::f32));
    EXPECT_THAT(read_all(opened.checkpoint.load("m.weight")), Each(0.5f));
  }
  {  // The cache's scales are entries of the attention.
    const auto opened = open(
        method(R"("quant_algo":"NVFP4","group_size":16,"kv_cache_scheme":{"num_bits":8,"type":"float"})"),
        {{"a.k_proj.weight", "U8", "[2,8]", std::string(16, '\x22')},
         {"a.k_proj.weight_scale", "F8_E4M3", "[2,1]", "\x38\x40"},
         {"a.k_proj.weight_scale_2", "F32", "[]", half},
         {"a.k_proj.input_scale", "F32", "[]", one},
         {"a.k_proj.k_scale", "F32", "[]", one}});
    ASSERT_EQ(opened.checkpoint.entries().size(), 2u);
    const Weight w = opened.checkpoint.load("a.k_proj.weight");
    EXPECT_EQ(w.numerics, Numerics::nvfp4().over(Activations::nvfp4));
    EXPECT_EQ(input_scale(w), 1);
    const std::vector<float> values = read_all(w);
    EXPECT_EQ(values[0], 0.5f);
    EXPECT_EQ(values[16], 1);
    EXPECT_EQ(opened.checkpoint.cache().numerics, CacheNumerics::fp8);
    EXPECT_THAT(read_all(opened.checkpoint.load("a.k_scale")), ElementsAre(1));
  }
  {  // Scales of columns are stored in the model's type.
    const auto opened = open(
        method(
            R"("quant_method":"modelopt","quant_algo":"W4A16_AWQ","group_size":2,"has_zero_point":false,"pre_quant_scale":true)"),
        {{"m.weight", "U8", "[1,2]", "\x78\xf3"},
         {"m.weight_scale", "F32", "[2,1]", one + half},
         {"m.pre_quant_scale", "BF16", "[2]", bytes(std::vector<uint16_t>{0x3f00, 0x4040})}});
    const Weight w = opened.checkpoint.load("m.weight");
    EXPECT_TRUE(w.numerics.column_scales);
    EXPECT_THAT(read_all(w), ElementsAre(-4, 9, 1.75f, -1.5f));
  }
  {  // Layers by name; the rest is as it is.
    const auto opened =
        open(method(R"("quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{
               "m":{"quant_algo":"FP8"},"n":{"quant_algo":"W4A16_AWQ","group_size":2}})"),
             {per_tensor[0],
              per_tensor[1],
              {"n.weight", "U8", "[1,2]", "\x78\xf3"},
              {"n.weight_scale", "F32", "[2,1]", one + half},
              {"o.weight", "F32", "[1]", one}});
    EXPECT_EQ(opened.checkpoint.find("m.weight")->packing->name, "modelopt.fp8");
    EXPECT_EQ(opened.checkpoint.find("n.weight")->packing->name, "modelopt.int4");
    EXPECT_EQ(opened.checkpoint.find("o.weight")->packing->name, "dense");
  }
}

// The kernels of other formats' pre_quant_scale: x is multiplied first, so that the weight is.
TEST(ModelOpt, ScalesOfColumnsWhereItsAlgorithmsHaveThem) {
  const std::string one = bytes(std::vector<float>{1}), half = bytes(std::vector<float>{0.5f});
  std::vector<uint16_t> ramp;  // bf16 1, 2, 1, 2, ...
  for (int k = 0; k < 16; ++k) ramp.push_back(k % 2 ? 0x4000 : 0x3f80);
  const Given scales{"m.pre_quant_scale", "BF16", "[16]", bytes(ramp)};
  {
    const auto opened = open(
        "{}",
        {{"m.weight", "U8", "[1,8]", std::string(8, '\x22')},
         {"m.weight_scale", "F8_E4M3", "[1,1]", "\x38"},
         {"m.weight_scale_2", "F32", "[]", half},
         {"m.input_scale", "F32", "[]", one},
         scales},
        "hf_quant_config.json",
        R"({"quantization":{"quant_algo":"NVFP4_AWQ","group_size":16,"has_zero_point":false,"pre_quant_scale":true}})");
    const Weight w = opened.checkpoint.load("m.weight");
    EXPECT_EQ(to_string(w.numerics), "nvfp4 anvfp4 column scales");
    EXPECT_EQ(input_scale(w), 1);
    const std::vector<float> values = read_all(w);
    for (size_t k = 0; k < 16; ++k) EXPECT_EQ(values[k], k % 2 ? 1 : 0.5f);
  }
  {  // The second scale is that of a product in fp8, which nobody computes here.
    const auto opened = open(method(R"("quant_method":"modelopt","quant_algo":"W4A8_AWQ","group_size":16)"),
                             {{"m.weight", "U8", "[1,16]", std::string(16, '\x31')},
                              {"m.weight_scale", "F32", "[2,1]", one + half},
                              {"m.weight_scale_2", "F32", "[]", half},
                              {"m.input_scale", "F32", "[]", half},
                              scales});
    const std::vector<float> values = read_all(opened.checkpoint.load("m.weight"));
    EXPECT_EQ(values[0], 1);
    EXPECT_EQ(values[1], 2);
    EXPECT_EQ(values[16], 1.5f);
    EXPECT_EQ(values[17], 3);
  }
  const std::string codes(32, '\x03');
  {
    const auto opened =
        open(method(R"("quant_method":"modelopt","quant_algo":"W8A16")"),
             {{"m.weight", "I8", "[2,16]", codes}, {"m.weight_scale", "F32", "[2]", one + half}});
    const Weight w = opened.checkpoint.load("m.weight");
    EXPECT_EQ(w.numerics, Numerics::integer(8, 0, false, DType::f32));
    EXPECT_EQ(read_all(w)[31], 1.5f);
  }
  {
    const auto opened = open(method(R"("quant_method":"modelopt","quant_algo":"W8A8_SQ_PER_CHANNEL")"),
                             {{"m.weight", "I8", "[2,16]", codes},
                              {"m.weight_scale", "F32", "[2,1]", one + half},
                              {"m.input_scale", "F32", "[]", half},
                              scales});
    const Weight w = opened.checkpoint.load("m.weight");
    EXPECT_EQ(w.numerics, Numerics::w8a8_static(DType::f32).with_column_scales());
    EXPECT_EQ(input_scale(w), 0.5f);
    EXPECT_EQ(read_all(w)[31], 3);
  }
}

// y = NVFP4(x s) + (x s) A^T B^T, s the pre_quant_scale: factors become those of a correction, A with s.
TEST(ModelOpt, LowRankFactorsAreCorrections) {
  const std::string half = bytes(std::vector<float>{0.5f});
  std::vector<uint16_t> twos(16, 0x4000), a;
  for (uint16_t k = 0; k < 32; ++k) a.push_back(k < 16 ? 0x3f80 : 0x3f00);
  for (const std::string prefix : {"m.svdquant_lora_", "m.weight_quantizer._svdquant_lora_"}) {
    std::vector<Given> given = {{"m.weight", "U8", "[1,8]", std::string(8, '\x22')},
                                {"m.weight_scale", "F8_E4M3", "[1,1]", "\x38"},
                                {"m.weight_scale_2", "F32", "[]", half},
                                {prefix + "a", "BF16", "[2,16]", bytes(a)},
                                {prefix + "b", "BF16", "[1,2]", bytes(std::vector<uint16_t>{0x3f80, 0x4080})},
                                {"m.pre_quant_scale", "BF16", "[16]", bytes(twos)}};
    const std::string config = method(
        R"("quant_method":"modelopt","quant_algo":"NVFP4_SVD","group_size":16,"pre_quant_scale":true,"lora_rank":2)");
    {
      const auto opened = open(config, given);
      ASSERT_EQ(opened.checkpoint.entries().size(), 3u);
      EXPECT_EQ(read_all(opened.checkpoint.load("m.weight"))[0], 1);
      const Weight down = opened.checkpoint.load("m.low_rank.a"), up = opened.checkpoint.load("m.low_rank.b");
      check_parts(down, "a");
      EXPECT_EQ(down.bytes(), opened.checkpoint.find("m.low_rank.a")->bytes);
      EXPECT_EQ(down.shape, (Shape{2, 16}));
      const std::vector<float> values = read_all(down);
      for (size_t i = 0; i < 32; ++i) EXPECT_EQ(values[i], i < 16 ? 2 : 1);
      EXPECT_THAT(read_all(up), ElementsAre(1, 4));
    }
    given.pop_back();  // smoothed by nothing
    {
      const auto opened = open(config, given);
      EXPECT_EQ(read_all(opened.checkpoint.load("m.low_rank.a"))[31], 0.5f);
    }
    given.resize(3);  // a layer that was not decomposed
    EXPECT_EQ(open(config, given).checkpoint.entries().size(), 1u);
  }
}

TEST(ModelOpt, RefusesWhatDoesNotFit) {
  const auto files = [](const std::string& algorithm, const Tensors& tensors) {
    return std::vector<std::pair<std::string, std::string>>{
        {"config.json", method("\"quant_method\":\"modelopt\"," + algorithm)},
        {"model.safetensors", file_of(tensors)}};
  };
  const Tensors nvfp4 = {{"m.weight", "U8", "[2,8]", 16}, {"m.weight_scale", "F8_E4M3", "[2,1]", 2}};
  const auto plus = [](Tensors t, const Tensors& more) {
    t.insert(t.end(), more.begin(), more.end());
    return t;
  };
  const std::string algorithm = R"("quant_algo":"NVFP4")", svd = R"("quant_algo":"NVFP4_SVD")";
  const Tensors scaled = plus(nvfp4, {{"m.weight_scale_2", "F32", "[]", 4}});
  expect_refused({
      {"no second scale", files(algorithm, nvfp4), {"module 'm'", "weight_scale_2", "none"}},
      {"a second scale for each row",
       files(algorithm, plus(nvfp4, {{"m.weight_scale_2", "F32", "[2]", 8}})),
       {"module 'm': weight_scale_2", "f32 []", "f32 [2]"}},
      {"scales of columns beside NVFP4",
       files(algorithm,
             plus(nvfp4, {{"m.weight_scale_2", "F32", "[]", 4}, {"m.pre_quant_scale", "F32", "[16]", 64}})),
       {"module 'm'", "no pre_quant_scale beside nvfp4"}},
      {"half a correction",
       files(svd, plus(scaled, {{"m.svdquant_lora_a", "BF16", "[1,16]", 32}})),
       {"module 'm'", "tensor svdquant_lora_b", "none"}},
      {"a factor of another layer",
       files(svd, plus(scaled, {{"m.svdquant_lora_a", "BF16", "[1,8]", 16},
                                {"m.svdquant_lora_b", "BF16", "[2,1]", 4}})),
       {"module 'm': svdquant_lora_a", "floats [rank, 16]", "bf16 [1, 8]"}},
      {"two corrections",
       files(svd, plus(scaled, {{"m.svdquant_lora_a", "BF16", "[1,16]", 32},
                                {"m.svdquant_lora_b", "BF16", "[2,1]", 4},
                                {"m.low_rank.a", "BF16", "[1,16]", 32}})),
       {"module 'm'", "one low-rank correction", "two"}},
      {"scales of other columns",
       files(R"("quant_algo":"NVFP4_AWQ")", plus(scaled, {{"m.pre_quant_scale", "F32", "[8]", 32}})),
       {"module 'm': pre_quant_scale", "f32 [16]", "f32 [8]"}},
      {"static activations without their scale",
       files(R"("quant_algo":"W8A8_SQ_PER_CHANNEL")",
             {{"m.weight", "I8", "[2,16]", 32}, {"m.weight_scale", "F32", "[2]", 8}}),
       {"module 'm'", "tensor input_scale", "none"}},
      {"FP8 by its config",
       files(R"("quant_algo":"FP8")", nvfp4),
       {"weight f8e4m3 (modelopt.fp8, as FP8 says)", "weight u8"}},
      {"a second scale beside FP8",
       files(R"("quant_algo":"FP8_PB_WO")", {{"m.weight", "F8_E4M3", "[2,16]", 32},
                                             {"m.weight_scale", "F32", "[1,1,1,1]", 4},
                                             {"m.weight_scale_2", "F32", "[]", 4}}),
       {"module 'm'", "(modelopt.fp8, as FP8_PB_WO says)", "weight_scale_2 too"}},
      {"a layer that nobody names",
       files(R"("quant_algo":"MIXED_PRECISION","quantized_layers":{"n":{"quant_algo":"NVFP4"}})", nvfp4),
       {"module 'm'", "a config group that targets it"}},
      {"scales of the cache that no config announces",
       files(algorithm, {{"m.weight", "F32", "[]", 4}, {"k_proj.weight_scale", "F32", "[]", 4}}),
       {"module 'k_proj'", "neither"}},
  });
}

TEST(HfFp8, BlocksAreRaggedAndInvertedScalesMultiply) {
  std::string weights(130 * 130, '\x38');  // ones
  std::vector<float> scales = {2, 3, 5, 7};
  const auto opened = open(
      method(
          R"("quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,128],"modules_to_not_convert":["lm_head"])"),
      {{"m.weight", "F8_E4M3", "[130,130]", weights},
       {"m.weight_scale_inv", "F32", "[2,2]", bytes(scales)},
       {"lm_head.weight", "BF16", "[2]", std::string(4, '\0')}});
  const Checkpoint& c = opened.checkpoint;
  EXPECT_EQ(c.find("m.weight")->numerics, Numerics::fp8_block(DType::f32).over(Activations::fp8_groups));
  EXPECT_EQ(c.find("lm_head.weight")->packing->name, "dense");
  const std::vector<float> values = read_all(c.load("m.weight"));
  for (size_t r = 0; r < 130; ++r)
    for (size_t k = 0; k < 130; ++k) ASSERT_EQ(values[130 * r + k], scales[2 * (r / 128) + k / 128]);
  // One scale, for the tensor, has the other name.
  const auto whole = open(method(R"("quant_method":"fp8","activation_scheme":"static")"),
                          {{"m.weight", "F8_E4M3", "[130,130]", weights},
                           {"m.weight_scale", "F32", "[]", bytes(std::vector<float>{4})},
                           {"m.input_scale", "F32", "[]", bytes(std::vector<float>{4})}});
  EXPECT_THAT(read_all(whole.checkpoint.load("m.weight")), Each(4));
  EXPECT_EQ(input_scale(whole.checkpoint.load("m.weight")), 4);
  const auto files = [](const Tensors& tensors) {
    return std::vector<std::pair<std::string, std::string>>{
        {"config.json", method(R"("quant_method":"fp8","weight_block_size":[128,128])")},
        {"model.safetensors", file_of(tensors)}};
  };
  expect_refused({
      {"scales of whole blocks only",
       files({{"m.weight", "F8_E4M3", "[130,130]", 130 * 130}, {"m.weight_scale_inv", "F32", "[1,1]", 4}}),
       {"module 'm': weight_scale_inv", "f32 [2, 2]", "f32 [1, 1]"}},
      {"one scale where blocks have theirs",
       files({{"m.weight", "F8_E4M3", "[130,130]", 130 * 130}, {"m.weight_scale", "F32", "[]", 4}}),
       {"module 'm'", "weight_scale_inv", "none"}},
  });
}

TEST(HfMxfp4, ExpertsAreParametersWithoutWeightInTheirNames) {
  const std::vector<Given> given = {{"e.down_proj_blocks", "U8", "[2,3,1,16]", std::string(96, '\x32')},
                                    {"e.down_proj_scales", "U8", "[2,3,1]", std::string(6, '\x80')},
                                    {"e.down_proj_bias", "F32", "[]", std::string(4, '\0')}};
  const auto opened = open(method(R"("quant_method":"mxfp4","modules_to_not_convert":["lm_head"])"), given);
  const Checkpoint& c = opened.checkpoint;
  ASSERT_EQ(c.entries().size(), 2u);
  EXPECT_EQ(c.find("e.down_proj")->shape, (Shape{2, 3, 32}));
  const std::vector<float> values = read_all(c.load("e.down_proj"));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i % 2 ? 3 : 2);
  const auto files = [&](const Tensors& tensors) {
    return std::vector<std::pair<std::string, std::string>>{
        {"config.json", method(R"("quant_method":"mxfp4")")}, {"model.safetensors", file_of(tensors)}};
  };
  expect_refused({
      {"no scales", files({{"e_blocks", "U8", "[1,1,1,16]", 16}}), {"module 'e'", "tensor scales", "none"}},
      {"blocks of 64",
       files({{"e_blocks", "U8", "[1,1,1,32]", 32}, {"e_scales", "U8", "[1,1,1]", 1}}),
       {"module 'e': blocks", "u8 [1, 1, 2, 16]", "u8 [1, 1, 1, 32]"}},
      {"a matrix",
       files({{"e_blocks", "U8", "[1,16]", 16}, {"e_scales", "U8", "[1,1]", 1}}),
       {"module 'e'", "[1, 16]"}},
  });
}

}  // namespace
}  // namespace lathe
