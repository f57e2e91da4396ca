// How far a long job is, on stderr: a bar with ETA on a terminal, a plain line every few seconds elsewhere.
// Nothing is shown for jobs that end within two seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

class Progress {
 public:
  Progress(std::string what, int64_t total);
  ~Progress();  // clears the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(int64_t steps = 1, std::string_view detail = {});

 private:
  void show(std::string_view detail);
  std::string what_;
  int64_t total_, done_ = 0;
  bool terminal_, shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace lathe
