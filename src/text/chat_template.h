// Chat templates: messages to the text that a model was trained on, in Jinja as Hugging Face's transformers
// runs it (chat_template in tokenizer_config.json, or chat_template.jinja).
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"

namespace lathe {

// A message's thoughts have one of these names; where there are several, the last counts. A template sees
// them as thinking and as reasoning_content.
inline constexpr const char* names_of_thoughts[] = {"reasoning", "thinking", "reasoning_content"};

// Immutable and cheap to copy; render() may be called from several threads at once.
//
// A rendering has the bytes that transformers' apply_chat_template has, or is refused. Templates are
// untrusted: they see nothing but their arguments, and work, text, nesting and recursion are limited
// (jinja/runtime.h).
class ChatTemplate {
 public:
  // InputError naming `where`, the line and the construct. At most 1 MiB.
  static ChatTemplate parse(std::string_view source, std::string_view where = "chat template");

  struct Options {
    bool add_generation_prompt = true;  // ends with the beginning of the assistant's answer
    Json documents;                     // null or an array
    // Further variables by name: bos_token, eos_token, enable_thinking, ... They do not replace the above.
    Json variables = Json::object();
    std::time_t now = std::time(nullptr);  // what strftime_now() reads, in local time
  };
  // `messages`: an array of objects with role, content, tool_calls, ...; `tools`: null or an array. Both
  // reach the template as they are, but for the names of thoughts. InputError where the template says no
  // (raise_exception) or fails, with its line.
  std::string render(const Json& messages, const Json& tools, const Options&) const;
  std::string render(const Json& messages, const Json& tools = nullptr) const {
    return render(messages, tools, Options());
  }

  const std::string& source() const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace lathe
