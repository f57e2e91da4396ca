// What export_modelopt writes, read again.
#include <cstring>
#include <gmock/gmock.h>

#include "export/modelopt.h"
#include "io/safetensors.h"
#include "models/kv_cache.h"
#include "quant/round.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// The matrices of a small model in other numbers, but for the embedding and the head; `numerics` by
// parameter.
template <class Choose>
Model quantized(const Checkpoint& from, Choose choose) {
  Model model = load(from);
  for (auto& [name, weight] : model.weights) {
    if (weight.shape.size() != 2 || name.find("layers.") == std::string::npos) continue;
    const auto [numerics, stored] = choose(name);
    if (numerics.is_dense()) continue;
    Weight to = make_weight(numerics, packing(stored), weight.shape);
    const std::vector<float> values = read_all(weight);
    to.packing->pack(
        round_to_nearest(values.data(), weight.rows(), weight.cols(), numerics, ScaleSearch::absmax), 0, to);
    weight = std::move(to);
  }
  return model;
}

void expect_same_numbers(const Model& a, const Model& b) {
  for (const auto& [name, weight] : a.weights) {
    ASSERT_EQ(read_all(weight), read_all(b.weights.at(name))) << name;
  }
}

struct Case {
  Numerics numerics;
  std::string_view packing, algorithm;
};

TEST(ModelOptExport, KeepsTheNumbersAndWritesTheSameBytesAgain) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  for (const Case& c :
       {Case{Numerics::fp8_tensor(), "ct.fp8", "FP8"},
        {Numerics::fp8().over(Activations::fp8_per_row), "ct.fp8", "FP8_PER_CHANNEL_PER_TOKEN"},
        {Numerics::fp8_block(), "ct.fp8", "FP8_PB_WO"},
        {Numerics::nvfp4(), "ct.nvfp4", "W4A16_NVFP4"},
        {Numerics::integer(4, 32, false), "ct.pack32", "W4A16_AWQ"},
        {Numerics::integer(8, 0, false), "ct.pack32", "W8A16"}}) {
    SCOPED_TRACE(c.algorithm);
    const Model model = quantized(from, [&](const std::string&) { return std::pair{c.numerics, c.packing}; });
    TemporaryDirectory dir;
    fs::create_directory(dir / "a");
    fs::create_directory(dir / "b");
    export_modelopt(model, from, dir / "a");
    const Json config = read_json(dir / "a/hf_quant_config.json");
    EXPECT_EQ(config["quantization"]["quant_algo"], c.algorithm);
    EXPECT_EQ(read_json(dir / "a/config.json")["quantization_config"], config["quantization"]);
    const Checkpoint again = Checkpoint::open(dir / "a");
    const Model read = load(again);
    expect_same_numbers(model, read);
    for (const auto& [name, weight] : read.weights) {
      if (!weight.numerics.is_dense()) {
        EXPECT_TRUE(weight.packing->name.starts_with("modelopt.")) << name;
      }
    }
    export_modelopt(read, again, dir / "b");
    for (const char* file : {"model.safetensors", "config.json", "hf_quant_config.json"})
      EXPECT_EQ(read_text_file(dir / "a" / file), read_text_file(dir / "b" / file)) << file;
  }
}

TEST(ModelOptExport, WritesScalesOfKeysAndValues) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  Model model = quantized(from, [&](const std::string&) {
    return std::pair{Numerics::fp8_tensor(), "ct.fp8"};
  });
  const auto put_scales = [&](const CacheScheme& scheme) {
    const int heads = scheme.count(2);
    const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
    for (const NodeId id : order) {
      if (!std::holds_alternative<op::Attention>(model.graph.node(id).op)) continue;
      const Node node = model.graph.node(set_cache(model.graph, id, scheme));
      const std::vector<float> k(static_cast<size_t>(heads), 0.5f), v(static_cast<size_t>(heads), 0.125f);
      model.weights[k_scale_of(node)] = dense_weight(Tensor::of<float>(DType::f32, {heads}, k));
      model.weights[v_scale_of(node)] = dense_weight(Tensor::of<float>(DType::f32, {heads}, v));
    }
  };
  for (const auto& [numerics, algorithm] : {std::pair{CacheNumerics::fp8, "FP8"},
                                            {CacheNumerics::int8, "INT8"},
                                            {CacheNumerics::nvfp4, "NVFP4"}}) {
    put_scales({numerics});
    TemporaryDirectory dir;
    export_modelopt(model, from, dir.path());
    EXPECT_EQ(read_json(dir / "hf_quant_config.json")["quantization"]["kv_cache_quant_algo"], algorithm);
    const SafetensorsFile file = SafetensorsFile::open(dir / "model.safetensors");
    const auto& item = file.items().at("model.layers.1.self_attn.k_proj.k_scale");
    EXPECT_EQ(item.dtype, DType::f32);
    EXPECT_EQ(item.shape, Shape{});
    EXPECT_TRUE(file.items().contains("model.layers.1.self_attn.v_proj.v_scale"));
    const Model read = load(Checkpoint::open(dir.path()));
    expect_same_numbers(model, read);
    EXPECT_EQ(to_string(read.graph), to_string(model.graph));
  }
  put_scales({CacheNumerics::fp8, CacheScales::head});
  TemporaryDirectory dir;
  EXPECT_THROW(export_modelopt(model, from, dir.path()), InputError);
}

