#include <gtest/gtest.h>

#include "text/byte_level.h"
#include "text/utf8.h"

namespace lathe {
namespace {

TEST(Utf8, RepairsMaximalSubparts) {
  // Examples of the Unicode standard, table 3-8 and its neighbours.
  EXPECT_EQ(repair_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(repair_utf8("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xE2\x82"), "\uFFFD");
  EXPECT_EQ(repair_utf8("a\u00e9\u4e2d\U0001F600"), "a\u00e9\u4e2d\U0001F600");
}

TEST(Utf8, OnlyAnUnfinishedTailIsIncomplete) {
  EXPECT_EQ(complete_utf8(""), 0u);
  EXPECT_EQ(complete_utf8("ab"), 2u);
  EXPECT_EQ(complete_utf8("a\xE2\x82"), 1u);
  EXPECT_EQ(complete_utf8("a\xF0\x9F\x98"), 1u);
  EXPECT_EQ(complete_utf8("a\xF0\x9F\x98\x80"), 5u);
  EXPECT_EQ(complete_utf8("a\xC0"), 2u);     // never valid
  EXPECT_EQ(complete_utf8("\xE0\x80"), 2u);  // nor this
  EXPECT_EQ(complete_utf8("\x80\x80\x80"), 3u);
}

TEST(Utf8, CodePointsRoundTrip) {
  for (char32_t c = 0; c < 0x110000; c += c < 0x1000 ? 1 : 97) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    EXPECT_TRUE(valid_utf8(text));
    size_t at = 0;
    EXPECT_EQ(next_code_point(text, at), c);
    EXPECT_EQ(at, text.size());
  }
}

TEST(Utf8, Classes) {
  EXPECT_TRUE(is_white_space(0x3000) && is_white_space('\n') && !is_white_space(0x200B) &&
              !is_white_space(0x180E));
  EXPECT_TRUE(is_number('1') && is_number(0xB2) && is_number(0x2167) && !is_number('a'));
  EXPECT_TRUE(is_punctuation('$') && is_punctuation(0x2026) && !is_punctuation('a') && !is_punctuation(' '));
  EXPECT_TRUE(is_word('_') && is_word(0x24B6) && is_word(0x301) && !is_word(0xB2) && !is_word('-'));
}

TEST(ByteLevel, EveryByteIsOneCharacter) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  const std::string characters = bytes_to_characters(bytes);
  EXPECT_TRUE(valid_utf8(characters));
  EXPECT_EQ(characters_to_bytes(characters), bytes);
  EXPECT_EQ(bytes_to_characters(" \n!\xAD"), "\u0120\u010A!\u0143");
  EXPECT_EQ(characters_to_bytes("a b"), "a b");  // a space is not of the alphabet
}

}  // namespace
}  // namespace lathe
