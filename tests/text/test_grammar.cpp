// Grammars accept what they say and nothing else; masks agree with them token by token.
#include <gmock/gmock.h>
#include <random>

#include "core/json.h"
#include "support.h"
#include "text/json_schema.h"
#include "text/token_mask.h"
#include "tokenizers.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

template <class Function>
std::string refusal(Function f) {
  try {
    f();
    return "";
  } catch (const InputError& e) {
    return e.what();
  }
}

void expect_language(const Grammar& g, std::vector<std::string> accepted, std::vector<std::string> rejected) {
  for (const std::string& text : accepted) EXPECT_TRUE(g.accepts(text)) << text;
  for (const std::string& text : rejected) EXPECT_FALSE(g.accepts(text)) << text;
}

TEST(Gbnf, Notation) {
  expect_language(
      Grammar::gbnf("root ::= \"a\" [0-9]+ | b # comment\nb ::=\n  \"x\"? [^a-y\\n] \"\\\"\\x41\\u00e9\"\n"),
      {"a1", "a123", "xz\"Aé", "世\"Aé"}, {"a", "1", "xx\"Aé", "", "a1 "});
  expect_language(Grammar::gbnf("root ::= (\"a\" |\n \"b\"\n | \"c\"){2,3} .{0,1} \"!\"*"),
                  {"ab", "abc", "abcz", "ab!!", "aa😀"}, {"a", "abcaz", "d"});
  expect_language(Grammar::gbnf("root ::= \"a\"{2} \"b\"{,2} \"c\"{1,}"), {"aac", "aabbcc"},
                  {"aabb", "aabbbc", "ac"});
  expect_language(Grammar::gbnf("root ::= list\nlist ::= \"(\" list* \")\""), {"()", "(()(()))"},
                  {"(", "())", ""});
  expect_language(Grammar::gbnf("root ::= [a\\-z]+ [x-]"), {"a-z-", "ax"}, {"bx"});
  expect_language(Grammar::gbnf("root ::= \"\""), {""}, {"a"});
  // Ambiguous, right-recursive, and nullable in the middle.
  expect_language(Grammar::gbnf("root ::= \"a\" root | \"a\" root \"b\" | e\ne ::= \"c\"*"),
                  {"", "a", "aab", "aaccbb"}, {"b", "abb"});
}

TEST(Gbnf, Refusals) {
  const auto refused = [](const std::string& source) { return refusal([&] { Grammar::gbnf(source); }); };
  EXPECT_EQ(refused("root ::= a"), "grammar: line 1: expected a definition of every rule, found none of 'a'");
  EXPECT_EQ(refused("a ::= \"x\"\n\n a ::= \"y\""),
            "grammar: line 3: expected every rule once, found 'a' twice");
  EXPECT_THAT(refused("x ::= \"a\""), HasSubstr("expected a rule 'root', found none"));
  EXPECT_THAT(refused("root ::= root \"a\" | \"a\""), HasSubstr("left recursion in 'root'"));
  EXPECT_THAT(refused("root ::= \"x\"? a | \"y\"\na ::= \"\" root"), HasSubstr("left recursion"));
  EXPECT_THAT(refused("root ::= \"a\" root"), HasSubstr("one that none does"));
  EXPECT_THAT(refused("root ::= \"a"), HasSubstr("expected a character"));
  EXPECT_THAT(refused("root ::= [b-a]"), HasSubstr("descends"));
  EXPECT_THAT(refused("root ::= (\"a\"\nb ::= \"c\""), HasSubstr("')'"));
  EXPECT_THAT(refused("root ::= \"a\"{2,1}"), HasSubstr("lower bound"));
  EXPECT_THAT(refused("root ::= \"a\"{99999}"), HasSubstr("repetitions"));
  EXPECT_THAT(refused("root ::= *"), HasSubstr("something to repeat"));
  EXPECT_THAT(refused("root ::= <x>"), HasSubstr("the end of the rule"));
  EXPECT_THAT(refused("root ::= \"\\q\""), HasSubstr("an escape"));
  EXPECT_THAT(refused("root ::= \"\xFF\""), HasSubstr("UTF-8"));
  EXPECT_THAT(refused("root ::= " + std::string(60000, '(')), HasSubstr("levels of nesting"));
  std::string nested = "\"a\" \"b\" \"c\"";
  for (int i = 0; i < 90; ++i) nested = "(" + nested + "){9999}";
  EXPECT_THAT(refused("root ::= " + nested), HasSubstr("at most 400000 states"));
}

