#include <gmock/gmock.h>

#include "models/model.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using namespace testing_support;

// The printed graph of a definition is a golden file: a change of structure shows as a diff.
class DefinitionText : public testing::TestWithParam<const char*> {};

TEST_P(DefinitionText, MatchesTheGoldenFile) {
  const std::string family = GetParam();
  const std::string text = to_string(define(read_json(golden(family) / "config.json")));
  expect_golden(golden("graph/" + family + ".txt"), text);
  EXPECT_EQ(to_string(parse_graph(text)), text);
}

INSTANTIATE_TEST_SUITE_P(Families, DefinitionText,
                         testing::Values("llama3.2", "mistral_v01", "qwen2", "qwen3", "mixtral", "qwen2_moe",
                                         "gpt_oss"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           for (char& c : name)
                             if (!isalnum(c)) c = '_';
                           return name;
                         });

TEST(Define, UnknownArchitectureListsTheKnownOnes) {
  try {
    define(Json{{"model_type", "mamba\n2"}});
    FAIL();
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("llama, mistral, qwen2, qwen3"));
    EXPECT_THAT(e.what(), HasSubstr("mamba\\x0a2"));
  }
}

Json small_config() {
  return {{"model_type", "llama"},    {"hidden_size", 64},        {"num_hidden_layers", 1},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"intermediate_size", 96},
          {"vocab_size", 128},        {"rms_norm_eps", 1e-5},     {"max_position_embeddings", 64}};
}

struct BadKey {
  const char* key;
  Json value;
};

class DefineRefuses : public testing::TestWithParam<BadKey> {};

TEST_P(DefineRefuses, AndNamesTheKey) {
  Json config = small_config();
  config[GetParam().key] = GetParam().value;
  try {
    define(config);
    FAIL() << config.dump();
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr(GetParam().key));
    EXPECT_THAT(e.what(), testing::Not(HasSubstr("\n")));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Keys, DefineRefuses,
    testing::Values(BadKey{"hidden_size", -1}, BadKey{"hidden_size", 1e300}, BadKey{"hidden_size", "64"},
                    BadKey{"num_hidden_layers", 0}, BadKey{"num_hidden_layers", 1ull << 60},
                    BadKey{"num_key_value_heads", 3}, BadKey{"head_dim", 15}, BadKey{"vocab_size", Json()},
                    BadKey{"hidden_act", "gelu"}, BadKey{"rope_theta", "x"}, BadKey{"rope_theta", 0},
                    BadKey{"rope_theta", 1e300}, BadKey{"rms_norm_eps", 0}, BadKey{"rms_norm_eps", -1e-5},
                    BadKey{"rms_norm_eps", 1e300}, BadKey{"rope_scaling", Json{{"rope_type", "llama3"}}},
                    BadKey{"rope_scaling", Json{{"rope_type", "later"}}}, BadKey{"tie_word_embeddings", 3},
                    BadKey{"model_type", 7}));

TEST(Define, HeadsAreCountedWithoutOverflow) {
  Json config = small_config();
  for (const char* key : {"num_attention_heads", "num_key_value_heads", "head_dim"}) config[key] = 65'536;
  EXPECT_THAT([&] { define(config); },
              testing::ThrowsMessage<InputError>(HasSubstr("num_attention_heads * head_dim")));
  config["head_dim"] = 152;  // a little below ten million columns
  EXPECT_NO_THROW(define(config));
}

TEST(Define, LayersOfGptOssSlideByTurns) {
  Json config = read_json(golden("gpt_oss") / "config.json");
  const auto windows = [&] {
    const Graph g = define(config);
    std::vector<int> out;
    for (const int i : {0, 1})
      out.push_back(
          std::get<op::Attention>(g.node(g.find(fmt::format("model.layers.{}.self_attn.attention", i))).op)
              .window);
    return out;
  };
  EXPECT_EQ(windows(), (std::vector{16, 0}));
  config["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(windows(), (std::vector{0, 16}));
  config.erase("layer_types");  // as transformers fills it in
  EXPECT_EQ(windows(), (std::vector{16, 0}));
  for (const auto& [key, value] : {std::pair{"layer_types", Json{"full_attention"}},
                                   {"layer_types", Json{"full_attention", "chunked_attention"}},
                                   {"layer_types", Json(2)},
                                   {"swiglu_limit", Json(0)},
                                   {"swiglu_alpha", Json(1e300)},
                                   {"num_experts_per_tok", Json(5)},
                                   {"num_local_experts", Json(100'000)}}) {
    Json wrong = config;
    wrong[key] = value;
    try {
      define(wrong);
      ADD_FAILURE() << key << value;
    } catch (const InputError& e) {
      EXPECT_THAT(e.what(), HasSubstr(key));
    }
  }
}

TEST(Define, WindowsFollowTheFamily) {
  auto window = [](Json config) {
    const Graph g = define(config);
    return std::get<op::Attention>(g.node(g.find("model.layers.0.self_attn.attention")).op).window;
  };
  Json c = small_config();
  c["sliding_window"] = 7;
  EXPECT_EQ(window(c), 0);  // llama has none
  c["model_type"] = "mistral";
  EXPECT_EQ(window(c), 7);
  c["sliding_window"] = Json();
  EXPECT_EQ(window(c), 0);
  c.erase("sliding_window");
  EXPECT_EQ(window(c), 4096);  // transformers' default
  c = small_config();
  c["model_type"] = "qwen2";
  c["sliding_window"] = 7;
  EXPECT_EQ(window(c), 0);
  c["use_sliding_window"] = true;
  c["max_window_layers"] = 0;
  EXPECT_EQ(window(c), 7);
  c["max_window_layers"] = 1;
  EXPECT_EQ(window(c), 0);
}

TEST(Define, BiasesFollowTheFamily) {
  auto has = [](const Json& config, const char* name) {
    return define(config).param_shapes().contains(name);
  };
  Json c = small_config();
  EXPECT_FALSE(has(c, "model.layers.0.self_attn.q_proj.bias"));
  c["attention_bias"] = true;
  EXPECT_TRUE(has(c, "model.layers.0.self_attn.o_proj.bias"));
  c["mlp_bias"] = true;
  EXPECT_TRUE(has(c, "model.layers.0.mlp.down_proj.bias"));
  c = small_config();
  c["model_type"] = "qwen2";
  EXPECT_TRUE(has(c, "model.layers.0.self_attn.v_proj.bias"));
  EXPECT_FALSE(has(c, "model.layers.0.self_attn.o_proj.bias"));
}

TEST(Define, EpsilonReachesEveryNorm) {
  Json c = small_config();
  c["rms_norm_eps"] = 0.25;
  const Graph g = define(c);
  int norms = 0;
  for (NodeId id : g.order())
    if (const auto* norm = std::get_if<op::RmsNorm>(&g.node(id).op)) {
      EXPECT_EQ(norm->eps, 0.25f);
      ++norms;
    }
  EXPECT_EQ(norms, 3);
}

}  // namespace
}  // namespace lathe
