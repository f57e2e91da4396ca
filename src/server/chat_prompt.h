// A chat's messages and tools to the tokens of a prompt, by the model's own template.
#pragma once

#include "server/fields.h"
#include "server/service.h"

namespace lathe {

// "messages" (contents as strings or lists of text parts), "chat_template_kwargs", "add_generation_prompt",
// "continue_final_message", "documents", "reasoning_effort".
// ApiError when there is no template or a message is malformed; InputError when the template refuses.
std::string chat_text(const Service&, const Fields&, const Json& tools = nullptr);
std::vector<int32_t> chat_tokens(const Service&, const std::string& text);

}  // namespace lathe
