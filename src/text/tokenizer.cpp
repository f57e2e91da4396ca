#include "text/tokenizer.h"

#include <set>

#include "core/error.h"
#include "text/pipeline.h"
#include "text/utf8.h"

namespace lathe {

namespace {

// A trie is walked from every byte of a text: tokens of a megabyte would make that quadratic.
constexpr size_t kMaxAddedToken = 512;

void check_text_size(size_t bytes) {
  if (bytes > kMaxText) {
    throw input_error("tokenizer", fmt::format("at most {} MiB of text at a time", kMaxText >> 20),
                      fmt::format("{} bytes", bytes), "split the text");
  }
}

// Encodes one stretch of normalized text.
template <class Model>
void encode_text(const TokenizerPipeline& pipeline, const Model& model, std::string_view text, bool at_start,
                 Budget& budget, typename Model::Scratch& scratch, std::vector<int32_t>& ids) {
  Pieces pieces{std::string(text), {{0, text.size()}}, at_start, budget};
  for (const PreTokenizer& step : pipeline.pre_tokenizers) step(pieces);
  for (const ByteRange& piece : pieces.ranges) {
    model.encode(std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin), ids, scratch);
  }
}

template <class Model>
void encode_all(const TokenizerPipeline& pipeline, const Model& model, std::string_view text,
                bool parse_special, std::vector<int32_t>& ids) {
  Budget budget(text.size());
  typename Model::Scratch scratch;
  for (const auto& raw : pipeline.added.split(text, false, parse_special)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const std::string normalized = normalize(
        pipeline.normalizers, text.substr(raw.range.begin, raw.range.end - raw.range.begin), budget);
    for (const auto& part : pipeline.added.split(normalized, true, parse_special)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      const auto stretch =
          std::string_view(normalized).substr(part.range.begin, part.range.end - part.range.begin);
      const bool at_start = raw.range.begin == 0 && part.range.begin == 0;
      encode_text(pipeline, model, stretch, at_start, budget, scratch, ids);
    }
  }
}

}  // namespace

void set_added_tokens(TokenizerPipeline& pipeline, std::vector<AddedToken> tokens, std::string_view where) {
  const Vocabulary& vocabulary = pipeline.vocabulary();
  pipeline.vocab_size = vocabulary.size();
  std::set<std::string_view> contents;
  std::set<int32_t> ids;
  size_t bytes = 0;
  for (const AddedToken& token : tokens) {
    const auto refuse = [&](std::string_view expected, std::string_view found) {
      throw input_error(fmt::format("{}: added token '{}'", where, printable(token.content)), expected,
                        found);
    };
    const int32_t known = vocabulary.find(token.content);
    if (token.content.empty() || token.content.size() > kMaxAddedToken) {
      refuse(fmt::format("1 to {} bytes", kMaxAddedToken), fmt::format("{}", token.content.size()));
    }
    // One that is not could be found within a character.
    if (!valid_utf8(token.content)) refuse("UTF-8", "other bytes");
    if (known >= 0 && known != token.id) {
      refuse(fmt::format("id {} as in the vocabulary", known), fmt::format("{}", token.id));
    }
    if (known < 0 && vocabulary.contains(token.id)) {
      refuse("an id of its own",
             fmt::format("{}, which is '{}'", token.id, printable(vocabulary.token(token.id))));
    }
    if (!ids.insert(token.id).second) refuse("an id of its own", fmt::format("{} again", token.id));
    if (!contents.insert(token.content).second) refuse("each token once", "it again");
    pipeline.vocab_size = std::max(pipeline.vocab_size, token.id + 1);
    bytes += token.content.size();
  }
  Budget budget(bytes);
  for (AddedToken& token : tokens) {
    token.text = token.normalized ? normalize(pipeline.normalizers, token.content, budget) : token.content;
    if (token.text.size() > 4 * kMaxAddedToken) {
      throw input_error(fmt::format("{}: added token '{}'", where, printable(token.content)),
                        fmt::format("at most {} bytes when normalized", 4 * kMaxAddedToken),
                        fmt::format("{}", token.text.size()));
    }
  }
  pipeline.added = AddedTokens(std::move(tokens));
}

