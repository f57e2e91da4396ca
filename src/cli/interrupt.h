// Ctrl-C leaves nothing half-made behind.
#pragma once

#include <functional>

#include "core/file.h"

namespace lathe {

// From now on SIGINT and SIGTERM are passed to a thread of their own, which removes what RemoveOnInterrupt
// names and ends the process with 128 + the signal.
void handle_interrupts();

// While it lives, an interrupt removes this path.
class RemoveOnInterrupt {
 public:
  explicit RemoveOnInterrupt(fs::path);
  ~RemoveOnInterrupt();
  RemoveOnInterrupt(const RemoveOnInterrupt&) = delete;
  RemoveOnInterrupt& operator=(const RemoveOnInterrupt&) = delete;

 private:
  fs::path path_;
};

// While it lives, the first interrupt calls `call`, on a thread of its own, and the process goes on: a server
// ends what is open. The second ends the process.
class OnInterrupt {
 public:
  explicit OnInterrupt(std::function<void()> call);
  ~OnInterrupt();
  OnInterrupt(const OnInterrupt&) = delete;
  OnInterrupt& operator=(const OnInterrupt&) = delete;
};

}  // namespace lathe
