#include <gmock/gmock.h>

#include "core/error.h"
#include "core/yaml.h"

namespace lathe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

auto refused(std::string text, const testing::Matcher<const std::string&>& message) {
  EXPECT_THAT([&] { to_json(parse_yaml(text, "file"), "file"); }, ThrowsMessage<InputError>(message)) << text;
}

TEST(Yaml, ScalarsAreWhatTheyLookLikeUnlessQuoted) {
  EXPECT_EQ(to_json(parse_yaml("a: 1\nb: 1.5\nc: true\nd: '1'\ne: [x, null]\n", "file"), "file"),
            (Json{{"a", 1}, {"b", 1.5}, {"c", true}, {"d", "1"}, {"e", {"x", nullptr}}}));
}

TEST(Yaml, AliasesAreWhatTheyName) {
  EXPECT_EQ(to_json(parse_yaml("a: &x [1, 2]\nb: *x\n", "file"), "file"),
            (Json{{"a", {1, 2}}, {"b", {1, 2}}}));
}

TEST(Yaml, RefusalsNameTheLine) {
  refused("a: 1\nb: [", StartsWith("file: line "));
  refused("a: 1\na: 2\n", AllOf(StartsWith("file: line 2"), HasSubstr("'a' twice")));
}

TEST(Yaml, AFewLinesAreNotBillionsOfValues) {
  std::string text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 9; ++i) {
    text += fmt::format("a{0}: &a{0} [", i);
    for (int j = 0; j < 9; ++j) text += fmt::format("{}*a{}", j ? ", " : "", i - 1);
    text += "]\n";
  }
  refused(text, AllOf(StartsWith("file: line "), HasSubstr("values")));
}

TEST(Yaml, ANodeThatHoldsItselfIsRefused) {
  refused("a: &a [1, *a]\n", AllOf(StartsWith("file: line 1"), HasSubstr("levels")));
  refused("a: &a\n  b: *a\n", HasSubstr("levels"));
  refused("a: &a {? *a : 1}\n", HasSubstr("levels"));
  refused(std::string(100'000, '['), StartsWith("file: line 1"));
}

}  // namespace
}  // namespace lathe
