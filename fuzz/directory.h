// A folder of files that a target writes again for every input; in memory where the machine has that.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <optional>
#include <string_view>
#include <unistd.h>
#include <utility>

namespace lathe::fuzzing {

inline const std::filesystem::path& directory() {
  namespace fs = std::filesystem;
  static const fs::path path = [] {
    const fs::path out =
        fs::path(fs::exists("/dev/shm") ? "/dev/shm" : "/tmp") / fmt::format("lathe-fuzz-{}", getpid());
    fs::create_directories(out);
    std::atexit([] { fs::remove_all(directory()); });
    return out;
  }();
  return path;
}

// What stands before the first zero byte and behind it; nothing where there is none.
inline std::optional<std::pair<std::string_view, std::string_view>> halves(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = all.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  return std::pair(all.substr(0, end), all.substr(end + 1));
}

inline void put(const char* name, std::string_view contents) {
  std::ofstream(directory() / name, std::ios::binary) << contents;
}

}  // namespace lathe::fuzzing
