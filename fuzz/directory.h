// A folder of files that a target writes again for every input; in memory where the machine has that.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <string_view>
#include <unistd.h>

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

inline void put(const char* name, std::string_view contents) {
  std::ofstream(directory() / name, std::ios::binary) << contents;
}

}  // namespace lathe::fuzzing
