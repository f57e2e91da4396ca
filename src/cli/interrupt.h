// Ctrl-C leaves nothing half-made behind.
#pragma once

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

}  // namespace lathe
