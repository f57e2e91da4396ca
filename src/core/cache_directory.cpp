#include "core/cache_directory.h"

#include <cstdlib>

namespace lathe {

std::filesystem::path cache_directory() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value ? value : "");
  };
  if (const auto own = variable("LATHE_CACHE"); !own.empty()) return own;
  // The XDG specification: relative paths are to be ignored.
  if (const auto xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "lathe";
  if (const auto home = variable("HOME"); home.is_absolute()) return home / ".cache" / "lathe";
  return {};
}

}  // namespace lathe
