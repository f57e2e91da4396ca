// Each component of tokenizer.json on its own. Expected values are those of `tokenizers` 0.23.
#include "text/tokenizers.h"

namespace lathe {
namespace {

// What the normalizer makes of a text.
std::string normalized(const Json& normalizer, const std::string& text) {
  Json json = bytes_document();
  json["normalizer"] = normalizer;
  const Tokenizer tokenizer = parse(json);
  return tokenizer.decode(tokenizer.encode(text));
}

TEST(Normalizer, UnicodeForms) {
  const auto form = [](const char* type, const std::string& text) {
    return normalized({{"type", type}}, text);
  };
  EXPECT_EQ(form("NFC", "e\u0301 \u1112\u1161\u11ab \u212b"), "\u00e9 \ud55c \u00c5");
  EXPECT_EQ(form("NFD", "\u00e9\ud55c"), "e\u0301\u1112\u1161\u11ab");
  EXPECT_EQ(form("NFKC", "\ufb01\u00b2\u1e9b\u0323"), "fi2\u1e69");
  EXPECT_EQ(form("NFKD", "\ufb01\u1e9b\u0323"), "fis\u0323\u0307");
  EXPECT_EQ(form("NFD", "a\u0301\u0323"), "a\u0323\u0301");  // canonical order
  EXPECT_EQ(form("NFC", "plain \u00e9"), "plain \u00e9");
  EXPECT_EQ(form("NFC", ""), "");
}

TEST(Normalizer, ManyMarksDoNotTakeLong) {
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i) marks += i % 2 ? "\u0323" : "\u0301";
  EXPECT_EQ(normalized({{"type", "NFD"}}, marks).size(), marks.size());
}

TEST(Normalizer, TheOthers) {
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "ÀBC\u0130"), "àbci\u0307");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \n a b\u3000"),
            "a b");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a "), " a");
  EXPECT_EQ(normalized({{"type", "Strip"}}, " \n "), "");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, "a"), "_a");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "aa"}}}, {"content", "b"}}, "aaaca"),
            "baca");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", "$0"}}, "a  b"),
            "a$0b");
  const Json sequence = {{"type", "Sequence"},
                         {"normalizers", Json::array({{{"type", "NFD"}},
                                                      {{"type", "Sequence"}, {"normalizers", Json::array()}},
                                                      {{"type", "Lowercase"}}})}};
  EXPECT_EQ(normalized(sequence, "\u00c9"), "e\u0301");
}

// The pieces, with bars between: a piece that is a token of its own ("ignore_merges") shows as one.
std::string pieces(const Json& pre_tokenizer, const std::string& text, const std::string& candidates) {
  std::vector<std::string> tokens;
  std::istringstream words(candidates);
  for (std::string word; std::getline(words, word, '|');) {
    if (std::find(tokens.begin(), tokens.end(), word) == tokens.end()) tokens.push_back(word);
  }
  Json json = document(tokens);
  json["model"]["ignore_merges"] = true;
  json["pre_tokenizer"] = pre_tokenizer;
  const Tokenizer tokenizer = parse(json);
  std::string out;
  for (const int32_t id : tokenizer.encode(text))
    out.append(out.empty() ? "" : "|").append(tokenizer.token(id));
  return out;
}

void expect_pieces(const Json& pre_tokenizer, const std::string& text, const std::string& expected) {
  EXPECT_EQ(pieces(pre_tokenizer, text, expected), expected) << pre_tokenizer;
}

