#include <gmock/gmock.h>

#include "models/model.h"
#include "runtime/interpreter.h"
#include "runtime/rewrites/rewrites.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::Not;
using namespace testing_support;

TEST(Rewrites, FusedGraphMatchesTheGoldenFile) {
  for (const std::string family : {"qwen3", "qwen2_moe"}) {
    Graph g = define(read_json(golden(family) / "config.json"));
    for (const Rewrite& r : rewrites) r.apply(g);
    expect_golden(golden("graph/" + family + ".fused.txt"), to_string(g));
  }
}

TEST(Rewrites, ChangeNoBitOfTheInterpretersLogits) {
  for (const char* family :
       {"llama3", "qwen2", "qwen3", "smollm2", "mistral_v01", "qwen2_moe", "qwen3_moe"}) {
    Model model = load(Checkpoint::open(golden(family)));
    const std::vector<int32_t> tokens{1, 5, 9, 100, 7, 3};
    const SingleSequence batch(tokens, 0, 3, false);
    const Tensor before = interpret(model, batch);
    for (const Rewrite& r : rewrites) {  // each alone, and all
      Model one = model;
      r.apply(one.graph);
      EXPECT_THAT(interpret(one, batch).as<float>(), testing::ElementsAreArray(before.as<float>()))
          << family << " " << r.name;
    }
    for (const Rewrite& r : rewrites) r.apply(model.graph);
    const Tensor after = interpret(model, batch);
    EXPECT_THAT(after.as<float>(), testing::ElementsAreArray(before.as<float>())) << family;
  }
}

TEST(Rewrites, KeepShapesOfParametersAndReadBack) {
  for (const char* family : {"llama3", "qwen2", "qwen3", "qwen2_moe"}) {
    Graph g = define(read_json(golden(family) / "config.json"));
    const auto shapes = g.param_shapes();
    for (const Rewrite& r : rewrites) {
      r.apply(g);
      EXPECT_EQ(g.param_shapes(), shapes) << family << " " << r.name;
      EXPECT_EQ(to_string(parse_graph(to_string(g))), to_string(g)) << family << " " << r.name;
    }
  }
}

std::string rewritten(void (*rewrite)(Graph&), std::string_view text) {
  Graph g = parse_graph(text);
  rewrite(g);
  return to_string(g);
}

TEST(Rewrites, LinearLayersOverOneInputAreOneNode) {
  EXPECT_EQ(rewritten(fuse_qkv, R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear a.q_proj(%1) {bias=true} [wq, bq] : tokens x 8
%3 = linear a.k_proj(%1) {bias=true} [wk, bk] : tokens x 6
%4 = linear a.other(%1) [wo] : tokens x 6
%5 = linear a.v_proj(%1) {bias=true} [wv, bv] : tokens x 6
%6 = mul a.mul(%3, %5) : tokens x 6
%7 = add a.add(%6, %4) : tokens x 6
%8 = attention a.a(%2, %7, %6) {heads=4, kv_heads=3, head_dim=2, scale=1} : tokens x 8
return %8
)"),
            R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2, %3, %4 = multi_linear a.q_proj+k_proj+v_proj(%1) {bias=true} [wq, wk, wv, bq, bk, bv] : tokens x 8, 6, 6
%5 = linear a.other(%1) [wo] : tokens x 6
%6 = mul a.mul(%3, %4) : tokens x 6
%7 = add a.add(%6, %5) : tokens x 6
%8 = attention a.a(%2, %7, %6) {heads=4, kv_heads=3, head_dim=2, scale=1} : tokens x 8
return %8
)");
}

TEST(Rewrites, SiluAndProductAreOneNodeOnEitherSide) {
  EXPECT_EQ(rewritten(fuse_silu_mul, R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = silu s(%1) : tokens x 4
%3 = mul m(%2, %1) : tokens x 4
%4 = silu t(%3) : tokens x 4
%5 = mul n(%1, %4) : tokens x 4
return %5
)"),
            R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = silu_mul m(%1, %1) : tokens x 4
%3 = silu_mul n(%2, %1) : tokens x 4
return %3
)");
  // Not where another node reads the silu too.
  constexpr std::string_view shared = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = silu s(%1) : tokens x 4
%3 = mul m(%2, %1) : tokens x 4
%4 = add a(%3, %2) : tokens x 4
return %4
)";
  EXPECT_EQ(rewritten(fuse_silu_mul, shared), shared);
}

