#include "text/chat_template.h"

#include "text/jinja/evaluator.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace lathe {

struct ChatTemplate::Parsed {
  std::string where, source;
  jinja::Body body;
};

namespace {

// Reading a value takes the stack; what comes from parse_json is never deeper, and always UTF-8.
void check_text(const Json& value, std::string_view where, int depth = 0) {
  if (depth == jinja::kMaxNesting)
    throw input_error(where, fmt::format("at most {} levels of nesting", jinja::kMaxNesting), "more");
  if (value.is_string() && !valid_utf8(value.get_ref<const std::string&>()))
    throw input_error(where, "UTF-8", "other bytes in a string");
  if (value.is_array())
    for (const Json& item : value) check_text(item, where, depth + 1);
  if (value.is_object()) {
    for (const auto& [key, item] : value.items()) {
      if (!valid_utf8(key)) throw input_error(where, "UTF-8", "other bytes in a key");
      check_text(item, where, depth + 1);
    }
  }
}

// What transformers does to messages (5.24, utils/chat_template_utils.py): reasoning under any of its names
// is there under those that templates read, "thinking" in gpt-oss', "reasoning_content" in all others.
Json with_reasoning(const Json& messages) {
  Json out = Json::array();
  for (const Json& message : messages) {
    const Json* reasoning = nullptr;
    for (const char* name : names_of_thoughts)
      if (message.is_object() && message.contains(name) && !message.at(name).is_null())
        reasoning = &message.at(name);
    if (!reasoning) {
      out.push_back(message);
      continue;
    }
    Json more = {{"thinking", *reasoning}};
    for (const auto& [key, value] : message.items()) more[key] = value;
    more["reasoning_content"] = *reasoning;
    out.push_back(std::move(more));
  }
  return out;
}

}  // namespace

ChatTemplate ChatTemplate::parse(std::string_view source, std::string_view where) {
  constexpr size_t kMaxSource = size_t{1} << 20;
  if (source.size() > kMaxSource)
    throw input_error(where, fmt::format("at most {} bytes", kMaxSource), fmt::format("{}", source.size()));
  if (!valid_utf8(source)) throw input_error(where, "UTF-8", "other bytes");
  return ChatTemplate(std::make_shared<const Parsed>(
      Parsed{std::string(where), std::string(source), jinja::parse(source, where)}));
}

const std::string& ChatTemplate::source() const { return parsed_->source; }

std::string ChatTemplate::render(const Json& messages, const Json& tools, const Options& options) const {
  if (!messages.is_array()) throw input_error(parsed_->where, "an array of messages", messages.type_name());
  check_text(messages, parsed_->where + ": messages");
  const Json with_aliases = with_reasoning(messages);
  const Json add_generation_prompt = options.add_generation_prompt;
  std::vector<std::pair<std::string, const Json*>> variables = {
      {"messages", &with_aliases},
      {"tools", &tools},
      {"documents", &options.documents},
      {"add_generation_prompt", &add_generation_prompt}};
  if (!options.variables.is_object()) throw input_error(parsed_->where, "variables by name", "no object");
  for (const auto& [name, value] : options.variables.items()) {
    for (const auto& [taken, ignored] : variables)
      if (taken == name)
        throw input_error(parsed_->where, "variables of other names", "'" + printable(name) + "'");
    variables.emplace_back(name, &value);
  }
  for (const auto& [name, value] : variables) check_text(*value, parsed_->where + ": " + printable(name));
  return jinja::run(parsed_->body, parsed_->where, options.now, variables);
}

}  // namespace lathe
