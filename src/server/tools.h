// The tools of a request: which there are, and whether the model may, must or must not call them.
#pragma once

#include <string>
#include <vector>

#include "server/fields.h"
#include "text/chat_syntax.h"

namespace lathe {

struct ToolChoice {
  enum class Mode : uint8_t { none, automatic, required };
  Mode mode = Mode::none;
  std::vector<Tool> tools;  // those that may be called
  Json listed;              // as the template reads them; null: it sees none
  bool parallel = true;
  bool strict = false;  // some tool's arguments must follow its schema even where the model is free to call
};

// "tools", "tool_choice" (none, auto, required, or a function by name), "parallel_tool_calls". ApiError for
// what is malformed.
ToolChoice parse_tools(const Fields&);
Json listed_tools(const Fields&);  // of parse_tools()

}  // namespace lathe