std::string TokenizerPipeline::decode(std::span<const int32_t> ids, bool skip_special_tokens,
                                      Repair repair) const {
  std::vector<std::string> tokens;
  size_t bytes = 0;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      throw input_error("decode", fmt::format("token ids in [0, {})", vocab_size), fmt::format("{}", id));
    }
    const AddedToken* const added_token = added.find(id);
    if (skip_special_tokens && added_token != nullptr && added_token->special) continue;
    const std::string_view text = added_token != nullptr ? added_token->text : token(id);
    if (text.empty()) continue;
    bytes += text.size();
    check_text_size(bytes);
    tokens.emplace_back(text);
  }
  Budget budget(bytes);
  for (const Decoder& step : decoders) tokens = step(std::move(tokens), repair, budget);
  return join_decoder("")(std::move(tokens), repair, budget).front();
}

Tokenizer::Tokenizer(TokenizerPipeline pipeline)
    : pipeline_(std::make_shared<const TokenizerPipeline>(std::move(pipeline))) {}

Tokenizer Tokenizer::load(const fs::path& tokenizer_json) {
  const Mapping file(tokenizer_json);
  return parse(file.text(), tokenizer_json.string());
}

Tokenizer Tokenizer::parse(std::string_view json, std::string_view where) {
  return Tokenizer(parse_tokenizer_json(json, where));
}

Tokenizer Tokenizer::from_vocabulary(const VocabularySpec& spec) { return Tokenizer(build_pipeline(spec)); }

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  check_text_size(text.size());
  std::string repaired;
  if (!valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = pipeline_->prefix;
  std::visit([&](const auto& model) { encode_all(*pipeline_, model, text, options.parse_special, ids); },
             pipeline_->model);
  if (options.add_special_tokens) ids.insert(ids.end(), pipeline_->suffix.begin(), pipeline_->suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  const std::string text = pipeline_->decode(ids, skip_special_tokens, Repair::as_reference);
  return valid_utf8(text) ? text : repair_utf8(text);
}

// A decoder may treat the first token of a text differently: each token is decoded behind one that gives
// text.
std::vector<std::string> Tokenizer::token_bytes() const {
  std::vector<std::string> out(static_cast<size_t>(vocab_size()));
  const auto decode_bytes = [&](std::span<const int32_t> ids) {
    return pipeline_->decode(ids, true, Repair::later);
  };
  int32_t first = -1;
  size_t first_bytes = 0;
  for (int32_t id = 0; id < vocab_size() && first < 0; ++id) {
    if (is_special(id)) continue;
    const std::string text = decode_bytes(std::span(&id, 1));
    if (text.empty() || static_cast<unsigned char>(text.back()) >= 0x80) continue;
    first = id;
    first_bytes = text.size();
  }
  if (first < 0) return out;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (is_special(id)) continue;
    const int32_t pair[] = {first, id};
    out[static_cast<size_t>(id)] = decode_bytes(pair).substr(first_bytes);
  }
  return out;
}

int32_t Tokenizer::vocab_size() const { return pipeline_->vocab_size; }

std::string_view Tokenizer::token(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw input_error("token", fmt::format("an id in [0, {})", vocab_size()), fmt::format("{}", id));
  }
  return pipeline_->token(id);
}

std::optional<int32_t> Tokenizer::id(std::string_view token) const {
  for (const AddedToken& added : pipeline_->added.tokens()) {
    if (added.content == token) return added.id;
  }
  const int32_t id = pipeline_->vocabulary().find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = pipeline_->added.find(id);
  return token != nullptr && token->special;
}

}  // namespace lathe