TEST(Rewrites, GateAndUpAreOneNode) {
  constexpr std::string_view gated = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear gate(%1) [wg] : tokens x 6
%3 = linear up(%1) [wu] : tokens x 6
%4 = silu_mul act(%2, %3) : tokens x 6
%5 = linear down(%4) [wd] : tokens x 4
return %5
)";
  EXPECT_EQ(rewritten(fuse_gate_up, gated), R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = gated_linear act(%1) [wg, wu] : tokens x 6
%3 = linear down(%2) [wd] : tokens x 4
return %3
)");
  // Not with a bias, nor over different inputs.
  std::string biased(gated);
  biased.replace(biased.find("gate(%1) [wg]"), 13, "gate(%1) {bias=true} [wg, bg]");
  EXPECT_EQ(rewritten(fuse_gate_up, biased), biased);
  constexpr std::string_view apart = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear gate(%1) [wg] : tokens x 4
%3 = linear up(%2) [wu] : tokens x 4
%4 = silu_mul act(%2, %3) : tokens x 4
return %4
)";
  EXPECT_EQ(rewritten(fuse_gate_up, apart), apart);
}

// Biases and a limit come along: matrices of all experts, then biases of all.
TEST(Rewrites, ExpertsInARowAreOneNodeWithTheirBiases) {
  constexpr std::string_view experts = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear router(%1) {bias=true} [wr, br] : tokens x 2
%3 = route r(%2) {top_k=1, normalize=true} : tokens x 2
%4 = take_routed m.0.take(%1, %3) {expert=0} : routed x 4
%5 = linear m.0.gate(%4) {bias=true} [g0, gb0] : routed x 6
%6 = linear m.0.up(%4) {bias=true} [u0, ub0] : routed x 6
%7 = silu_mul m.0.act(%5, %6) {limit=7, alpha=1.702} : routed x 6
%8 = linear m.0.down(%7) {bias=true} [d0, db0] : routed x 4
%9 = add_routed m.0.add(%1, %3, %8) {expert=0} : tokens x 4
%10 = take_routed m.1.take(%1, %3) {expert=1} : routed x 4
%11 = linear m.1.gate(%10) {bias=true} [g1, gb1] : routed x 6
%12 = linear m.1.up(%10) {bias=true} [u1, ub1] : routed x 6
%13 = silu_mul m.1.act(%11, %12) {limit=7, alpha=1.702} : routed x 6
%14 = linear m.1.down(%13) {bias=true} [d1, db1] : routed x 4
%15 = add_routed m.1.add(%9, %3, %14) {expert=1} : tokens x 4
return %15
)";
  EXPECT_EQ(rewritten(fuse_gate_up, experts), experts);
  EXPECT_EQ(rewritten(fuse_experts, experts), R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear router(%1) {bias=true} [wr, br] : tokens x 2
%3 = route r(%2) {top_k=1, normalize=true} : tokens x 2
%4 = experts m(%1, %1, %3) {top_k=1, width=6, bias=true, limit=7, alpha=1.702} [g0, u0, d0, g1, u1, d1, gb0, ub0, db0, gb1, ub1, db1] : tokens x 4
return %4
)");
  // Not where only some have one, nor where somebody else reads what is between.
  std::string other(experts);
  other.replace(other.find("{bias=true} [d0, db0]"), 21, "[d0]");
  EXPECT_THAT(rewritten(fuse_experts, other), HasSubstr("add_routed m.0.add"));
}

TEST(Rewrites, SumAndNormAreOneNode) {
  EXPECT_EQ(rewritten(fuse_add_norm, R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear o(%1) [wo] : tokens x 4
%3 = add residual(%1, %2) : tokens x 4
%4 = rms_norm norm(%3) {eps=0.1} [wn] : tokens x 4
%5 = add sum(%3, %4) : tokens x 4
return %5
)"),
            R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear o(%1) [wo] : tokens x 4
%3, %4 = add_rms_norm norm(%1, %2) {eps=0.1} [wn] : tokens x 4, 4
%5 = add sum(%3, %4) : tokens x 4
return %5
)");
  // A norm over each head is another op.
  constexpr std::string_view per_head = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = add a(%1, %1) : tokens x 4
%3 = rms_norm n(%2) {width=2, eps=0.1} [wn] : tokens x 4
return %3
)";
  EXPECT_EQ(rewritten(fuse_add_norm, per_head), per_head);
}

