// inspect --plan: what runs each node, and why nothing better.
#include <gmock/gmock.h>

#include "command.h"
#include "core/cpu.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::Not;

Json plan_of(const std::string& model, const std::string& environment = "") {
  const Outcome o = lathe_with(environment, "inspect --plan --json " + model);
  EXPECT_EQ(o.exit_code, 0) << o.err;
  return o.json()["kernels"];
}

// What was passed over depends on the machine's table: the tests below look at that.
TEST(InspectPlan, ReferenceKernelsMatchTheGoldenFile) {
  std::string text;
  for (const Json& c : plan_of(quoted(golden("llama3").string()), "LATHE_ISA=ref")) {
    const std::string param = c["param"];
    text += fmt::format("{}: {} / {}, {}{}\n", (param.empty() ? c["node"] : c["param"]).get<std::string>(),
                        c["prompts"].get<std::string>(), c["decode"].get<std::string>(),
                        c["packing"].get<std::string>(), c["emulated"] ? " (emulated)" : "");
  }
  expect_golden(golden("cli/inspect_plan.ref.txt"), text);
}

TEST(InspectPlan, EveryBetterRowIsAccountedFor) {
  for (const IsaLevel& level : isa_levels())
    for (const Json& c : plan_of("builtin", fmt::format("LATHE_ISA={}", level.name))) {
      if (c["param"].get<std::string>().empty()) continue;
      const auto rows = linear_kernels();
      ASSERT_LT(c["passed_over"].size(), rows.size());
      EXPECT_EQ(c["kernel"], rows[c["passed_over"].size()].name) << c;
      for (size_t i = 0; i < c["passed_over"].size(); ++i) {
        const Json& passed = c["passed_over"][i];
        EXPECT_EQ(passed["kernel"], rows[i].name);
        const std::string reason = passed["reason"];
        if (passed["reads_format"])
          EXPECT_TRUE(reason.starts_with("CPU lacks") || reason.starts_with("LATHE_ISA leaves out"))
              << passed;
        else
          EXPECT_TRUE(reason.starts_with("does not take bf16 [")) << passed;
      }
    }
}

TEST(InspectPlan, TheTableNamesWhatIsMissing) {
  const std::string best = lathe("inspect builtin --plan").out;
  EXPECT_THAT(best, HasSubstr("passed over"));
  EXPECT_THAT(best, HasSubstr("model.layers.0.mlp.gate_proj"));
  EXPECT_THAT(best, Not(HasSubstr("LATHE_ISA")));
  if (isa_levels().size() < 2) GTEST_SKIP() << "nothing better than the reference here";
  const std::string reference = lathe_with("LATHE_ISA=ref", "inspect builtin --plan").out;
  EXPECT_THAT(reference, HasSubstr("expand.f32 (emulated)"));
  EXPECT_THAT(reference,
              HasSubstr("(LATHE_ISA leaves out " + std::string(describe_features(isa_levels()[1].features))));
  EXPECT_THAT(reference, HasSubstr("for other formats"));
}

}  // namespace
}  // namespace lathe
