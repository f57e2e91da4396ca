// Answers that are a list of items, one after the other: thoughts, text, calls. Anthropic calls them content
// blocks, OpenAI's responses output items.
#pragma once

#include <string>
#include <vector>

#include "server/chat.h"

namespace lathe {

struct ReplyItem {
  AnswerPart::Kind kind;          // thought, text or call
  std::string id;                 // of a call, the one by which its result will name it
  std::string name;               // of the tool
  std::string text;               // so far; of a call its arguments
  Json logprobs = Json::array();  // of the tokens of a text, where the request asked
};

class ItemReply : public Reply {
 public:
  ItemReply(const Service&, const Chat&, std::shared_ptr<HttpExchange>, bool stream);

 protected:
  // Of a stream, in this order.
  virtual void begin() = 0;
  virtual void opened(size_t index) = 0;
  virtual void more(size_t index, const std::string& text, const Json& logprobs) = 0;
  virtual void closed(size_t index) = 0;
  // The last of it; or the whole answer, where it is not streamed.
  virtual void ended() = 0;

  const std::vector<ReplyItem>& items() const { return items_; }
  const Event& last() const { return last_; }
  bool made_calls() const { return !answer_.calls.empty(); }
  size_t thought_tokens() const { return thought_tokens_; }

 private:
  void tell(size_t choice, const Event&) override;
  void end() override;

  const bool logprobs_;
  Json untold_ = Json::array();  // logprobs of tokens whose text is held back still
  Answer answer_;
  std::vector<ReplyItem> items_;
  Event last_;
  size_t thought_tokens_ = 0;
  bool begun_ = false;
};

}  // namespace lathe
