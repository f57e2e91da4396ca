#include <gmock/gmock.h>

#include "core/error.h"
#include "graph/builder.h"

namespace lathe {
namespace {

using testing::ElementsAre;

// embedding -> linear -> silu * linear -> head
Graph small() {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 10, 8);
  {
    auto in = g.block("layers", 0);
    Value gate = g.silu(g.linear("gate", x, 16));
    Value up = g.linear("up", x, 16, true);
    x = x + g.linear("down", gate * up, 8);
  }
  return std::move(g).finish(g.linear_tied("embed", g.take_rows(g.rms_norm("norm", x, {.eps = 1e-5f})), 10));
}

TEST(Graph, ScopesSpellNamesAndMarkBlocks) {
  const Graph g = small();
  const NodeId gate = g.find("layers.0.gate");
  ASSERT_GE(gate, 0);
  EXPECT_EQ(g.node(gate).block, 0);
  EXPECT_THAT(g.node(gate).params, ElementsAre("layers.0.gate.weight"));
  EXPECT_THAT(g.node(g.find("layers.0.up")).params, ElementsAre("layers.0.up.weight", "layers.0.up.bias"));
  EXPECT_EQ(g.node(g.find("norm")).block, -1);
}

TEST(Graph, ParamShapesFollowTheOps) {
  const auto shapes = small().param_shapes();
  EXPECT_THAT(shapes.at("embed.weight"), ElementsAre(10, 8));  // the tied head reads the same table
  EXPECT_THAT(shapes.at("layers.0.down.weight"), ElementsAre(8, 16));
  EXPECT_THAT(shapes.at("layers.0.up.bias"), ElementsAre(16));
  EXPECT_THAT(shapes.at("norm.weight"), ElementsAre(8));
  EXPECT_EQ(shapes.size(), 6u);
}

TEST(Graph, TakeRowsChangesWhatARowIs) {
  const Graph g = small();
  EXPECT_EQ(g.value(g.output()).rows, Rows::outputs);
  EXPECT_EQ(g.value(g.node(g.find("norm")).outputs[0]).rows, Rows::tokens);
}

TEST(Graph, WhatAnExpertComputesHasTheRowsThatItTook) {
  Builder b;
  Value x = b.embedding("embed", b.tokens(), 10, 8);
  Value weights = b.route("route", b.linear("gate", x, 4), {.top_k = 2});
  Value taken = b.take_routed(x, weights, 1), y = b.silu(taken), sum = b.add_routed(x, weights, 1, y);
  const Graph g = std::move(b).finish(sum);
  EXPECT_EQ(g.value(weights.id).taken, -1);
  for (const Value v : {taken, y}) {
    EXPECT_EQ(g.value(v.id).rows, Rows::routed);
    EXPECT_EQ(g.value(v.id).taken, taken.id);
  }
  EXPECT_EQ(g.value(sum.id).rows, Rows::tokens);
  EXPECT_EQ(g.value(sum.id).taken, -1);
  EXPECT_EQ(to_string(parse_graph(to_string(g))), to_string(g));
}

// Readers are in the order of the graph, whatever order they came in.
TEST(Graph, UsersAreInOrder) {
  Graph g = small();
  const NodeId gate = g.find("layers.0.gate"), down = g.find("layers.0.down");
  const ValueId x = g.node(gate).inputs[0];
  const int64_t cols[] = {8};
  Node early{
      .id = -1, .op = op::Silu{}, .name = "early", .inputs = {x}, .outputs = {}, .params = {}, .block = 0};
  const NodeId first = g.value(g.insert(gate, early, cols)).producer;
  EXPECT_THAT(g.users(x), ElementsAre(first, gate, g.find("layers.0.up"), g.find("layers.0.add")));
  g.replace(g.node(down).outputs[0], x);
  EXPECT_THAT(g.users(x), ElementsAre(first, gate, g.find("layers.0.up"), g.find("layers.0.add")));
  g.prune();
  EXPECT_THAT(g.users(x), ElementsAre(g.find("layers.0.add")));
}

TEST(Graph, ReplaceAndPruneDropWhatNothingReads) {
  Graph g = small();
  const NodeId mul = g.find("layers.0.mul"), up = g.find("layers.0.up");
  const int64_t cols[] = {16};
  const ValueId doubled = g.insert(mul,
                                   Node{.id = -1,
                                        .op = op::Silu{},
                                        .name = "again",
                                        .inputs = {g.node(mul).inputs[0]},
                                        .outputs = {},
                                        .params = {},
                                        .block = 0},
                                   cols);
  g.replace(g.node(mul).outputs[0], doubled);
  g.prune();
  EXPECT_EQ(g.find("layers.0.mul"), -1);
  EXPECT_EQ(g.find("layers.0.up"), -1);
  EXPECT_THROW(g.node(up), Error);
  EXPECT_GE(g.find("again"), 0);
}

TEST(Graph, InsertRefusesReadingALaterValue) {
  Graph g = small();
  const NodeId first = g.find("embed"), last = g.find("lm_head");
  const int64_t cols[] = {8};
  EXPECT_THROW(g.insert(first,
                        Node{.id = -1,
                             .op = op::Silu{},
                             .name = "x",
                             .inputs = {g.node(last).outputs[0]},
                             .outputs = {},
                             .params = {},
                             .block = -1},
                        cols),
               Error);
}

TEST(Graph, TwoShapesForOneParameterAreAnError) {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 10, 8);
  Value y = g.linear("w", x, 8);
  Graph graph = std::move(g).finish(g.linear("w", y, 12));
  EXPECT_THROW(graph.param_shapes(), Error);
}

}  // namespace
}  // namespace lathe
