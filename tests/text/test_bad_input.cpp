// Files that are not tokenizers, or tokenizers that we do not have: always an InputError that says where and
// what.
#include "text/tokenizers.h"

namespace lathe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

struct Bad {
  const char* change;   // a JSON patch (RFC 6902) onto good()
  const char* message;  // part of the error
};

Json good() {
  Json json = document({"a", "b", "ab", "<s>"}, {"a b"});
  json["added_tokens"].push_back(added_token(3, "<s>"));
  return json;
}

TEST(BadInput, TheGoodOneIsGood) { EXPECT_EQ(parse(good()).encode("ab<s>"), (Ids{2, 3})); }

TEST(BadInput, EveryRefusalNamesFileAndItem) {
  const Bad table[] = {
      {R"([{"op": "remove", "path": "/model"}])", "x.json: expected \"model\", found none"},
      {R"([{"op": "replace", "path": "/model", "value": 3}])",
       "x.json: model: expected an object, found a number"},
      {R"([{"op": "replace", "path": "/model/type", "value": "Unigram"}])",
       "model.type: expected one of BPE, found 'Unigram'"},
      {R"([{"op": "replace", "path": "/model/type", "value": "W\u0007"}])", "'W\\x07'"},
      {R"([{"op": "remove", "path": "/model/merges"}])", "model: expected \"merges\""},
      {R"([{"op": "remove", "path": "/model/vocab"}])", "model: expected \"vocab\""},
      {R"([{"op": "replace", "path": "/model/vocab", "value": {}}])",
       "model.vocab: expected tokens, found none"},
      {R"([{"op": "replace", "path": "/model/vocab", "value": []}])",
       "model.vocab: expected an object, found an array"},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": -1}])",
       "model.vocab['b']: expected an integer in [0, "},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": 4194304}])", "found 4194304"},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": 99999999999999999999}])", "model.vocab['b']"},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": 1.5}])", "model.vocab['b']"},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": "1"}])", "found a string"},
      {R"([{"op": "replace", "path": "/model/vocab/b", "value": 0}])", "found 0, which is 'a'"},
      {R"([{"op": "add", "path": "/model/vocab/", "value": 9}])", "expected a token, found an empty string"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": "a c"}])",
       "model.merges[1]: expected tokens of the vocabulary, found 'c'"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": "b a"}])", "found 'ba'"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": "ab"}])",
       "model.merges[1]: expected \"left right\""},
      {R"([{"op": "add", "path": "/model/merges/1", "value": "a b c"}])", "model.merges[1]"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": ["a"]}])",
       "expected a pair of strings, found 1 items"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": ["a", 1]}])", "model.merges[1]"},
      {R"([{"op": "add", "path": "/model/merges/1", "value": 7}])",
       "model.merges[1]: expected a string, found a number"},
      {R"([{"op": "add", "path": "/model/unk_token", "value": "?"}])", "model.unk_token"},
      {R"([{"op": "add", "path": "/model/dropout", "value": 0.1}])", "model.dropout"},
      {R"([{"op": "add", "path": "/model/fuse_unk", "value": 1}])", "model.fuse_unk: expected true or false"},
      {R"([{"op": "add", "path": "/model/end_of_word_suffix", "value": "</w>"}])",
       "model.end_of_word_suffix"},
      {R"([{"op": "replace", "path": "/added_tokens/0/id", "value": 2}])",
       "added token '<s>': expected id 3 as in the vocabulary, found 2"},
      {R"([{"op": "replace", "path": "/added_tokens/0/content", "value": "x"}])", "found 3, which is '<s>'"},
      {R"([{"op": "replace", "path": "/added_tokens/0/id", "value": -3}])", "added_tokens[0].id"},
      {R"([{"op": "replace", "path": "/added_tokens/0/content", "value": ""}])", "added_tokens[0].content"},
      {R"([{"op": "copy", "from": "/added_tokens/0", "path": "/added_tokens/1"}])", "found 3 again"},
      {R"([{"op": "replace", "path": "/added_tokens", "value": {}}])", "added_tokens: expected an array"},
      {R"([{"op": "replace", "path": "/normalizer", "value": {"type": "Nmt"}}])",
       "normalizer: expected one of Sequence"},
      {R"([{"op": "replace", "path": "/normalizer", "value": {}}])", "normalizer: expected \"type\""},
      {R"([{"op": "replace", "path": "/normalizer", "value": "NFC"}])", "normalizer: expected an object"},
      {R"([{"op": "replace", "path": "/normalizer", "value": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Precompiled"}]}}])",
       "normalizer.normalizers[1]: expected one of"},
      {R"([{"op": "replace", "path": "/normalizer", "value": {"type": "Replace", "pattern": {"String": ""}, "content": "a"}}])",
       "normalizer.pattern.String: expected a string, found an empty one"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "BertPreTokenizer"}}])",
       "'BertPreTokenizer'"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}}}])",
       "pre_tokenizer.pattern.Regex: expected a regular expression, found '('"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "Split", "behavior": "Isolated", "pattern": {}}}])",
       "pre_tokenizer.pattern"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "Split", "behavior": "Kept", "pattern": {"Regex": "a"}}}])",
       "pre_tokenizer.behavior"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "Metaspace", "replacement": "__"}}])",
       "pre_tokenizer.replacement: expected one character"},
      {R"([{"op": "replace", "path": "/pre_tokenizer", "value": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "x"}}])",
       "pre_tokenizer.prepend_scheme"},
      {R"([{"op": "replace", "path": "/decoder", "value": {"type": "WordPiece"}}])",
       "decoder: expected one of"},
      {R"([{"op": "replace", "path": "/decoder", "value": {"type": "Strip", "content": " ", "start": 0, "stop": 1}}])",
       "decoder.stop"},
      {R"([{"op": "replace", "path": "/decoder", "value": {"type": "Strip", "content": " ", "start": -1, "stop": 0}}])",
       "decoder.start"},
      {R"([{"op": "replace", "path": "/post_processor", "value": {"type": "BertProcessing"}}])",
       "post_processor: expected one of"},
      {R"([{"op": "replace", "path": "/post_processor", "value": {"type": "TemplateProcessing", "single": []}}])",
       "found 0 times"},
      {R"([{"op": "replace", "path": "/post_processor", "value": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {}}}])",
       "post_processor.single[0].SpecialToken.id"},
      {R"([{"op": "replace", "path": "/post_processor", "value": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [4]}}}}])",
       "special_tokens['x'].ids[0]: expected a token of the vocabulary, found 4"},
  };
  for (const Bad& bad : table) {
    const Json json = good().patch(Json::parse(bad.change));
    const std::string message = message_of([&] { Tokenizer::parse(json.dump(), "x.json"); });
    EXPECT_THAT(message, AllOf(StartsWith("x.json: "), HasSubstr(bad.message))) << bad.change;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(BadInput, NotJson) {
  const std::string text = good().dump();
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(message_of([&] { Tokenizer::parse(text.substr(0, size), "x.json"); }), StartsWith("x.json: "))
        << size;
  }
  EXPECT_THAT(message_of([] { Tokenizer::parse("\xff", "x.json"); }), StartsWith("x.json: "));
  EXPECT_THAT(message_of([] { Tokenizer::parse("[1]", "x.json"); }),
              HasSubstr("expected an object, found an array"));
}

