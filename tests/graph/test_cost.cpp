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
