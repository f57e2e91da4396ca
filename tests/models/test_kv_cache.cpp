// What checkpoints say about the numbers of keys and values, and what is refused.
#include <gmock/gmock.h>
#include <limits>

#include "edited_checkpoint.h"
#include "models/kv_cache.h"

namespace lathe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using namespace testing_support;

Tensor scale(float value, Shape shape = {1}) {
  return Tensor::of<float>(DType::f32, shape,
                           std::vector<float>(static_cast<size_t>(elements(shape)), value));
}

// A model whose config says that keys and values are e4m3, or what `scheme` says, and nothing else.
struct WithScheme : Edited {
  explicit WithScheme(const std::string& scheme = R"({"num_bits":8,"type":"float","strategy":"tensor",
                                                      "dynamic":false,"symmetric":true})")
      : Edited("llama3") {
    config["quantization_config"] = Json::parse(
        R"({"quant_method":"compressed-tensors","format":"dense","config_groups":{},"kv_cache_scheme":)" +
        scheme + "}");
  }
};
constexpr const char* attention = "model.layers.0.self_attn";

const op::Attention& first(const Model& m) {
  return std::get<op::Attention>(m.graph.node(m.graph.find(std::string(attention) + ".attention")).op);
}

TEST(KvCacheScales, AreTheModelsUnderEveryName) {
  struct Names {
    const char *k, *v;
  };
  for (const Names& n : {Names{"k_scale", "v_scale"},
                         {"k_proj.k_scale", "v_proj.v_scale"},
                         {"k_proj.output_scale", "v_proj.output_scale"}}) {
    WithScheme e;
    for (const char* layer : {"model.layers.0.self_attn.", "model.layers.1.self_attn."}) {
      e.tensors[std::string(layer) + n.k] = scale(0.5f);
      e.tensors[std::string(layer) + n.v] = scale(0.25f, {});
      e.tensors[std::string(layer) + "q_scale"] = scale(7);  // known, and not used
    }
    const Model m = load(Checkpoint::open(e.write()));
    EXPECT_EQ(first(m).cache, (CacheScheme{CacheNumerics::fp8, CacheScales::layer})) << n.k;
    EXPECT_THAT(read_all(m.weights.at("model.layers.1.self_attn.k_scale")), ElementsAre(0.5f));
    EXPECT_THAT(read_all(m.weights.at("model.layers.1.self_attn.v_scale")), ElementsAre(0.25f));
    EXPECT_TRUE(is_cache_scale(m.graph, "model.layers.1.self_attn.v_scale"));
    EXPECT_FALSE(is_cache_scale(m.graph, "model.layers.1.self_attn.v_proj.weight"));
  }
}

TEST(KvCacheScales, AreOneWhereNothingStoresThem) {
  WithScheme e;
  e.tensors["model.layers.0.self_attn.k_scale"] = scale(0.5f);
  testing::internal::CaptureStderr();
  const Model m = load(Checkpoint::open(e.write()));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("fp8 without 3 of their scales"), HasSubstr("these are 1")));
  EXPECT_THAT(read_all(m.weights.at("model.layers.0.self_attn.k_scale")), ElementsAre(0.5f));
  EXPECT_THAT(read_all(m.weights.at("model.layers.0.self_attn.v_scale")), ElementsAre(1));
  EXPECT_THAT(read_all(m.weights.at("model.layers.1.self_attn.k_scale")), ElementsAre(1));
}

TEST(KvCacheScales, MayBeOneForEachHead) {
  WithScheme e(R"({"num_bits":8,"type":"float","strategy":"attn_head"})");
  const int heads = first(load(Checkpoint::open(golden("llama3")))).kv_heads;
  ASSERT_GT(heads, 1);
  for (const char* layer : {"model.layers.0.self_attn.", "model.layers.1.self_attn."})
    for (const char* name : {"k_scale", "v_scale"})
      e.tensors[std::string(layer) + name] = scale(2, {heads, 1, 1});
  const Model m = load(Checkpoint::open(e.write()));
  EXPECT_EQ(cache_scheme(m.graph), (CacheScheme{CacheNumerics::fp8, CacheScales::head}));
}

