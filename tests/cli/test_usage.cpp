// Help, version and exit codes: what every verb does alike.
#include <gmock/gmock.h>

#include "command.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

const std::vector<std::string> verbs = {"inspect", "quantize", "optimize", "eval",   "bench",      "generate",
                                        "run",     "synth",    "export",   "rotate", "sensitivity"};

TEST(Usage, EveryVerbHasHelpWithAnExample) {
  for (const std::string& verb : verbs) {
    const Outcome o = lathe(verb + " --help");
    EXPECT_EQ(o.exit_code, 0) << verb;
    EXPECT_THAT(o.out, HasSubstr("Example:\n  lathe " + verb + " "));
    EXPECT_THAT(o.out, HasSubstr("--json"));
    EXPECT_EQ(o.err, "") << verb;
  }
}

TEST(Usage, HelpListsTheVerbs) {
  const Outcome o = lathe("--help");
  EXPECT_EQ(o.exit_code, 0);
  for (const std::string& verb : verbs) EXPECT_THAT(o.out, HasSubstr("\n  " + verb + " "));
}

TEST(Usage, Version) {
  const Outcome o = lathe("--version");
  EXPECT_EQ(o.exit_code, 0);
  EXPECT_THAT(o.out, testing::MatchesRegex("lathe [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Usage, AnUnknownIsaLevelIsExitCode2AndOneLine) {
  ::setenv("LATHE_ISA", "bogus", 1);
  const Outcome o = lathe("inspect builtin");
  ::unsetenv("LATHE_ISA");
  EXPECT_EQ(o.exit_code, 2);
  EXPECT_EQ(o.error_lines(), 1);
  EXPECT_THAT(o.err, testing::HasSubstr("ref, avx2, avxvnni, avx512"));
}

TEST(Usage, BadUsageIsExitCode2AndOneLine) {
  const char* lines[] = {"",
                         "frobnicate",
                         "eval",
                         "eval builtin",
                         "quantize builtin",
                         "quantize builtin --scheme w4a16",
                         "bench builtin --batch 0",
                         "bench builtin --batch many",
                         "generate builtin --prompt x --temperature -1",
                         "generate builtin --prompt x --top-p 2",
                         "inspect builtin --no-such-flag",
                         "quantize builtin --method magic -o /tmp/never",
                         "synth -o /tmp/never",
                         "export builtin",
                         "export builtin --type q9_k -o /tmp/never.gguf",
                         "export builtin --to onxx -o /tmp/never",
                         "run",
                         "eval builtin --text x --threads -3"};
  for (const char* line : lines) {
    const Outcome o = lathe(line);
    EXPECT_EQ(o.exit_code, 2) << line;
    EXPECT_EQ(o.out, "") << line;
    EXPECT_EQ(o.error_lines(), 1) << line << "\n" << o.err;
    EXPECT_THAT(o.err, HasSubstr("--help")) << line;
  }
}

}  // namespace
}  // namespace lathe
