#include <gmock/gmock.h>

#include "eval/report.h"

namespace lathe {
namespace {

std::vector<std::string> missing(const Json& json, std::vector<std::string> keys) {
  std::erase_if(keys, [&](const std::string& key) { return json.contains(key); });
  return keys;
}

// These names are a contract with scripts.
TEST(Report, EvalKeysAreStable) {
  Quality q{.tokens = 10, .perplexity = 5, .perplexity_stderr = 0.1};
  EXPECT_THAT(missing(to_json(q), {"perplexity", "perplexity_stderr", "tokens"}), testing::IsEmpty());
  EXPECT_FALSE(to_json(q).contains("kl_mean"));
  q.tokens_compared = 10;
  EXPECT_THAT(missing(to_json(q), {"kl_mean", "kl_p99", "top1_agreement"}), testing::IsEmpty());
}

TEST(Report, BenchKeysAreStable) {
  EXPECT_THAT(
      missing(to_json(Speed{}), {"prefill_tokens_per_s", "decode_tokens_per_s", "prefill_percent_of_roof",
                                 "decode_percent_of_roof", "ttft_ms", "threads", "batch", "prompt_tokens",
                                 "gen_tokens", "logits_hash", "peak_memory_bytes"}),
      testing::IsEmpty());
}

TEST(Report, KeepsOrderAndErrors) {
  const Report report{.subject = "m",
                      .provenance = {{"seed", 1}},
                      .totals = {{"perplexity", 2.5, "", 0.5}, {"bytes", 10, "B", 0}},
                      .nodes = {{"a.b", {{"kl", 0.1, "", 0}}}}};
  EXPECT_EQ(
      to_json(report).dump(),
      R"({"subject":"m","provenance":{"seed":1},"totals":[{"name":"perplexity","value":2.5,"error":0.5},)"
      R"({"name":"bytes","value":10.0,"unit":"B"}],"nodes":[{"node":"a.b","metrics":[{"name":"kl","value":0.1}]}]})");
}

TEST(Report, DescribesTheMachine) {
  const Json machine = describe_machine(2, 0);
  EXPECT_EQ(machine["threads"], 2);
  EXPECT_EQ(machine["version"], version());
  EXPECT_GT(machine["memory_bytes"], 0);
}

}  // namespace
}  // namespace lathe