TEST(KvCacheSchemes, SayWhichNumbers) {
  const auto of = [](const std::string& scheme) {
    const Model m = load(Checkpoint::open(WithScheme(scheme).write()));
    return std::pair{first(m).cache.numerics, first(m).cache.scales};
  };
  using enum CacheNumerics;
  using enum CacheScales;
  EXPECT_EQ(of(R"({"num_bits":8,"type":"float"})"), std::pair(fp8, layer));
  EXPECT_EQ(of(R"({"num_bits":8,"type":"int"})"), std::pair(int8, layer));
  EXPECT_EQ(of(R"({"num_bits":4,"type":"float","strategy":"tensor_group"})"), std::pair(nvfp4, layer));
  EXPECT_EQ(of(R"({"num_bits":8,"type":"float","strategy":"token","dynamic":true})"), std::pair(fp8, row));
  EXPECT_EQ(of("null"), std::pair(floats, layer));
  for (const char* other :
       {R"({"num_bits":4,"type":"int"})", R"({"num_bits":8,"type":"int","symmetric":false})",
        R"({"num_bits":8,"type":"float","strategy":"channel"})"}) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(of(other), std::pair(floats, layer));
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("are not computed")) << other;
  }
}

TEST(KvCacheSchemes, OfModelOptAreAlgorithms) {
  for (const auto& [name, numerics] : {std::pair{"FP8", CacheNumerics::fp8},
                                       {"INT8", CacheNumerics::int8},
                                       {"NVFP4", CacheNumerics::nvfp4},
                                       {"NVFP4_AFFINE", CacheNumerics::floats}}) {
    Edited e("llama3");
    e.config["quantization_config"] = {{"quant_method", "modelopt"}, {"kv_cache_quant_algo", name}};
    EXPECT_EQ(first(load(Checkpoint::open(e.write()))).cache.numerics, numerics) << name;
  }
}

TEST(KvCacheScales, ThatFitNoAttentionAreNamed) {
  const auto error = [](const Tensor& k, const char* name = "k_scale") {
    WithScheme e;
    e.tensors[fmt::format("{}.{}", attention, name)] = k;
    return load_error(e.write());
  };
  const auto named = AllOf(HasSubstr("model.safetensors"), HasSubstr("'model.layers.0.self_attn.k_scale'"));
  EXPECT_THAT(error(scale(0)), AllOf(named, HasSubstr("scales above 0")));
  EXPECT_THAT(error(scale(-1)), AllOf(named, HasSubstr("found -1")));
  EXPECT_THAT(error(scale(1e-42f)), AllOf(named, HasSubstr("scales above 0")));
  EXPECT_THAT(error(scale(std::numeric_limits<float>::infinity())), AllOf(named, HasSubstr("finite")));
  EXPECT_THAT(error(scale(std::numeric_limits<float>::quiet_NaN())), AllOf(named, HasSubstr("finite")));
  EXPECT_THAT(error(scale(1, {3})), AllOf(named, HasSubstr("one scale"), HasSubstr("[3]")));
  EXPECT_THAT(error(scale(1, {0})), AllOf(named, HasSubstr("one scale")));
  EXPECT_THAT(error(Tensor::zeros(DType::i8, {1})), AllOf(named, HasSubstr("i8")));
  WithScheme twice;
  twice.tensors["model.layers.0.self_attn.k_scale"] = scale(1);
  twice.tensors["model.layers.0.self_attn.k_proj.k_scale"] = scale(1);
  EXPECT_THAT(load_error(twice.write()), HasSubstr("two, under different names"));
  WithScheme of_nothing;
  of_nothing.tensors["model.layers.9.self_attn.k_scale"] = scale(1);
  EXPECT_THAT(load_error(of_nothing.write()), HasSubstr("'model.layers.9.self_attn.k_scale'"));
}

TEST(KvCacheSchemes, ThatAreNoneAreNamed) {
  EXPECT_THAT(load_error(WithScheme("7").write()),
              AllOf(HasSubstr("kv_cache_scheme"), HasSubstr("an object")));
  EXPECT_THAT(load_error(WithScheme(R"({"num_bits":"8"})").write()), HasSubstr("num_bits"));
}

TEST(KvCache, FormatsWithoutAPlaceForScalesGetFloats) {
  WithScheme e;
  e.tensors["model.layers.0.self_attn.k_scale"] = scale(0.5f);
  const Model m = load(Checkpoint::open(e.write())), plain = load(Checkpoint::open(golden("llama3")));
  testing::internal::CaptureStderr();
  const Model without = without_cache(m, "GGUF");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("GGUF has no place"));
  EXPECT_EQ(to_string(without.graph), to_string(plain.graph));
  EXPECT_EQ(without.weights.size(), plain.weights.size());
}

}  // namespace
}  // namespace lathe
