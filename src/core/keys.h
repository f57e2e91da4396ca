// Which keys an object that others wrote may have: unknown ones are errors, never skipped.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>

#include "core/json.h"

namespace lathe {

struct KnownKey {
  // NOLINTNEXTLINE(google-explicit-constructor): tables and lists of plain names
  constexpr KnownKey(const char* key, std::string_view value = {}) : name(key), only(value) {}

  std::string_view name;
  // The one value, as JSON, that it may have besides null: another would change what is computed. Empty:
  // whoever reads the object looks at it, or nothing depends on it.
  std::string_view only;
};

// InputError naming the key when it is not known, or has another value than its only one.
void check_keys(const Json& object, std::span<const KnownKey> known, std::string_view where);
inline void check_keys(const Json& object, std::initializer_list<KnownKey> known, std::string_view where) {
  check_keys(object, std::span(known.begin(), known.size()), where);
}

}  // namespace lathe
