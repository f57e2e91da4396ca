// The JSON of a request, which anybody may have written.
#pragma once

#include <string_view>

#include "core/json.h"

namespace lathe {

inline constexpr int64_t most_members = 4096;      // of one object: finding one takes time with their number
inline constexpr int64_t most_values = 1'000'000;  // of a whole body
// parse_json() within these limits, which are checked in time linear in the text. InputError otherwise.
Json parse_body(std::string_view text);

}  // namespace lathe
