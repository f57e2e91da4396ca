#include "server/chat_prompt.h"

#include "server/api_error.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

constexpr size_t most_messages = 4096;

// Templates expect a string; clients also send [{"type": "text", "text": ...}, ...].
Json flattened(const Json& content, const std::string& where) {
  if (content.is_null() || content.is_string()) return content;
  if (!content.is_array())
    throw ApiError::bad_request(where + ": expected a string or a list of parts, found another value",
                                "messages");
  std::string all;
  for (const Json& part : content) {
    const Fields f(part);
    const std::string type = f.text("type").value_or("text");
    if (type != "text")
      throw ApiError(501, "not_supported_error",
                     fmt::format("{}: expected parts of type 'text', found '{}'", where, printable(type)),
                     "messages");
    all += f.text("text").value_or("");
  }
  return all;
}

Json checked_messages(const Fields& f) {
  const Json& messages = f.at("messages");
  if (!messages.is_array() || messages.empty() || messages.size() > most_messages)
    throw ApiError::bad_request(fmt::format("messages: expected a list of 1 to {}", most_messages),
                                "messages");
  Json checked = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    if (!messages[i].is_object() || !messages[i].contains("role") || !messages[i]["role"].is_string())
      throw ApiError::bad_request(where + ": expected an object with a role", "messages");
    Json message = messages[i];
    if (message.contains("content")) message["content"] = flattened(message["content"], where + ".content");
    checked.push_back(std::move(message));
  }
  return checked;
}

}  // namespace

std::string chat_text(const Service& service, const Fields& f) {
  if (!service.chat)
    throw ApiError(501, "not_supported_error", "this model has no chat template; use /v1/completions");
  ChatTemplate::Options options;
  options.add_generation_prompt = f.boolean("add_generation_prompt", true);
  options.variables = service.template_variables;
  if (const Json* more = f.find("chat_template_kwargs")) {
    if (!more->is_object())
      throw ApiError::bad_request("chat_template_kwargs: expected an object, found another value",
                                  "chat_template_kwargs");
    for (const auto& [name, value] : more->items()) options.variables[name] = value;
  }
  return service.chat->render(checked_messages(f), nullptr, options);
}

// The template writes special tokens itself.
std::vector<int32_t> chat_prompt(const Service& service, const Fields& f) {
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = false;
  return service.tokenizer.encode(chat_text(service, f), options);
}

}  // namespace lathe