TEST(RegexGrammar, Language) {
  expect_language(Grammar::regex("\\d{3}-[a-c]+(x|yy)?"), {"123-abc", "000-ax", "000-ayy"},
                  {"123-", "123-ad", "123-axx", "0123-a"});
  expect_language(Grammar::regex("^a.c$|\\w+@\\w+\\.com"), {"abc", "a世c", "x@y.com"},
                  {"abcd", "a\nc", "@y.com"});
  expect_language(Grammar::regex("(?:a*?b)+?(?<n>[^\\s\\d])\\{2}"), {"abb{2}", "bx{2}"}, {"ab {2}", "b1{2}"});
  expect_language(Grammar::regex("[\\u00e9-\\u00eb\\]\\-x]{2,}|a{x}"), {"éë", "]-", "a{x}"}, {"é", "e-"});
  expect_language(Grammar::regex("\\ud83d\\ude00?"), {"😀", ""}, {"😁"});
  expect_language(Grammar::regex(""), {""}, {"a"});
  for (const char* pattern : {"(a",    "a)",         "[a",      "a**",   "*a",     "a{3,2}", "a++",
                              "(?=a)", "(?i)a",      "(?<=a)b", "\\bx",  "\\1(a)", "\\p{L}", "a^b",
                              "(a$)",  "x{1,20000}", "\\ud800", "[b-a]", "[]a]",   "\\",     "[\\d-x]"})
    EXPECT_THROW(Grammar::regex(pattern), InputError) << pattern;
  EXPECT_THROW(Grammar::regex(std::string(60000, '(')), InputError);
}

TEST(ChoiceGrammar, Language) {
  const std::vector<std::string> choices = {"yes", "yesterday", "no"};
  expect_language(Grammar::choice(choices), choices, {"", "ye", "yesno"});
  EXPECT_THROW(Grammar::choice({}), InputError);
}

TEST(JsonGrammar, JsonTestSuite) {
  const auto folder = shared_data("tests/json_test_suite/test_parsing");
  SKIP_WITHOUT(folder);
  int accepted = 0, rejected = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename(), text = read_text_file(entry.path());
    if (name[0] == 'i') continue;
    const bool valid = name[0] == 'y';
    EXPECT_EQ(Grammar::json().accepts(text), valid) << name;
    ++(valid ? accepted : rejected);
  }
  EXPECT_EQ(accepted, 95);
  EXPECT_EQ(rejected, 188);
}

TEST(JsonGrammar, ObjectsOnly) {
  expect_language(Grammar::json_object(), {"{}", " {\"a\": [1, {\"b\": null}]} "},
                  {"[]", "1", "{\"a\": \"\\ud800\"}", "{,}"});
}

// ------------------------------------------------------------------------------------------------- masks

// The definition of a mask, token by token.
std::vector<uint64_t> slow_mask(const GrammarMatcher& matcher, const std::vector<std::string>& tokens,
                                const std::shared_ptr<TokenMasks>& masks, const std::string& text) {
  (void)matcher;
  std::vector<uint64_t> out((tokens.size() + 63) / 64, 0);
  for (size_t id = 0; id < tokens.size(); ++id) {
    GrammarMatcher fresh(masks);
    EXPECT_TRUE(fresh.accept(text));
    if (!tokens[id].empty() && fresh.accept(std::string_view(tokens[id])))
      out[id / 64] |= uint64_t{1} << (id % 64);
  }
  return out;
}

