#include <cmath>
#include <gtest/gtest.h>

#include "graph/builder.h"
#include "graph/cost.h"

namespace lathe {
namespace {

double four_bytes_each(const Graph& g, const std::string& name) {
  double n = 4;
  const auto shapes = g.param_shapes();
  for (int64_t d : shapes.at(name)) n *= static_cast<double>(d);
  return n;
}

TEST(Cost, LinearCountsTwoFlopsPerWeightAndRow) {
  Builder b;
  Value x = b.embedding("embed", b.tokens(), 10, 8);
  const Graph g = std::move(b).finish(b.linear("w", x, 16));
  auto bytes = [&](const std::string& p) { return four_bytes_each(g, p); };
  const Cost c = cost(g, g.node(g.find("w")), {.tokens = 5, .context = 0, .outputs = 1}, bytes);
  EXPECT_EQ(c.flops, 2.0 * 5 * 8 * 16);
  EXPECT_EQ(c.weight_bytes, 4.0 * 8 * 16);
  EXPECT_EQ(cost(g, g.node(g.find("embed")), {.tokens = 5}, bytes).weight_bytes,
            4.0 * 8 * 5);  // five rows of the table
}

// Of 4 experts a row takes one: each sees a quarter of the rows, and 8 rows leave an expert out with
// probability (3/4)^8.
TEST(Cost, ExpertsAreReadWhereRowsReachThem) {
  Builder b;
  Value x = b.embedding("embed", b.tokens(), 10, 8);
  Value weights = b.route("route", b.linear("gate", x, 4), {.top_k = 1});
  Value y = b.linear("w", b.take_routed(x, weights, 2), 8);
  const Graph g = std::move(b).finish(b.add_routed(x, weights, 2, y));
  auto bytes = [&](const std::string& p) { return four_bytes_each(g, p); };
  const auto of = [&](const char* name, int64_t tokens) {
    return cost(g, g.node(g.find(name)), {.tokens = tokens}, bytes);
  };
  EXPECT_EQ(of("w", 8).flops, 2.0 * 2 * 8 * 8);
  EXPECT_EQ(of("w", 1).weight_bytes, 4.0 * 8 * 8 / 4);
  EXPECT_NEAR(of("w", 8).weight_bytes, 4.0 * 8 * 8 * (1 - std::pow(0.75, 8)), 1e-9);
  EXPECT_EQ(of("add_routed", 8).flops, 2.0 * 2 * 8);
  EXPECT_EQ(share_of_rows(g, g.output()), 1);
}

TEST(Cost, AttentionSeesCausalKeysWithinItsWindow) {
  auto graph = [](int window, bool causal) {
    Builder fresh;
    Value e = fresh.embedding("embed", fresh.tokens(), 10, 8);
    return std::move(fresh).finish(fresh.attention(
        e, e, e, {.heads = 2, .kv_heads = 2, .head_dim = 4, .window = window, .scale = 1, .causal = causal}));
  };
  auto none = [](const std::string&) { return 0.0; };
  auto flops = [&](int window, Workload w, bool causal = true) {
    const Graph g = graph(window, causal);
    return cost(g, g.node(g.find("attention")), w, none).flops;
  };
  // 3 tokens over 4 earlier keys see 5 + 6 + 7 keys; with a window of 2, two each. 4 flops per key, head and
  // column.
  EXPECT_EQ(flops(0, {.tokens = 3, .context = 4}), 4.0 * 18 * 8);
  EXPECT_EQ(flops(2, {.tokens = 3, .context = 4}), 4.0 * 6 * 8);
  // To both sides: 7 each; with a window of 2, itself and its neighbours: 3 + 3 + 2.
  EXPECT_EQ(flops(0, {.tokens = 3, .context = 4}, false), 4.0 * 21 * 8);
  EXPECT_EQ(flops(2, {.tokens = 3, .context = 4}, false), 4.0 * 8 * 8);
}

}  // namespace
}  // namespace lathe
