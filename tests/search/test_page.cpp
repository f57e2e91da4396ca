#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/html.h"
#include "search/page.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* hostile = "</script><script>alert(\"x\")</script>&'";

// As small as a report can be, with the hostile text wherever text comes from outside.
Json hostile_report() {
  const Json quality = {{"perplexity", 10.0},   {"perplexity_stderr", 0.1}, {"tokens", 100},
                        {"kl_mean", 0.01},      {"kl_stderr", 0.001},       {"kl_p99", 0.1},
                        {"top1_agreement", 0.9}};
  const Json speed = {{"prefill_tokens_per_s", 1000.0},
                      {"decode_tokens_per_s", 100.0},
                      {"decode_percent_of_roof", 50.0},
                      {"ttft_ms", 5.0},
                      {"prompt_tokens", 512}};
  Json trial = {{"id", 0},
                {"name", hostile},
                {"kind", "base"},
                {"chosen", false},
                {"why", hostile},
                {"bytes", 1000},
                {"bits_per_weight", 16.0},
                {"memory_bytes", 2000},
                {"predicted_kl", 0.0},
                {"perplexity_increase_percent", 0.0},
                {"search", quality},
                {"held_out", quality},
                {"speed", speed}};
  Json chosen = trial;
  chosen["id"] = 1;
  chosen["kind"] = "mixed";
  chosen["chosen"] = true;
  return {{"provenance", {{"model", hostile}, {"machine", {{"cpu", hostile}}}}},
          {"nodes",
           {{{"node", hostile},
             {"format", hostile},
             {"weights", 10},
             {"metrics", {{{"value", 5}}, {{"value", 4.0}}}}}}},
          {"verdict",
           {{"met", true},
            {"headline", hostile},
            {"goal", hostile},
            {"stopped", hostile},
            {"selection", hostile}}},
          {"constraints",
           {{{"name", hostile}, {"unit", hostile}, {"limit", 1.0}, {"value", 0.5}, {"met", true}}}},
          {"base", trial},
          {"chosen", chosen},
          {"uniform_check",
           {{"uniform_of_equal_or_fewer_bytes", 1},
            {"of_those_with_higher_kl", 1},
            {"uniform_dominated_by_a_mixture", 0},
            {"rows", {{{"uniform", hostile}, {"bytes", 5}, {"kl_mean", 0.1}}}}}},
          {"trials", {trial, chosen}},
          {"kernels", {{{"kernel", hostile}, {"packing", hostile}, {"nodes", 3}, {"emulated", true}}}},
          {"reproduce", hostile}};
}

TEST(Page, EscapesTextFromOutside) {
  EXPECT_EQ(escape_html("a<b>&\"c'"), "a&lt;b&gt;&amp;&#34;c&#39;");
  const std::string page = report_page(hostile_report());
  EXPECT_THAT(page, Not(HasSubstr(hostile)));
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(&#34;x&#34;)"));
}

TEST(Page, NeedsNothingFromTheNetwork) {
  const std::string page = report_page(hostile_report());
  for (const char* outside : {"http:", "https:", "src=", "@import", "url(", "<link"})
    EXPECT_THAT(page, Not(HasSubstr(outside))) << outside;
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(page, HasSubstr("@media print"));
}

}  // namespace
}  // namespace lathe