Json split(const char* pattern, const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PreTokenizer, SplitBehaviors) {
  expect_pieces(split("-", "Removed"), "the-final--countdown", "the|final|countdown");
  expect_pieces(split("-", "Isolated"), "the-final--countdown", "the|-|final|-|-|countdown");
  expect_pieces(split("-", "MergedWithPrevious"), "the-final--countdown", "the-|final-|-|countdown");
  expect_pieces(split("-", "MergedWithNext"), "the-final--countdown", "the|-final|-|-countdown");
  expect_pieces(split("-", "Contiguous"), "the-final--countdown", "the|-|final|--|countdown");
  expect_pieces(split("[a-z]+", "Removed", true), "the-final--countdown", "the|final|countdown");
  const Json literal = {
      {"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "MergedWithPrevious"}};
  expect_pieces(literal, "a.bc.d", "a.|bc.|d");
}

TEST(PreTokenizer, EmptyMatchesCut) { expect_pieces(split("(?=[A-Z])", "Isolated"), "OneTwo", "One|Two"); }

TEST(PreTokenizer, ByteLevel) {
  const auto byte_level = [](bool prefix) {
    return Json{{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"use_regex", true}};
  };
  expect_pieces(byte_level(false), "Hello there's  a 12", "Hello|\u0120there|'s|\u0120|\u0120a|\u012012");
  expect_pieces(byte_level(true), "Hello", "\u0120Hello");
  expect_pieces(byte_level(true), " Hello", "\u0120Hello");
}

TEST(PreTokenizer, Metaspace) {
  const auto metaspace = [](const char* scheme, bool cut) {
    return Json{{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", cut}};
  };
  expect_pieces(metaspace("always", true), "Hey  you", "\u2581Hey|\u2581|\u2581you");
  expect_pieces(metaspace("always", false), "Hey  you", "\u2581Hey\u2581\u2581you");
  expect_pieces(metaspace("never", true), "Hey you", "Hey|\u2581you");
  expect_pieces(metaspace("always", true), " Hey", "\u2581Hey");
  const Json older = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"add_prefix_space", false}};
  expect_pieces(older, "Hey you", "Hey|\u2581you");
}

TEST(PreTokenizer, MetaspaceFirstIsTheStartOfTheText) {
  Json json = document({"\u2581a", "a", "<x>"});
  json["model"]["ignore_merges"] = true;
  json["added_tokens"].push_back(added_token(2, "<x>"));
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
  EXPECT_EQ(parse(json).encode("a<x>a"), (Ids{0, 2, 1}));
}

TEST(PreTokenizer, CharacterClasses) {
  expect_pieces({{"type", "Digits"}, {"individual_digits", true}}, "a12\u00b2", "a|1|2|\u00b2");
  expect_pieces({{"type", "Digits"}, {"individual_digits", false}}, "a12\u00b2b", "a|12\u00b2|b");
  expect_pieces({{"type", "Punctuation"}}, "Hey, you\u2026", "Hey|,| you|\u2026");
  expect_pieces({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a??b", "a|??|b");
  expect_pieces({{"type", "Whitespace"}}, "Hey man!? b", "Hey|man|!?|b");
  expect_pieces({{"type", "WhitespaceSplit"}}, " Hey  man! ", "Hey|man!");
}

TEST(PreTokenizer, SequenceWorksOnPieces) {
  const Json sequence = {{"type", "Sequence"},
                         {"pretokenizers", Json::array({split("\\s+", "Removed"), split("^.", "Isolated")})}};
  expect_pieces(sequence, "ab cd", "a|b|c|d");  // each piece begins a line of its own
}

std::string decoded(const Json& decoders, const std::vector<std::string>& tokens) {
  Json json = document(tokens);
  json["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  const Tokenizer tokenizer = parse(json);
  Ids ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) ids.push_back(id);
  EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids));
  return tokenizer.decode(ids);
}

TEST(Decoder, Components) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const Json fallback = {{"type", "ByteFallback"}}, fuse = {{"type", "Fuse"}};
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const Json metaspace = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(decoded(Json::array({replace, fallback, fuse, strip}),
                    {"\u2581a", "\u2581\u2581b", "<0xC3>", "<0xA9>"}),
            "a  b\u00e9");
  EXPECT_EQ(decoded(Json::array({fallback}), {"<0xE2>", "a", "<0x0A>"}), "\uFFFDa\n");
  EXPECT_EQ(decoded(Json::array({strip}), {" a", "  b"}), "a b");
  EXPECT_EQ(decoded(Json::array({metaspace}), {"\u2581a", "\u2581b"}), "a b");
  EXPECT_EQ(decoded(Json::array(), {"a", "b"}), "ab");
  EXPECT_EQ(decoded(Json::array({{{"type", "ByteLevel"}}}), {"\u0120a", "b c", "\u00c3", "\u00a9"}),
            " ab c\u00e9");
}

TEST(Decoder, RunOfBytesThatIsNotUtf8) {
  Json json = document({"<0xC3>", "<0xA9>", "a"});
  json["decoder"] = {{"type", "ByteFallback"}};
  const Tokenizer tokenizer = parse(json);
  EXPECT_EQ(tokenizer.decode(Ids{0, 1, 1, 2}), "\uFFFD\uFFFD\uFFFDa");  // all of the run, as in `tokenizers`
  EXPECT_EQ(stream(tokenizer, {0, 1, 1, 2}), "\u00e9\uFFFDa");          // the é was out already
}

TEST(Decoder, NoneMeansSpaces) { EXPECT_EQ(parse(document({"a", "b"})).decode(Ids{0, 1, 0}), "a b a"); }

TEST(Model, MergesLowestRankFirstLeftmostOfEquals) {
  const auto encode = [](std::vector<std::string> merges, const char* text) {
    return parse(document({"a", "b", "c", "ab", "bc", "aa", "abc"}, std::move(merges))).encode(text);
  };
  EXPECT_EQ(encode({"b c", "a b"}, "abc"), (Ids{0, 4}));
  EXPECT_EQ(encode({"a b", "b c"}, "abc"), (Ids{3, 2}));
  EXPECT_EQ(encode({"a b", "ab c"}, "abc"), (Ids{6}));
  EXPECT_EQ(encode({"a a"}, "aaaaa"), (Ids{5, 5, 0}));
}

TEST(Model, UnknownCharacters) {
  const auto encode = [](bool fuse, bool fallback, bool unk) {
    Json json = document({"a", "<unk>", "<0xC3>", "<0xA9>"});
    json["model"]["fuse_unk"] = fuse;
    json["model"]["byte_fallback"] = fallback;
    if (unk) json["model"]["unk_token"] = "<unk>";
    return parse(json).encode("axxa\u00e9");
  };
  EXPECT_EQ(encode(false, false, true), (Ids{0, 1, 1, 0, 1}));
  EXPECT_EQ(encode(true, false, true), (Ids{0, 1, 0, 1}));
  EXPECT_EQ(encode(false, true, true), (Ids{0, 1, 1, 0, 2, 3}));
  EXPECT_EQ(encode(false, false, false), (Ids{0, 0}));
}

TEST(Model, MergesAsPairs) {
  Json json = document({"a", "b c", "ab c", "b", " ", "c", "b "});
  const std::vector<std::vector<std::string>> pairs = {
      {"b", " "}, {"b ", "c"}, {"a", "b c"}};  // spaces within
  json["model"]["merges"] = pairs;
  EXPECT_EQ(parse(json).encode("ab c"), (Ids{2}));
}

TEST(PostProcessor, TemplatesWrap) {
  const auto piece = [](const char* kind, const char* id) {
    return Json{{kind, {{"id", id}, {"type_id", 0}}}};
  };
  const auto wrap = [&](const char* before, const char* after) {
    return Json{{"type", "TemplateProcessing"},
                {"single", Json::array({piece("SpecialToken", before), piece("Sequence", "A"),
                                        piece("SpecialToken", after)})},
                {"special_tokens",
                 {{"<s>", {{"id", "<s>"}, {"ids", {0}}}}, {"</s>", {{"id", "</s>"}, {"ids", {1, 0}}}}}}};
  };
  Json json = document({"<s>", "</s>", "a"});
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors", Json::array({{{"type", "ByteLevel"}}, wrap("<s>", "</s>"), wrap("</s>", "<s>")})}};
  const Tokenizer tokenizer = parse(json);
  EXPECT_EQ(tokenizer.encode("a"), (Ids{1, 0, 0, 2, 1, 0, 0}));
  EXPECT_EQ(tokenizer.encode("a", {.add_special_tokens = false}), (Ids{2}));
}

}  // namespace
}  // namespace lathe
