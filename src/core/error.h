// Errors that say where, what was expected, what was found, and what to do.
#pragma once

#include <fmt/format.h>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lathe {

// Something went wrong while doing the work: exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual int exit_code() const { return 1; }
};

// The caller's input is at fault (a file, a flag, a tensor): exit code 2. The message is one line.
class InputError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 2; }
};

// "model.safetensors: tensor 'x': expected shape [2, 3], found [3, 2]; re-export the checkpoint"
// `hint` may be empty. Control characters in the parts are escaped: they may come from a hostile file.
InputError input_error(std::string_view where, std::string_view expected, std::string_view found,
                       std::string_view hint = {});

// An invariant of our own is broken (never the user's fault).
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_input(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

// Text from a file made safe for one line of a terminal: control bytes and invalid UTF-8 become \xNN, long
// text is cut.
std::string printable(std::string_view text, size_t limit = 120);

}  // namespace lathe
