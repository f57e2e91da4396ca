#include "server/structured_output.h"

#include <algorithm>
#include <optional>

#include "server/api_error.h"
#include "text/json_schema.h"

namespace lathe {
namespace {

constexpr size_t most_kept = 16;         // TokenMasks hold up to 64 MiB each,
constexpr size_t most_states = 500'000;  // and 150 bytes for each state of their grammars
constexpr size_t most_choices = 1024;

enum class GrammarKind : char { json_object = 'o', json_schema = 's', regex = 'r', choice = 'c', gbnf = 'g' };

struct Asked {
  GrammarKind kind;
  std::string source, name;
};

std::string text_of(const Json& value, const std::string& name) {
  if (!value.is_string())
    throw ApiError::bad_request(name + ": expected a string, found another value", name);
  return value.get<std::string>();
}

// A schema, or one as a string.
std::string schema_of(const Json& value, const std::string& name) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() && !value.is_boolean())
    throw ApiError::bad_request(name + ": expected a JSON schema, found another value", name);
  return value.dump();
}

Asked of_kind(GrammarKind kind, const Json& value, const std::string& name) {
  switch (kind) {
    case GrammarKind::json_schema:
      return {kind, schema_of(value, name), name};
    case GrammarKind::choice:
      if (!value.is_array() || value.empty() || value.size() > most_choices)
        throw ApiError::bad_request(
            fmt::format("{}: expected a list of 1 to {} strings, found another value", name, most_choices),
            name);
      for (const Json& one : value) text_of(one, name);
      return {kind, value.dump(), name};
    case GrammarKind::json_object:
      return {kind, "", name};
    case GrammarKind::regex:
    case GrammarKind::gbnf:
      break;
  }
  return {kind, text_of(value, name), name};
}

std::optional<Asked> of_response_format(const Json& value) {
  const std::string name = "response_format";
  const Fields format(value, name);
  const std::string type = format.text("type").value_or("");
  if (type == "text") return {};
  if (type == "json_object") {
    if (const Json* schema = format.find("schema"))  // llama.cpp
      return of_kind(GrammarKind::json_schema, *schema, name);
    return Asked{GrammarKind::json_object, "", name};
  }
  if (type == "json_schema") {
    const Json& wrapped = format.at("json_schema");
    const Fields inner(wrapped, name + ".json_schema");
    return of_kind(GrammarKind::json_schema, inner.at("schema"), name);
  }
  throw ApiError::bad_request(
      fmt::format("response_format: expected the type text, json_object or json_schema, found '{}'",
                  printable(type, 60)),
      name);
}

struct Named {
  std::string_view name;
  GrammarKind kind;
};
constexpr Named of_request[] = {
    {"guided_json", GrammarKind::json_schema}, {"guided_regex", GrammarKind::regex},
    {"guided_choice", GrammarKind::choice},    {"guided_grammar", GrammarKind::gbnf},
    {"json_schema", GrammarKind::json_schema}, {"grammar", GrammarKind::gbnf}};
constexpr Named of_structured_outputs[] = {{"json", GrammarKind::json_schema},
                                           {"regex", GrammarKind::regex},
                                           {"choice", GrammarKind::choice},
                                           {"grammar", GrammarKind::gbnf}};

// Of vLLM's StructuredOutputsParams. What they do not list may bound the text, so it is refused.
constexpr std::string_view harmless[] = {"json_object", "disable_fallback"};

void refuse_unknown(const Json& outputs) {
  for (const auto& [name, value] : outputs.items()) {
    const auto is = [&](std::string_view other) { return name == other; };
    const bool known = std::ranges::any_of(of_structured_outputs, is, &Named::name) ||
                       std::ranges::any_of(harmless, is) || value.is_null() || value == false;
    if (!known)
      throw ApiError(501, "not_supported_error",
                     fmt::format("structured_outputs.{} is not supported", printable(name, 60)),
                     "structured_outputs");
  }
}

