// /v1/chat/completions: thoughts, tools and all. Shapes:
// https://platform.openai.com/docs/api-reference/chat; fields beyond OpenAI's are vLLM's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http.h"
#include "server/reply.h"
#include "server/service.h"
#include "text/answer_parser.h"

namespace lathe {

// A chat as the engine takes it, and how its answer is to be read.
struct Chat {
  Request request;  // its prompt too
  ChatSyntax syntax;
  bool thinking = false, calling = false;  // the prompt opened thoughts, or a call
  bool one_call = false;                   // parallel_tool_calls: false
  std::shared_ptr<const std::vector<Tool>> tools;
};
Chat parse_chat(Service&, const Fields&);

// What a choice has said.
struct ToolCall {
  std::string id, name, arguments;
};
class Answer {
 public:
  explicit Answer(const Chat& chat)
      : parser_(chat.syntax, chat.thinking, chat.calling, chat.tools),
        one_call_(chat.one_call),
        short_ids_(chat.syntax.tools == ToolFormat::mistral) {}
  // The event's parts, which were added to what follows. Calls of a model that was to make only one are
  // dropped.
  std::vector<AnswerPart> take(const Event&);

  std::string text, thoughts;
  std::vector<ToolCall> calls;

 private:
  AnswerParser parser_;
  bool one_call_, short_ids_;
};

using MakeReply = std::function<std::shared_ptr<Reply>(const Chat&)>;
void submit_chat(Service&, const Fields&, const MakeReply&);

void chat_complete(Service&, const Json& body, std::shared_ptr<HttpExchange>);

}  // namespace lathe
