#include "server/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/api_error.h"
#include "server/chat_prompt.h"
#include "server/completion_request.h"
#include "server/logprobs.h"
#include "server/not_done.h"
#include "server/tools.h"
#include "text/chat_template.h"

namespace lathe {
namespace {

ApiError not_supported(const std::string& what, std::string field) {
  return {501, "not_supported_error", what, std::move(field)};
}

// A prompt that ends with an open <think> leaves the model to think first.
bool opens_thoughts(std::string_view prompt, const ChatSyntax& syntax) {
  while (!prompt.empty() && (prompt.back() == '\n' || prompt.back() == ' ')) prompt.remove_suffix(1);
  return syntax.thinks && prompt.ends_with(syntax.think_begin);
}

std::string end_of_thoughts(const ChatSyntax& syntax) { return fmt::format("\n{}\n\n", syntax.think_end); }

Json schema_of_calls(const ToolChoice& choice, ToolFormat format) {
  Json all = Json::array({static_cast<int>(format), choice.parallel});
  for (const Tool& t : choice.tools) all.push_back({t.name, t.parameters});
  return all;
}

// Whoever begins a call writes this token, where the vocabulary has one.
std::optional<int32_t> token_of_calls(const Service& service, ToolFormat format) {
  const auto& tokens = tool_notation(format).tokens;
  const std::string_view mark = tool_mark(format);
  if (mark.empty() || std::ranges::find(tokens, mark) == tokens.end()) return std::nullopt;
  return service.tokenizer.id(mark);
}

void begin_behind_thoughts(const Service& service, Chat& chat, std::string& prompt) {
  if (const std::optional<int32_t> token = service.tokenizer.id(chat.syntax.think_end)) {
    chat.request.grammar_after = *token;
  } else {
    prompt += end_of_thoughts(chat.syntax);
    chat.thinking = false;
  }
}

// Whatever the checkpoint says of it (GGUF files name one token): the model waits for its client there.
void stop_behind_messages(const Service& service, Request& r) {
  for (const std::string_view end : std::span(channel_ends).last(2))
    if (const auto token = service.tokenizer.id(end); token && !std::ranges::count(r.stop_tokens, *token))
      r.stop_tokens.push_back(*token);
}

// Thoughts begin where the prompt opened them, or where the model does.
void bound_thoughts(const Service& service, Chat& chat, int64_t tokens) {
  const auto open = service.tokenizer.id(chat.syntax.think_begin),
             close = service.tokenizer.id(chat.syntax.think_end);
  if (!close || (!open && !chat.thinking))
    throw not_supported("thinking_token_budget: this model's vocabulary has no token that ends thoughts",
                        "thinking_token_budget");
  chat.request.thoughts = {.open = chat.thinking ? -1 : *open, .close = *close, .tokens = tokens};
}

class ChatReply final : public Reply {
 public:
  ChatReply(const Service& service, const Fields& f, const Chat& chat, std::shared_ptr<HttpExchange> exchange)
      : Reply(service, std::move(exchange), f.boolean("stream", false), chat.request, 1),
        logprobs_(chat.request.logprobs >= 0),
        show_stops_(f.boolean("include_stop_str_in_output", false)),
        prompt_(chat.request.prompt_logprobs >= 0 ? chat.request.prompt : std::vector<int32_t>()) {
    read_stream_options(f);
    for (size_t i = 0; i < choice_count(); ++i) choices_.emplace_back(chat);
  }

 private:
  struct Choice {
    explicit Choice(const Chat& chat) : answer(chat) {}
    Answer answer;
    Json logprobs = Json::array();  // where streamed, those that were not told yet
    Json finish, stop_reason;
    bool begun = false;
  };

  Json envelope(std::string_view object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
  }

  void tell(size_t index, const Event& given) override {
    Choice& c = choices_[index];
    Event e = given;
    if (e.prompt) prompt_logprobs_ = prompt_logprobs_json(service_, prompt_, *e.prompt);
    if (show_stops_) e.text += e.stop;
    if (logprobs_ && is_shown(e)) c.logprobs.push_back(chosen_json(service_, e));
    const std::vector<AnswerPart> parts = c.answer.take(e);
    const bool ended = e.finish != Finish::none;
    if (ended) {
      const bool calls = e.finish == Finish::stop && !c.answer.calls.empty();
      c.finish = calls ? "tool_calls" : finish_name(e.finish);
      c.stop_reason = e.stop.empty() ? Json() : Json(e.stop);
    }
    if (!stream_) return;
    start_stream();
    if (!std::exchange(c.begun, true)) chunk(index, {{"role", "assistant"}, {"content", ""}}, false);
    for (const AnswerPart& p : parts) chunk(index, delta(p, c.answer), false);
    if (ended) chunk(index, Json::object(), true);
  }

