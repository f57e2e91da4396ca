#include <gmock/gmock.h>

#include "core/error.h"
#include "graph/builder.h"

namespace lathe {
namespace {

TEST(GraphText, PrintsWhatWasRecorded) {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 10, 8);
  {
    auto in = g.block("layers", 0);
    Value q = g.rope("rope", g.linear("q", x, 4, true), {.head_dim = 4, .inv_freq = {1, 0.01f}});
    x = x + g.attention(q, q, q, {.heads = 1, .kv_heads = 1, .head_dim = 4, .window = 3, .scale = 0.5f});
  }
  const Graph graph = std::move(g).finish(g.take_rows(g.rms_norm("norm", x, {.eps = 1e-5f})));
  EXPECT_EQ(to_string(graph),
            "%1 = embedding embed(%0) {vocab=10} [embed.weight] : tokens x 8\n"
            "block 0\n"
            "%2 = linear layers.0.q(%1) {bias=true} [layers.0.q.weight, layers.0.q.bias] : tokens x 4\n"
            "%3 = rope layers.0.rope(%2) {head_dim=4, inv_freq=[1 0.01]} : tokens x 4\n"
            "%4 = attention layers.0.attention(%3, %3, %3) {heads=1, kv_heads=1, head_dim=4, window=3, "
            "scale=0.5} : tokens x 4\n"
            "%5 = add layers.0.add(%1, %4) : tokens x 8\n"
            "block -1\n"
            "%6 = rms_norm norm(%5) {eps=1e-05} [norm.weight] : tokens x 8\n"
            "%7 = take_rows take_rows(%6) : outputs x 8\n"
            "return %7\n");
}

TEST(GraphText, ReadsBackToTheSameText) {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 7, 6);
  Value y = g.silu(x) * x;
  Graph graph = std::move(g).finish(g.take_rows(y + x));
  const int64_t cols[] = {6, 6};
  const NodeId add = graph.find("add");
  const ValueId sum = graph.insert(add,
                                   Node{.id = -1,
                                        .op = op::AddRmsNorm{0.1f},
                                        .name = "fused",
                                        .inputs = graph.node(add).inputs,
                                        .outputs = {},
                                        .params = {"w"},
                                        .block = -1},
                                   cols);
  graph.replace(graph.node(add).outputs[0], sum + 1);
  graph.prune();
  const std::string text = to_string(graph);
  EXPECT_EQ(to_string(parse_graph(text)), text);
}

TEST(GraphText, FloatsSurviveExactly) {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 7, 2);
  const std::vector<float> odd{0.1f, 1.0f / 3, 3.4028235e38f, 1e-45f};
  Graph graph = std::move(g).finish(g.rope("r", x, {.head_dim = 8, .inv_freq = odd, .scale = 1.2079441f}));
  const Graph again = parse_graph(to_string(graph));
  const auto& rope = std::get<op::Rope>(again.node(again.find("r")).op);
  EXPECT_EQ(rope.inv_freq, odd);
  EXPECT_EQ(rope.scale, 1.2079441f);
}

TEST(GraphText, AttentionKeepsItsKind) {
  Builder g;
  Value x = g.embedding("embed", g.tokens(), 7, 8);
  const op::Attention odd{.heads = 2,
                          .kv_heads = 1,
                          .head_dim = 4,
                          .window = 5,
                          .scale = 0.5f,
                          .causal = false,
                          .soft_cap = 50,
                          .sinks = true};
  {
    auto in = g.block("layers", 0);
    x = g.attention(x, x, x, odd);
  }
  const Graph graph = std::move(g).finish(x);
  const std::string text = to_string(graph);
  EXPECT_THAT(text,
              testing::HasSubstr("layers.0.attention(%1, %1, %1) {heads=2, kv_heads=1, head_dim=4, window=5, "
                                 "scale=0.5, causal=false, soft_cap=50, sinks=true} [layers.0.sinks]"));
  EXPECT_EQ(to_string(parse_graph(text)), text);
  EXPECT_EQ(graph.param_shapes().at("layers.0.sinks"), (std::vector<int64_t>{2}));
}

TEST(GraphText, AttentionKeepsTheNumbersOfItsCache) {
  const std::string text =
      "%1 = embedding embed(%0) {vocab=7} [embed.weight] : tokens x 8\n"
      "%2 = attention a(%1, %1, %1) {heads=2, kv_heads=2, head_dim=4, scale=0.5, cache=fp8, "
      "cache_scales=head} "
      "[a.k_scale, a.v_scale] : tokens x 8\nreturn %2\n";
  const Graph graph = parse_graph(text);
  EXPECT_EQ(to_string(graph), text);
  EXPECT_EQ(graph.param_shapes().at("a.v_scale"), (std::vector<int64_t>{2}));
}

struct Bad {
  const char* text;
  const char* expects;
};

class GraphTextErrors : public testing::TestWithParam<Bad> {};

TEST_P(GraphTextErrors, NameTheLine) {
  try {
    parse_graph(GetParam().text);
    FAIL() << "accepted";
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr(GetParam().expects));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GraphTextErrors,
    testing::Values(Bad{"", "return"}, Bad{"return %4\n", "line 1"},
                    Bad{"%1 = nonsense x(%0) : tokens x 3\nreturn %1\n", "a known op"},
                    Bad{"%1 = silu x(%9) : tokens x 3\nreturn %1\n", "%9"},
                    Bad{"%1 = add x(%0) : tokens x 3\nreturn %1\n", "2 inputs"},
                    Bad{"%1 = silu x(%0) {oops=1} : tokens x 3\nreturn %1\n", "attribute"},
                    Bad{"%1 = silu x(%0) : tokens x -3\nreturn %1\n", "positive"},
                    Bad{"%1 = silu x(%0) : tokens x 99999999999999999999\nreturn %1\n", "a number"},
                    Bad{"%1 = silu x(%0) : tokens x 3\n%1 = silu y(%0) : tokens x 3\nreturn %1\n", "line 2"},
                    Bad{"%1 = silu x(%0) : tokens x 3\nreturn %1\nblock 3\n", "line 3"},
                    Bad{"%1 = silu x(%0", "')'"}));

}  // namespace
}  // namespace lathe
