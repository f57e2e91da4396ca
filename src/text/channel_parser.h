// Answers in channels, as gpt-oss writes them (Harmony,
// https://github.com/openai/harmony/blob/main/docs/format.md): messages, each with a header and a content.
//   <|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>final<|message|>text<|return|>
//   <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
// The recipient may stand before the channel: <|start|>assistant to=functions.f<|channel|>commentary ...
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer_part.h"
#include "text/chat_syntax.h"

namespace lathe {

// What is behind the prompt's "<|start|>assistant". A message to a function is a call, its content the
// arguments as they come, JSON or not; one of the channel analysis is thoughts; all others are text, a blank
// line between two. What has no header is text, and so is what cannot be one. Contents keep their white
// space.
class ChannelParser {
 public:
  // A message to "functions.f", or to one of `tools`, is a call where `may_call`; to anything else it is text
  // with its header. Where `calling`, the prompt ended with tool_opening().
  ChannelParser(bool may_call, bool calling, std::shared_ptr<const std::vector<Tool>> tools);

  std::vector<AnswerPart> push(std::string_view piece);
  std::vector<AnswerPart> finish();

 private:
  enum class State : uint8_t { between, header, content };
  using Parts = std::vector<AnswerPart>;

  Parts read(bool last);
  bool step(Parts&, bool last);  // false: it waits for more
  bool begin(bool last);
  bool read_header(Parts&, bool last);
  bool read_content(Parts&, bool last);
  void open(AnswerPart::Kind);
  void give(Parts&, std::string_view content);
  void close(Parts&);
  std::string tool_called(std::string_view recipient) const;

  bool may_call_;
  std::shared_ptr<const std::vector<Tool>> tools_;
  State state_ = State::between;
  std::string held_;
  int64_t calls_ = 0;
  // Of the content that is read.
  AnswerPart::Kind kind_ = AnswerPart::Kind::text;
  bool gave_ = false;   // some of it
  bool begun_ = false;  // with more than white space
  bool json_ = false, in_string_ = false, escaped_ = false;
  bool gave_text_ = false, gave_thoughts_ = false;  // of any message
};

}  // namespace lathe
