#include <gmock/gmock.h>

#include "io/checkpoint.h"
#include "io/directory.h"
#include "io/model_name.h"

namespace lathe {
namespace {

const fs::path source = LATHE_SOURCE_DIR;

TEST(Checkpoint, OpensTheBuiltInModel) {
  const Checkpoint c = Checkpoint::open(source / "models/builtin");
  EXPECT_FALSE(c.is_gguf());
  EXPECT_EQ(c.gguf(), nullptr);
  EXPECT_EQ(c.config()["model_type"], "llama");
  ASSERT_NE(c.find("model.embed_tokens.weight"), nullptr);
  EXPECT_EQ(c.find("model.embed_tokens.weight")->shape, (Shape{4096, 256}));
  EXPECT_EQ(c.find("model.embed_tokens.weight")->file, "model.safetensors");
  EXPECT_TRUE(std::is_sorted(c.entries().begin(), c.entries().end(),
                             [](auto& a, auto& b) { return a.name < b.name; }));
  for (const Entry& e : c.entries()) {
    const Weight w = c.load(e.name);
    check_parts(w, e.name);
    EXPECT_EQ(w.bytes(), e.bytes);
  }
  EXPECT_THAT(refusal([&] { c.load("none"); }), testing::HasSubstr("expected tensor 'none', found none"));
}

TEST(ModelName, IsThatOfTheDirectoryHoweverItIsWritten) {
  for (const char* path :
       {"models/foo-1.5", "models/foo-1.5/", "/models/foo-1.5", "a/../foo-1.5/.", "foo-1.5"})
    EXPECT_EQ(model_name(path), "foo-1.5") << path;
  EXPECT_EQ(model_name("x/foo.gguf"), "foo.gguf");
  EXPECT_EQ(model_name("."), fs::current_path().filename().string());
}

TEST(Checkpoint, ShardsAreOneModel) {
  const Checkpoint c = Checkpoint::open(source / "tests/golden/sharded");
  std::set<std::string> files;
  for (const Entry& e : c.entries()) files.insert(e.file);
  EXPECT_THAT(files,
              testing::ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"));
  EXPECT_EQ(c.find("lm_head.weight")->numerics, Numerics::dense(DType::f16));
  c.forget("lm_head.weight");
  EXPECT_EQ(c.load("lm_head.weight").bytes(), c.find("lm_head.weight")->bytes);
}

TEST(Checkpoint, OpensEveryGoldenModel) {
  for (const auto& dir : fs::directory_iterator(source / "tests/golden"))
    if (fs::exists(dir.path() / "config.json")) {
      EXPECT_FALSE(Checkpoint::open(dir.path()).entries().empty()) << dir.path();
    }
}

TEST(Checkpoint, RefusesBrokenDirectories) {
  const std::string good = safetensors("{" + tensor("x", "F32", "[2]", 0, 8) + "}", 8);
  const std::string index_file = "model.safetensors.index.json";
  auto index = [&](const std::string& map) { return std::pair{index_file, "{\"weight_map\":" + map + "}"}; };
  const std::pair<std::string, std::string> config = {"config.json", "{}"};
  expect_refused({
      {"empty directory", {}, {"config.json: cannot open"}},
      {"config is a directory", {{"config.json/", ""}}, {"config.json: expected a regular file"}},
      {"config is empty", {{"config.json", ""}, {"model.safetensors", good}}, {"config.json", "valid JSON"}},
      {"config is an array",
       {{"config.json", "[]"}, {"model.safetensors", good}},
       {"config.json", "an object", "array"}},
      {"config is deep", {{"config.json", std::string(1'000'000, '[')}}, {"config.json", "256 levels"}},
      {"config key twice", {{"config.json", R"({"a":1,"a":2})"}}, {"config.json", "'a' twice"}},
      {"no weights", {config}, {"model.safetensors or model.safetensors.index.json", "neither"}},
      {"only pickles", {config, {"pytorch_model.bin", "x"}}, {"neither", "converted to safetensors"}},
      {"weights are a directory",
       {config, {"model.safetensors/", ""}},
       {"model.safetensors: expected a regular file"}},
      {"weights are empty", {config, {"model.safetensors", ""}}, {"model.safetensors", "found 0 bytes"}},
      {"weights are cut",
       {config, {"model.safetensors", good.substr(0, good.size() - 1)}},
       {"model.safetensors: tensor 'x'", "truncated"}},
      {"index is not JSON", {config, {index_file, "{"}}, {index_file, "valid JSON"}},
      {"index is an array", {config, {index_file, "[]"}}, {index_file, "weight_map"}},
      {"index without a map", {config, {index_file, "{}"}}, {index_file, "weight_map"}},
      {"map of numbers", {config, index(R"({"x":1})")}, {index_file, "tensor 'x'", "a file name", "number"}},
      {"missing shard",
       {config, index(R"({"x":"model-1.safetensors"})")},
       {index_file, "tensor 'x'", "model-1.safetensors", "no such file", "download"}},
      {"escape by ..",
       {config, {"sub/x", ""}, index(R"({"x":"../model.safetensors"})")},
       {index_file, "tensor 'x'", "same directory", "'../model.safetensors'"}},
      {"escape to the root", {config, index(R"({"x":"/etc/passwd"})")}, {"same directory", "'/etc/passwd'"}},
      {"escape by a folder",
       {config, {"sub/m", good}, index(R"({"x":"sub/m"})")},
       {"same directory", "'sub/m'"}},
      {"name is ..", {config, index(R"({"x":".."})")}, {"same directory", "'..'"}},
      {"empty name", {config, index(R"({"x":""})")}, {"same directory", "''"}},
      {"name with a zero", {config, index(R"({"x":"m\u0000"})")}, {"same directory", "'m\\x00'"}},
      {"name too long",
       {config, index("{\"x\":\"" + std::string(5000, 'a') + "\"}")},
       {"tensor 'x'", "no such file"}},
      {"tensor not where listed",
       {config, {"m", good}, index(R"({"x":"m","y":"m"})")},
       {index_file, "tensor 'y' in m", "no such tensor"}},
      {"tensor in two shards",
       {config,
        {"m", good},
        {"n", safetensors(
                  "{" + tensor("x", "F32", "[2]", 0, 8) + "," + tensor("y", "F32", "[2]", 8, 16) + "}", 16)},
        index(R"({"x":"m","y":"n"})")},
       {"tensor 'x'", "it in one file", "it in m and n"}},
      {"of AutoGPTQ",
       {config, {"quantize_config.json", "{}"}, {"model.safetensors", good}},
       {"quantize_config.json: bits", "2, 3, 4 or 8", "none"}},
      {"of ModelOpt",
       {config, {"hf_quant_config.json", "{}"}, {"model.safetensors", good}},
       {"hf_quant_config.json", "'quant_algo'", "none"}},
  });
}

TEST(Checkpoint, RefusesPathsThatAreNone) {
  testing_support::TemporaryDirectory dir;
  EXPECT_THAT(
      refusal([&] { Checkpoint::open(dir / "none"); }),
      testing::HasSubstr("none: expected a Hugging Face directory or a .gguf file, found nothing there"));
  EXPECT_THAT(refusal([&] { Checkpoint::open(dir.put("m.bin", "x")); }),
              testing::HasSubstr("found another file"));
  EXPECT_THAT(refusal([&] { Checkpoint::open(dir.put("m.gguf", "")); }), testing::HasSubstr("m.gguf: magic"));
}

// compressed-tensors modules "m": int4, group 32, [8, 64] unless a case says otherwise.
const std::string quantized =
    R"({"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized",
  "config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"strategy":"group","group_size":32,"symmetric":true}}}}})";
std::string replaced(std::string text, std::string_view from, std::string_view to) {
  return text.replace(text.find(from), from.size(), to);
}
const std::string quantized_asymmetric = replaced(quantized, "\"symmetric\":true", "\"symmetric\":false");
const std::string quantized_int8 = replaced(
    replaced(replaced(quantized, "pack-quantized", "int-quantized"), "\"num_bits\":4", "\"num_bits\":8"),
    "32", "64");

TEST(Checkpoint, BindsPackQuantizedModules) {
  testing_support::TemporaryDirectory dir;
  dir.put("config.json", quantized_asymmetric);
  dir.put("model.safetensors", file_of({{"m.weight_packed", "I32", "[8,8]", 256},
                                        {"m.weight_scale", "F16", "[8,2]", 32},
                                        {"m.weight_zero_point", "I32", "[1,2]", 8},
                                        {"m.bias", "F16", "[8]", 16},
                                        {"m.weight_shape", "I64", "[2]", 16}},
                                       le<int64_t>(8) + le<int64_t>(60)));
  const Checkpoint c = Checkpoint::open(dir.path());
  ASSERT_EQ(c.entries().size(), 2u);
  EXPECT_EQ(c.entries()[0].name, "m.bias");
  const Entry& e = c.entries()[1];
  EXPECT_EQ(e.name, "m.weight");
  EXPECT_EQ(e.numerics, Numerics::integer(4, 32, true, DType::f16));
  EXPECT_EQ(e.shape, (Shape{8, 60}));
  EXPECT_EQ(e.bytes, 296u);
  const Weight w = c.load("m.weight");
  check_parts(w, "m");
  EXPECT_EQ(read_all(w).size(), 480u);
}

TEST(Checkpoint, BindsIntQuantizedModules) {
  testing_support::TemporaryDirectory dir;
  dir.put("config.json", quantized_int8);
  dir.put("model.safetensors", file_of({{"m.weight_scale", "BF16", "[8,1]", 16},
                                        {"m.weight", "I8", "[8,64]", 512},
                                        {"n.weight", "BF16", "[2]", 4}}));
  const Checkpoint c = Checkpoint::open(dir.path());
  ASSERT_EQ(c.entries().size(), 2u);
  EXPECT_EQ(c.find("m.weight")->packing->name, "ct.int8");
  EXPECT_EQ(c.find("n.weight")->packing->name, "dense");
  check_parts(c.load("m.weight"), "m");
}

TEST(Checkpoint, ClassTargetsAreTriedInTurn) {
  testing_support::TemporaryDirectory dir;
  dir.put(
      "config.json",
      replaced(
          quantized, "\"config_groups\":{",
          R"("config_groups":{"e":{"targets":["Embedding"],"weights":{"num_bits":8,"strategy":"channel"}},)"));
  dir.put("model.safetensors", file_of({{"m.weight_packed", "I32", "[8,8]", 256},
                                        {"m.weight_scale", "BF16", "[8,2]", 32},
                                        {"e.weight_packed", "I32", "[8,8]", 256},
                                        {"e.weight_scale", "BF16", "[8,1]", 16}}));
  const Checkpoint c = Checkpoint::open(dir.path());
  EXPECT_EQ(c.find("m.weight")->shape, (Shape{8, 64}));
  EXPECT_EQ(c.find("e.weight")->shape, (Shape{8, 32}));
}

TEST(Checkpoint, RefusesQuantizedModulesThatDoNotFitTheirConfig) {
  const std::tuple<std::string, std::string, std::string, size_t> packed{"m.weight_packed", "I32", "[8,8]",
                                                                         256},
      scale{"m.weight_scale", "BF16", "[8,2]", 32}, zero{"m.weight_zero_point", "I32", "[1,2]", 8},
      shape{"m.weight_shape", "I64", "[2]", 16};
  auto files = [](const std::string& config, const Tensors& tensors, const std::string& data = "") {
    return std::vector<std::pair<std::string, std::string>>{{"config.json", config},
                                                            {"model.safetensors", file_of(tensors, data)}};
  };
  auto claims = [](int64_t rows, int64_t cols) { return le(rows) + le(cols); };
  expect_refused({
      {"no config",
       files("{}", {packed, scale}),
       {"config.json", "a quantization_config", "'m'", "found none"}},
      {"no scale", files(quantized, {packed}), {"tensor 'm.weight_packed'", "weight_scale beside it"}},
      {"scale alone", files(quantized, {scale}), {"module 'm'", "weight or weight_packed", "neither"}},
      {"both weights",
       files(quantized, {packed, scale, {"m.weight", "I8", "[8,64]", 512}}),
       {"module 'm'", "one of weight and weight_packed", "both"}},
      {"NVFP4",
       files(quantized, {{"m.weight_packed", "U8", "[8,32]", 256}, scale}),
       {"module 'm'", "weight_packed i32 (ct.pack32, as group_0 says)", "weight_packed u8"}},
      {"FP8",
       files(quantized_int8, {{"m.weight", "F8_E4M3", "[8,64]", 512}, scale}),
       {"module 'm'", "weight i8 (ct.int8, as group_0 says)", "weight f8e4m3"}},
      {"fake-quantized",
       files(quantized_int8, {{"m.weight", "BF16", "[8,64]", 1024}, scale}),
       {"module 'm'", "weight i8", "weight bf16"}},
      {"three dimensions",
       files(quantized, {{"m.weight_packed", "I32", "[2,4,8]", 256}, scale}),
       {"module 'm'", "a matrix", "[2, 4, 8]"}},
      {"no rows",
       files(quantized, {{"m.weight_packed", "I32", "[0,1152921504606846976]", 0}, scale}),
       {"module 'm'", "not empty"}},
      {"packed but config says int",
       files(quantized_int8, {packed, scale}),
       {"module 'm'", "weight i8 (ct.int8, as group_0 says)", "weight_packed i32"}},
      {"nobody targets it",
       files(replaced(quantized, "\"Linear\"", "\"a.b\""), {packed, scale}),
       {"module 'm'", "a config group that targets it", "none"}},
      {"wrong group count",
       files(quantized, {packed, {"m.weight_scale", "BF16", "[8,1]", 16}}),
       {"module 'm': weight_scale", "bf16 [8, 2]", "[8, 1]"}},
      {"wrong bits",
       files(replaced(quantized, "\"num_bits\":4", "\"num_bits\":8"), {packed, scale}),
       {"module 'm': weight_scale", "bf16 [8, 1]", "[8, 2]"}},
      {"integer scales",
       files(quantized, {packed, {"m.weight_scale", "I32", "[8,2]", 64}}),
       {"weight_scale", "f32, f16 or bf16", "i32"}},
      {"f8 scales",
       files(quantized, {packed, {"m.weight_scale", "F8_E4M3", "[8,2]", 16}}),
       {"weight_scale", "f32, f16 or bf16", "f8e4m3"}},
      {"no zero point",
       files(quantized_asymmetric, {packed, scale}),
       {"module 'm'", "weight_zero_point", "none"}},
      {"unpacked zero point",
       files(quantized_asymmetric, {packed, scale, {"m.weight_zero_point", "I8", "[8,2]", 16}}),
       {"weight_zero_point", "i32 [1, 2]", "i8 [8, 2]"}},
      {"zero point of a symmetric group",
       files(quantized, {packed, scale, zero}),
       {"module 'm'", "no weight_zero_point", "symmetric"}},
      {"groups of columns that are none",
       files(quantized, {packed, scale, {"m.weight_g_idx", "I32", "[64]", 256}}, std::string(256, '\x11')),
       {"module 'm': weight_g_idx", "groups from 0 to 1", "286331153 for column 0"}},
      {"groups of some columns",
       files(quantized, {packed, scale, {"m.weight_g_idx", "I32", "[63]", 252}}),
       {"module 'm': weight_g_idx", "i32 [64]", "i32 [63]"}},
      {"more columns than packed",
       files(quantized, {packed, scale, shape}, claims(8, 65)),
       {"weight_shape", "[8, up to 64]", "[8, 65]"}},
      {"2^60 columns",
       files(quantized, {packed, scale, shape}, claims(8, 1ll << 60)),
       {"weight_shape", "1152921504606846976"}},
      {"negative columns",
       files(quantized, {packed, scale, shape}, claims(8, -1)),
       {"weight_shape", "[8, -1]"}},
      {"other rows", files(quantized, {packed, scale, shape}, claims(9, 64)), {"weight_shape", "[9, 64]"}},
      {"fewer columns than words",
       files(quantized, {packed, scale, shape}, claims(8, 33)),
       {"weight_packed", "i32 [8, 5]", "i32 [8, 8]"}},
      {"weight_shape of three",
       files(quantized, {packed, scale, {"m.weight_shape", "I64", "[3]", 24}}),
       {"weight_shape", "i64 [2]", "i64 [3]"}},
      {"another tool",
       files(R"({"quantization_config":{"quant_method":"quip"}})", {packed, scale}),
       {"config.json", "gptq, awq", "'quip'"}},
  });
}

}  // namespace
}  // namespace lathe
