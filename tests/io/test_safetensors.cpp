#include <gmock/gmock.h>

#include "io/attack.h"
#include "io/safetensors.h"

namespace lathe {
namespace {

using testing::ElementsAre;

TEST(Safetensors, ReadsHeaders) {
  const auto items = SafetensorsFile::parse_header(
      bytes_of(safetensors(
          R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]},)"
          R"("a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},)"
          R"("empty":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]}}   )",
          16)),
      "f");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items.at("a").dtype, DType::bf16);
  EXPECT_THAT(items.at("a").shape, ElementsAre(2, 2));
  EXPECT_EQ(items.at("b").end - items.at("b").begin, 8u);
  EXPECT_EQ(items.at("empty").begin, items.at("empty").end);
  EXPECT_TRUE(SafetensorsFile::parse_header(bytes_of(safetensors("{}")), "f").empty());
}

std::string one(const std::string& tensor, size_t data_bytes) {
  return safetensors("{\"x\":" + tensor + "}", data_bytes);
}

TEST(Safetensors, RefusesAttacks) {
  struct Case {
    const char* name;
    std::string file;
    std::vector<std::string> message;
  };
  const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const Case cases[] = {
      {"empty", "", {"expected a safetensors file", "found 0 bytes"}},
      {"short", "1234567", {"found 7 bytes"}},
      {"header longer than the file", le<uint64_t>(100) + "{}", {"header length", "at most 2", "found 100"}},
      {"header length 2^63", le<uint64_t>(1ull << 63) + "{}", {"header length", "found 9223372036854775808"}},
      {"header length 2^64 - 1", le<uint64_t>(~0ull) + "{}", {"header length", "found 18446744073709551615"}},
      {"empty header", safetensors(""), {"header", "a JSON object"}},
      {"array header", safetensors("[]"), {"header", "a JSON object"}},
      {"leading space", safetensors(" {}"), {"header", "a JSON object"}},
      {"cut header", safetensors("{\"x\":"), {"header", "valid JSON"}},
      {"two documents", safetensors("{}{}"), {"header", "valid JSON"}},
      {"bad UTF-8 name", safetensors("{\"\xff\":" + good + "}", 8), {"header", "valid JSON", "UTF-8"}},
      {"deep nesting", safetensors("{\"x\":" + std::string(1'000'000, '[') + "}"), {"header", "valid JSON"}},
      {"deep metadata",
       safetensors("{\"__metadata__\":" + std::string(900, '[') + std::string(900, ']') + "}"),
       {"__metadata__", "an object of strings", "an array"}},
      {"metadata of numbers", safetensors("{\"__metadata__\":{\"a\":1}}"), {"__metadata__", "'a': 1"}},
      {"metadata twice",
       safetensors("{\"__metadata__\":{},\"__metadata__\":{}}"),
       {"one __metadata__", "two"}},
      {"tensor is a number", one("3", 0), {"tensor 'x'", "an object", "found 3"}},
      {"no dtype", one(R"({"shape":[2],"data_offsets":[0,8]})", 8), {"tensor 'x'", "no dtype"}},
      {"no offsets", one(R"({"dtype":"F32","shape":[2]})", 8), {"tensor 'x'", "no data_offsets"}},
      {"unknown key",
       one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]})", 8),
       {"tensor 'x'", "'strides'"}},
      {"key twice",
       one(R"({"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]})", 8),
       {"tensor 'x'", "'dtype' twice"}},
      {"name twice",
       safetensors("{\"x\":" + good + ",\"x\":" + good + "}", 8),
       {"tensor 'x'", "distinct names"}},
      {"unknown dtype",
       one(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})", 8),
       {"tensor 'x'", "BF16", "'F64'"}},
      {"dtype is a number",
       one(R"({"dtype":1,"shape":[2],"data_offsets":[0,8]})", 8),
       {"tensor 'x': dtype", "a string", "1"}},
      {"wrong dtype for the bytes",
       one(R"({"dtype":"F16","shape":[2],"data_offsets":[0,8]})", 8),
       {"tensor 'x'", "4 bytes for f16 [2]", "found 8"}},
      {"shape is a number",
       one(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", 8),
       {"tensor 'x': shape", "an array", "2"}},
      {"negative dimension",
       one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", 8),
       {"tensor 'x': shape", "non-negative", "-2"}},
      {"float dimension",
       one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", 8),
       {"tensor 'x': shape", "non-negative", "2.0"}},
      {"string dimension",
       one(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})", 8),
       {"tensor 'x': shape", "'2'"}},
      {"dimension 2^64 - 1",
       one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})", 8),
       {"tensor 'x': shape", "below 2^63"}},
      {"dimension above 2^64",
       one(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})", 8),
       {"header", "valid JSON"}},
      {"product overflows",
       one(R"({"dtype":"F32","shape":[1152921504606846976,16],"data_offsets":[0,8]})", 8),
       {"tensor 'x'", "a size below 2^63", "[1152921504606846976, 16]"}},
      {"product wraps to the size",
       one(R"({"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]})", 8),
       {"tensor 'x'", "a size below 2^63"}},
      {"overflow hidden by a zero",
       one(R"({"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]})", 0),
       {"tensor 'x'", "a size below 2^63"}},
      {"2^60 elements claimed",
       one(R"({"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]})", 8),
       {"tensor 'x': data_offsets", "inside the 8 bytes"}},
      {"offsets outside",
       one(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})", 8),
       {"tensor 'x': data_offsets", "inside the 8 bytes", "[4, 12]"}},
      {"offsets backwards",
       one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", 8),
       {"tensor 'x': data_offsets", "[8, 0]"}},
      {"negative offsets",
       one(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})", 8),
       {"tensor 'x': data_offsets", "non-negative", "-8"}},
      {"three offsets",
       one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})", 8),
       {"tensor 'x': data_offsets", "two numbers", "3"}},
      {"hole at the start",
       one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8),
       {"tensor 'x'", "a hole"}},
      {"hole in the middle",
       safetensors(
           R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
           12),
       {"tensor 'y'", "offset 4", "a hole"}},
      {"overlap",
       safetensors(
           R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
           12),
       {"tensor 'y'", "offset 8", "an overlap"}},
      {"bytes after the data", one(good, 9), {"expected 8 bytes of data", "found 9"}},
      {"truncated data", one(good, 7), {"tensor 'x': data_offsets", "inside the 7 bytes", "truncated"}},
      {"control characters", safetensors(R"({"a\u001b[31m\nb":3})"), {"tensor 'a\\x1b[31m\\x0ab'"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string message =
        refusal([&] { SafetensorsFile::parse_header(bytes_of(c.file), "dir/m.safetensors"); });
    EXPECT_TRUE(message.starts_with("dir/m.safetensors: ")) << message;
    expect_fragments(message, c.message);
  }
}

TEST(Safetensors, RefusesFilesThatAreNone) {
  testing_support::TemporaryDirectory dir;
  EXPECT_THAT(refusal([&] { SafetensorsFile::open(dir / "none"); }), testing::HasSubstr("none: cannot open"));
  EXPECT_THAT(refusal([&] { SafetensorsFile::open(dir.path()); }), testing::HasSubstr("a regular file"));
  EXPECT_THAT(refusal([&] { SafetensorsFile::open(dir.put("zero", "")); }),
              testing::HasSubstr("zero: expected a safetensors file"));
}

TEST(Safetensors, WritesWhatItReads) {
  testing_support::TemporaryDirectory dir;
  const Tensor a =
      Tensor::of<int8_t>(DType::i8, {3}, std::array<int8_t, 3>{1, -2, 3});  // misaligns what follows
  const Tensor b = Tensor::of<float>(DType::f32, {2, 1}, std::array{1.5f, -2.5f});
  SafetensorsWriter writer(dir / "m", {{"a", DType::i8, {3}}, {"b", DType::f32, {2, 1}}});
  EXPECT_THROW(writer.finish(), Error);
  writer.write(a);
  writer.write(b);
  EXPECT_THROW(writer.write(b), Error);
  writer.finish();

  const SafetensorsFile file = SafetensorsFile::open(dir / "m");
  EXPECT_EQ(file.items().at("a").begin % 8, 0u);
  EXPECT_THAT(file.load("a").as<int8_t>(), ElementsAre(1, -2, 3));
  EXPECT_THAT(file.load("b").as<float>(), ElementsAre(1.5f, -2.5f));
  file.forget("b");
  EXPECT_THAT(file.load("b").as<float>(), ElementsAre(1.5f, -2.5f));
  EXPECT_THROW(file.load("c"), Error);
}

TEST(Safetensors, WriterChecksWhatWasAnnounced) {
  testing_support::TemporaryDirectory dir;
  SafetensorsWriter writer(dir / "m", {{"a", DType::f32, {2}}});
  EXPECT_THROW(writer.write(Tensor::zeros(DType::f32, {3})), Error);
  EXPECT_THROW(SafetensorsWriter(dir / "n", {{"a", DType::f32, {2}}, {"a", DType::f32, {2}}}), Error);
}

}  // namespace
}  // namespace lathe
