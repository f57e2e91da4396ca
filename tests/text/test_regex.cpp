// Expressions of tokenizer.json mean in PCRE2 what they mean in Oniguruma. Expected matches are those of
// `tokenizers`.
#include "text/oniguruma.h"
#include "text/regex.h"
#include "text/tokenizers.h"

namespace lathe {
namespace {

// The matches, each in brackets.
std::string marked(std::string_view pattern, std::string_view text) {
  std::vector<ByteRange> matches;
  Budget budget(text.size());
  Regex(pattern, "test").find_all(text, budget, matches);
  std::string out;
  size_t done = 0;
  for (const ByteRange& m : matches) {
    out.append(text, done, m.begin - done).append("[").append(text, m.begin, m.end - m.begin).append("]");
    done = m.end;
  }
  return out.append(text, done);
}

TEST(Regex, FindsAllMatches) {
  EXPECT_EQ(marked(R"(\p{L}+)", "ab 1é, 中"), "[ab] 1[é], [中]");
  EXPECT_EQ(marked("x*", "axxb"), "[]a[xx]b[]");  // no empty match where another ends
  EXPECT_EQ(marked("(?=a)", "aba"), "[]ab[]a");
  EXPECT_EQ(marked(R"(\s+(?!\S)|\s+)", "a   b  "), "a[  ][ ]b[  ]");
  EXPECT_EQ(marked("(?i:'s|'ll)", "it'S we'LL"), "it['S] we['LL]");
  EXPECT_EQ(marked(R"(a++b?|(?>c|cd)e)", "aab cde ce"), "[aab] cde [ce]");
  EXPECT_EQ(marked("$", "a\nb"), "a[]\nb[]");
  EXPECT_EQ(marked("^.", "a\nbc"), "[a]\n[b]c");
  EXPECT_EQ(marked("(?<=1)2", "12 2"), "1[2] 2");
}

TEST(Regex, ClassesAreThoseOfOniguruma) {
  EXPECT_EQ(marked(R"(\s)", "\u180e\u3000\u0085"), "\u180e[\u3000][\u0085]");  // PCRE2's \s has U+180E
  EXPECT_EQ(marked(R"(\S)", "\u180e\u3000"), "[\u180e]\u3000");
  EXPECT_EQ(marked(R"(\w+)", "a\u0301_Ⅷ⑧²"), "[a\u0301_Ⅷ]⑧[²]");
  EXPECT_EQ(marked(R"([\w]+)", "a²"), "[a]²");
  EXPECT_EQ(marked(R"(\W)", "a-²"), "a[-]²");
  EXPECT_EQ(marked(R"(\b)", "a\u0301 b"), "[]a\u0301[] []b[]");
  EXPECT_EQ(marked(R"(\B)", "ab"), "a[]b");
  EXPECT_EQ(marked(R"(\v)", "\x0b\n"), "[\x0b]\n");
  EXPECT_EQ(marked(R"(\p{Han})", "中\u3001"), "[中]\u3001");  // the script, not its extensions
  EXPECT_EQ(marked(R"([\p{^L}])", "a1"), "a[1]");
  EXPECT_EQ(marked(R"(\u00e9|[\x{e0}-\x{e1}])", "éà"), "[é][à]");
}

TEST(Regex, RefusesWhatWouldMeanSomethingElse) {
  for (const char* pattern :
       {R"(\h)",      R"(\K)", R"(\R)",   R"(\C)",  R"(\Qa)",    "a{,3}",  "a{2}+",   "a{2}?",
        "{",          "a{x}",  "[a[b]]",  "[a&&b]", "[]a]",      "(?m:a)", "a(?i)b",  "(?R)",
        "(?<name>a)", "(?#a)", "(*UTF)a", R"(\)",   R"(\u00g0)", R"(\p)",  R"([\W])", R"([\b])"}) {
    EXPECT_THAT(message_of([&] { Regex(pattern, "x.json"); }),
                testing::StartsWith("x.json: expected a regular"))
        << pattern;
  }
}

TEST(Regex, RefusesWhatIsMalformed) {
  for (const char* pattern :
       {"(", "[a", "a)", "*", R"(\p{Nothing})", R"(\p{)", "[b-a]", "a{3,2}", R"(\x{110000})"}) {
    EXPECT_THAT(message_of([&] { Regex(pattern, "x.json"); }),
                testing::HasSubstr("x.json: expected a regular"))
        << pattern;
  }
  EXPECT_THAT(message_of([] { Regex(std::string(20000, 'a'), "x.json"); }),
              testing::HasSubstr("20000 bytes"));
}

TEST(Regex, BacktrackingWithoutEndIsAnError) {
  const std::string text = std::string(5000, 'a') + "!";
  for (const char* pattern : {"(?:a|aa)+$x", "(a*)*$x", "a*a*a*a*a*$x"}) {
    EXPECT_THAT(message_of([&] { marked(pattern, text); }), testing::HasSubstr("a regular expression that"))
        << pattern;
  }
}

TEST(Regex, LongRunsAreFine) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(marked(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", spaces + "a").size(), spaces.size() + 5);
}

}  // namespace
}  // namespace lathe
