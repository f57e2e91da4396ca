// How much reading under a grammar may still cost. Grammars are others', and some are written to be slow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lathe::grammar {

// In steps of about 10 ns: a byte read from a known state, or eight bytes of what is remembered. So it bounds
// memory as well as time, and the same grammar and text are refused on every machine.
class Work {
 public:
  Work() = default;  // as much as there is
  explicit Work(int64_t most) : most_(most), left_(most) {}

  void spend(size_t steps) {
    left_ -= static_cast<int64_t>(steps);
    if (left_ < 0) refuse();
  }
  void refill(int64_t steps) { left_ = left_ < most_ - steps ? left_ + steps : most_; }

 private:
  [[noreturn]] void refuse() const;  // InputError

  int64_t most_ = INT64_MAX, left_ = INT64_MAX;
};

}  // namespace lathe::grammar
