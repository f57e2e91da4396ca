#include "cli/interrupt.h"

#include <fcntl.h>
#include <mutex>
#include <set>
#include <signal.h>
#include <thread>
#include <unistd.h>

namespace lathe {
namespace {

struct Registry {
  std::mutex mutex;
  std::set<fs::path> paths;
  std::function<void()> call;
};

Registry& registry() {
  static auto* instance = new Registry;  // never destroyed: the signal thread may outlive main
  return *instance;
}

int to_cleaner = -1;  // the pipe's end that handlers write to

// On whichever thread the signal meets: libraries make theirs before main, where no mask reaches them.
void pass_on(int signal) {
  const auto byte = static_cast<unsigned char>(signal);
  [[maybe_unused]] const ssize_t written = ::write(to_cleaner, &byte, 1);
}

void wait_and_clean(int pipe) {
  unsigned char signal = 0;
  if (::read(pipe, &signal, 1) != 1) return;
  std::unique_lock asking(registry().mutex);
  const bool goes_on = static_cast<bool>(registry().call);
  if (goes_on) registry().call();
  asking.unlock();
  if (goes_on && ::read(pipe, &signal, 1) != 1) return;
  const std::lock_guard lock(registry().mutex);
  std::error_code ignored;
  // Twice: the interrupted work may have made one more file between the two.
  for (int i = 0; i < 2; ++i)
    for (const fs::path& path : registry().paths) fs::remove_all(path, ignored);
  ::_exit(128 + signal);
}

}  // namespace

void handle_interrupts() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;  // then interrupts end the process at once
  to_cleaner = ends[1];
  std::thread(wait_and_clean, ends[0]).detach();
  struct sigaction action {};
  action.sa_handler = pass_on;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &action, nullptr);
}

RemoveOnInterrupt::RemoveOnInterrupt(fs::path path) : path_(std::move(path)) {
  const std::lock_guard lock(registry().mutex);
  registry().paths.insert(path_);
}

RemoveOnInterrupt::~RemoveOnInterrupt() {
  const std::lock_guard lock(registry().mutex);
  registry().paths.erase(path_);
}

OnInterrupt::OnInterrupt(std::function<void()> call) {
  const std::lock_guard lock(registry().mutex);
  registry().call = std::move(call);
}

OnInterrupt::~OnInterrupt() {
  const std::lock_guard lock(registry().mutex);
  registry().call = {};
}

}  // namespace lathe
