// How a model wants its chats written, as it lies beside the weights.
#pragma once

#include <optional>

#include "io/checkpoint.h"
#include "text/chat_template.h"

namespace lathe {

struct ChatFormat {
  ChatTemplate chat;
  Json variables;  // bos_token, eos_token, ...: what templates read besides the messages
};

// chat_template.jinja, or "chat_template" of tokenizer_config.json (of several, the one named "default"), or
// tokenizer.chat_template of a GGUF file. Nothing when there is none; InputError when it does not parse.
std::optional<ChatFormat> load_chat_format(const Checkpoint&);

}  // namespace lathe