std::vector<Asked> asked(const Fields& f) {
  std::vector<Asked> all;
  if (const Json* format = f.find("response_format"))
    if (auto one = of_response_format(*format)) all.push_back(std::move(*one));
  for (const auto& [name, kind] : of_request)
    if (const Json* value = f.find(name)) all.push_back(of_kind(kind, *value, std::string(name)));
  if (f.boolean("guided_json_object", false))
    all.push_back({GrammarKind::json_object, "", "guided_json_object"});
  if (const Json* value = f.find("structured_outputs")) {
    const std::string name = "structured_outputs";
    const Fields s(*value, name);
    refuse_unknown(*value);
    const size_t before = all.size();
    for (const auto& [inner, kind] : of_structured_outputs)
      if (const Json* v = s.find(inner)) all.push_back(of_kind(kind, *v, name));
    if (s.boolean("json_object", false)) all.push_back({GrammarKind::json_object, "", name});
    if (all.size() == before)
      throw ApiError::bad_request(
          "structured_outputs: expected one of json, regex, choice, grammar or json_object, found none",
          name);
  }
  return all;
}

Grammar parsed(const Asked& a) {
  switch (a.kind) {
    case GrammarKind::json_object:
      return Grammar::json_object();
    case GrammarKind::json_schema:
      return json_schema(parse_json(a.source, a.name), a.name);
    case GrammarKind::regex:
      return Grammar::regex(a.source, a.name);
    case GrammarKind::choice:
      return Grammar::choice(parse_json(a.source, a.name).get<std::vector<std::string>>(), a.name);
    case GrammarKind::gbnf:
      break;
  }
  return Grammar::gbnf(a.source, a.name);
}

}  // namespace

void copy_structured(const Fields& from, Json& to) {
  const auto copy = [&](std::string_view name) {
    if (const Json* value = from.find(name)) to[std::string(name)] = *value;
  };
  for (const std::string_view name : {"response_format", "guided_json_object", "structured_outputs"})
    copy(name);
  for (const Named& named : of_request) copy(named.name);
}

Grammars::Grammars(const Tokenizer& tokenizer, size_t most_source_bytes)
    : tokenizer_(tokenizer), most_source_bytes_(most_source_bytes) {}

std::shared_ptr<const TokenTrie> Grammars::trie(std::span<const std::string_view> marks) {
  std::vector<int32_t> special;  // others have their text in any case
  for (const std::string_view mark : marks)
    if (const std::optional<int32_t> token = tokenizer_.id(mark); token && tokenizer_.is_special(*token))
      special.push_back(*token);
  std::shared_ptr<const TokenTrie>& trie = special.empty() ? trie_ : marked_trie_;
  if (trie) return trie;
  std::vector<std::string> bytes = tokenizer_.token_bytes();
  for (const int32_t token : special) bytes[static_cast<size_t>(token)] = tokenizer_.token(token);
  return trie = std::make_shared<const TokenTrie>(bytes);
}

std::shared_ptr<TokenMasks> Grammars::compile(const std::string& source, const std::string& name,
                                              const std::function<Grammar()>& make,
                                              std::span<const std::string_view> marks) {
  if (source.size() > most_source_bytes_)
    throw ApiError::bad_request(
        fmt::format("{}: expected at most {} bytes, found {}", name, most_source_bytes_, source.size()),
        name);
  const std::lock_guard lock(mutex_);
  if (const auto it = known_.find(source); it != known_.end()) {
    recent_.splice(recent_.begin(), recent_, it->second);
    return it->second->masks;
  }
  std::shared_ptr<TokenMasks> masks;
  try {
    masks = std::make_shared<TokenMasks>(make(), trie(marks));
  } catch (const InputError& e) {
    throw ApiError::bad_request(e.what(), name);
  }
  states_ += masks->states();
  while (!recent_.empty() && (recent_.size() == most_kept || states_ > most_states)) {
    states_ -= recent_.back().masks->states();
    known_.erase(recent_.back().source);
    recent_.pop_back();
  }
  recent_.push_front({source, masks});
  known_.emplace(source, recent_.begin());
  return masks;
}

std::string Grammars::source(const Fields& f) {
  const std::vector<Asked> all = asked(f);
  return all.empty() ? std::string() : static_cast<char>(all[0].kind) + all[0].source;
}

std::shared_ptr<TokenMasks> Grammars::find(const Fields& f) {
  const std::vector<Asked> all = asked(f);
  if (all.empty()) return nullptr;
  if (all.size() > 1)
    throw ApiError::bad_request(
        fmt::format("{}: expected one description of the text, found {} too", all[1].name, all[0].name),
        all[1].name);
  return compile(static_cast<char>(all[0].kind) + all[0].source, all[0].name, [&] { return parsed(all[0]); });
}

}  // namespace lathe
