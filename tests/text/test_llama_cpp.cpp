// Vocabularies of GGUF files: the tokenizations that llama.cpp ships with its vocabulary files
// (models/ggml-vocab-*).
#include <cstring>
#include <map>

#include "text/tokenizers.h"

namespace lathe {
namespace {

const fs::path kVocabularies = shared_data("tokenizers/llama_cpp_vocab");

// Just enough of GGUF version 3 to read the tokenizer's metadata from files that are known to be well-formed.
class Metadata {
 public:
  explicit Metadata(const fs::path& path) : file_(path), rest_(file_.text()) {
    rest_.remove_prefix(4 + 4 + 8);  // magic, version, tensors
    for (auto keys = take<uint64_t>(); keys > 0; --keys) {
      const std::string key = take_string();
      take_value(key, take<uint32_t>());
    }
  }

  std::map<std::string, std::vector<std::string>> strings;
  std::map<std::string, std::vector<double>> numbers;

 private:
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, rest_.substr(0, sizeof value).data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }
  std::string take_string() {
    const auto size = take<uint64_t>();
    const std::string value(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return value;
  }
  void take_value(const std::string& key, uint32_t type) {
    switch (type) {
      case 4:
        numbers[key].push_back(take<uint32_t>());
        break;
      case 5:
        numbers[key].push_back(take<int32_t>());
        break;
      case 6:
        numbers[key].push_back(take<float>());
        break;
      case 7:
        numbers[key].push_back(take<uint8_t>());
        break;
      case 8:
        strings[key].push_back(take_string());
        break;
      case 9: {
        const auto element = take<uint32_t>();
        for (auto count = take<uint64_t>(); count > 0; --count) take_value(key, element);
        break;
      }
      default:
        FAIL() << key << " has type " << type;
    }
  }

  Mapping file_;
  std::string_view rest_;
};

VocabularySpec read_spec(const std::string& name) {
  Metadata file(kVocabularies / ("ggml-vocab-" + name + ".gguf"));
  const auto text = [&](const char* key) {
    const auto& values = file.strings[key];
    return values.empty() ? std::string() : values[0];
  };
  const auto id = [&](const char* key) -> std::optional<int32_t> {
    const auto& values = file.numbers[key];
    return values.empty() ? std::nullopt : std::optional(static_cast<int32_t>(values[0]));
  };
  VocabularySpec spec;
  spec.where = name;
  spec.model = text("tokenizer.ggml.model");
  spec.pre = text("tokenizer.ggml.pre");
  spec.tokens = file.strings["tokenizer.ggml.tokens"];
  spec.merges = file.strings["tokenizer.ggml.merges"];
  for (const double score : file.numbers["tokenizer.ggml.scores"])
    spec.scores.push_back(static_cast<float>(score));
  for (const double type : file.numbers["tokenizer.ggml.token_type"])
    spec.types.push_back(static_cast<int32_t>(type));
  spec.bos = id("tokenizer.ggml.bos_token_id");
  spec.eos = id("tokenizer.ggml.eos_token_id");
  spec.unk = id("tokenizer.ggml.unknown_token_id");
  return spec;
}

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> out;
  for (size_t at; (at = text.find(separator)) != std::string_view::npos;
       text.remove_prefix(at + separator.size())) {
    out.emplace_back(text.substr(0, at));
  }
  out.emplace_back(text);
  return out;
}

void expect_llama_cpp(const Tokenizer& tokenizer, const std::string& name) {
  const std::string base = "ggml-vocab-" + name + ".gguf";
  const auto texts = split(Mapping(kVocabularies / (base + ".inp")).text(), "\n__ggml_vocab_test__\n");
  const auto lines = split(Mapping(kVocabularies / (base + ".out")).text(), "\n");
  ASSERT_GT(texts.size(), 40u);
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    Ids expected;
    std::istringstream line(lines[i]);
    for (int32_t id; line >> id;) expected.push_back(id);
    const Ids ids = tokenizer.encode(texts[i], {.add_special_tokens = false, .parse_special = false});
    EXPECT_EQ(ids, expected) << testing::PrintToString(texts[i]);
    EXPECT_EQ(tokenizer.decode(ids), texts[i]);
    EXPECT_EQ(stream(tokenizer, ids), texts[i]);
  }
}

TEST(LlamaCpp, Gpt2) {
  SKIP_WITHOUT(kVocabularies);
  expect_llama_cpp(Tokenizer::from_vocabulary(read_spec("gpt-2")), "gpt-2");
  expect_llama_cpp(Tokenizer::load(shared_data("tokenizers/gpt2/tokenizer.json")), "gpt-2");
}

TEST(LlamaCpp, LlamaSpm) {
  SKIP_WITHOUT(kVocabularies);
  expect_llama_cpp(Tokenizer::from_vocabulary(read_spec("llama-spm")), "llama-spm");
}

TEST(LlamaCpp, Phi3) {
  SKIP_WITHOUT(kVocabularies);
  expect_llama_cpp(Tokenizer::from_vocabulary(read_spec("phi-3")), "phi-3");
  expect_llama_cpp(Tokenizer::load(shared_data("tokenizers/ortgenai_phi3-v/tokenizer.json")), "phi-3");
}