constexpr std::string_view attention_of_rotations = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear q(%1) [wq] : tokens x 4
%3 = rope rq(%2) {head_dim=2, inv_freq=[1]} : tokens x 4
%4 = rope rk(%1) {head_dim=2, inv_freq=[1]} : tokens x 4
%5 = attention a(%3, %4, %1) {heads=2, kv_heads=2, head_dim=2, scale=1} : tokens x 4
return %5
)";

TEST(Rewrites, RotationsBelongToAttention) {
  EXPECT_EQ(rewritten(fuse_rope_attention, attention_of_rotations), R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear q(%1) [wq] : tokens x 4
%3 = rope_attention a(%2, %1, %1) {heads=2, kv_heads=2, head_dim=2, scale=1, rope_head_dim=2, inv_freq=[1]} : tokens x 4
return %3
)");
  // Sinks go along.
  std::string sinks(attention_of_rotations);
  sinks.replace(sinks.find("scale=1}"), 8, "scale=1, sinks=true} [s]");
  EXPECT_THAT(rewritten(fuse_rope_attention, sinks),
              testing::HasSubstr("scale=1, sinks=true, rope_head_dim=2, inv_freq=[1]} [s]"));
  // Not where q and k rotate differently.
  std::string other(attention_of_rotations);
  other.replace(other.find("inv_freq=[1]"), 12, "inv_freq=[2]");
  EXPECT_EQ(rewritten(fuse_rope_attention, other), other);
}

TEST(Rewrites, WantedRowsAreTakenRightAfterTheLastAttention) {
  EXPECT_EQ(rewritten(take_rows_early, R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = attention a(%1, %1, %1) {heads=2, kv_heads=2, head_dim=2, scale=1} : tokens x 4
%3 = linear o(%2) [wo] : tokens x 4
%4 = add sum(%1, %3) : tokens x 4
%5 = rms_norm n(%4) {eps=0.1} [wn] : tokens x 4
%6 = add sum2(%4, %5) : tokens x 4
%7 = take_rows take_rows(%6) : outputs x 4
%8 = linear head(%7) [wh] : outputs x 9
return %8
)"),
            R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = take_rows e.take_rows(%1) : outputs x 4
%3 = attention a(%1, %1, %1) {heads=2, kv_heads=2, head_dim=2, scale=1} : tokens x 4
%4 = take_rows a.take_rows(%3) : outputs x 4
%5 = linear o(%4) [wo] : outputs x 4
%6 = add sum(%2, %5) : outputs x 4
%7 = rms_norm n(%6) {eps=0.1} [wn] : outputs x 4
%8 = add sum2(%6, %7) : outputs x 4
%9 = linear head(%8) [wh] : outputs x 9
return %9
)");
  // A value that something else reads in full stays whole.
  constexpr std::string_view read_twice = R"(block 0
%1 = embedding e(%0) {vocab=7} [e] : tokens x 4
%2 = linear o(%1) [wo] : tokens x 4
%3 = take_rows t(%2) : outputs x 4
%4 = attention a(%2, %2, %2) {heads=2, kv_heads=2, head_dim=2, scale=1} : tokens x 4
%5 = take_rows u(%4) : outputs x 4
%6 = mul m(%3, %5) : outputs x 4
return %6
)";
  EXPECT_EQ(rewritten(take_rows_early, read_twice), read_twice);
}

TEST(Rewrites, PerHeadNormsAndSharedGatesAreLeftAlone) {
  Graph g = define(read_json(golden("qwen3") / "config.json"));
  fuse_add_norm(g);
  EXPECT_THAT(to_string(g), HasSubstr("rms_norm model.layers.0.self_attn.q_norm"));
  fuse_silu_mul(g);
  EXPECT_THAT(to_string(g), Not(HasSubstr("= silu ")));
}

}  // namespace
}  // namespace lathe
