#include "core/leftovers.h"

#include <cerrno>
#include <cstdlib>
#include <signal.h>
#include <string>
#include <string_view>

namespace lathe {

namespace fs = std::filesystem;

void sweep_leftovers(const fs::path& target) {
  std::error_code ignored;
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const std::string stem = target.filename().string();
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    for (std::string_view kind : {".tmp-", ".old-"}) {
      const std::string prefix = stem + std::string(kind);
      if (!name.starts_with(prefix)) continue;
      const pid_t owner = static_cast<pid_t>(std::atol(name.c_str() + prefix.size()));
      if (owner <= 0 || (::kill(owner, 0) != 0 && errno == ESRCH)) {
        // A crash between the two renames of commit() leaves only the old directory: put it back.
        if (kind == ".old-" && !fs::exists(target))
          fs::rename(entry.path(), target, ignored);
        else
          fs::remove_all(entry.path(), ignored);
      }
    }
  }
}

}  // namespace lathe
