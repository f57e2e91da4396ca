// What a chat model wrote, taken apart as it comes: thoughts, text, calls of tools.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer_part.h"
#include "text/channel_parser.h"
#include "text/chat_syntax.h"

namespace lathe {

// Cutting the answer into other pieces gives the same parts, but for where texts of one kind are cut. Nothing
// is lost: what begins like a call and is none is text. White space around thoughts and calls is left out.
// Answers in channels have a reader of their own.
class AnswerParser {
 public:
  // Where a prompt ends within thoughts, `thinking`; where a call must come behind it, `calling`. Calls are
  // only looked for where `tools` are not none.
  // `tools` say which arguments are texts where the notation does not (ToolFormat::tags).
  AnswerParser(ChatSyntax, bool thinking, bool calling,
               std::shared_ptr<const std::vector<Tool>> tools = nullptr);

  // All pieces together are UTF-8, as a decoder gives them.
  std::vector<AnswerPart> push(std::string_view piece);
  std::vector<AnswerPart> finish();  // the answer ended, perhaps in the middle of something

 private:
  enum class State : uint8_t { start, thought, text, plain, head, name, tags, object, between };
  // The members of one call as its JSON comes.
  struct Call {
    enum class At : uint8_t { open, key, in_key, colon, value, in_value, next, done, bad } at = At::open;
    bool bare = false;            // only the arguments' value: the name stood before it
    std::string raw;              // the trigger and all behind it, until the call is given away
    std::string name, arguments;  // arguments: what was not given away yet
    bool named = false, given = false, has_arguments = false;
    std::string key, value;
    int64_t depth = 0;
    bool in_string = false, escaped = false;

    void read(char);
    void read_value(char);
    void end_value();
    bool at_name() const { return key == "name" || key == "tool_name"; }
    bool at_arguments() const { return key == "arguments" || key == "parameters"; }
  };
  using Parts = std::vector<AnswerPart>;

  bool step(Parts&, bool last);  // false: it waits for more
  bool begin(bool last);
  bool think(Parts&, bool last);
  bool tell(Parts&, bool last);
  bool read_head(Parts&, bool last);
  bool read_name(Parts&, bool last);
  bool read_tags(Parts&, bool last);
  bool take_tag(std::string_view opening, std::string& name, bool& fits);
  const Json* parameter(const std::string& name) const;
  bool read_object(Parts&, bool last);
  bool read_between(bool last);
  void begin_call(std::string raw);
  void give_up(Parts&);

  const ToolNotation& notation() const { return tool_notation(syntax_.tools); }
  void begin_bare(std::string name, size_t used);

  ChatSyntax syntax_;
  std::shared_ptr<const std::vector<Tool>> tools_;
  State state_ = State::start;
  std::string held_;
  bool drop_space_ = false;  // of the text that comes next
  Call call_;
  bool list_ = false;  // calls have commas between them
  int64_t calls_ = 0;
  std::optional<ChannelParser> channels_;
};

}  // namespace lathe
