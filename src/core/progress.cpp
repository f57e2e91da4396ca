#include "core/progress.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

std::string duration(double s) {
  const int64_t t = static_cast<int64_t>(s + 0.5);
  return t >= 3600 ? fmt::format("{}h{:02}m", t / 3600, t / 60 % 60)
         : t >= 60 ? fmt::format("{}m{:02}s", t / 60, t % 60)
                   : fmt::format("{}s", t);
}

}  // namespace

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)),
      total_(std::max<int64_t>(total, 1)),
      terminal_(::isatty(STDERR_FILENO)),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (shown_ && terminal_) fmt::print(stderr, "\r\x1b[K");
}

void Progress::advance(int64_t steps, std::string_view detail) {
  done_ = std::min(total_, done_ + steps);
  const auto now = Clock::now();
  const double period = terminal_ ? 0.1 : 5.0;
  if (seconds_between(start_, now) < 2.0 || seconds_between(last_, now) < period) return;
  last_ = now;
  show(detail);
}

void Progress::show(std::string_view detail) {
  const double elapsed = seconds_between(start_, last_),
               fraction = static_cast<double>(done_) / static_cast<double>(total_);
  const std::string eta = fraction >= 1e-3 ? duration(elapsed * (1 - fraction) / fraction) : "?";
  if (terminal_) {
    constexpr int width = 24;
    const int full = static_cast<int>(fraction * width);
    fmt::print(stderr, "\r\x1b[K{} [{}{}] {:3.0f}%  ETA {}  {}", what_, std::string(full, '#'),
               std::string(width - full, '.'), fraction * 100, eta, detail);
    std::fflush(stderr);
  } else {
    fmt::print(stderr, "{}: {}/{} ({:.0f}%), ETA {}{}{}\n", what_, done_, total_, fraction * 100, eta,
               detail.empty() ? "" : ", ", detail);
  }
  shown_ = true;
}

}  // namespace lathe
