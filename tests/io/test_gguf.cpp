#include <gmock/gmock.h>

#include "io/attack.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "quant/round_blocks.h"
#include "support.h"

namespace lathe {
namespace {

using testing::ElementsAre;

std::string text(std::string_view s) { return le<uint64_t>(s.size()) + std::string(s); }
std::string key(std::string_view name, uint32_t type, const std::string& value) {
  return text(name) + le(type) + value;
}
std::string info(std::string_view name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
  std::string out = text(name) + le(static_cast<uint32_t>(ne.size()));
  for (uint64_t n : ne) out += le(n);
  return out + le(type) + le(offset);
}

struct File {
  std::vector<std::string> keys, tensors;
  size_t data = 0;
  uint32_t version = 3;

  std::string bytes() const {
    std::string out = "GGUF" + le(version) + le<uint64_t>(tensors.size()) + le<uint64_t>(keys.size());
    for (const std::string& k : keys) out += k;
    for (const std::string& t : tensors) out += t;
    if (data > 0) out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + std::string(data, '\x22');
  }
};

constexpr uint32_t u8 = 0, u32 = 4, f32 = 6, boolean = 7, str = 8, arr = 9, u64 = 10, f64 = 12;

std::vector<std::string> llama_keys(const std::string& arch = "llama") {
  auto number = [&](const std::string& name, uint32_t n) { return key(arch + "." + name, u32, le(n)); };
  return {key("general.architecture", str, text(arch)),
          number("embedding_length", 64),
          number("block_count", 2),
          number("feed_forward_length", 96),
          number("attention.head_count", 4),
          number("attention.head_count_kv", 2),
          number("context_length", 512),
          key(arch + ".attention.layer_norm_rms_epsilon", f32, le(1e-5f)),
          key("tokenizer.ggml.bos_token_id", u32, le(1u)),
          key("tokenizer.ggml.tokens", arr, le(str) + le<uint64_t>(2) + text("a") + text("b"))};
}

TEST(Gguf, ReadsEveryMetadataType) {
  File f;
  f.keys = {key("u8", 0, "\xff"),
            key("i8", 1, "\xff"),
            key("u16", 2, le<uint16_t>(65535)),
            key("i16", 3, le<int16_t>(-2)),
            key("u32", 4, le<uint32_t>(~0u)),
            key("i32", 5, le<int32_t>(-3)),
            key("f32", 6, le(0.5f)),
            key("bool", 7, "\x01"),
            key("string", 8, text("h\xc3\xa9")),
            key("u64", 10, le<uint64_t>(1ull << 62)),
            key("i64", 11, le<int64_t>(-4)),
            key("f64", 12, le(0.25)),
            key("ints", arr, le<uint32_t>(5) + le<uint64_t>(2) + le<int32_t>(-1) + le<int32_t>(7)),
            key("bools", arr, le(boolean) + le<uint64_t>(2) + std::string("\x01\x00", 2)),
            key("floats", arr, le(f32) + le<uint64_t>(1) + le(2.5f)),
            key("strings", arr, le(str) + le<uint64_t>(1) + text("x")),
            key("none", arr, le(str) + le<uint64_t>(0))};
  const GgufFile g = GgufFile::parse(bytes_of(f.bytes()), "f.gguf");
  EXPECT_EQ(g.integer("u8"), 255);
  EXPECT_EQ(g.integer("i8"), -1);
  EXPECT_EQ(g.integer("u16"), 65535);
  EXPECT_EQ(g.integer("i16"), -2);
  EXPECT_EQ(g.integer("u32"), 4294967295);
  EXPECT_EQ(g.integer("i32"), -3);
  EXPECT_EQ(g.number("f32"), 0.5);
  EXPECT_EQ(std::get<bool>(g.metadata.at("bool").value), true);
  EXPECT_EQ(g.text("string"), "h\xc3\xa9");
  EXPECT_EQ(g.integer("u64"), int64_t{1} << 62);
  EXPECT_EQ(g.integer("i64"), -4);
  EXPECT_EQ(g.number("f64"), 0.25);
  EXPECT_THAT(std::get<std::vector<int64_t>>(g.metadata.at("ints").value), ElementsAre(-1, 7));
  EXPECT_THAT(std::get<std::vector<int64_t>>(g.metadata.at("bools").value), ElementsAre(1, 0));
  EXPECT_THAT(std::get<std::vector<double>>(g.metadata.at("floats").value), ElementsAre(2.5));
  EXPECT_THAT(std::get<std::vector<std::string>>(g.metadata.at("strings").value), ElementsAre("x"));
  EXPECT_TRUE(std::holds_alternative<std::vector<std::string>>(g.metadata.at("none").value));
  EXPECT_EQ(refusal([&] { g.integer("f32"); }), "f.gguf: key 'f32': expected an integer, found a float");
  EXPECT_EQ(refusal([&] { g.text("zzz"); }), "f.gguf: expected metadata key 'zzz', found none");
}

TEST(Gguf, PlacesTensors) {
  File f;
  f.tensors = {info("a", {3, 2}, 0, 0), info("v", {5}, 30, 32), info("q", {32, 2}, 2, 64),
               info("k", {256}, 12, 128)};
  f.data = 128 + 144;
  for (uint32_t version : {2u, 3u}) {
    f.version = version;
    const std::string bytes = f.bytes();
    const GgufFile g = GgufFile::parse(bytes_of(bytes), "f");
    ASSERT_EQ(g.tensors.size(), 4u);
    EXPECT_THAT(g.tensors[0].shape, ElementsAre(2, 3));  // rows first
    EXPECT_EQ(g.tensors[0].offset + 128 + 144, bytes.size());
    EXPECT_EQ(g.tensors[1].numerics, Numerics::dense(DType::bf16));
    EXPECT_EQ(g.tensors[2].packing->name, "gguf.q4_0");
    EXPECT_EQ(g.tensors[2].bytes, 36u);
    EXPECT_EQ(g.tensors[3].bytes, 144u);
  }
}

// tools/gguf_golden.py: any bytes, and what ggml's package gguf says they mean.
TEST(Gguf, BlocksMeanWhatGgmlSays) {
  const SafetensorsFile file = SafetensorsFile::open(testing_support::golden("gguf/blocks.safetensors"));
  int checked = 0;
  for (const GgufType& type : gguf_types()) {
    if (!type.packing.starts_with("gguf.")) continue;
    SCOPED_TRACE(type.name);
    const Packing& p = packing(type.packing);
    ASSERT_TRUE(p.holds(type.numerics));
    const Tensor blocks = file.load(fmt::format("{}.blocks", type.name)),
                 values = file.load(fmt::format("{}.values", type.name));
    const Weight w{type.numerics, &p, values.shape, {blocks}};
    check_parts(w, type.name);
    EXPECT_THAT(read_all(w), testing::ElementsAreArray(values.as<float>()));
    // Two levels of scales may be told apart otherwise, to the same numbers.
    EXPECT_THAT(read_all(repack(w, p)), testing::ElementsAreArray(values.as<float>()));
    ++checked;
  }
  EXPECT_EQ(checked, 13);
}

// tools/gguf_quantizers.py: ggml's own squared errors, on the same numbers.
// The scale of the whole weight is a tensor of its own.
TEST(Gguf, Nvfp4HasItsScaleBesideIt) {
  File f;
  f.tensors = {info("x.weight", {64, 2}, 40, 0), info("x.scale", {1}, 0, 96),
               info("x.input_scale", {1}, 0, 128), info("y.weight", {64}, 40, 160),
               info("z.scale", {1}, 0, 224)};
  f.data = 256;
  std::string bytes = f.bytes();
  const size_t data = bytes.size() - 256;
  bytes.replace(data, 4, "\x38\x38\x38\x38");
  bytes.replace(data + 4, 32, std::string(32, '\x22'));  // ones
  bytes.replace(data + 96, 4, le(0.25f));
  testing_support::TemporaryDirectory dir;
  const GgufFile g = GgufFile::parse(bytes_of(bytes), "f.gguf");
  ASSERT_EQ(g.tensors.size(), 3u);
  EXPECT_EQ(g.tensors[0].numerics, Numerics::nvfp4());
  EXPECT_EQ(g.tensors[0].scale_offset, data + 96);
  EXPECT_EQ(g.tensors[1].numerics, Numerics::grid(Numerics::Kind::e2m1, 16, DType::f8e4m3));
  EXPECT_EQ(g.tensors[2].name, "z.scale");  // of nothing: an error where the model is loaded
  f.tensors[1] = info("x.scale", {2}, 0, 96);
  EXPECT_THAT(refusal([&] { GgufFile::parse(bytes_of(f.bytes()), "f.gguf"); }),
              testing::HasSubstr("f.gguf: tensor 'x.scale': expected one F32 number, found f32 [2]"));
  f.tensors[1] = info("x.scale", {1}, 1, 96);
  EXPECT_THAT(refusal([&] { GgufFile::parse(bytes_of(f.bytes()), "f.gguf"); }),
              testing::HasSubstr("found f16 [1]"));
}

// One tensor of the file is as many matrices as there are experts.
TEST(Gguf, ExpertsAreMatrices) {
  File f;
  f.tensors = {
      info("blk.0.ffn_up_exps.weight", {32, 3, 2}, 2, 0),  // Q4_0: 18 bytes a row
      info("blk.0.ffn_down_exps.weight", {64, 2, 3}, 40, 128), info("blk.0.ffn_down_exps.scale", {3}, 0, 352),
      info("blk.0.ffn_gate_inp_shexp.weight", {8}, 0, 384),    info("other.weight", {2, 2, 2}, 0, 416),
      info("blk.0.ffn_up_exps.bias", {3, 2}, 0, 448),          info("other.bias", {3, 2}, 0, 480)};
  f.data = 512;
  const std::string bytes = f.bytes();
  const size_t data = bytes.size() - f.data;
  const GgufFile g = GgufFile::parse(bytes_of(bytes), "f.gguf");
  ASSERT_EQ(g.tensors.size(), 2 + 3 + 2 + 2 + 1u);
  for (size_t e = 0; e < 2; ++e) {
    const GgufTensor& t = g.tensors[e];
    EXPECT_EQ(t.name, fmt::format("blk.0.ffn_up_exps.weight[{}]", e));
    EXPECT_EQ(t.shape, (Shape{3, 32}));
    EXPECT_EQ(t.offset, data + e * 54);
    EXPECT_EQ(t.bytes, 54u);
  }
  for (size_t e = 0; e < 3; ++e) {  // each with its own number beside NVFP4's scales
    const GgufTensor& t = g.tensors[2 + e];
    EXPECT_EQ(t.numerics, Numerics::nvfp4());
    EXPECT_EQ(t.offset, data + 128 + e * 72);
    EXPECT_EQ(t.scale_offset, data + 352 + e * 4);
  }
  EXPECT_EQ(g.tensors[5].shape, (Shape{1, 8}));  // a row, in its model
  EXPECT_EQ(g.tensors[6].shape, (Shape{2, 2, 2}));
  for (size_t e = 0; e < 2; ++e) {
    const GgufTensor& t = g.tensors[7 + e];
    EXPECT_EQ(t.name, fmt::format("blk.0.ffn_up_exps.bias[{}]", e));
    EXPECT_EQ(t.shape, (Shape{3}));
    EXPECT_EQ(t.offset, data + 448 + e * 12);
    EXPECT_EQ(t.bytes, 12u);
  }
  EXPECT_EQ(g.tensors[9].shape, (Shape{2, 3}));
  f.tensors[2] = info("blk.0.ffn_down_exps.scale", {1}, 0, 352);
  EXPECT_THAT(
      refusal([&] { GgufFile::parse(bytes_of(f.bytes()), "f.gguf"); }),
      testing::HasSubstr("tensor 'blk.0.ffn_down_exps.scale': expected 3 F32 numbers, found f32 [1]"));
}

TEST(Gguf, RoundingIsNoWorseThanGgmls) {
  const SafetensorsFile file = SafetensorsFile::open(testing_support::golden("gguf/quantizers.safetensors"));
  const Tensor values = file.load("values"), importance = file.load("importance");
  const auto x = values.as<float>(), weight = importance.as<float>();
  const int64_t rows = values.shape[0], cols = values.shape[1];
  int checked = 0;
  for (const GgufType& type : gguf_types()) {
    if (!type.packing.starts_with("gguf.") || type.numerics.is_grid()) continue;  // grids are only read
    for (const bool weighted : {false, true}) {
      const std::string name = fmt::format("{}{}", type.name, weighted ? ".weighted" : "");
      const Codes codes =
          round_blocks(x.data(), rows, cols, type.numerics, weighted ? weight.data() : nullptr);
      Weight stored = make_weight(type.numerics, packing(type.packing), {rows, cols});
      stored.packing->pack(codes, 0, stored);
      const std::vector<float> rounded = read_all(stored);
      double error = 0;
      for (size_t i = 0; i < rounded.size(); ++i) {
        const double difference = static_cast<double>(rounded[i] - x[i]);
        error += difference * difference * (weighted ? static_cast<double>(weight[i % weight.size()]) : 1);
      }
      const double theirs = static_cast<double>(file.load(name).as<float>()[0]);
      RecordProperty(name, fmt::format("{:.3f}", error / theirs));
      EXPECT_LE(error, theirs) << name;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 20);
}

TEST(Gguf, RoundingKeepsWhatNeedsNone) {
  const std::vector<float> zeros(512, 0.0f), same(512, -0.25f);
  for (const GgufType& type : gguf_types()) {
    if (!type.packing.starts_with("gguf.") || type.numerics.is_grid()) continue;  // grids are only read
    for (const auto& values : {zeros, same}) {
      Weight stored = make_weight(type.numerics, packing(type.packing), {1, 512});
      stored.packing->pack(round_blocks(values.data(), 1, 512, type.numerics), 0, stored);
      for (const float v : read_all(stored))  // to the last bit of an f16 scale
        ASSERT_NEAR(v, values[0], 0.25f * 0x1p-10f) << type.name;
    }
  }
  std::vector<float> bad(256, 1.0f);
  bad[100] = INFINITY;
  EXPECT_THROW(round_blocks(bad.data(), 1, 256, Numerics::k_quant(4, 32, true)), Error);
  EXPECT_THROW(round_blocks(zeros.data(), 1, 100, Numerics::k_quant(4, 32, true)), Error);
}

TEST(Gguf, RefusesAttacks) {
  struct Case {
    const char* name;
    std::string file;
    std::vector<std::string> message;
  };
  auto keys = [](std::vector<std::string> k) { return File{std::move(k), {}, 0}.bytes(); };
  auto tensors = [](std::vector<std::string> t, size_t data) { return File{{}, std::move(t), data}.bytes(); };
  const std::string head = "GGUF" + le(3u);
  const Case cases[] = {
      {"empty", "", {"magic", "found 4"}},
      {"another magic", std::string("GGML") + std::string(20, '\0'), {"starts with GGUF", "'GGML'"}},
      {"version 1", "GGUF" + le(1u) + std::string(16, '\0'), {"version", "2 or 3", "found 1"}},
      {"big-endian", "GGUF" + std::string("\0\0\0\3", 4) + std::string(16, '\0'), {"version", "2 or 3"}},
      {"cut counts", head + "abc", {"tensor count", "truncated"}},
      {"2^64 - 1 keys",
       head + le<uint64_t>(0) + le<uint64_t>(~0ull),
       {"metadata key", "at most 0 more bytes"}},
      {"2^60 tensors",
       head + le<uint64_t>(1ull << 60) + le<uint64_t>(0),
       {"tensor name", "at most 0 more bytes"}},
      {"key of 2^63 bytes",
       head + le<uint64_t>(0) + le<uint64_t>(1) + le<uint64_t>(1ull << 63) + "k",
       {"metadata key", "at most 1 more bytes", "9223372036854775808"}},
      {"empty key", keys({key("", u8, "x")}), {"metadata key", "an empty one"}},
      {"bad UTF-8 key", keys({key("\xff", u8, "x")}), {"metadata key", "UTF-8", "\\xff"}},
      {"key twice", keys({key("a", u8, "x"), key("a", u8, "x")}), {"key 'a'", "distinct keys"}},
      {"unknown value type",
       keys({key("a", 13, "xxxxxxxx")}),
       {"key 'a'", "a value type from 0 to 12", "13"}},
      {"bool 2", keys({key("a", boolean, "\x02")}), {"key 'a'", "a bool", "2"}},
      {"u64 above 2^63",
       keys({key("a", u64, le<uint64_t>(~0ull))}),
       {"key 'a'", "below 2^63", "18446744073709551615"}},
      {"string of 2^40 bytes",
       keys({key("a", str, le<uint64_t>(1ull << 40) + "x")}),
       {"key 'a'", "1099511627776"}},
      {"array of 2^60 bytes",
       keys({key("a", arr, le(u8) + le<uint64_t>(1ull << 60))}),
       {"key 'a'", "1152921504606846976"}},
      {"array of 2^61 doubles",
       keys({key("a", arr, le(f64) + le<uint64_t>(1ull << 61) + "xxxxxxxxxxxx")}),
       {"key 'a'"}},
      {"array of arrays",
       keys({key("a", arr, le(arr) + le<uint64_t>(1) + le(u8) + le<uint64_t>(0))}),
       {"key 'a'", "an array of scalars", "an array of arrays"}},
      {"array of an unknown type",
       keys({key("a", arr, le(77u) + le<uint64_t>(0))}),
       {"key 'a'", "elements of type 77"}},
      {"alignment 0",
       keys({key("general.alignment", u32, le(0u))}),
       {"general.alignment", "a power of two", "0"}},
      {"alignment 48",
       keys({key("general.alignment", u32, le(48u))}),
       {"general.alignment", "a power of two", "48"}},
      {"alignment 2^31",
       keys({key("general.alignment", u32, le(1u << 31))}),
       {"general.alignment", "65536", "2147483648"}},
      {"alignment is a string",
       keys({key("general.alignment", str, text("32"))}),
       {"general.alignment", "an integer", "a string"}},
      {"no dimensions", tensors({info("x", {}, 0, 0)}, 32), {"tensor 'x'", "1 to 4 dimensions", "0"}},
      {"five dimensions",
       tensors({info("x", {1, 1, 1, 1, 1}, 0, 0)}, 32),
       {"tensor 'x'", "1 to 4 dimensions", "5"}},
      {"2^32 - 1 dimensions", tensors({text("x") + le(~0u) + le(0u)}, 0), {"tensor 'x'", "4294967295"}},
      {"zero dimension",
       tensors({info("x", {0, 4}, 0, 0)}, 32),
       {"tensor 'x'", "positive dimensions", "[4, 0]"}},
      {"2^60 dimensions",
       tensors({info("x", {1ull << 60, 4}, 0, 0)}, 32),
       {"tensor 'x'", "below 2^60", "[4, 1152921504606846976]"}},
      {"product wraps",
       tensors({info("x", {1ull << 32, 1ull << 32}, 0, 0)}, 32),
       {"tensor 'x'", "below 2^60"}},
      {"dimension 2^63", tensors({info("x", {1ull << 63}, 0, 0)}, 32), {"tensor 'x'", "below 2^63"}},
      {"a row of half a block",
       tensors({info("x", {48, 2}, 2, 0)}, 64),
       {"tensor 'x'", "whole blocks of 32 (Q4_0)", "[2, 48]"}},
      {"a row of half a super-block",
       tensors({info("x", {384, 2}, 11, 0)}, 512),
       {"tensor 'x'", "whole blocks of 256 (Q3_K)", "[2, 384]"}},
      {"a super-block that ends outside",
       tensors({info("x", {256}, 14, 0)}, 192),
       {"tensor 'x'", "inside the 192 bytes", "210 bytes at offset 0"}},
      {"rows of blocks that wrap",
       tensors({info("x", {1ull << 40, 1ull << 30}, 13, 0)}, 64),
       {"tensor 'x'", "below 2^60"}},
      {"unsupported type",
       tensors({info("x", {256}, 16, 0)}, 256),
       {"tensor 'x'", "Q4_K", "IQ2_XXS", "requantize"}},
      {"unknown type", tensors({info("x", {256}, 1000, 0)}, 256), {"tensor 'x'", "type 1000"}},
      {"unaligned offset", tensors({info("x", {4}, 0, 4)}, 64), {"tensor 'x'", "a multiple of 32", "4"}},
      {"outside",
       tensors({info("x", {9}, 0, 32)}, 64),
       {"tensor 'x'", "inside the 64 bytes", "36 bytes at offset 32", "truncated"}},
      {"offset 2^64 - 32",
       tensors({info("x", {8}, 0, ~0ull - 31)}, 64),
       {"tensor 'x'", "inside the 64 bytes"}},
      {"no data", tensors({info("x", {8}, 0, 0)}, 0), {"tensor 'x'", "inside the 0 bytes"}},
      {"overlap",
       tensors({info("x", {16}, 0, 0), info("y", {8}, 0, 32)}, 64),
       {"tensor 'y'", "data after tensor 'x'", "an overlap"}},
      {"name twice",
       tensors({info("x", {8}, 0, 0), info("x", {8}, 0, 32)}, 64),
       {"tensor 'x'", "distinct names"}},
      {"an expert's name twice",
       tensors({info("x_exps.weight", {1, 1, 2}, 0, 0), info("x_exps.weight[1]", {1}, 0, 32)}, 64),
       {"tensor 'x_exps.weight[1]'", "distinct names"}},
      {"more experts than a model may have",
       tensors({info("x_exps.weight", {1, 1, 350'000}, 1, 0), info("y_exps.bias", {1, 50'001}, 1, 700'000)},
               800'032),
       {"tensor 'y_exps.bias'", "at most 400000 matrices and biases of experts", "50001 experts"}},
      {"bad UTF-8 name", tensors({info("\xc3(", {8}, 0, 0)}, 32), {"tensor name", "UTF-8", "\\xc3("}},
      {"cut tensor",
       head + le<uint64_t>(1) + le<uint64_t>(0) + text("x") + le(2u) + le<uint64_t>(1),
       {"tensor 'x'", "truncated"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string message = refusal([&] { GgufFile::parse(bytes_of(c.file), "m.gguf"); });
    EXPECT_TRUE(message.starts_with("m.gguf: ")) << message;
    expect_fragments(message, c.message);
  }
}

TEST(Gguf, EveryPrefixIsRefused) {
  File f{llama_keys(), {info("x", {16}, 0, 0), info("y", {32}, 2, 64)}, 64 + 18};
  const std::string bytes = f.bytes();
  EXPECT_NO_THROW(GgufFile::parse(bytes_of(bytes), "f"));
  for (size_t n = 0; n < bytes.size(); ++n)
    ASSERT_THAT(refusal([&] { GgufFile::parse(bytes_of(bytes.substr(0, n)), "f"); }),
                testing::StartsWith("f: "))
        << n;
}

TEST(GgufConfig, LlamaKeys) {
  File f{llama_keys(), {info("token_embd.weight", {8, 3}, 0, 0)}, 96};
  const Json c = config_from_gguf(GgufFile::parse(bytes_of(f.bytes()), "f"), "f");
  EXPECT_EQ(
      c.dump(),
      R"({"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"intermediate_size":96,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":512,"rms_norm_eps":)" +
          Json(double{1e-5f}).dump() +
          R"(,"bos_token_id":1,"head_dim":16,"rope_theta":10000.0,"hidden_act":"silu","attention_bias":false,)"
          R"("mlp_bias":false,"vocab_size":3,"tie_word_embeddings":true})");
}

TEST(GgufConfig, OptionalKeys) {
  File f{
      llama_keys("qwen3"), {info("output.weight", {8, 2}, 0, 0), info("blk.0.attn_q.bias", {8}, 0, 64)}, 96};
  f.keys.push_back(key("qwen3.attention.key_length", u32, le(32u)));
  f.keys.push_back(key("qwen3.rope.freq_base", f32, le(1e6f)));
  f.keys.push_back(key("qwen3.rope.dimension_count", u32, le(16u)));
  f.keys.push_back(key("qwen3.rope.scaling.type", str, text("yarn")));
  f.keys.push_back(key("qwen3.rope.scaling.factor", f32, le(4.0f)));
  f.keys.push_back(key("qwen3.rope.scaling.original_context_length", u32, le(128u)));
  const Json c = config_from_gguf(GgufFile::parse(bytes_of(f.bytes()), "f"), "f");
  EXPECT_EQ(c["model_type"], "qwen3");
  EXPECT_EQ(c["head_dim"], 32);
  EXPECT_EQ(c["rope_theta"], 1e6);
  EXPECT_EQ(c["partial_rotary_factor"], 0.5);
  EXPECT_EQ(c["rope_scaling"].dump(),
            R"({"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":128})");
  EXPECT_EQ(c["attention_bias"], true);
  EXPECT_EQ(c["tie_word_embeddings"], false);
  EXPECT_EQ(c["vocab_size"], 2);  // of the token list
}

std::vector<std::string> expert_keys(const std::string& arch) {
  std::vector<std::string> keys = llama_keys(arch);
  for (const auto& [name, n] : {std::pair{"expert_count", 8u},
                                {"expert_used_count", 2u},
                                {"expert_feed_forward_length", 24u},
                                {"expert_shared_feed_forward_length", 40u}})
    keys.push_back(key(fmt::format("{}.{}", arch, name), u32, le(n)));
  return keys;
}

TEST(GgufConfig, Experts) {
  const auto config = [](const std::string& arch, std::vector<std::string> more = {}) {
    File f{expert_keys(arch), {}, 0};
    for (std::string& k : more) f.keys.push_back(std::move(k));
    return config_from_gguf(GgufFile::parse(bytes_of(f.bytes()), "f.gguf"), "f.gguf");
  };
  const Json mixtral = config("llama"), qwen2 = config("qwen2moe"), qwen3 = config("qwen3moe"),
             olmoe = config("olmoe");
  EXPECT_EQ(mixtral["model_type"], "mixtral");
  EXPECT_EQ(mixtral["num_local_experts"], 8);
  EXPECT_EQ(mixtral["num_experts_per_tok"], 2);
  EXPECT_EQ(qwen2["model_type"], "qwen2_moe");
  EXPECT_EQ(qwen2["num_experts"], 8);
  EXPECT_EQ(qwen2["moe_intermediate_size"], 24);
  EXPECT_EQ(qwen2["shared_expert_intermediate_size"], 40);
  EXPECT_EQ(qwen2["norm_topk_prob"], false);
  EXPECT_EQ(qwen3["model_type"], "qwen3_moe");
  EXPECT_EQ(qwen3["norm_topk_prob"], true);
  EXPECT_EQ(olmoe["model_type"], "olmoe");
  EXPECT_EQ(olmoe["intermediate_size"], 96);
  EXPECT_EQ(olmoe["norm_topk_prob"], false);
  File none{llama_keys(), {}, 0};
  none.keys.push_back(key("llama.expert_count", u32, le(0u)));
  EXPECT_EQ(config_from_gguf(GgufFile::parse(bytes_of(none.bytes()), "f.gguf"), "f.gguf")["model_type"],
            "llama");
  // What the architecture does anyway may be said; anything else is another model.
  config("qwen3moe", {key("qwen3moe.expert_gating_func", u32, le(1u)),
                      key("qwen3moe.expert_weights_scale", f32, le(1.0f)),
                      key("qwen3moe.expert_weights_norm", boolean, "\x01")});
  for (const auto& [more, message] :
       {std::pair{key("qwen3moe.expert_gating_func", u32, le(2u)),
                  "expert_gating_func': expected 1, found 2"},
        {key("qwen3moe.expert_weights_scale", f32, le(2.5f)), "expert_weights_scale': expected 1, found 2.5"},
        {key("qwen3moe.expert_weights_norm", boolean, std::string(1, '\0')),
         "expert_weights_norm': expected true, found false"},
        {key("qwen3moe.expert_group_count", u32, le(4u)), "expert_group_count': expected 1, found 4"}})
    EXPECT_THAT(refusal([&] { config("qwen3moe", {more}); }), testing::HasSubstr(message));
}

// As llama.cpp's converter writes it.
TEST(GgufConfig, GptOss) {
  const auto config = [](const std::vector<std::string>& more) {
    File f{expert_keys("gpt-oss"), {info("output.weight", {8, 2}, 0, 0)}, 64};
    f.keys.push_back(key("gpt-oss.attention.sliding_window", u32, le(128u)));
    f.keys.push_back(key("gpt-oss.rope.scaling.type", str, text("yarn")));
    f.keys.push_back(key("gpt-oss.rope.scaling.factor", f32, le(32.0f)));
    f.keys.push_back(key("gpt-oss.rope.scaling.original_context_length", u32, le(4096u)));
    f.keys.push_back(key("gpt-oss.rope.scaling.yarn_beta_fast", f32, le(32.0f)));
    f.keys.push_back(key("gpt-oss.rope.scaling.yarn_beta_slow", f32, le(1.0f)));
    f.keys.insert(f.keys.end(), more.begin(), more.end());
    return config_from_gguf(GgufFile::parse(bytes_of(f.bytes()), "f.gguf"), "f.gguf");
  };
  const Json c = config({});
  EXPECT_EQ(c["model_type"], "gpt_oss");
  EXPECT_EQ(c["num_local_experts"], 8);
  EXPECT_EQ(c["num_experts_per_tok"], 2);
  EXPECT_EQ(c["intermediate_size"], 24);  // of experts, whatever feed_forward_length says
  EXPECT_EQ(c["sliding_window"], 128);
  EXPECT_FALSE(c.contains("norm_topk_prob"));
  EXPECT_EQ(c["rope_scaling"].dump(),
            R"({"rope_type":"yarn","factor":32.0,"original_max_position_embeddings":4096,)"
            R"("beta_fast":32.0,"beta_slow":1.0,"truncate":false})");
  config({key("gpt-oss.attention.sliding_window_pattern", u32, le(2u)),
          key("gpt-oss.expert_gating_func", u32, le(3u))});
  EXPECT_THAT(refusal([&] { config({key("gpt-oss.attention.sliding_window_pattern", u32, le(4u))}); }),
              testing::HasSubstr("sliding_window_pattern': expected 2, found 4"));
  EXPECT_THAT(refusal([&] { config({key("gpt-oss.expert_gating_func", u32, le(2u))}); }),
              testing::HasSubstr("expert_gating_func': expected 3, found 2"));
  EXPECT_THAT(
      refusal([&] {
        config_from_gguf(GgufFile::parse(bytes_of(File{expert_keys("gpt-oss"), {}, 0}.bytes()), "f"), "f");
      }),
      testing::HasSubstr("gpt-oss.attention.sliding_window"));
}

// Keys that converters write and that change nothing, and those that would change what is computed.
TEST(GgufConfig, EveryKeyOfTheArchitectureIsKnown) {
  const auto config = [](const std::string& arch, const std::vector<std::string>& more) {
    File f{arch == "llama" ? llama_keys() : expert_keys(arch), {}, 0};
    for (const std::string& k : more) f.keys.push_back(k);
    return config_from_gguf(GgufFile::parse(bytes_of(f.bytes()), "f.gguf"), "f.gguf");
  };
  const auto number = [](const std::string& name, uint32_t n) { return key(name, u32, le(n)); };
  const auto real = [](const std::string& name, float x) { return key(name, f32, le(x)); };
  // llama.cpp's converter of Llama, of Mixtral and of Qwen3-MoE, and what older files have.
  const std::vector<std::string> usual = {number("llama.vocab_size", 2),
                                          number("llama.attention.key_length", 16),
                                          number("llama.attention.value_length", 16),
                                          number("llama.rope.dimension_count", 16),
                                          real("llama.rope.freq_base", 1e4f),
                                          number("llama.expert_count", 0),
                                          number("llama.expert_used_count", 0),
                                          key("llama.tensor_data_layout", str, text("Meta AI original pth")),
                                          real("llama.attention.layer_norm_epsilon", 1e-5f),
                                          key("llama.attention.causal", boolean, "\x01"),
                                          real("llama.rope.scale_linear", 1),
                                          real("llama.logit_scale", 1)};
  EXPECT_EQ(config("llama", usual)["model_type"], "llama");
  EXPECT_EQ(config("qwen3moe",
                   {number("qwen3moe.pooling_type", 3), number("qwen3moe.vocab_size", 2),
                    number("qwen3moe.expert_group_count", 1), number("qwen3moe.expert_group_used_count", 1),
                    number("qwen3moe.leading_dense_block_count", 0)})["model_type"],
            "qwen3_moe");
  // Other names may be anything.
  config("llama", {number("llamas.x", 1), number("general.x", 1), number("quantize.imatrix.x", 1)});
  for (const auto& [more, message] :
       {std::pair{real("llama.attention.scale", .01f), "llama.attention.scale': expected 0"},
        {real("llama.attn_logit_softcapping", 5), "attn_logit_softcapping': expected 0, found 5"},
        {real("llama.final_logit_softcapping", 5), "final_logit_softcapping': expected 0, found 5"},
        {real("llama.logit_scale", 5), "logit_scale': expected 1, found 5"},
        {real("llama.embedding_scale", 5), "embedding_scale': expected 1, found 5"},
        {real("llama.residual_scale", .5f), "residual_scale': expected 1, found 0.5"},
        {key("llama.attention.causal", boolean, std::string(1, '\0')), "causal': expected 1, found 0"},
        {real("llama.attention.max_alibi_bias", 8), "max_alibi_bias': expected 0, found 8"},
        {real("llama.attention.clamp_kqv", .5f), "clamp_kqv': expected 0, found 0.5"},
        {number("llama.attention.value_length", 8), "value_length': expected 16, as keys have, found 8"},
        {real("llama.rope.scaling.attn_factor", 3), "attn_factor': expected 1, found 3"},
        {real("llama.rope.scale_linear", 4), "scale_linear': expected 1, found 4"},
        {key("llama.rope.scale_linear", str, text("x")), "scale_linear': expected a float, found a string"},
        {key("llama.use_parallel_residual", boolean, "\x01"), "use_parallel_residual': expected 0, found 1"},
        {number("llama.attention.sliding_window_pattern", 2),
         "expected keys that Lathe knows, found key 'llama.attention.sliding_window_pattern'"},
        {real("llama.rope.freq_base_swa", 1e4f), "found key 'llama.rope.freq_base_swa'"},
        {number("llama.banana", 1), "found key 'llama.banana'"}})
    EXPECT_THAT(refusal([&] { config("llama", {more}); }), testing::HasSubstr(message));
}

TEST(GgufConfig, RefusesWhatMakesNoModel) {
  auto replaced = [](size_t i, const std::string& by) {
    File f{llama_keys(), {}, 0};
    f.keys[i] = by;
    return f.bytes();
  };
  struct Case {
    const char* name;
    std::string file;
    std::vector<std::string> message;
  };
  const Case cases[] = {
      {"no architecture", File{}.bytes(), {"general.architecture", "none"}},
      {"architecture of bytes",
       replaced(0, key("general.architecture", str, text("\xff"))),
       {"general.architecture", "UTF-8"}},
      {"no hidden size", replaced(1, key("other", u8, "x")), {"'llama.embedding_length'", "none"}},
      {"zero layers",
       replaced(2, key("llama.block_count", u32, le(0u))),
       {"'llama.block_count'", "1 to", "found 0"}},
      {"2^32 - 1 heads",
       replaced(4, key("llama.attention.head_count", u32, le(~0u))),
       {"head_count'", "4294967295"}},
      {"heads that do not divide",
       replaced(4, key("llama.attention.head_count", u32, le(5u))),
       {"embedding_length", "a multiple of 5", "64"}},
      {"epsilon NaN",
       replaced(7, key("llama.attention.layer_norm_rms_epsilon", f32,
                       le(std::numeric_limits<float>::quiet_NaN()))),
       {"epsilon'", "a positive number", "nan"}},
      {"no vocabulary", replaced(9, key("other", u8, "x")), {"token_embd.weight", "neither"}},
      {"unknown scaling",
       replaced(9, key("llama.rope.scaling.type", str, text("longrope"))),
       {"rope.scaling.type", "longrope"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string message =
        refusal([&] { config_from_gguf(GgufFile::parse(bytes_of(c.file), "m.gguf"), "m.gguf"); });
    EXPECT_TRUE(message.starts_with("m.gguf: ")) << message;
    expect_fragments(message, c.message);
  }
}

TEST(GgufCheckpoint, LoadsViews) {
  testing_support::TemporaryDirectory dir;
  File f{
      llama_keys(), {info("token_embd.weight", {32, 3}, 8, 0), info("rope_freqs.weight", {8}, 0, 128)}, 160};
  const Checkpoint c = Checkpoint::open(dir.put("m.gguf", f.bytes()));
  ASSERT_TRUE(c.is_gguf());
  EXPECT_EQ(c.gguf()->integer("llama.block_count"), 2);
  EXPECT_EQ(c.config()["vocab_size"], 3);
  ASSERT_EQ(c.entries().size(), 2u);
  EXPECT_EQ(c.entries()[0].name, "rope_freqs.weight");
  EXPECT_EQ(c.find("token_embd.weight")->bytes, 3u * 34);
  const Weight w = c.load("token_embd.weight");
  check_parts(w, "w");
  EXPECT_EQ(w.rows(), 3);
  EXPECT_EQ(read_all(w).size(), 96u);
  c.forget("token_embd.weight");
  EXPECT_EQ(c.load("rope_freqs.weight").shape, (Shape{8}));
  EXPECT_EQ(c.find("none"), nullptr);
}

}  // namespace
}  // namespace lathe
