#include <cstring>
#include <fstream>
#include <gmock/gmock.h>

#include "core/rng.h"
#include "io/attack.h"
#include "io/safetensors.h"
#include "io/writer.h"
#include "quant/round.h"

namespace lathe {
namespace {

using testing::ElementsAre;

Weight random_weight(const Numerics& n, std::string_view packing_name, const Shape& shape, Rng& rng) {
  Weight w = make_weight(n, packing(packing_name), shape);
  std::vector<float> values;
  for (int64_t i = 0; i < w.rows() * w.cols(); ++i) values.push_back(rng.normal());
  Codes codes{n, w.rows(), w.cols(), values, {}, {}, {}};
  if (!n.is_dense()) codes = round_to_nearest(values.data(), w.rows(), w.cols(), n, ScaleSearch::absmax);
  w.packing->pack(codes, 0, w);
  return w;
}

struct Named {
  std::string name;
  Weight weight;
};

std::vector<Named> model() {
  Rng rng(5);
  std::vector<Named> out;
  out.push_back({"embed.weight", random_weight(Numerics::dense(DType::bf16), "dense", {50, 64}, rng)});
  for (int bits = 2; bits <= 8; ++bits)
    out.push_back({fmt::format("b{}.weight", bits),
                   random_weight(Numerics::integer(bits, 32, bits % 2 == 0), "ct.pack32", {37, 96}, rng)});
  out.push_back({"short.weight",
                 random_weight(Numerics::integer(4, 128, true, DType::f16), "ct.pack32", {8, 40}, rng)});
  out.push_back({"c.weight", random_weight(Numerics::integer(8, 0, false), "ct.int8", {5, 33}, rng)});
  out.push_back(
      {"c2.weight", random_weight(Numerics::integer(8, 0, true, DType::f32), "ct.int8", {5, 33}, rng)});
  for (DType d : {DType::bf16, DType::f32}) {
    const auto name = [&](std::string_view what) { return fmt::format("{}_{}.weight", what, dtype_name(d)); };
    out.push_back({name("fp8"), random_weight(Numerics::fp8(d), "ct.fp8", {37, 96}, rng)});
    out.push_back({name("fp8_block"), random_weight(Numerics::fp8_block(d), "ct.fp8", {150, 200}, rng)});
    out.push_back({name("fp8_tensor"), random_weight(Numerics::fp8_tensor(d), "ct.fp8", {37, 96}, rng)});
  }
  out.push_back({"mxfp4.weight", random_weight(Numerics::mxfp4(), "ct.mxfp4", {37, 96}, rng)});
  out.push_back({"mxfp8.weight", random_weight(Numerics::mxfp8(), "ct.mxfp8", {37, 96}, rng)});
  out.push_back({"norm.weight", random_weight(Numerics::dense(DType::f32), "dense", {64}, rng)});
  return out;
}

std::string write(const std::vector<Named>& weights, const fs::path& directory, size_t shard_bytes) {
  std::vector<PlannedEntry> plan;
  for (const Named& n : weights)
    plan.push_back({n.name, n.weight.numerics, n.weight.packing, n.weight.shape});
  CheckpointWriter writer(directory, {{"model_type", "llama"}, {"quantization_config", "an old one"}}, plan,
                          shard_bytes);
  for (const Named& n : weights) writer.write(n.weight);
  return writer.finish();
}

void expect_same(const std::vector<Named>& weights, const fs::path& directory) {
  const Checkpoint c = Checkpoint::open(directory);
  EXPECT_EQ(c.entries().size(), weights.size());
  for (const Named& n : weights) {
    SCOPED_TRACE(n.name);
    const Weight w = c.load(n.name);
    check_parts(w, n.name);
    EXPECT_EQ(w.numerics, n.weight.numerics);
    EXPECT_EQ(w.packing, n.weight.packing);
    EXPECT_EQ(w.shape, n.weight.shape);
    ASSERT_EQ(w.parts.size(), n.weight.parts.size());
    for (size_t i = 0; i < w.parts.size(); ++i)
      EXPECT_EQ(std::memcmp(w.parts[i].storage.data, n.weight.parts[i].storage.data, w.parts[i].bytes()), 0)
          << i;
  }
}

TEST(CheckpointWriter, WhatIsWrittenIsReadBitForBit) {
  testing_support::TemporaryDirectory dir;
  const auto weights = model();
  const std::string hash = write(weights, dir.path(), 5'000'000'000);
  expect_same(weights, dir.path());
  EXPECT_EQ(hash.size(), 64u);
  const Checkpoint c = Checkpoint::open(dir.path());
  EXPECT_EQ(c.config()["model_type"], "llama");
  EXPECT_EQ(c.config()["quantization_config"]["quant_method"], "compressed-tensors");
  EXPECT_FALSE(fs::exists(dir / "model.safetensors.index.json"));

  // weight_shape is stored, as compressed-tensors does.
  const SafetensorsFile file = SafetensorsFile::open(dir / "model.safetensors");
  EXPECT_THAT(file.load("b4.weight_shape").as<int64_t>(), ElementsAre(37, 96));
}

TEST(CheckpointWriter, Nf4IsABitsandbytesCheckpoint) {
  testing_support::TemporaryDirectory dir;
  Rng rng(6);
  std::vector<Named> weights;
  weights.push_back({"a.weight", random_weight(Numerics::nf4(), "bnb.nf4", {37, 128}, rng)});
  weights.push_back({"b.weight", random_weight(Numerics::nf4(128), "bnb.nf4", {4, 256}, rng)});
  weights.push_back({"norm.weight", random_weight(Numerics::dense(DType::f32), "dense", {64}, rng)});
  write(weights, dir.path(), 5'000'000'000);
  expect_same(weights, dir.path());
  // As bitsandbytes' QuantState.as_dict(packed=True) writes it.
  const SafetensorsFile file = SafetensorsFile::open(dir / "model.safetensors");
  const Tensor state = file.load("b.weight.quant_state.bitsandbytes__nf4");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(state.storage.data), state.bytes()),
            R"({"quant_type": "nf4", "blocksize": 128, "dtype": "bfloat16", "shape": [4, 256]})");
  EXPECT_EQ(file.load("b.weight").shape, (Shape{512, 1}));
  EXPECT_EQ(file.load("b.weight.absmax").shape, (Shape{8}));
}

// transformers' quant_method fp8, as DeepSeek and Qwen publish it, and with one scale; scales of other ranks.
TEST(Checkpoint, ReadsFp8OfTransformers) {
  Rng rng(7);
  for (const bool blocks : {true, false}) {
    testing_support::TemporaryDirectory dir;
    const Numerics n = blocks ? Numerics::fp8_block(DType::f32) : Numerics::fp8_tensor(DType::f32);
    const Weight w = random_weight(n, blocks ? "hf.fp8" : "ct.fp8", {150, 200}, rng);
    const std::string scale = blocks ? "m.weight_scale_inv" : "m.weight_scale";
    const Shape shape = blocks ? Shape{2, 2} : Shape{};
    SafetensorsWriter out(dir / "model.safetensors",
                          {{"m.weight", DType::f8e4m3, {150, 200}}, {scale, DType::f32, shape}});
    Tensor scales = w.parts[1];
    scales.shape = shape;
    out.write(w.parts[0]);
    out.write(scales);
    out.finish();
    Json q = {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}};
    if (blocks) q["weight_block_size"] = {128, 128};
    std::ofstream(dir / "config.json") << Json{{"quantization_config", q}}.dump();
    const Checkpoint c = Checkpoint::open(dir.path());
    ASSERT_EQ(c.entries().size(), 1u);
    const Weight back = c.load("m.weight");
    // "dynamic" is what the input is rounded to, as the weight is shaped.
    EXPECT_EQ(back.numerics, n.over(blocks ? Activations::fp8_groups : Activations::fp8_per_row));
    EXPECT_EQ(read_all(back), read_all(w));
  }
}

TEST(CheckpointWriter, ShardsHoldWholeEntriesAndTheSameModel) {
  testing_support::TemporaryDirectory one, many;
  const auto weights = model();
  const std::string hash = write(weights, one.path(), 5'000'000'000),
                    sharded = write(weights, many.path(), 4000);
  EXPECT_EQ(hash, sharded);
  expect_same(weights, many.path());
  EXPECT_FALSE(fs::exists(many / "model.safetensors"));
  const Json index = read_json(many / "model.safetensors.index.json");
  size_t files = 0, bytes = 0;
  for (const auto& entry : fs::directory_iterator(many.path()))
    files += entry.path().extension() == ".safetensors";
  EXPECT_GT(files, 3u);
  for (const Named& n : weights) bytes += n.weight.bytes() + (n.weight.packing->name == "ct.pack32" ? 16 : 0);
  EXPECT_EQ(index["metadata"]["total_size"], bytes);
  EXPECT_EQ(index["weight_map"]["embed.weight"], fmt::format("model-00001-of-{:05}.safetensors", files));
}

TEST(CheckpointWriter, HashTellsModelsApart) {
  testing_support::TemporaryDirectory a, b;
  auto weights = model();
  const std::string before = write(weights, a.path(), 1 << 30);
  weights[0].weight = repack(weights[0].weight, packing("dense"));
  weights[0].weight.parts[0].as_mutable<uint16_t>()[7] ^= 1;
  EXPECT_NE(write(weights, b.path(), 1 << 30), before);
}

TEST(CheckpointWriter, RefusesWhatOthersCannotRead) {
  testing_support::TemporaryDirectory dir;
  auto plan = [&](const std::string& name, const Numerics& n, std::string_view p, const Shape& shape) {
    CheckpointWriter writer(dir.path(), Json::object(), {{name, n, &packing(p), shape}});
  };
  EXPECT_THROW(plan("a.weight", Numerics::integer(4, 32, false, DType::f16), "gguf.q4_0", {4, 32}), Error);
  EXPECT_THROW(plan("a.weight", Numerics::integer(4, 32, false), "expand.f32", {4, 32}), Error);
  EXPECT_THROW(plan("a.bias", Numerics::integer(4, 32, false), "ct.pack32", {4, 32}), Error);
  const std::string message = refusal([&] {
    plan("a.weight", Numerics::integer(4, 32, false), "ct.pack32", {4, 40});
  });
  EXPECT_EQ(message,
            "tensor 'a.weight': expected a group size that divides its 40 columns, found 32; "
            "compressed-tensors allows no "
            "ragged group; choose another group size or keep it dense");
}

TEST(CheckpointWriter, HoldsThePlan) {
  testing_support::TemporaryDirectory dir;
  const auto weights = model();
  CheckpointWriter writer(
      dir.path(), Json::object(),
      {{"embed.weight", weights[0].weight.numerics, weights[0].weight.packing, {50, 64}}});
  EXPECT_THROW(writer.finish(), Error);
  EXPECT_THROW(writer.write(weights[1].weight), Error);
}

TEST(CheckpointWriter, AModelWithoutQuantizationHasNoQuantizationConfig) {
  testing_support::TemporaryDirectory dir;
  Rng rng(6);
  write({{"w.weight", random_weight(Numerics::dense(DType::bf16), "dense", {3, 4}, rng)}}, dir.path(),
        1 << 30);
  EXPECT_EQ(Checkpoint::open(dir.path()).config().dump(), R"({"model_type":"llama"})");
}

TEST(CopyCompanions, ByteForByte) {
  testing_support::TemporaryDirectory from, to;
  const std::string odd("{\"a\": 1}\r\n\0\xff", 12);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                           "chat_template.jinja", "additional_chat_templates/tool.jinja"})
    from.put(name, odd);
  from.put("config.json", "{}");
  from.put("notes.txt", "private");
  copy_companions(from.path(), to.path());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                           "chat_template.jinja", "additional_chat_templates/tool.jinja"})
    EXPECT_EQ(testing_support::read_text_file(to / name), odd) << name;
  EXPECT_FALSE(fs::exists(to / "config.json"));
  EXPECT_FALSE(fs::exists(to / "notes.txt"));
}

}  // namespace
}  // namespace lathe
