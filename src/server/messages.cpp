#include "server/messages.h"

#include <map>

#include "server/completion_request.h"
#include "server/content.h"
#include "server/item_reply.h"
#include "server/not_done.h"

namespace lathe {
namespace {

using Kind = AnswerPart::Kind;

Json call_of(const Fields& block, const std::string& where) {
  const auto name = block.text("name");
  if (!name) throw ApiError::wrong_field(where, "a name");
  const Json* input = block.find("input");
  return {{"id", block.text("id").value_or("")},
          {"type", "function"},
          {"function", {{"name", *name}, {"arguments", input ? *input : Json::object()}}}};
}

// A message becomes the results of tools that it holds, then itself.
void add_message(Json& to, const Json& message, const std::string& where) {
  const Fields m(message, where);
  const std::string role = m.text("role").value_or("");
  if (role != "user" && role != "assistant")
    throw ApiError::wrong_field(where + ".role", "user or assistant");
  const Json& content = m.at("content");
  Json out = {{"role", role}};
  if (content.is_string()) {
    out["content"] = content;
    to.push_back(std::move(out));
    return;
  }
  if (!content.is_array()) throw ApiError::wrong_field(where + ".content", "a string or a list of parts");
  std::string text, thoughts;
  Json calls = Json::array();
  bool results = false;
  for (const Json& block : content) {
    const Fields f(block, where + ".content");
    const std::string type = f.text("type").value_or("");
    if (type == "tool_result") {
      const Json* given = f.find("content");
      std::string result = given ? content_text(*given, where + ".content") : std::string();
      if (f.boolean("is_error", false)) result = "Error: " + result;  // templates know results alone
      to.push_back({{"role", "tool"},
                    {"tool_call_id", f.text("tool_use_id").value_or("")},
                    {"content", std::move(result)}});
      results = true;
    } else if (type == "tool_use") {
      calls.push_back(call_of(f, where + ".content"));
    } else if (type == "thinking") {
      thoughts += f.text("thinking").value_or("");
    } else if (type != "redacted_thinking") {
      text += content_text(Json::array({block}), where + ".content");
    }
  }
  if (results && text.empty()) return;
  out["content"] = text;
  if (!calls.empty()) out["tool_calls"] = std::move(calls);
  if (!thoughts.empty()) out["reasoning_content"] = thoughts;
  to.push_back(std::move(out));
}

Json tools_of(const Json& given) {
  if (!given.is_array()) throw ApiError::wrong_field("tools", "a list");
  Json tools = Json::array();
  for (const Json& tool : given) {
    const Fields f(tool, "tools");
    if (const std::string type = f.text("type").value_or("custom"); type != "custom")
      throw ApiError(501, "not_supported_error",
                     fmt::format("tools: expected tools of the client, found '{}'", printable(type, 60)),
                     "tools");
    Json function = {{"name", f.text("name").value_or("")}};
    if (const auto description = f.text("description")) function["description"] = *description;
    if (const Json* strict = f.find("strict")) function["strict"] = *strict;
    function["parameters"] = f.at("input_schema");
    tools.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return tools;
}

void put_tool_choice(Json& chat, const Json& given) {
  const Fields f(given, "tool_choice");
  const std::string type = f.text("type").value_or("");
  if (type == "tool")
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", f.text("name").value_or("")}}}};
  else if (type == "any")
    chat["tool_choice"] = "required";
  else if (type == "auto" || type == "none")
    chat["tool_choice"] = type;
  else
    throw ApiError::wrong_field("tool_choice.type", "auto, any, tool or none");
  chat["parallel_tool_calls"] = !f.boolean("disable_parallel_tool_use", false);
}

// {"type": "json_schema", "schema": {...}}
void put_format(Json& chat, const Json& given, const std::string& where) {
  const Fields f(given, where);
  if (f.text("type").value_or("") != "json_schema")
    throw ApiError::wrong_field(where, "the type json_schema");
  if (chat.contains("response_format")) throw ApiError::wrong_field(where, "one description of the text");
  chat["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"schema", f.at("schema")}}}};
}

// A last message of the assistant is the beginning of its answer.
void go_on_with_last(Json& chat) {
  Json& messages = chat["messages"];
  const Json& last = messages.back();
  if (last["role"] != "assistant" || last.contains("tool_calls")) return;
  const auto& text = last["content"].get_ref<const std::string&>();
  if (text.find_first_not_of(" \n\t\r") == std::string::npos)
    messages.erase(messages.size() - 1);
  else
    chat["continue_final_message"] = true;
}

// The same request as OpenAI's chats have it.
Json chat_of(const Fields& f) {
  refuse_not_done(f, Api::messages);
  Json chat = Json::object();
  copy_sampling(f, chat);
  for (const char* name : {"seed", "logit_bias", "repeat_last_n", "truncate_prompt_tokens"})
    if (const Json* value = f.find(name)) chat[name] = *value;
  copy_structured(f, chat);
  if (const Json* format = f.find("output_format")) put_format(chat, *format, "output_format");
  if (const Json* config = f.find("output_config")) {
    const Fields inner(*config, "output_config");
    if (const Json* format = inner.find("format")) put_format(chat, *format, "output_config.format");
    if (const auto effort = inner.text("effort")) chat["reasoning_effort"] = *effort;
  }
  if (const Json* stops = f.find("stop_sequences")) chat["stop"] = *stops;
  if (const Json* thinking = f.find("thinking")) {
    const Fields inner(*thinking, "thinking");
    chat["chat_template_kwargs"] = {{"enable_thinking", inner.text("type").value_or("") != "disabled"}};
    if (const Json* most = inner.find("budget_tokens")) chat["thinking_token_budget"] = *most;
  }
  if (const Json* tools = f.find("tools")) chat["tools"] = tools_of(*tools);
  if (const Json* choice = f.find("tool_choice")) put_tool_choice(chat, *choice);
  Json& all = chat["messages"] = Json::array();
  if (const Json* system = f.find("system"))
    all.push_back({{"role", "system"}, {"content", content_text(*system, "system")}});
  const Json& given = f.at("messages");
  if (!given.is_array() || given.empty()) throw ApiError::wrong_field("messages", "a list of at least one");
  for (size_t i = 0; i < given.size(); ++i) add_message(all, given[i], fmt::format("messages[{}]", i));
  go_on_with_last(chat);
  return chat;
}

class MessagesReply final : public ItemReply {
 public:
  using ItemReply::ItemReply;

 private:
  Json message(Json content, const Json& reason, const Json& stop) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", std::move(content)},
            {"stop_reason", reason},
            {"stop_sequence", stop},
            {"usage", usage_json()}};
  }
  Json usage_json() const {  // tokens that the cache had are counted apart
    return {{"input_tokens", prompt_tokens() - cached_tokens()},
            {"cache_read_input_tokens", cached_tokens()},
            {"output_tokens", generated_tokens()}};
  }
  Json reason() const {
    if (last().finish == Finish::length) return "max_tokens";
    if (!last().stop.empty()) return "stop_sequence";
    return made_calls() ? "tool_use" : "end_turn";
  }
  Json stop() const { return last().stop.empty() ? Json() : Json(last().stop); }

  void say(Json j) {
    const std::string name = j["type"];
    event(j, name);
  }
  void begin() override {
    say({{"type", "message_start"}, {"message", message(Json::array(), nullptr, nullptr)}});
  }
  void opened(size_t index) override {
    const ReplyItem& item = items()[index];
    Json block;
    if (item.kind == Kind::call)
      block = {{"type", "tool_use"}, {"id", item.id}, {"name", item.name}, {"input", Json::object()}};
    else if (item.kind == Kind::thought)
      block = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
    else
      block = {{"type", "text"}, {"text", ""}};
    say({{"type", "content_block_start"}, {"index", index}, {"content_block", std::move(block)}});
  }
  void more(size_t index, const std::string& text, const Json&) override {
    Json delta;
    if (items()[index].kind == Kind::call)
      delta = {{"type", "input_json_delta"}, {"partial_json", text}};
    else if (items()[index].kind == Kind::thought)
      delta = {{"type", "thinking_delta"}, {"thinking", text}};
    else
      delta = {{"type", "text_delta"}, {"text", text}};
    say({{"type", "content_block_delta"}, {"index", index}, {"delta", std::move(delta)}});
  }
  void closed(size_t index) override { say({{"type", "content_block_stop"}, {"index", index}}); }

  void ended() override {
    if (stream_) {
      say({{"type", "message_delta"},
           {"delta", {{"stop_reason", reason()}, {"stop_sequence", stop()}}},
           {"usage", usage_json()}});
      return say({{"type", "message_stop"}});
    }
    Json content = Json::array();
    for (const ReplyItem& item : items()) {
      if (item.kind == Kind::thought) {
        content.push_back({{"type", "thinking"}, {"thinking", item.text}, {"signature", ""}});
      } else if (item.kind == Kind::text) {
        content.push_back({{"type", "text"}, {"text", item.text}});
      } else {
        // A call that max_tokens cut off has no input that is JSON.
        Json input = Json::parse(item.text, nullptr, false);
        if (!input.is_object()) input = Json::object();
        content.push_back(
            {{"type", "tool_use"}, {"id", item.id}, {"name", item.name}, {"input", std::move(input)}});
      }
    }
    send(message(std::move(content), reason(), stop()));
  }
  void fail(const ApiError& error) override {
    if (!started())
      return exchange_->send(error.status(), "application/json", json_text(anthropic_error(error)),
                             error.headers());
    event(anthropic_error(error), "error");
    exchange_->finish();
  }

  const std::string id_ = random_id("msg_");
};

}  // namespace

// Its clients know these types and no others (https://docs.anthropic.com/en/api/errors).
Json anthropic_error(const ApiError& e) {
  static const std::map<int, const char*> types = {{401, "authentication_error"}, {403, "permission_error"},
                                                   {404, "not_found_error"},      {413, "request_too_large"},
                                                   {429, "rate_limit_error"},     {500, "api_error"},
                                                   {503, "overloaded_error"}};
  const auto it = types.find(e.status());
  const char* type = it == types.end() ? "invalid_request_error" : it->second;
  return {{"type", "error"}, {"error", {{"type", type}, {"message", e.what()}}}};
}

void messages(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  Json chat = chat_of(f);
  if (!f.integer("max_tokens", 1, INT64_MAX))
    throw ApiError::wrong_field("max_tokens", "a whole number of at least 1");
  chat["max_tokens"] = f.at("max_tokens");
  const bool stream = f.boolean("stream", false);
  submit_chat(service, Fields(chat),
              [&](const Chat& c) { return std::make_shared<MessagesReply>(service, c, exchange, stream); });
}

void count_message_tokens(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Json chat = chat_of(Fields(body));
  const Json answer = {{"input_tokens", parse_chat(service, Fields(chat)).request.prompt.size()}};
  exchange->send(200, "application/json", json_text(answer));
}

}  // namespace lathe
