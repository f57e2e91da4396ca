// Transforms that the runtime executes, in a graph and in compressed-tensors' transform_config.
#include <gmock/gmock.h>

#include "core/error.h"
#include "models/hadamard.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

Json config_of(const char* family = "llama3") { return read_json(golden(family) / "config.json"); }

Json with_transforms(Json config, const std::string& groups) {
  config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                   {"config_groups", Json::object()},
                                   {"transform_config", {{"config_groups", parse_json(groups, "test")}}}};
  return config;
}

// As SpinQuant of llm-compressor 0.14 writes them, R1 among them, which is in the weights already.
const std::string spinquant = R"({
  "R1": {"type": "random-hadamard", "apply": [
    {"targets": ["re:.*embed_tokens$", "re:.*o_proj$", "re:.*down_proj$"], "location": "weight_output",
     "inverse": false, "ignore": []},
    {"targets": ["re:.*q_proj$", "lm_head"], "location": "weight_input", "inverse": true, "ignore": []}],
    "randomize": false, "requires_grad": false, "head_dim": null, "precision": "torch.float64"},
  "R3": {"type": "hadamard", "apply": [
    {"targets": ["re:.*self_attn$"], "location": "q_attn", "inverse": false, "ignore": []},
    {"targets": ["re:.*self_attn$"], "location": "k_cache", "inverse": false, "ignore": []}],
    "randomize": false, "requires_grad": false, "head_dim": 16, "precision": "torch.float64"},
  "R4": {"type": "hadamard", "apply": [
    {"targets": ["re:.*down_proj$"], "location": "input", "inverse": false, "ignore": []},
    {"targets": ["re:.*down_proj$"], "location": "weight_input", "inverse": true, "ignore": []}],
    "randomize": false, "requires_grad": false, "head_dim": 32, "precision": "torch.float64"}})";

TEST(Transforms, SpinQuantsAreRead) {
  Graph g = define(config_of());
  const auto tensors = add_transforms(g, with_transforms(config_of(), spinquant));
  EXPECT_THAT(tensors, testing::Contains(testing::Pair("model.layers.0.mlp.down_proj.R4_input.weight", 32)));
  EXPECT_THAT(tensors, testing::Contains(testing::Pair("model.layers.1.self_attn.R3_k_cache.weight", 16)));
  EXPECT_EQ(tensors.size(), 6u);
  const std::string text = to_string(g);
  EXPECT_THAT(text, HasSubstr("hadamard model.layers.0.mlp.down_proj.hadamard(%17) {size=32} : tokens x 96"));
  EXPECT_THAT(text, HasSubstr("hadamard model.layers.1.self_attn.k_hadamard("));
  EXPECT_EQ(to_string(parse_graph(text)), text);
}

TEST(Transforms, WrittenAndReadAgain) {
  Graph g = define(config_of());
  add_transforms(g, with_transforms(config_of(), spinquant));
  const Json written = transform_config(g);
  ASSERT_EQ(written["config_groups"].size(), 2u);  // what is in the weights is not told
  EXPECT_EQ(written["config_groups"]["R3"]["apply"].size(), 2u);
  EXPECT_EQ(written["config_groups"]["R4"]["apply"][0]["targets"],
            Json::parse(R"(["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"])"));
  Graph again = define(config_of());
  add_transforms(again, with_transforms(config_of(), written["config_groups"].dump()));
  EXPECT_EQ(to_string(again), to_string(g));
  EXPECT_TRUE(transform_config(define(config_of())).empty());
}

TEST(Transforms, OneOfAllReadersOfAnInput) {
  const std::string all = R"({"V": {"type": "hadamard", "apply": [
      {"targets": ["Linear"], "location": "input", "ignore": ["lm_head", "re:.*down_proj"]}], "head_dim": 16}})";
  Graph g = define(config_of());
  add_transforms(g, with_transforms(config_of(), all));
  const NodeId shared = g.find("model.layers.0.self_attn.q_proj.hadamard");
  ASSERT_GE(shared, 0);
  EXPECT_EQ(g.users(g.node(shared).outputs[0]).size(), 3u);
  Graph again = define(config_of());
  add_transforms(again, with_transforms(config_of(), transform_config(g)["config_groups"].dump()));
  EXPECT_EQ(to_string(again), to_string(g));
}

TEST(Transforms, WhatCannotBeExecutedIsRefused) {
  const auto refused = [](const std::string& groups, const char* message) {
    Graph g = define(config_of());
    EXPECT_THAT([&] { add_transforms(g, with_transforms(config_of(), groups)); },
                ThrowsMessage<InputError>(HasSubstr(message)))
        << groups;
  };
  const auto one = [](const std::string& apply, const std::string& type = "hadamard",
                      const std::string& more = "") {
    return fmt::format(R"({{"R": {{"type": "{}", "apply": [{}]{}}}}})", type, apply, more);
  };
  const std::string down = R"({"targets": ["re:.*down_proj$"], "location": "input"})";
  refused(one(down, "random-hadamard"), "expected hadamard, where it is applied at run time");
  refused(one(down, "hadamard", R"(, "randomize": true)"), "randomize");
  refused(one(down, "hadamard", R"(, "block": 4)"), "'block'");
  refused(one(down), "expected a power of two that divides 96 columns, found 96");
  refused(one(down, "hadamard", R"(, "head_dim": 64)"), "expected a power of two that divides 96 columns");
  refused(one(R"({"targets": ["re:.*down_proj$"], "location": "output"})", "hadamard", R"(, "head_dim": 32)"),
          "outputs of layers are not transformed at run time");
  refused(one(R"({"targets": ["down"], "location": "input"})"), "none at 'input'");
  refused(one(R"({"targets": ["re:("], "location": "input"})"), "a regular expression after 're:'");
  refused(one(R"({"targets": [4], "location": "input"})"), "strings");
  refused(one(R"({"targets": ["re:.*q_proj"], "location": "input"})"),
          "model.layers.0.self_attn.k_proj: expected the transform that model.layers.0.self_attn.q_proj has");
  refused(one(down + "," + down, "hadamard", R"(, "head_dim": 32)"), "one transform of an input");
  refused(one("4"), "an object");
}

TEST(Transforms, MatricesOfOthersMustBeSylvesters) {
  std::vector<float> values = {1, 1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1};
  const auto weight = [&] { return dense_weight(Tensor::of<float>(DType::f32, {4, 4}, values)); };
  EXPECT_NO_THROW(require_sylvester(weight(), 4, "t"));
  EXPECT_THROW(require_sylvester(weight(), 8, "t"), InputError);
  values[5] = 1;
  EXPECT_THAT([&] { require_sylvester(weight(), 4, "t"); },
              ThrowsMessage<InputError>(HasSubstr("found 1 at [1, 1]")));
}

}  // namespace
}  // namespace lathe
