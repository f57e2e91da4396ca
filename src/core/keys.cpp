#include "core/keys.h"

#include <algorithm>

namespace lathe {

constexpr size_t most_listed = 20;

void check_keys(const Json& object, std::span<const KnownKey> known, std::string_view where) {
  if (!object.is_object()) throw input_error(where, "an object", object.type_name());
  for (const auto& [key, value] : object.items()) {
    const auto row = std::ranges::find(known, key, &KnownKey::name);
    if (row == known.end()) {
      std::vector<std::string_view> names;
      for (const KnownKey& k : known) names.push_back(k.name);
      throw input_error(where,
                        names.size() > most_listed ? "keys that Lathe knows"
                                                   : fmt::format("one of {}", fmt::join(names, ", ")),
                        fmt::format("key '{}'", printable(key)));
    }
    if (!row->only.empty() && !value.is_null() && value.dump() != row->only)
      throw input_error(fmt::format("{}: key '{}'", where, key), row->only, printable(value.dump(), 80));
  }
}

}  // namespace lathe