// Random texts under a grammar: every mask is what the definition says, and complete() what accepts() does.
void expect_masks(const Grammar& grammar, const std::vector<std::string>& tokens, int texts, size_t length) {
  const auto masks = std::make_shared<TokenMasks>(grammar, std::make_shared<TokenTrie>(tokens));
  std::mt19937 random(7);
  for (int t = 0; t < texts; ++t) {
    GrammarMatcher matcher(masks);
    std::string text;
    for (size_t i = 0; i < length; ++i) {
      const std::vector<uint64_t> mask(matcher.mask().begin(), matcher.mask().end());
      ASSERT_EQ(mask, slow_mask(matcher, tokens, masks, text)) << text;
      ASSERT_EQ(matcher.complete(), grammar.accepts(text)) << text;
      std::vector<int32_t> allowed;
      for (size_t id = 0; id < tokens.size(); ++id) {
        if (mask[id / 64] >> (id % 64) & 1) allowed.push_back(static_cast<int32_t>(id));
      }
      if (allowed.empty()) {
        EXPECT_TRUE(matcher.complete());
        break;
      }
      const int32_t id = allowed[random() % allowed.size()];
      EXPECT_TRUE(matcher.accept(id));
      text += tokens[static_cast<size_t>(id)];
    }
  }
}

std::vector<std::string> json_tokens() {
  std::vector<std::string> tokens = {
      "",        "{\"",  "\": ", "\",",      "\"}",      "}}",   "[[",  "]]", "],[", "\"a\"",
      "\"a\":1", "true", "tru",  "null",     "12",       "-",    "1.5", "e1", "\\u", "\\ud83d\\ude00",
      "é",       "\xC3", "\xA9", "\xF0\x9F", "\x98\x80", "\xFF", "  ",  "\n", "ab",  "a",
      "a"};
  for (int c = 0x20; c < 0x7F; ++c) tokens.push_back(std::string(1, static_cast<char>(c)));
  return tokens;
}

TEST(TokenMask, IsTheDefinition) {
  expect_masks(Grammar::json(), json_tokens(), 20, 12);
  expect_masks(Grammar::regex("(é|😀|[a-é]){2,6}!"), json_tokens(), 20, 12);
  expect_masks(Grammar::gbnf("root ::= \"a\" root | \"a\" root \"b\" | e\ne ::= \"c\"*"), json_tokens(), 10,
               12);
  expect_masks(json_schema(Json::parse(
                   R"({"type": "object", "properties": {"a": {"type": "integer"}, "ab": {"$ref": "#"},
                                           "c": {"type": "string", "minLength": 2, "maxLength": 3}}, "required": ["a"]})")),
               json_tokens(), 20, 12);
}

TEST(TokenMask, CharactersSpanTokens) {
  const std::vector<std::string> tokens = {"\xF0", "\x9F\x98", "\x80", "\x81", "x"};
  const auto masks = std::make_shared<TokenMasks>(Grammar::regex("😀x"), std::make_shared<TokenTrie>(tokens));
  GrammarMatcher matcher(masks);
  for (const int32_t id : {0, 1, 2, 4}) {
    EXPECT_EQ(matcher.mask()[0], uint64_t{1} << id);
    EXPECT_FALSE(matcher.complete());
    EXPECT_TRUE(matcher.accept(id));
  }
  EXPECT_TRUE(matcher.complete());
  EXPECT_EQ(matcher.mask()[0], 0u);
  EXPECT_FALSE(matcher.accept(4));
  EXPECT_FALSE(matcher.accept(-1));
  EXPECT_FALSE(matcher.accept(5));
}