TEST(ModelOptExport, MixturesNameTheirLayers) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  const Model model = quantized(from, [](const std::string& name) {
    return name.find("mlp") != std::string::npos ? std::pair{Numerics::nvfp4(), "ct.nvfp4"}
           : name.find("o_proj") != std::string::npos
               ? std::pair{Numerics::dense(DType::bf16), "dense"}
               : std::pair{Numerics::fp8().over(Activations::fp8_per_row), "ct.fp8"};
  });
  TemporaryDirectory dir;
  export_modelopt(model, from, dir.path());
  const Json q = read_json(dir / "hf_quant_config.json")["quantization"];
  EXPECT_EQ(q["quant_algo"], "MIXED_PRECISION");
  EXPECT_EQ(q["quantized_layers"]["model.layers.0.mlp.up_proj"]["quant_algo"], "W4A16_NVFP4");
  EXPECT_EQ(q["quantized_layers"]["model.layers.0.mlp.up_proj"]["group_size"], 16);
  EXPECT_EQ(q["quantized_layers"]["model.layers.0.self_attn.q_proj"]["quant_algo"],
            "FP8_PER_CHANNEL_PER_TOKEN");
  EXPECT_FALSE(q["quantized_layers"].contains("model.layers.0.self_attn.o_proj"));
  EXPECT_FALSE(q.contains("exclude_modules"));
  expect_same_numbers(model, load(Checkpoint::open(dir.path())));
}

// Scales of columns, and of activations: read, written and read again.
TEST(ModelOptExport, KeepsScalesOfColumnsAndActivations) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  const std::pair<Numerics, std::string_view> cases[] = {
      {Numerics::w8a8_static(DType::f32), "W8A8_SQ_PER_CHANNEL"},
      {Numerics::w8a8_static(DType::f32).with_column_scales(), "W8A8_SQ_PER_CHANNEL"},
      {Numerics::integer(4, 32, false, DType::f32).with_column_scales(), "W4A16_AWQ"},
      {Numerics::integer(4, 32, false, DType::f32).over(Activations::fp8_static).with_column_scales(),
       "W4A8_AWQ"},
      {Numerics::fp8_tensor(DType::f32).over(Activations::fp8_static), "FP8"},
      {Numerics::nvfp4().over(Activations::nvfp4), "NVFP4"},
      {Numerics::nvfp4().over(Activations::fp8_static), "W4A8_NVFP4_FP8"},
      {Numerics::nvfp4().over(Activations::nvfp4).with_column_scales(), "NVFP4_AWQ"}};
  for (const auto& [numerics, algorithm] : cases) {
    SCOPED_TRACE(to_string(numerics));
    Model model = load(from);
    for (auto& [name, weight] : model.weights) {
      if (weight.shape.size() != 2 || name.find("layers.") == std::string::npos) continue;
      Numerics plain = numerics;
      plain.column_scales = false;
      const std::vector<float> values = read_all(weight);
      Codes c = round_to_nearest(values.data(), weight.rows(), weight.cols(), plain, ScaleSearch::absmax);
      c.numerics = numerics;
      c.input_scale = 0.25f;
      if (numerics.column_scales)
        for (int64_t k = 0; k < c.cols; ++k) c.columns.push_back(1 + 0.125f * static_cast<float>(k % 5));
      weight =
          make_weight(numerics,
                      packing(numerics.is_integer() ? numerics.bits == 8 ? "modelopt.int8" : "modelopt.int4"
                              : numerics.bits == 8  ? "modelopt.fp8"
                                                    : "modelopt.nvfp4"),
                      weight.shape);
      weight.packing->pack(c, 0, weight);
    }
    TemporaryDirectory dir;
    fs::create_directory(dir / "a");
    fs::create_directory(dir / "b");
    export_modelopt(model, from, dir / "a");
    EXPECT_EQ(read_json(dir / "a/hf_quant_config.json")["quantization"]["quant_algo"], algorithm);
    const Checkpoint again = Checkpoint::open(dir / "a");
    const Model read = load(again);
    expect_same_numbers(model, read);
    for (const auto& [name, weight] : read.weights) {
      EXPECT_EQ(input_scale(weight), weight.numerics.has_input_scale() ? 0.25f : 0) << name;
    }
    export_modelopt(read, again, dir / "b");
    for (const char* file : {"model.safetensors", "config.json", "hf_quant_config.json"})
      EXPECT_EQ(read_text_file(dir / "a" / file), read_text_file(dir / "b" / file)) << file;
  }
}

TEST(ModelOptExport, RefusesOtherNumbersByName) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  const auto refusal = [&](const Model& model) {
    TemporaryDirectory dir;
    try {
      export_modelopt(model, from, dir.path());
    } catch (const InputError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal(load(from)),
              testing::HasSubstr("expected a quantized model, found none of its weights is"));
  const Model int4 = quantized(from, [](const std::string&) {
    return std::pair{Numerics::integer(4, 32, true), "ct.pack32"};
  });
  EXPECT_THAT(refusal(int4),
              testing::AllOf(testing::HasSubstr("tensor 'model.layers.0.mlp.down_proj.weight'"),
                             testing::HasSubstr("found int4 g32 asym")));
  Model smoothed = load(from);
  Weight& up = smoothed.weights.at("model.layers.0.mlp.up_proj.weight");
  up = make_weight(Numerics::nvfp4().with_column_scales(), packing("modelopt.nvfp4"), up.shape);
  EXPECT_THAT(refusal(smoothed), testing::HasSubstr("weights and activations of one algorithm of ModelOpt"));
  Model table = load(from);
  Weight& embedding = table.weights.at("model.embed_tokens.weight");
  Weight to = make_weight(Numerics::fp8(), packing("ct.fp8"), embedding.shape);
  embedding = to;
  EXPECT_THAT(refusal(table), testing::AllOf(testing::HasSubstr("'model.embed_tokens.weight'"),
                                             testing::HasSubstr("linear layers only")));
}

}  // namespace
}  // namespace lathe