  static Json delta(const AnswerPart& p, const Answer& answer) {
    switch (p.kind) {
      case AnswerPart::Kind::text:
        return {{"content", p.text}};
      case AnswerPart::Kind::thought:
        return {{"reasoning_content", p.text}};
      case AnswerPart::Kind::call:
        return {{"tool_calls",
                 {{{"index", p.call},
                   {"id", answer.calls[static_cast<size_t>(p.call)].id},
                   {"type", "function"},
                   {"function", {{"name", p.text}, {"arguments", ""}}}}}}};
      case AnswerPart::Kind::arguments:
        break;
    }
    return {{"tool_calls", {{{"index", p.call}, {"function", {{"arguments", p.text}}}}}}};
  }

  Json logprobs_json(Choice& c) const {
    if (!logprobs_) return nullptr;
    return {{"content", std::exchange(c.logprobs, Json::array())}};
  }

  void chunk(size_t index, Json delta, bool last) {
    Choice& c = choices_[index];
    Json choice = {{"index", index}, {"delta", std::move(delta)}};
    choice["logprobs"] = c.logprobs.empty() ? Json() : logprobs_json(c);
    choice["finish_reason"] = last ? c.finish : Json();
    if (last) choice["stop_reason"] = c.stop_reason;
    Json j = envelope("chat.completion.chunk");
    j["choices"] = {std::move(choice)};
    add_usage(j);
    event(j);
  }