TEST(BadInput, DeepNesting) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  for (const size_t depth : {100, 100000}) {
    EXPECT_THAT(message_of([&] { Tokenizer::parse("{\"model\":" + nested(depth) + "}", "x.json"); }),
                HasSubstr("x.json: expected JSON nested at most"));
  }
}

TEST(BadInput, DuplicateTokens) {
  EXPECT_THAT(message_of([] {
                Tokenizer::parse(R"({"model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "a": 1}}})",
                                 "x.json");
              }),
              HasSubstr("model.vocab['a']: expected each token once"));
}

TEST(BadInput, NoSuchFile) {
  EXPECT_THROW(Tokenizer::load(source_dir() / "no/such/tokenizer.json"), InputError);
  EXPECT_THROW(Tokenizer::load(source_dir()), InputError);
}

TEST(BadInput, IdsOutOfRange) {
  const Tokenizer tokenizer = parse(good());
  for (const int32_t id : {-1, 4, INT32_MIN, INT32_MAX}) {
    EXPECT_THAT(message_of([&] { tokenizer.decode(Ids{0, id}); }), HasSubstr("expected token ids in [0, 4)"));
    EXPECT_THROW(StreamDecoder(tokenizer).push(id), InputError);
    EXPECT_THROW(tokenizer.token(id), InputError);
  }
}

TEST(BadInput, GrowthIsBounded) {
  Json json = good();
  json["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}};
  const Tokenizer tokenizer = parse(json);
  EXPECT_EQ(tokenizer.encode("a").size(), 1000u);
  EXPECT_THAT(message_of([&] { tokenizer.encode(std::string(100000, 'a')); }),
              HasSubstr("at most 64 times the text"));
  json["normalizer"] = nullptr;
  json["decoder"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}};
  EXPECT_THROW(parse(json).decode(Ids(100000, 0)), InputError);
}

}  // namespace
}  // namespace lathe
