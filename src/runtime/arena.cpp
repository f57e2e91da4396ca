#include "runtime/arena.h"

#include <algorithm>
#include <numeric>

namespace lathe {

Placement place(std::span<const Lifetime> lifetimes) {
  auto padded = [&](size_t i) { return (lifetimes[i].bytes + 63) / 64 * 64; };
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  Placement out;
  out.offsets.resize(lifetimes.size());
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    size_t offset = 0;
    for (size_t other : placed) {
      const bool together =
          lifetimes[i].first <= lifetimes[other].last && lifetimes[other].first <= lifetimes[i].last;
      if (together && offset + padded(i) > out.offsets[other])
        offset = std::max(offset, out.offsets[other] + padded(other));
    }
    out.offsets[i] = offset;
    out.bytes = std::max(out.bytes, offset + padded(i));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [&](size_t o, size_t p) { return o < out.offsets[p]; }),
                  i);
  }
  return out;
}

}  // namespace lathe
