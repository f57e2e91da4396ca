// Added tokens: where they are found, and what they take with them.
#include "text/tokenizers.h"

namespace lathe {
namespace {

constexpr int32_t kX = 256;  // the first added token's id in bytes_document()

// Bytes as their characters, added tokens in angle brackets.
std::string shown(const Json& json, const std::string& text, Tokenizer::EncodeOptions options = {}) {
  const Tokenizer tokenizer = parse(json);
  std::string out;
  for (const int32_t id : tokenizer.encode(text, options)) {
    out += id < kX ? std::string(1, static_cast<char>(id)) : "<" + std::string(tokenizer.token(id)) + ">";
  }
  return out;
}

Json with(std::vector<Json> tokens) {
  Json json = bytes_document();
  for (Json& token : tokens) json["added_tokens"].push_back(std::move(token));
  return json;
}

Json token(int id, const char* content, std::vector<const char*> set = {}) {
  Json out = added_token(kX + id, content);
  for (const char* flag : set) out[flag] = true;
  return out;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const Json json = with({token(0, "ab"), token(1, "abcd"), token(2, "bcde"), token(3, "ce")});
  EXPECT_EQ(shown(json, "xabcde"), "x<abcd>e");
  EXPECT_EQ(shown(json, "abce"), "<ab><ce>");
  EXPECT_EQ(shown(json, "bcdabc"), "bcd<ab>c");
  EXPECT_EQ(shown(json, "ab"), "<ab>");
  EXPECT_EQ(shown(json, ""), "");
}

TEST(AddedTokens, StripTakesWhiteSpace) {
  EXPECT_EQ(shown(with({token(0, "XY", {"lstrip"})}), "a \n\u3000XY b"), "a<XY> b");
  EXPECT_EQ(shown(with({token(0, "XY", {"rstrip"})}), "a XY \n\u3000b"), "a <XY>b");
  EXPECT_EQ(shown(with({token(0, "XY", {"lstrip", "rstrip"})}), " XY  XY "), "<XY><XY>");
  EXPECT_EQ(shown(with({token(0, "XY", {"rstrip"}), token(1, "  ")}), "XY   a  "), "<XY>a<  >");
}

TEST(AddedTokens, SingleWord) {
  const Json json = with({token(0, "ing", {"single_word"})});
  EXPECT_EQ(shown(json, "ing king ing2 -ing- \u00e9ing"), "<ing> king ing2 -<ing>- \xC3\xA9ing");
}

TEST(AddedTokens, NormalizedAreFoundInNormalizedText) {
  Json json = with({token(0, "Yes", {"normalized"}), token(1, "No")});
  json["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_EQ(shown(json, "YES yes No NO"), "<Yes> <Yes> <No> no");
  EXPECT_EQ(parse(json).decode(Ids{kX, kX + 1}), "yesNo");  // as it is found
}

TEST(AddedTokens, SpecialTokensInUserText) {
  Json json = with({token(0, "<|end|>"), token(1, "<|tool|>")});
  json["added_tokens"][1]["special"] = false;
  const std::string text = "<|end|><|tool|>";
  EXPECT_EQ(parse(json).encode(text), (Ids{kX, kX + 1}));
  EXPECT_EQ(shown(json, text, {.parse_special = false}),
            "<|end|><<|tool|>>");  // only `special` ones become plain
  const Tokenizer tokenizer = parse(json);
  EXPECT_EQ(tokenizer.decode(Ids{kX, 'a', kX + 1}, true), "a<|tool|>");
  EXPECT_EQ(stream(tokenizer, {kX, 'a', kX + 1}, true), "a<|tool|>");
  EXPECT_TRUE(tokenizer.is_special(kX));
  EXPECT_FALSE(tokenizer.is_special(kX + 1));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_FALSE(tokenizer.is_special(-1));
}

TEST(AddedTokens, IdsBeyondTheVocabulary) {
  const Tokenizer tokenizer = parse(with({token(10, "XY")}));
  EXPECT_EQ(tokenizer.vocab_size(), kX + 11);
  EXPECT_EQ(tokenizer.id("XY"), kX + 10);
  EXPECT_EQ(tokenizer.id("Y"), static_cast<int32_t>('Y'));
  EXPECT_EQ(tokenizer.id("none"), std::nullopt);
  EXPECT_EQ(tokenizer.token(kX + 10), "XY");
  EXPECT_EQ(tokenizer.token(kX + 5), "");
  EXPECT_EQ(tokenizer.decode(Ids{'a', kX + 5, kX + 10}), "aXY");
  EXPECT_EQ(stream(tokenizer, {'a', kX + 5, kX + 10}), "aXY");
}

}  // namespace
}  // namespace lathe
