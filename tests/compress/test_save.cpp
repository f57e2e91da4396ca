#include <cstring>
#include <gmock/gmock.h>

#include "compress/save.h"
#include "gguf_writer.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

struct Reopened {
  std::string hash;
  Model model;
};

Reopened save_and_open(const fs::path& source, const Numerics& numerics, const Selection& selection,
                       const fs::path& to, int threads = 0) {
  const Checkpoint from = Checkpoint::open(source);
  const Model model = load(from);
  fs::create_directories(to);
  const std::string hash =
      save(model, from, assign_all(model, numerics, selection), ScaleSearch::mse, to, threads);
  return {hash, load(Checkpoint::open(to))};
}

void expect_same_bits(const Model& a, const Model& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, weight] : a.weights) {
    const Weight& other = b.weights.at(name);
    EXPECT_EQ(weight.numerics, other.numerics) << name;
    EXPECT_EQ(weight.shape, other.shape) << name;
    const auto x = read_all(weight), y = read_all(other);
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * 4), 0) << name;
  }
}

const Selection with_head{.head = true, .embeddings = true, .keep = {"*.layers.1.*.o_proj"}};

class Save : public testing::TestWithParam<const char*> {};

TEST_P(Save, OpensAsExactlyWhatWasQuantizedInMemory) {
  for (const Numerics& numerics :
       {Numerics::integer(8, 0, false), Numerics::integer(4, 32, true),
        Numerics::integer(4, 32, false, DType::f16), Numerics::w8a8(),
        parse_scheme("w4a8", 32, true, DType::bf16), Numerics::fp8(), Numerics::fp8_tensor(),
        Numerics::fp8_block(), Numerics::mxfp8(), Numerics::mxfp4(), Numerics::nvfp4()}) {
    const TemporaryDirectory dir;
    const Reopened saved = save_and_open(golden(GetParam()), numerics, with_head, dir.path() / "m");
    Model expected = load(Checkpoint::open(golden(GetParam())));
    quantize(expected, assign_all(expected, numerics, with_head), ScaleSearch::mse);
    expect_same_bits(saved.model, expected);
    EXPECT_EQ(hash_of(saved.model), saved.hash);
  }
}

TEST_P(Save, NothingAssignedIsACopy) {
  const TemporaryDirectory dir;
  const Checkpoint from = Checkpoint::open(golden(GetParam()));
  const Model model = load(from);
  EXPECT_EQ(save(model, from, {}, ScaleSearch::mse, dir.path()), hash_of(model));
  expect_same_bits(load(Checkpoint::open(dir.path())), model);
}

INSTANTIATE_TEST_SUITE_P(Families, Save,
                         testing::Values("llama3", "llama3.2", "qwen2.5", "qwen3", "sharded",
                                         "rope_parameters", "mixtral"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::erase(name, '.');
                           return name;
                         });

TEST(SavedHash, WhatIsReadBackHasTheHashAndAChangedTensorHasNot) {
  const TemporaryDirectory dir;
  const Checkpoint from = Checkpoint::open(golden("llama3"));
  const Model model = load(from);
  const Assignment assignment = assign_all(model, Numerics::integer(4, 32, true), with_head);
  const std::string hash = save(model, from, assignment, ScaleSearch::mse, dir.path());
  Model read = load(Checkpoint::open(dir.path()));
  EXPECT_EQ(hash_of(read), hash);
  Weight& norm = read.weights.at("model.norm.weight");
  norm = dense_weight(Tensor::zeros(norm.parts[0].dtype, norm.shape));
  EXPECT_NE(hash_of(read), hash);
}

TEST(SaveTwice, GivesTheSameFilesWhateverTheThreads) {
  const TemporaryDirectory dir;
  const Numerics numerics = Numerics::integer(4, 32, true);
  const std::string hash =
      save_and_open(source_dir() / "models/builtin", numerics, with_head, dir.path() / "a", 1).hash;
  EXPECT_EQ(save_and_open(source_dir() / "models/builtin", numerics, with_head, dir.path() / "b", 3).hash,
            hash);
  for (const auto& entry : fs::directory_iterator(dir.path() / "a"))
    EXPECT_EQ(read_text_file(entry.path()), read_text_file(dir.path() / "b" / entry.path().filename()))
        << entry.path();
}

TEST(SaveNf4, IsWhatWasQuantizedInMemory) {
  const TemporaryDirectory dir;
  const fs::path source = source_dir() / "models/builtin";
  const Reopened saved = save_and_open(source, Numerics::nf4(), {}, dir.path() / "m");
  Model expected = load(Checkpoint::open(source));
  quantize(expected, assign_all(expected, Numerics::nf4(), {}), ScaleSearch::mse);
  expect_same_bits(saved.model, expected);
  EXPECT_EQ(hash_of(saved.model), saved.hash);
}