TEST(LlamaCpp, Qwen2) {
  SKIP_WITHOUT(kVocabularies);
  expect_llama_cpp(qwen_tokenizer(), "qwen2");
  VocabularySpec spec;
  spec.where = "qwen2";
  spec.model = "gpt2";
  spec.pre = "qwen2";
  const auto vocab = nlohmann::json::parse(Mapping(kQwen / "vocab.json").text());
  spec.tokens.resize(vocab.size());
  for (const auto& [token, id] : vocab.items()) spec.tokens.at(id.get<size_t>()) = token;
  spec.merges = qwen_merges();
  expect_llama_cpp(Tokenizer::from_vocabulary(spec), "qwen2");
}

TEST(LlamaCpp, LlamaBpe) { GTEST_SKIP() << "ggml-vocab-llama-bpe.gguf.inp comes without its vocabulary"; }
TEST(LlamaCpp, Bert) { GTEST_SKIP() << "WordPiece is not supported"; }

// Two tokenizers of one vocabulary: by merges as Hugging Face has it, by scores as GGUF has it.
TEST(LlamaCpp, ScoresAgreeWithMerges) {
  SKIP_WITHOUT(kVocabularies);
  const Tokenizer scores = Tokenizer::from_vocabulary(read_spec("phi-3"));
  const Tokenizer merges = Tokenizer::load(shared_data("tokenizers/ortgenai_phi3-v/tokenizer.json"));
  const std::string text(Mapping(shared_data("text/tinyshakespeare.txt")).text().substr(0, 200000));
  EXPECT_EQ(scores.encode(text), merges.encode(text));
  EXPECT_EQ(scores.encode("").size(), 1u);  // <s>
}

VocabularySpec small_spm() {
  VocabularySpec spec;
  spec.where = "small.gguf";
  spec.model = "llama";
  spec.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581a", "<user>", ""};
  spec.scores = {0, 0, 0, -1, -2, -3, -4, -5, 0, 0};
  spec.types = {2, 3, 3, 1, 1, 1, 1, 1, 4, 5};
  spec.bos = 1;
  spec.eos = 2;
  spec.unk = 0;
  return spec;
}

TEST(LlamaCpp, HighestScoreFirst) {
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(small_spm());
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{1, 3, 6}));  // "ab" before "▁a"
  EXPECT_EQ(tokenizer.encode("a"), (Ids{1, 7}));
  EXPECT_EQ(tokenizer.encode("ab<user>ab</s>"), (Ids{1, 3, 6, 8, 3, 6, 2}));
  EXPECT_EQ(tokenizer.encode("é"), (Ids{1, 3, 0, 0}));  // no byte tokens: an unk for each byte
  EXPECT_EQ(tokenizer.decode(Ids{3, 6, 8, 9}), "ab<user>");
  EXPECT_EQ(tokenizer.decode(Ids{1, 3, 6, 2}, true), "ab");
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(8));
}

TEST(LlamaCpp, FlagsOfTheFile) {
  VocabularySpec spec = small_spm();
  spec.add_bos = false;
  spec.add_eos = true;
  spec.add_space_prefix = false;
  const Tokenizer tokenizer = Tokenizer::from_vocabulary(spec);
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{6, 2}));
  EXPECT_EQ(tokenizer.decode(Ids{3, 6}), " ab");
}

TEST(LlamaCpp, RefusesWhatItCannotRead) {
  const auto message = [](auto change) {
    VocabularySpec spec = small_spm();
    change(spec);
    return message_of([&] { Tokenizer::from_vocabulary(spec); });
  };
  using testing::HasSubstr;
  using Spec = VocabularySpec&;
  EXPECT_THAT(message([](Spec s) { s.model = "bert"; }), HasSubstr("small.gguf: tokenizer.ggml.model"));
  EXPECT_THAT(message([](Spec s) { s.model = "gpt2", s.pre = "new-bpe"; }), HasSubstr("'new-bpe'"));
  EXPECT_THAT(message([](Spec s) { s.scores.pop_back(); }), HasSubstr("expected 10 scores, found 9"));
  EXPECT_THAT(message([](Spec s) { s.scores[3] = std::nanf(""); }), HasSubstr("scores[3]"));
  EXPECT_THAT(message([](Spec s) { s.types.pop_back(); }), HasSubstr("token_type"));
  EXPECT_THAT(message([](Spec s) { s.tokens[5] = "a"; }), HasSubstr("tokens[5]"));
  EXPECT_THAT(message([](Spec s) { s.tokens[8] = "\xC3"; }),
              HasSubstr("added token '\\xc3': expected UTF-8"));
  EXPECT_THAT(message([](Spec s) { s.bos = 10; }), HasSubstr("bos_token_id"));
  EXPECT_THAT(message([](Spec s) { s.eos = -1; }), HasSubstr("eos_token_id"));
  EXPECT_THAT(message([](Spec s) {
                s.tokens.clear(), s.scores.clear(), s.types.clear(), s.bos = s.eos = s.unk = {};
              }),
              HasSubstr("tokens"));
  EXPECT_THAT(message([](Spec s) { s.model = "gpt2", s.merges = {"a b", "ab"}; }), HasSubstr("merges[1]"));
  EXPECT_THAT(message([](Spec s) { s.model = "gpt2", s.merges = {"b a"}; }), HasSubstr("merges[0]"));
  EXPECT_THAT(message([](Spec s) { s.model = "gpt2", s.merges = {""}; }), HasSubstr("merges[0]"));
}

}  // namespace
}  // namespace lathe
