#include "core/error.h"
#include "io/gguf.h"
#include "models/model.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

template <class T>
const std::vector<T>* list(const GgufFile& gguf, std::string_view key, std::string_view where) {
  const auto it = gguf.metadata.find(key);
  if (it == gguf.metadata.end()) return nullptr;
  if (const auto* values = std::get_if<std::vector<T>>(&it->second.value)) return values;
  throw input_error(fmt::format("{}: metadata '{}'", where, key), "a list", "something else");
}

VocabularySpec vocabulary(const GgufFile& gguf, std::string_view where) {
  VocabularySpec spec{.where = std::string(where),
                      .model = gguf.text("tokenizer.ggml.model"),
                      .pre = {},
                      .tokens = {},
                      .scores = {},
                      .types = {},
                      .merges = {},
                      .bos = {},
                      .eos = {},
                      .unk = {},
                      .add_bos = {},
                      .add_eos = {},
                      .add_space_prefix = {}};
  if (gguf.has("tokenizer.ggml.pre")) spec.pre = gguf.text("tokenizer.ggml.pre");
  if (const auto* v = list<std::string>(gguf, "tokenizer.ggml.tokens", where)) spec.tokens = *v;
  if (const auto* v = list<std::string>(gguf, "tokenizer.ggml.merges", where)) spec.merges = *v;
  if (const auto* v = list<double>(gguf, "tokenizer.ggml.scores", where))
    spec.scores.assign(v->begin(), v->end());
  if (const auto* v = list<int64_t>(gguf, "tokenizer.ggml.token_type", where))
    spec.types.assign(v->begin(), v->end());

  auto id = [&](std::string_view key) -> std::optional<int32_t> {
    if (!gguf.has(key)) return {};
    const int64_t value = gguf.integer(key);
    if (value < 0 || value >= static_cast<int64_t>(spec.tokens.size()))
      throw input_error(fmt::format("{}: metadata '{}'", where, key),
                        fmt::format("an id below {}", spec.tokens.size()), fmt::format("{}", value));
    return static_cast<int32_t>(value);
  };
  spec.bos = id("tokenizer.ggml.bos_token_id");
  spec.eos = id("tokenizer.ggml.eos_token_id");
  spec.unk = id("tokenizer.ggml.unknown_token_id");

  auto flag = [&](std::string_view key) -> std::optional<bool> {
    const auto it = gguf.metadata.find(key);
    if (it == gguf.metadata.end()) return {};
    if (const bool* value = std::get_if<bool>(&it->second.value)) return *value;
    throw input_error(fmt::format("{}: metadata '{}'", where, key), "true or false", "something else");
  };
  spec.add_bos = flag("tokenizer.ggml.add_bos_token");
  spec.add_eos = flag("tokenizer.ggml.add_eos_token");
  spec.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  return spec;
}

}  // namespace

Tokenizer load_tokenizer(const Checkpoint& checkpoint) {
  if (const GgufFile* gguf = checkpoint.gguf())
    return Tokenizer::from_vocabulary(vocabulary(*gguf, checkpoint.path().string()));
  const fs::path file = checkpoint.path() / "tokenizer.json";
  if (!fs::exists(file))
    throw input_error(checkpoint.path().string(), "tokenizer.json", "none",
                      "copy it from the model's original directory");
  return Tokenizer::load(file);
}

}  // namespace lathe
