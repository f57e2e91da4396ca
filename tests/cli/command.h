// Running the binary as a user does.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>
#include <string>
#include <sys/wait.h>

#include "core/json.h"
#include "support.h"

namespace lathe::testing_support {

struct Outcome {
  int exit_code = -1;
  std::string out, err;
  Json json() const { return Json::parse(out); }
  int64_t error_lines() const { return std::count(err.begin(), err.end(), '\n'); }
};

inline std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// `environment` ("NAME=value ...") and `arguments` go through the shell.
inline Outcome lathe_with(const std::string& environment, const std::string& arguments) {
  const TemporaryDirectory dir;
  const std::string out = (dir.path() / "out").string(), err = (dir.path() / "err").string();
  const int status = std::system(
      (environment + " " + quoted(LATHE_BINARY) + " " + arguments + " >" + quoted(out) + " 2>" + quoted(err))
          .c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text_file(out), read_text_file(err)};
}
inline Outcome lathe(const std::string& arguments) { return lathe_with("", arguments); }

inline std::string builtin() { return quoted((source_dir() / "models/builtin").string()); }
inline std::string heldout() { return quoted((source_dir() / "models/builtin/heldout.txt").string()); }

}  // namespace lathe::testing_support
