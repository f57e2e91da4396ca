// Placing buffers with known lifetimes in one block of memory.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace lathe {

// A buffer is written at step `first` and read for the last time at step `last` (both inclusive).
struct Lifetime {
  int first = 0, last = 0;
  size_t bytes = 0;
};

struct Placement {
  std::vector<size_t> offsets;  // multiples of 64, one per lifetime
  size_t bytes = 0;             // of the whole block
};

// Largest first, each at the lowest offset that no buffer alive at the same time occupies ("greedy by size",
// Pisarchyk and Lee 2020). No two buffers that live together overlap.
Placement place(std::span<const Lifetime>);

}  // namespace lathe
