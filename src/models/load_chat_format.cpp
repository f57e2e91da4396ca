#include "core/file.h"
#include "io/gguf.h"
#include "models/chat_format.h"
#include "models/model.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

constexpr std::string_view special_tokens[] = {"bos_token", "eos_token", "unk_token", "pad_token"};

// "<s>", or an added token's {"content": "<s>", ...}.
std::string token_text(const Json& j) {
  if (j.is_string()) return j.get<std::string>();
  if (j.is_object() && j.contains("content") && j["content"].is_string())
    return j["content"].get<std::string>();
  return {};
}

std::string template_of(const Json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (it->is_array())  // [{"name": "default", "template": ...}, {"name": "tool_use", ...}]
    for (const Json& one : *it)
      if (one.is_object() && one.value("name", "") == "default") return one.value("template", "");
  return {};
}

std::optional<ChatFormat> from_gguf(const Checkpoint& checkpoint, const GgufFile& gguf) {
  if (!gguf.has("tokenizer.chat_template")) return {};
  ChatFormat format{ChatTemplate::parse(gguf.text("tokenizer.chat_template"), checkpoint.path().string()),
                    Json::object()};
  const Tokenizer tokenizer = load_tokenizer(checkpoint);
  for (const auto& [name, key] : {std::pair{"bos_token", "tokenizer.ggml.bos_token_id"},
                                  std::pair{"eos_token", "tokenizer.ggml.eos_token_id"}})
    if (gguf.has(key)) format.variables[name] = tokenizer.token(static_cast<int32_t>(gguf.integer(key)));
  return format;
}

}  // namespace

std::optional<ChatFormat> load_chat_format(const Checkpoint& checkpoint) {
  if (const GgufFile* gguf = checkpoint.gguf()) return from_gguf(checkpoint, *gguf);
  const fs::path config_file = checkpoint.path() / "tokenizer_config.json";
  const Json config = fs::exists(config_file) ? read_json(config_file) : Json::object();
  fs::path where = checkpoint.path() / "chat_template.jinja";
  std::string source;
  if (fs::exists(where)) {
    source = Mapping(where).text();
  } else {
    where = config_file;
    source = template_of(config);
  }
  if (source.empty()) return {};
  ChatFormat format{ChatTemplate::parse(source, where.string()), Json::object()};
  for (const std::string_view name : special_tokens)
    if (const auto it = config.find(name); it != config.end() && !it->is_null())
      format.variables[std::string(name)] = token_text(*it);
  return format;
}

}  // namespace lathe
