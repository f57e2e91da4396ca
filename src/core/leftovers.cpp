#include "core/leftovers.h"

#include <cerrno>
#include <charconv>
#include <fmt/format.h>
#include <signal.h>
#include <string>
#include <unistd.h>

namespace lathe {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view temporary = "tmp-", old = "old-";

// The process that `name` says it is of, 0 where it is no name of ours: `prefix` and a number, nothing else.
pid_t owner_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return 0;
  name.remove_prefix(prefix.size());
  pid_t owner = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), owner);
  return error == std::errc() && end == name.data() + name.size() && owner > 0 ? owner : 0;
}

bool is_gone(pid_t process) { return ::kill(process, 0) != 0 && errno == ESRCH; }

fs::path of_this_process(const fs::path& target, std::string_view kind) {
  return beside(target, fmt::format("{}{}", kind, ::getpid()));
}

}  // namespace

fs::path beside(const fs::path& target, std::string_view kind) {
  const fs::path named = target.has_filename() ? target : target.parent_path();
  return named.parent_path() / fmt::format(".{}.lathe-{}", named.filename().string(), kind);
}

fs::path temporary_beside(const fs::path& target) { return of_this_process(target, temporary); }
fs::path old_beside(const fs::path& target) { return of_this_process(target, old); }

void sweep_leftovers(const fs::path& target) {
  std::error_code ignored;
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  for (std::string_view kind : {temporary, old}) {
    const std::string prefix = beside(target, kind).filename().string();
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const pid_t owner = owner_of(entry.path().filename().string(), prefix);
      if (owner == 0 || !is_gone(owner)) continue;
      if (kind == old && !fs::exists(target))
        fs::rename(entry.path(), target, ignored);
      else
        fs::remove_all(entry.path(), ignored);
    }
  }
}

}  // namespace lathe
