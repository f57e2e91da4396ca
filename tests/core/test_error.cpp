#include <gmock/gmock.h>

#include "core/error.h"

namespace lathe {
namespace {

TEST(Error, SaysWhereExpectedFoundAndWhatToDo) {
  EXPECT_STREQ(input_error("a.json", "an object", "a string").what(),
               "a.json: expected an object, found a string");
  EXPECT_STREQ(input_error("a.json", "an object", "a string", "fix it").what(),
               "a.json: expected an object, found a string; fix it");
  EXPECT_EQ(input_error("a", "b", "c").exit_code(), 2);
  EXPECT_EQ(Error("a").exit_code(), 1);
}

TEST(Error, PrintableEscapesWhatATerminalWouldObey) {
  struct Case {
    std::string_view text;
    const char* expected;
  };
  for (const Case& c : {Case{"plain", "plain"},
                        {"a\nb\x1b[31m", "a\\x0ab\\x1b[31m"},
                        {"h\xc3\xa9", "h\xc3\xa9"},
                        {"\xc3", "\\xc3"},                             // cut
                        {"\xc0\xaf", "\\xc0\\xaf"},                    // overlong
                        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},           // a surrogate
                        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // above U+10FFFF
                        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}})
    EXPECT_EQ(printable(c.text), c.expected);
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace lathe