// A release that rounds differently says so: recipes name these hashes. Every ISA level gives them.
TEST(Quantize, KeepsTheBytesOfTheBuiltInModel) {
  struct Row {
    const char* scheme;
    int group;
    bool asymmetric;
    const char* hash;
  };
  for (const Row& row : std::initializer_list<Row>{{"w2a16", 32, false, "7feb14806b79c672"},
                                                   {"w3a16", 128, true, "3b41a8164305c7ba"},
                                                   {"w4a16", 32, true, "2a4b17cdd1d989af"},
                                                   {"w4a16", 128, false, "268c91eb0139ddac"},
                                                   {"w6a16", 0, true, "289ca9d5c0941c10"},
                                                   {"w8a16", 0, false, "9d126e493241261e"},
                                                   {"w8a8", -1, false, "57d2f865333229c2"},
                                                   {"fp8", -1, false, "d877d32bf2651d0b"},
                                                   {"fp8-block", -1, false, "ca1622b45dc5dd73"},
                                                   {"nvfp4", -1, false, "d7b926409a513508"},
                                                   {"mxfp4", -1, false, "a7d8e201fac1d475"},
                                                   {"mxfp8", -1, false, "7f3bbbaff0082214"},
                                                   {"nf4", -1, false, "9f35567ed9a3e3e6"}}) {
    Model model = load(Checkpoint::open(source_dir() / "models/builtin"));
    const Numerics numerics = parse_scheme(row.scheme, row.group, row.asymmetric, scale_dtype(model.config));
    quantize(model, assign_all(model, numerics, {}), ScaleSearch::mse);
    EXPECT_EQ(hash_of(model).substr(0, 16), row.hash) << row.scheme << " g" << row.group;
  }
}

// What runtimes fuse into one matrix has one global scale; what they do not, its own.
TEST(Quantize, LayersOfOneInputShareTheGlobalScale) {
  Model model = load(Checkpoint::open(source_dir() / "models/builtin"));
  const Assignment all = assign_all(model, Numerics::nvfp4(), {});
  quantize(model, all, ScaleSearch::absmax);
  const auto global = [&](const std::string& module) {
    return unpack(model.weights.at("model.layers.0." + module + ".weight"), 0, 1).global;
  };
  EXPECT_EQ(global("self_attn.q_proj"), global("self_attn.k_proj"));
  EXPECT_EQ(global("self_attn.q_proj"), global("self_attn.v_proj"));
  EXPECT_EQ(global("mlp.gate_proj"), global("mlp.up_proj"));
  EXPECT_NE(global("mlp.gate_proj"), global("self_attn.q_proj"));
  EXPECT_NE(global("mlp.down_proj"), global("mlp.up_proj"));
}

TEST(SaveTwice, OfAQuantizedModelKeepsItsBits) {
  const TemporaryDirectory dir;
  const Reopened first =
      save_and_open(golden("llama3"), Numerics::integer(4, 32, true), with_head, dir.path() / "a");
  const Checkpoint from = Checkpoint::open(dir.path() / "a");
  fs::create_directories(dir.path() / "b");
  EXPECT_EQ(save(load(from), from, {}, ScaleSearch::mse, dir.path() / "b"), first.hash);
}

TEST(SaveGguf, WritesTheHuggingFaceModelThatTheFileHolds) {
  for (const char* family : {"tinyllama", "qwen3"}) {
    const TemporaryDirectory dir;
    write_gguf(load(Checkpoint::open(golden(family))), dir / "model.gguf");
    const Reopened saved =
        save_and_open(dir / "model.gguf", Numerics::integer(4, 32, true, DType::f32), {}, dir / "m");
    Model expected = load(Checkpoint::open(dir / "model.gguf"));
    quantize(expected, assign_all(expected, Numerics::integer(4, 32, true, DType::f32), {}),
             ScaleSearch::mse);
    expect_same_bits(saved.model, expected);
  }
}

TEST(SaveCompanions, AreCopiedByteForByte) {
  const TemporaryDirectory dir;
  const fs::path source = source_dir() / "models/builtin";
  save_and_open(source, Numerics::integer(8, 0, false), {}, dir.path());
  for (const char* file :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"})
    EXPECT_EQ(read_text_file(dir.path() / file), read_text_file(source / file)) << file;
}

TEST(SaveConfig, KeepsEveryKeyAndSaysHowItIsQuantized) {
  const TemporaryDirectory dir;
  save_and_open(golden("llama3"), Numerics::integer(4, 32, true), with_head, dir.path());
  Json config = read_json(dir.path() / "config.json");
  EXPECT_EQ(config["quantization_config"]["quant_method"], "compressed-tensors");
  config.erase("quantization_config");
  EXPECT_EQ(config, read_json(golden("llama3") / "config.json"));
}

}  // namespace
}  // namespace lathe
