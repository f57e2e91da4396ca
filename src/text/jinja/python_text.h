// What Python does with strings and numbers as text. Positions and lengths count code points; every text is
// valid UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::jinja {

bool is_python_space(char32_t);  // str.isspace(): White_Space and U+001C..U+001F
size_t code_points(std::string_view text);
std::vector<std::string> characters(std::string_view text);
// The bytes where code point `index` begins; the size of the text when it has fewer.
size_t byte_offset(std::string_view text, size_t index);

enum class Side { both, left, right };
// Without `chars`, white space.
std::string_view strip(std::string_view text, Side, std::optional<std::string_view> chars = std::nullopt);

// str.split and str.rsplit; `limit` < 0 is none. Without a separator at runs of white space.
std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator,
                               int64_t limit, bool from_right);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
// Occurrences from the left, at most `limit` of them when it is not negative.
std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t limit);

// Nothing where a letter's other case is several letters or depends on its neighbours (other than U+00DF):
// those rules are not here.
std::optional<std::string> upper(std::string_view text);
std::optional<std::string> lower(std::string_view text);
std::optional<std::string> capitalize(std::string_view text);
std::optional<std::string> title(std::string_view text);  // str.title()

std::string repr(std::string_view text);  // quoted, as in a printed list
std::string repr(double);                 // shortest digits that read back the same

// The text as a JSON string with its quotes, as json.dumps writes it.
void append_json_string(std::string& out, std::string_view text, bool ensure_ascii);

}  // namespace lathe::jinja
