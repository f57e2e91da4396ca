// What several test folders share: where the fixtures are, and skipping what a bare clone does not have.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <string_view>

namespace lathe::testing_support {

inline std::filesystem::path source_dir() { return LATHE_SOURCE_DIR; }
inline std::filesystem::path golden(const std::string& name) {
  return source_dir() / "tests" / "golden" / name;
}
// The optional data folder beside a checkout; tests that need it skip without.
inline std::filesystem::path shared_data(const std::string& name) {
  return source_dir().parent_path() / "shared" / "data" / name;
}

inline std::string read_text_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Compares with a golden text file; with LATHE_UPDATE_GOLDEN=1 in the environment it writes the file instead.
inline void expect_golden(const std::filesystem::path& path, const std::string& text) {
  if (std::getenv("LATHE_UPDATE_GOLDEN")) std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(text, read_text_file(path)) << "LATHE_UPDATE_GOLDEN=1 accepts the change in " << path;
}

// A directory that vanishes with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lathe-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::filesystem::path put(std::string_view name, std::string_view contents) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << contents;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace lathe::testing_support

#define SKIP_WITHOUT(path)                                                        \
  do {                                                                            \
    if (!std::filesystem::exists(path)) GTEST_SKIP() << (path) << " is not here"; \
  } while (false)
