// Tokenizers of GGUF files: the file has the vocabulary and names the rest, which follows llama.cpp
// (src/llama-vocab.cpp: load and the two sessions) so that a file means the same here and there.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "core/error.h"
#include "text/pipeline.h"
#include "text/utf8.h"

namespace lathe {

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

// Expressions as the models' own tokenizer.json files have them; each is a Split, one after the other.
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

struct PreRow {
  std::string_view names;  // tokenizer.ggml.pre, separated by spaces
  std::vector<const char*> patterns;
  bool ignore_merges = false;
  bool add_bos = false;
  bool all_merges = false;  // every split of a token is a merge: to look words up first changes nothing
};

const std::vector<PreRow>& pre_table() {
  static const std::vector<PreRow> rows = {
      // What llama.cpp does with files that do not say.
      {"default", {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {"gpt-2 phi-2 mpt olmo jais gigachat exaone4 trillion granite-docling", {kGpt2Pattern}},
      {"smollm starcoder refact command-r codeshell exaone minerva-7b", {R"(\p{N})", kGpt2Pattern}},
      {"llama-bpe llama3 llama-v3 falcon3", {kLlama3}, true, true},
      {"dbrx smaug-bpe glm4 chatglm-bpe", {kLlama3}},
      {"qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 solar-open", {kQwen2}},
      {"qwen35", {kQwen35}},
      {"gpt-4o llama4", {kGpt4o}, false, false, true},  // OpenAI's, whose ranks are the merges' order
      {"tekken", {kTekken}, true, true},
      {"deepseek-v3 hunyuan-dense", {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepseek3}},
      {"falcon", {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern, "[0-9][0-9][0-9]"}},
  };
  return rows;
}

const PreRow& find_pre(std::string_view name, std::string_view where) {
  if (name.empty()) name = "default";
  for (const PreRow& row : pre_table()) {
    for (std::string_view names = row.names; !names.empty();) {
      const size_t end = std::min(names.find(' '), names.size());
      if (names.substr(0, end) == name) return row;
      names.remove_prefix(std::min(end + 1, names.size()));
    }
  }
  throw input_error(fmt::format("{}: tokenizer.ggml.pre", where), "a known pre-tokenizer",
                    "'" + printable(name) + "'", "use the model's tokenizer.json");
}

Vocabulary vocabulary_of(const VocabularySpec& spec) {
  const std::string at = spec.where + ": tokenizer.ggml.tokens";
  if (spec.tokens.size() > static_cast<size_t>(Vocabulary::kMaxId)) {
    throw input_error(at, fmt::format("at most {} tokens", Vocabulary::kMaxId),
                      fmt::format("{}", spec.tokens.size()));
  }
  Vocabulary vocabulary;
  size_t bytes = 0;
  for (const std::string& token : spec.tokens) bytes += token.size();
  vocabulary.reserve(spec.tokens.size(), bytes);
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const std::string& token = spec.tokens[i];
    if (token.empty()) continue;
    if (vocabulary.add(token, static_cast<int32_t>(i)) != Vocabulary::Added::ok) {
      throw input_error(fmt::format("{}[{}]", at, i), "each token once", "'" + printable(token) + "' again");
    }
  }
  if (vocabulary.size() == 0) throw input_error(at, "tokens", "none");
  return vocabulary;
}

// The id if there is one; InputError when it is no token.
int32_t checked_id(const VocabularySpec& spec, std::optional<int32_t> id, std::string_view key) {
  if (!id) return -1;
  if (*id < 0 || static_cast<size_t>(*id) >= spec.tokens.size() ||
      spec.tokens[static_cast<size_t>(*id)].empty()) {
    throw input_error(fmt::format("{}: tokenizer.ggml.{}_token_id", spec.where, key),
                      "a token of the vocabulary", fmt::format("{}", *id));
  }
  return *id;
}

Bpe bpe_of(const VocabularySpec& spec, const PreRow& pre) {
  Bpe::Options options;
  options.ignore_merges = pre.ignore_merges;
  Bpe bpe(vocabulary_of(spec), options);
  bpe.reserve_merges(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string_view merge = spec.merges[rank];
    const auto refuse = [&](std::string_view expected) {
      throw input_error(fmt::format("{}: tokenizer.ggml.merges[{}]", spec.where, rank), expected,
                        "'" + printable(merge) + "'");
    };
    const size_t space = merge.find(' ', 1);  // a token may begin with a space, as in llama.cpp
    if (space == std::string_view::npos) refuse("\"left right\"");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const int32_t ids[] = {bpe.vocabulary().find(left), bpe.vocabulary().find(right),
                           bpe.vocabulary().find(std::string(left).append(right))};
    if (std::any_of(std::begin(ids), std::end(ids), [](int32_t id) { return id < 0; })) {
      refuse("tokens of the vocabulary");
    }
    bpe.add_merge(ids[0], ids[1], ids[2]);
  }
  return bpe;
}

Spm spm_of(const VocabularySpec& spec, int32_t unk) {
  const std::string at = spec.where + ": tokenizer.ggml.scores";
  if (spec.scores.size() != spec.tokens.size()) {
    throw input_error(at, fmt::format("{} scores", spec.tokens.size()),
                      fmt::format("{}", spec.scores.size()));
  }
  for (size_t i = 0; i < spec.scores.size(); ++i) {
    if (std::isnan(spec.scores[i])) throw input_error(fmt::format("{}[{}]", at, i), "a number", "NaN");
  }
  return Spm(vocabulary_of(spec), spec.scores, unk);
}

std::vector<AddedToken> added_tokens_of(const VocabularySpec& spec) {
  enum : int32_t { kUnknown = 2, kControl = 3, kUserDefined = 4 };
  if (!spec.types.empty() && spec.types.size() != spec.tokens.size()) {
    throw input_error(spec.where + ": tokenizer.ggml.token_type", fmt::format("{} types", spec.tokens.size()),
                      fmt::format("{}", spec.types.size()));
  }
  std::vector<AddedToken> out;
  for (size_t i = 0; i < spec.types.size(); ++i) {
    const int32_t type = spec.types[i];
    if ((type != kUnknown && type != kControl && type != kUserDefined) || spec.tokens[i].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(i);
    token.content = spec.tokens[i];
    token.special = type != kUserDefined;
    out.push_back(std::move(token));
  }
  return out;
}

}  // namespace

std::string_view gguf_pre_tokenizer(const std::vector<std::string>& expressions, bool gpt2,
                                    bool ignore_merges) {
  std::vector<std::string_view> wanted(expressions.begin(), expressions.end());
  if (gpt2) wanted.push_back(kGpt2Pattern);
  for (const PreRow& row : pre_table())
    if ((row.all_merges || row.ignore_merges == ignore_merges) && std::ranges::equal(row.patterns, wanted))
      return row.names.substr(0, row.names.find(' '));
  return {};
}

TokenizerPipeline build_pipeline(const VocabularySpec& spec) {
  const int32_t bos = checked_id(spec, spec.bos, "bos");
  const int32_t eos = checked_id(spec, spec.eos, "eos");
  const int32_t unk = checked_id(spec, spec.unk, "unknown");
  const auto with_model = [](std::variant<Bpe, Spm> model) {
    return TokenizerPipeline{.model = std::move(model),
                             .added = {},
                             .normalizers = {},
                             .pre_tokenizers = {},
                             .prefix = {},
                             .suffix = {},
                             .decoders = {}};
  };
  const auto finish = [&](TokenizerPipeline pipeline, bool add_bos) {
    set_added_tokens(pipeline, added_tokens_of(spec), spec.where);
    pipeline.vocab_size = static_cast<int32_t>(spec.tokens.size());
    if (spec.add_bos.value_or(add_bos) && bos >= 0) pipeline.prefix = {bos};
    if (spec.add_eos.value_or(false) && eos >= 0) pipeline.suffix = {eos};
    return pipeline;
  };

  if (spec.model == "gpt2") {
    const PreRow& pre = find_pre(spec.pre, spec.where);
    TokenizerPipeline pipeline = with_model(bpe_of(spec, pre));
    for (const char* pattern : pre.patterns) {
      pipeline.pre_tokenizers.push_back(
          split_pre_tokenizer(Regex(pattern, spec.pre), SplitBehavior::isolated, false));
    }
    pipeline.pre_tokenizers.push_back(byte_level_pre_tokenizer(false, false));
    pipeline.decoders = {byte_level_decoder()};
    return finish(std::move(pipeline), pre.add_bos);
  }
  if (spec.model == "llama") {
    TokenizerPipeline pipeline = with_model(spm_of(spec, unk));
    const bool prefix = spec.add_space_prefix.value_or(true);
    const std::string space(kSpace);
    if (prefix) pipeline.normalizers.push_back(prepend_normalizer(space));
    pipeline.normalizers.push_back(replace_normalizer(" ", space));
    pipeline.decoders = {replace_decoder(space, " "), byte_fallback_decoder(), join_decoder("")};
    if (prefix) pipeline.decoders.push_back(strip_decoder(" ", 1));
    return finish(std::move(pipeline), true);
  }
  throw input_error(spec.where + ": tokenizer.ggml.model", "'gpt2' or 'llama'",
                    "'" + printable(spec.model) + "'", "use the model's tokenizer.json");
}

}  // namespace lathe
