#include "server/content.h"

#include <algorithm>

#include "server/api_error.h"
#include "server/fields.h"

namespace lathe {

std::string content_text(const Json& content, const std::string& where,
                         std::initializer_list<std::string_view> types) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) throw ApiError::wrong_field(where, "a string or a list of parts");
  std::string all;
  for (const Json& part : content) {
    const Fields f(part, where);
    const std::string type = f.text("type").value_or("text");
    if (std::ranges::find(types, type) == types.end())
      throw ApiError(501, "not_supported_error",
                     fmt::format("{}: expected parts of text, found '{}'", where, printable(type, 60)),
                     where);
    all += f.text("text").value_or("");
  }
  return all;
}

}  // namespace lathe