TEST(TokenMask, LongTextsKeepTheirStack) {
  const std::vector<std::string> tokens = {"[", "]", "1", ","};
  const auto masks = std::make_shared<TokenMasks>(Grammar::json(), std::make_shared<TokenTrie>(tokens));
  GrammarMatcher matcher(masks);
  constexpr int kDepth = 25'000;  // more states than a matcher remembers
  for (int i = 0; i < kDepth; ++i) ASSERT_TRUE(matcher.accept(0));
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_FALSE(matcher.complete());
    ASSERT_TRUE(matcher.accept(1)) << i;
  }
  EXPECT_TRUE(matcher.complete());
  EXPECT_FALSE(matcher.accept(1));
}

TEST(TokenMask, AmbiguityIsLimited) {
  // After n times "a" there are 2^n stacks.
  const auto g = Grammar::gbnf("root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"");
  EXPECT_THROW(g.accepts(std::string(40, 'a')), InputError);
}

// Refused before the first token or behind some: never a longer wait for those who share the engine.
TEST(TokenMask, WorkIsLimited) {
  const auto trie = std::make_shared<TokenTrie>(json_tokens());
  const auto refused = [&](const Grammar& g) {
    const auto masks = std::make_shared<TokenMasks>(g, trie);
    std::mt19937 random(3);
    try {
      GrammarMatcher matcher(masks);
      for (int count = 0; count < 2000; ++count) {
        const std::span<const uint64_t> mask = matcher.mask();
        std::vector<int32_t> allowed;
        for (int32_t id = 0; id < trie->size(); ++id)
          if (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) allowed.push_back(id);
        if (allowed.empty()) return false;
        EXPECT_TRUE(matcher.accept(allowed[random() % allowed.size()]));
      }
    } catch (const InputError&) {
      return true;
    }
    return false;
  };
  EXPECT_TRUE(refused(Grammar::regex("(.{0,60}){0,60}")));
  EXPECT_TRUE(refused(Grammar::regex("([a-z ]{0,30}){0,90}x")));
  EXPECT_TRUE(refused(Grammar::gbnf("root ::= [a-z ] root root | [a-z ]")));
  // What is long but simple goes on for ever.
  EXPECT_FALSE(refused(Grammar::regex(".{10000}")));
  EXPECT_FALSE(refused(Grammar::json()));
  // Texts may share what they may cost.
  const auto work = std::make_shared<grammar::Work>(1'000'000);
  const auto first_mask = [&] {
    GrammarMatcher(std::make_shared<TokenMasks>(Grammar::regex("(a?){800}b"), trie), work).mask();
  };
  EXPECT_NO_THROW(first_mask());
  EXPECT_THROW(for (int i = 0; i < 1000; ++i) first_mask(), InputError);
}

TEST(TokenMask, TokenBytesAddUpToTexts) {
  SKIP_WITHOUT(kQwen);
  const Tokenizer tokenizer = qwen_tokenizer();
  const auto bytes = tokenizer.token_bytes();
  const std::string text = "{\"name\": \"Zürich 世界 😀\",\n\t\"n\": [1, 2.5e-3]}  end";
  std::string joined;
  for (const int32_t id : tokenizer.encode(text)) joined += bytes[static_cast<size_t>(id)];
  EXPECT_EQ(joined, text);
  EXPECT_EQ(bytes[static_cast<size_t>(*tokenizer.id("<|im_end|>"))], "");
}

TEST(TokenMask, SentencePieceTokensKeepTheirSpaces) {
  const auto path = shared_data("tokenizers/ortgenai_phi3-v/tokenizer.json");
  SKIP_WITHOUT(path);
  const Tokenizer tokenizer = Tokenizer::load(path);
  const auto bytes = tokenizer.token_bytes();
  EXPECT_EQ(bytes[static_cast<size_t>(*tokenizer.id("\u2581the"))], " the");
  EXPECT_EQ(bytes[static_cast<size_t>(*tokenizer.id("<0xE4>"))], "\xE4");
}

}  // namespace
}  // namespace lathe
