// What a message says, as clients of all APIs write it.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "core/json.h"

namespace lathe {

// A string, or a list of parts {"type": "text", "text": ...} put together. ApiError at `where` for another
// value; 501 for parts of other types than these (images, say). A part without a type is text.
std::string content_text(const Json& content, const std::string& where,
                         std::initializer_list<std::string_view> types = {"text"});

}  // namespace lathe