  static Json message(const Answer& a) {
    Json m = {{"role", "assistant"}};
    m["content"] = a.text.empty() && !a.calls.empty() ? Json() : Json(a.text);
    if (!a.thoughts.empty()) m["reasoning_content"] = a.thoughts;
    for (const ToolCall& call : a.calls)
      m["tool_calls"].push_back({{"id", call.id},
                                 {"type", "function"},
                                 {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    return m;
  }

  void end() override {
    if (stream_) {
      Json j = envelope("chat.completion.chunk");
      j["choices"] = Json::array();
      return end_stream(std::move(j));
    }
    Json j = envelope("chat.completion");
    j["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      Choice& c = choices_[i];
      j["choices"].push_back({{"index", i},
                              {"message", message(c.answer)},
                              {"logprobs", logprobs_json(c)},
                              {"finish_reason", c.finish},
                              {"stop_reason", c.stop_reason}});
    }
    if (!prompt_logprobs_.is_null()) j["prompt_logprobs"] = std::move(prompt_logprobs_);
    j["usage"] = usage();
    send(j);
  }

  const bool logprobs_, show_stops_;
  const std::vector<int32_t> prompt_;  // where its tokens' probabilities are told
  Json prompt_logprobs_;
  const std::string id_ = random_id("chatcmpl-");
  const int64_t created_ = seconds_now();
  std::vector<Choice> choices_;
};

}  // namespace

std::vector<AnswerPart> Answer::take(const Event& e) {
  std::vector<AnswerPart> parts = parser_.push(e.text);
  if (e.finish != Finish::none)
    for (AnswerPart& p : parser_.finish()) parts.push_back(std::move(p));
  if (one_call_) std::erase_if(parts, [](const AnswerPart& p) { return p.call > 0; });
  for (const AnswerPart& p : parts) {
    switch (p.kind) {
      case AnswerPart::Kind::text:
        text += p.text;
        break;
      case AnswerPart::Kind::thought:
        thoughts += p.text;
        break;
      case AnswerPart::Kind::call:
        // Mistral's templates want nine letters or digits.
        calls.push_back({short_ids_ ? random_id("").substr(0, 9) : random_id("call_"), p.text, {}});
        break;
      case AnswerPart::Kind::arguments:
        calls[static_cast<size_t>(p.call)].arguments += p.text;
        break;
    }
  }
  return parts;
}

Chat parse_chat(Service& service, const Fields& f) {
  Chat chat;
  chat.request = completion_request(service, f, true);
  Request& r = chat.request;
  const ToolChoice tools = parse_tools(f);
  std::string prompt = chat_text(service, f, tools.listed);
  chat.syntax = chat_syntax(service.chat->source());
  const ToolFormat format = chat.syntax.tools;
  chat.thinking = opens_thoughts(prompt, chat.syntax);
  // Thoughts and texts end with some, messages in channels begin with them.
  r.special_tokens |= !chat.syntax.text_end.empty() || chat.syntax.channels;
  if (chat.syntax.channels && !f.boolean("ignore_eos", false)) stop_behind_messages(service, r);
  if (tools.mode == ToolChoice::Mode::none) {
    chat.syntax.tools = ToolFormat::none;
  } else {
    if (format == ToolFormat::none)
      throw not_supported("tools: this model's chat template has no calls that Lathe reads", "tools");
    if (r.grammar && tools.mode == ToolChoice::Mode::required && !f.has("response_format"))
      throw ApiError::bad_request("tool_choice: expected none or auto beside a description of the text",
                                  "tool_choice");
    chat.one_call = !tools.parallel;
    chat.tools = std::make_shared<const std::vector<Tool>>(tools.tools);
    r.special_tokens = true;  // calls may begin with one
  }
  const bool required = tools.mode == ToolChoice::Mode::required;
  // Beside tools, what must be of a form is the text; but a grammar of another field may be one of calls.
  const bool bound =
      tools.mode == ToolChoice::Mode::automatic && (tools.strict || (r.grammar && f.has("response_format")));
  const std::optional<int32_t> token = token_of_calls(service, format);
  const std::string calls_source = bound || required ? schema_of_calls(tools, format).dump() : std::string();
  const auto compile = [&](char kind, const std::string& more, const auto& make) {
    return service.grammars.compile(kind + calls_source + more, "tools", make, tool_notation(format).tokens);
  };
  const auto calls = [&] { return tool_grammar(format, tools.tools, tools.parallel); };
  if (required) {
    // The call is opened for the model, behind no thoughts.
    if (std::exchange(chat.thinking, false)) prompt += end_of_thoughts(chat.syntax);
    prompt += tool_opening(format);
    chat.calling = true;
    r.grammar = compile('t', "", calls);
  } else if (bound && !r.grammar && token) {
    r.grammar = compile('b', "", [&] { return behind_mark(format, calls()); });
    r.grammar_after = *token;
    r.must_reach_grammar = false;
  } else {
    if (bound) {
      const std::shared_ptr<TokenMasks> text = std::exchange(r.grammar, nullptr);
      r.grammar = compile('a', Grammars::source(f),
                          [&] { return answer_grammar(format, calls(), text ? &text->grammar() : nullptr); });
    }
    if (r.grammar && chat.thinking) {
      begin_behind_thoughts(service, chat, prompt);
    } else if (r.grammar && tools.mode == ToolChoice::Mode::none && prompt.ends_with(channel_prompt)) {
      const std::shared_ptr<TokenMasks> text = std::exchange(r.grammar, nullptr);
      r.grammar = service.grammars.compile(
          'f' + Grammars::source(f), "response_format", [&] { return channel_grammar(text->grammar()); },
          tool_notation(ToolFormat::channels).tokens);
    } else if (r.grammar && tools.mode == ToolChoice::Mode::none) {
      prompt += chat.syntax.text_begin;
    }
  }
  if (const auto most = f.integer("thinking_token_budget", 0, INT64_MAX); most && chat.syntax.thinks)
    bound_thoughts(service, chat, *most);
  r.prompt = chat_tokens(service, prompt);
  truncate_prompt(r.prompt, f);
  return chat;
}

void submit_chat(Service& service, const Fields& f, const MakeReply& make) {
  const Chat chat = parse_chat(service, f);
  submit(service, chat.request, {chat.request.prompt}, make(chat));
}

void chat_complete(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  refuse_not_done(f, Api::chat);
  submit_chat(service, f,
              [&](const Chat& chat) { return std::make_shared<ChatReply>(service, f, chat, exchange); });
}

}  // namespace lathe
