#include <gmock/gmock.h>

#include "compress/edges.h"
#include "models/model.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAre;

std::vector<std::string> names(const Graph& g) {
  std::vector<std::string> out;
  for (const InputGroup& group : input_groups(g)) out.push_back(joint_name(g, group));
  return out;
}

TEST(Edges, LayersOfOneInputAreOneGroup) {
  const Model m = load(Checkpoint::open(golden("qwen2")));
  const std::vector<std::string> found = names(m.graph);
  ASSERT_GE(found.size(), 5u);
  EXPECT_EQ(found[0], "model.layers.0.self_attn.{q,k,v}_proj");
  EXPECT_EQ(found[1], "model.layers.0.self_attn.o_proj");
  EXPECT_EQ(found[2], "model.layers.0.mlp.{gate,up}_proj");
  EXPECT_EQ(found[3], "model.layers.0.mlp.down_proj");
  EXPECT_EQ(found.back(), "lm_head");
}

TEST(Edges, ScalesMoveIntoNormsAndIntoTheRowsThatMakeTheInput) {
  const Model m = load(Checkpoint::open(golden("qwen2")));  // biases; two query heads to a key head
  const std::vector<InputGroup> groups = input_groups(m.graph);
  const auto qkv = fold_site(m.graph, groups[0]), o = fold_site(m.graph, groups[1]),
             mlp = fold_site(m.graph, groups[2]), down = fold_site(m.graph, groups[3]);
  ASSERT_TRUE(qkv && o && mlp && down);
  EXPECT_EQ(qkv->param, "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(mlp->param, "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(down->param, "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(o->param, "model.layers.0.self_attn.v_proj.weight");
  EXPECT_EQ(o->bias, "model.layers.0.self_attn.v_proj.bias");
  const auto& attention = std::get<op::Attention>(m.graph.node(m.graph.value(groups[1].input).producer).op);
  const int d = attention.head_dim, shared = attention.heads / attention.kv_heads;
  ASSERT_GT(shared, 1);
  EXPECT_EQ(std::ssize(o->row_of), attention.heads * d);
  EXPECT_EQ(o->row_of[0], 0);
  EXPECT_EQ(o->row_of[static_cast<size_t>(d)], 0);  // the second query head reads the first value head
  EXPECT_EQ(o->row_of.back(), attention.kv_heads * d - 1);
  EXPECT_EQ(o->rows, attention.kv_heads * d);
}

TEST(Edges, NoScaleMovesOutOfASharedValue) {
  Graph g = load(Checkpoint::open(golden("llama3"))).graph;
  const InputGroup group = input_groups(g)[0];
  ASSERT_TRUE(fold_site(g, group));
  // Somebody else reads the norm's output too.
  const Node& norm = g.node(g.value(group.input).producer);
  const int64_t cols = g.value(group.input).cols;
  const ValueId sum = g.insert(-1,
                               {.id = -1,
                                .op = op::Add{},
                                .name = "other",
                                .inputs = {group.input, group.input},
                                .outputs = {},
                                .params = {}},
                               std::span(&cols, 1));
  EXPECT_GE(sum, 0);
  EXPECT_EQ(norm.outputs[0], group.input);
  EXPECT_FALSE(fold_site(g, group));
}

TEST(Edges, NamesShareWhatTheyShare) {
  EXPECT_EQ(joint_name({"a.q_proj", "a.k_proj"}), "a.{q,k}_proj");
  EXPECT_EQ(joint_name({"lm_head"}), "lm_head");
}

}  // namespace
}  // namespace lathe
