#include "server/chat_prompt.h"

#include <algorithm>
#include <ctime>
#include <fmt/chrono.h>

#include "server/api_error.h"
#include "server/content.h"
#include "text/chat_syntax.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

constexpr size_t most_messages = 4096, most_calls = 128;

// Clients send arguments as text, most templates write an object. Others add the text to theirs.
enum class Arguments { objects, texts };

void set_arguments(Json& message, const std::string& where, Arguments kind) {
  if (!message.contains("tool_calls") || message["tool_calls"].is_null()) {
    message.erase("tool_calls");
    return;
  }
  Json& calls = message["tool_calls"];
  if (!calls.is_array() || calls.size() > most_calls)
    throw ApiError::bad_request(
        fmt::format("{}.tool_calls: expected a list of at most {}", where, most_calls), "messages");
  for (Json& call : calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object() ||
        !call["function"].contains("name") || !call["function"]["name"].is_string())
      throw ApiError::bad_request(where + ".tool_calls: expected functions with names", "messages");
    Json& arguments = call["function"]["arguments"];
    if (arguments.is_null() || arguments == "") arguments = Json::object();
    Json object = arguments;
    if (arguments.is_string())
      object = parse_json(arguments.get<std::string>(), where + ".tool_calls.arguments");
    if (kind == Arguments::objects)
      arguments = std::move(object);
    else if (!arguments.is_string())
      arguments = arguments.dump();
  }
  if (!message.contains("content")) message["content"] = nullptr;
}

// OpenAI's newer name of the system's messages, which few templates know.
bool knows_developers(const ChatTemplate& chat) {
  return chat.source().find("developer") != std::string::npos;
}

Json checked_messages(const Service& service, const Fields& f, Arguments kind) {
  const bool developers = knows_developers(*service.chat);
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
    // Templates expect a string.
    if (message.contains("content") && !message["content"].is_null())
      message["content"] = content_text(message["content"], where + ".content");
    if (message["role"] == "developer" && !developers) message["role"] = "system";
    set_arguments(message, where, kind);
    checked.push_back(std::move(message));
  }
  return checked;
}

// A text that the model is to go on with ends with its last message, as transformers cuts it.
void cut_behind(std::string& text, const Json& content) {
  const std::string whole = content.is_string() ? content.get<std::string>() : std::string();
  constexpr std::string_view space = " \n\t\r";
  const size_t begin = whole.find_first_not_of(space);
  const size_t end = whole.find_last_not_of(space) + 1;
  const size_t at = begin == std::string::npos ? begin : text.rfind(whole.substr(begin, end - begin));
  if (at == std::string::npos)
    throw ApiError::bad_request("continue_final_message: expected a last message that the template shows",
                                "continue_final_message");
  const std::string_view shown = std::string_view(whole).substr(begin);  // with the white space behind it
  text.resize(at + (text.compare(at, shown.size(), shown) == 0 ? shown.size() : end - begin));
}

bool has_calls(const Json& messages) {
  return std::ranges::any_of(messages, [](const Json& m) { return m.contains("tool_calls"); });
}

// As Fireworks' own code calls the template, which knows no tools by that name.
void add_functions(Json& variables, const Json& tools, std::time_t now) {
  Json functions = Json::array();
  if (tools.is_array())
    for (const Json& tool : tools) functions.push_back(tool.at("function"));
  if (!variables.contains("functions")) variables["functions"] = functions.dump(4, ' ', true);
  if (!variables.contains("datetime"))
    variables["datetime"] = fmt::format("{:%Y-%m-%d %H:%M:%S %Z}", fmt::localtime(now));
}

std::string text_at(const Json& message, std::string_view name) {
  const auto it = message.find(name);
  return it != message.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool instructs(const Json& message) { return message["role"] == "system" || message["role"] == "developer"; }

// gpt-oss' template shows instructions where they are the first message, one call of a message, and beside it
// its thoughts or its text, as thoughts. It takes no null for a text.
Json for_channels(const Json& messages) {
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    Json m = messages[i];
    if (!out.empty() && instructs(m)) {
      if (out.size() > 1 || !instructs(out[0]))
        throw ApiError::bad_request(
            fmt::format("messages[{}]: expected instructions before all other messages, which is where this "
                        "model's chat template shows them",
                        i),
            "messages");
      out[0]["content"] = text_at(out[0], "content") + "\n\n" + text_at(m, "content");
      continue;
    }
    if (m["role"] == "assistant") {
      const std::string text = text_at(m, "content");
      m["content"] = text;
      if (m.contains("tool_calls") && m["tool_calls"].empty()) m.erase("tool_calls");
      if (m.contains("tool_calls")) {
        if (m["tool_calls"].size() > 1)
          throw ApiError::bad_request(
              fmt::format("messages[{}].tool_calls: expected one, which is what this model's chat template "
                          "shows of a message, found {}",
                          i, m["tool_calls"].size()),
              "messages");
        std::string thoughts;
        for (const char* name : names_of_thoughts)
          if (std::string t = text_at(m, name); !t.empty()) thoughts = std::move(t);
        if (!thoughts.empty() && !text.empty()) {
          m["thinking"] = thoughts + "\n\n" + text;
          m["content"] = "";
        }
      }
    }
    out.push_back(std::move(m));
  }
  return out;
}

// Which it must have there.
Json with_descriptions(Json tools) {
  if (tools.is_array())
    for (Json& tool : tools)
      if (Json& description = tool.at("function")["description"]; !description.is_string()) description = "";
  return tools;
}

}  // namespace

std::string chat_text(const Service& service, const Fields& f, const Json& tools) {
  if (!service.chat)
    throw ApiError(501, "not_supported_error", "this model has no chat template; use /v1/completions");
  ChatTemplate::Options options;
  const bool go_on = f.boolean("continue_final_message", false);
  if (go_on && f.boolean("add_generation_prompt", false))
    throw ApiError::bad_request("continue_final_message: expected no add_generation_prompt beside it",
                                "continue_final_message");
  options.add_generation_prompt = f.boolean("add_generation_prompt", !go_on);
  options.variables = service.template_variables;
  if (const auto effort = f.text("reasoning_effort")) options.variables["reasoning_effort"] = *effort;
  if (const Json* documents = f.find("documents")) {
    if (!documents->is_array()) throw ApiError::wrong_field("documents", "a list");
    options.documents = *documents;
  }
  if (const Json* more = f.find("chat_template_kwargs")) {
    if (!more->is_object())
      throw ApiError::bad_request("chat_template_kwargs: expected an object, found another value",
                                  "chat_template_kwargs");
    for (const auto& [name, value] : more->items()) options.variables[name] = value;
  }
  const ChatSyntax syntax = chat_syntax(service.chat->source());
  if (syntax.tools == ToolFormat::functools) add_functions(options.variables, tools, options.now);
  const Json messages = checked_messages(service, f, Arguments::objects);
  const auto render = [&](const Json& given) {
    return syntax.channels ? service.chat->render(for_channels(given), with_descriptions(tools), options)
                           : service.chat->render(given, tools, options);
  };
  std::string text;
  try {
    text = render(messages);
  } catch (const InputError&) {
    if (!has_calls(messages)) throw;
    text = render(checked_messages(service, f, Arguments::texts));
  }
  if (go_on) cut_behind(text, messages.back().value("content", Json()));
  return text;
}

// The template writes special tokens itself.
std::vector<int32_t> chat_tokens(const Service& service, const std::string& text) {
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = false;
  return service.tokenizer.encode(text, options);
}

}  // namespace lathe
