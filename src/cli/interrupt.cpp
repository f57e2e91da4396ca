#include "cli/interrupt.h"

#include <mutex>
#include <pthread.h>
#include <set>
#include <signal.h>
#include <thread>
#include <unistd.h>

namespace lathe {
namespace {

struct Registry {
  std::mutex mutex;
  std::set<fs::path> paths;
};

Registry& registry() {
  static auto* instance = new Registry;  // never destroyed: the signal thread may outlive main
  return *instance;
}

void wait_and_clean(sigset_t signals) {
  int signal = 0;
  if (::sigwait(&signals, &signal) != 0) return;
  const std::lock_guard lock(registry().mutex);
  std::error_code ignored;
  // Twice: the interrupted work may have made one more file between the two.
  for (int i = 0; i < 2; ++i)
    for (const fs::path& path : registry().paths) fs::remove_all(path, ignored);
  ::_exit(128 + signal);
}

}  // namespace

void handle_interrupts() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGINT);
  ::sigaddset(&signals, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited by every thread made later
  std::thread(wait_and_clean, signals).detach();
}

RemoveOnInterrupt::RemoveOnInterrupt(fs::path path) : path_(std::move(path)) {
  const std::lock_guard lock(registry().mutex);
  registry().paths.insert(path_);
}

RemoveOnInterrupt::~RemoveOnInterrupt() {
  const std::lock_guard lock(registry().mutex);
  registry().paths.erase(path_);
}

}  // namespace lathe
