#include "server/responses.h"

#include "server/api_error.h"
#include "server/completion_request.h"
#include "server/content.h"
#include "server/item_reply.h"
#include "server/not_done.h"

namespace lathe {
namespace {

using Kind = AnswerPart::Kind;

std::string text_of(const Json& content, const std::string& where) {
  return content_text(content, where, {"input_text", "output_text", "text", "reasoning_text"});
}

// Calls go with the message of the assistant before them, thoughts with the one behind them.
void add_item(Json& to, const Json& item, std::string& thoughts, const std::string& where) {
  const Fields f(item, where);
  const std::string type = f.text("type").value_or("message");
  if (type == "reasoning") {
    if (const Json* content = f.find("content")) thoughts += text_of(*content, where);
  } else if (type == "function_call_output") {
    to.push_back({{"role", "tool"},
                  {"tool_call_id", f.text("call_id").value_or("")},
                  {"content", text_of(f.at("output"), where)}});
  } else if (type == "function_call") {
    if (to.empty() || to.back()["role"] != "assistant")
      to.push_back({{"role", "assistant"}, {"content", ""}});
    Json& message = to.back();
    if (!thoughts.empty()) message["reasoning_content"] = std::exchange(thoughts, {});
    if (!message.contains("tool_calls")) message["tool_calls"] = Json::array();
    message["tool_calls"].push_back(
        Json{{"id", f.text("call_id").value_or("")},
             {"type", "function"},
             {"function",
              {{"name", f.text("name").value_or("")}, {"arguments", f.text("arguments").value_or("")}}}});
  } else if (type == "message") {
    const std::string role = f.text("role").value_or("");
    Json message = {{"role", role}, {"content", text_of(f.at("content"), where)}};
    if (role == "assistant" && !thoughts.empty()) message["reasoning_content"] = std::exchange(thoughts, {});
    to.push_back(std::move(message));
  } else {
    throw ApiError(
        501, "not_supported_error",
        fmt::format("{}: expected a message, a call or its output, found '{}'", where, printable(type, 60)),
        "input");
  }
}

Json tools_of(const Json& given) {
  if (!given.is_array()) throw ApiError::wrong_field("tools", "a list");
  Json tools = Json::array();
  for (const Json& tool : given) {
    const Fields f(tool, "tools");
    if (const std::string type = f.text("type").value_or(""); type != "function")
      throw ApiError(501, "not_supported_error",
                     fmt::format("tools: expected functions, found '{}'", printable(type, 60)), "tools");
    Json function = tool;
    function.erase("type");
    tools.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return tools;
}

void put_logprobs(Json& chat, const Fields& f) {
  const int64_t top = f.integer("top_logprobs", 0, most_logprobs).value_or(0);
  bool wanted = top > 0;
  for (const std::string& what : f.texts("include", 16)) {
    wanted |= what == "message.output_text.logprobs";
    // Thoughts are in the answer as they are: nothing has to be encrypted to send them back.
    if (what != "message.output_text.logprobs" && what != "reasoning.encrypted_content")
      throw ApiError(501, "not_supported_error",
                     fmt::format("include: '{}' is not supported", printable(what, 60)), "include");
  }
  if (wanted) chat.update({{"logprobs", true}, {"top_logprobs", top}});
}

Json chat_of(const Fields& f) {
  if (f.has("previous_response_id") || f.has("conversation"))
    throw ApiError::bad_request(
        "previous_response_id: expected none: nothing is kept here; send the whole input",
        "previous_response_id");
  refuse_not_done(f, Api::responses);
  Json chat = Json::object();
  copy_structured(f, chat);
  put_logprobs(chat, f);
  if (const Json* reasoning = f.find("reasoning"))
    if (const auto effort = Fields(*reasoning, "reasoning").text("effort"))
      chat["reasoning_effort"] = *effort;
  copy_sampling(f, chat);
  for (const char* name : {"seed", "logit_bias", "repeat_last_n", "truncate_prompt_tokens",
                           "parallel_tool_calls", "chat_template_kwargs", "thinking_token_budget"})
    if (const Json* value = f.find(name)) chat[name] = *value;
  if (const Json* most = f.find("max_output_tokens")) chat["max_tokens"] = *most;
  if (const Json* tools = f.find("tools")) chat["tools"] = tools_of(*tools);
  if (const Json* choice = f.find("tool_choice")) {
    chat["tool_choice"] = *choice;
    if (choice->is_object() && choice->contains("name"))
      chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", (*choice)["name"]}}}};
  }
  if (const Json* text = f.find("text"))
    if (const Json* format = Fields(*text, "text").find("format")) {
      const std::string type = Fields(*format, "text.format").text("type").value_or("");
      if (type != "text" && chat.contains("response_format"))
        throw ApiError::wrong_field("text.format", "one description of the text");
      if (type != "text") chat["response_format"] = {{"type", type}};
      if (type == "json_schema") chat["response_format"]["json_schema"] = *format;
    }
  Json& all = chat["messages"] = Json::array();
  if (const auto instructions = f.text("instructions"))
    all.push_back({{"role", "system"}, {"content", *instructions}});
  const Json& input = f.at("input");
  if (input.is_string()) {
    all.push_back({{"role", "user"}, {"content", input}});
    return chat;
  }
  if (!input.is_array()) throw ApiError::wrong_field("input", "a string or a list of items");
  std::string thoughts;
  for (size_t i = 0; i < input.size(); ++i) add_item(all, input[i], thoughts, fmt::format("input[{}]", i));
  return chat;
}

class ResponsesReply final : public ItemReply {
 public:
  ResponsesReply(const Service& service, const Fields& f, const Chat& chat,
                 std::shared_ptr<HttpExchange> exchange)
      : ItemReply(service, chat, std::move(exchange), f.boolean("stream", false)) {
    const auto or_else = [&](const char* name, Json otherwise) {
      const Json* given = f.find(name);
      echoed_[name] = given ? *given : std::move(otherwise);
    };
    or_else("instructions", nullptr);
    or_else("max_output_tokens", nullptr);
    or_else("metadata", Json::object());
    or_else("parallel_tool_calls", true);
    or_else("temperature", 1);
    or_else("text", {{"format", {{"type", "text"}}}});
    or_else("tool_choice", "auto");
    or_else("tools", Json::array());
    or_else("top_p", 1);
  }

 private:
  Json item_json(size_t index, bool done) const {
    const ReplyItem& item = items()[index];
    const char* status = !done ? "in_progress" : cut(index) ? "incomplete" : "completed";
    if (item.kind == Kind::call)
      return {{"id", item_id(index)}, {"type", "function_call"}, {"status", status},
              {"call_id", item.id},   {"name", item.name},       {"arguments", item.text}};
    Json content = Json::array();
    if (done) content.push_back(part_json(index));
    if (item.kind == Kind::thought)
      return {{"id", item_id(index)},
              {"type", "reasoning"},
              {"status", status},
              {"summary", Json::array()},
              {"content", std::move(content)}};
    return {{"id", item_id(index)},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  Json part_json(size_t index) const {
    if (items()[index].kind == Kind::thought)
      return {{"type", "reasoning_text"}, {"text", items()[index].text}};
    return {{"type", "output_text"},
            {"text", items()[index].text},
            {"annotations", Json::array()},
            {"logprobs", items()[index].logprobs}};
  }
  bool cut(size_t index) const { return last().finish == Finish::length && index + 1 == items().size(); }
  std::string item_id(size_t index) const {
    const Kind kind = items()[index].kind;
    return fmt::format("{}_{}{}",
                       kind == Kind::call      ? "fc"
                       : kind == Kind::thought ? "rs"
                                               : "msg",
                       id_.substr(5), index);
  }

  Json response(bool done, const ApiError* failed = nullptr) const {
    const bool whole = last().finish != Finish::length;
    Json j = {{"id", id_},
              {"object", "response"},
              {"created_at", created_},
              {"status", failed  ? "failed"
                         : !done ? "in_progress"
                         : whole ? "completed"
                                 : "incomplete"},
              {"background", false},
              {"error", failed ? error_json(*failed) : Json()},
              {"incomplete_details", done && !whole ? Json{{"reason", "max_output_tokens"}} : Json()},
              {"model", model_},
              {"previous_response_id", nullptr},
              {"store", false},
              {"truncation", "disabled"}};
    j.update(echoed_);
    j["output"] = Json::array();
    j["usage"] = nullptr;
    if (!done) return j;
    for (size_t i = 0; i < items().size(); ++i) j["output"].push_back(item_json(i, true));
    j["usage"] = {{"input_tokens", prompt_tokens()},
                  {"input_tokens_details", {{"cached_tokens", cached_tokens()}}},
                  {"output_tokens", generated_tokens()},
                  {"output_tokens_details", {{"reasoning_tokens", thought_tokens()}}},
                  {"total_tokens", prompt_tokens() + generated_tokens()}};
    return j;
  }

  // OpenAI's clients know these codes.
  static Json error_json(const ApiError& error) {
    const char* code = error.status() == 429   ? "rate_limit_exceeded"
                       : error.status() == 400 ? "invalid_prompt"
                                               : "server_error";
    return {{"code", code}, {"message", error.what()}};
  }
  void fail(const ApiError& error) override {
    if (!started()) return Reply::fail(error);
    say("response.failed", {{"response", response(false, &error)}});
    exchange_->finish();
  }

  void say(const std::string& name, const Json& more) {
    Json j = {{"type", name}, {"sequence_number", number_++}};
    j.update(more);
    event(j, name);
  }
  void say_of(size_t index, const std::string& name, const Json& more) {
    Json j = {{"item_id", item_id(index)}, {"output_index", index}};
    if (items()[index].kind != Kind::call) j["content_index"] = 0;
    j.update(more);
    say(name, j);
  }
  std::string text_event(size_t index) const {
    return items()[index].kind == Kind::thought ? "response.reasoning_text" : "response.output_text";
  }

  void begin() override {
    say("response.created", {{"response", response(false)}});
    say("response.in_progress", {{"response", response(false)}});
  }
  void opened(size_t index) override {
    say("response.output_item.added", {{"output_index", index}, {"item", item_json(index, false)}});
    if (items()[index].kind != Kind::call)
      say_of(index, "response.content_part.added", {{"part", part_json(index)}});
  }
  void more(size_t index, const std::string& text, const Json& logprobs) override {
    if (items()[index].kind == Kind::call)
      return say_of(index, "response.function_call_arguments.delta", {{"delta", text}});
    Json j = {{"delta", text}};
    if (items()[index].kind == Kind::text) j["logprobs"] = logprobs;
    say_of(index, text_event(index) + ".delta", j);
  }
  void closed(size_t index) override {
    const ReplyItem& item = items()[index];
    if (item.kind == Kind::call) {
      say_of(index, "response.function_call_arguments.done", {{"name", item.name}, {"arguments", item.text}});
    } else {
      Json j = {{"text", item.text}};
      if (item.kind == Kind::text) j["logprobs"] = item.logprobs;
      say_of(index, text_event(index) + ".done", j);
      say_of(index, "response.content_part.done", {{"part", part_json(index)}});
    }
    say("response.output_item.done", {{"output_index", index}, {"item", item_json(index, true)}});
  }
  void ended() override {
    if (!stream_) return send(response(true));
    say(last().finish == Finish::length ? "response.incomplete" : "response.completed",
        {{"response", response(true)}});
  }

  const std::string id_ = random_id("resp_");
  const int64_t created_ = seconds_now();
  Json echoed_ = Json::object();
  int64_t number_ = 0;
};

}  // namespace

void respond(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  const Json chat = chat_of(f);
  submit_chat(service, Fields(chat),
              [&](const Chat& c) { return std::make_shared<ResponsesReply>(service, f, c, exchange); });
}

}  // namespace lathe
