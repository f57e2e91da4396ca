// Static scales of activations: what is seen of a layer's input, and a table of ways to choose from it how
// large a number the integers reach.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"

namespace lathe {

// Of all elements of an input: magnitudes in bins of their upper 16 bits (128 to a doubling), and the largest
// of every `batch` tokens, in order.
struct Magnitudes {
  static constexpr int64_t batch = 256;
  std::vector<int64_t> counts;  // [32768]
  std::vector<float> maxima;

  // Rows [first, first + count) of x [.., cols]. Any number of threads, and any cut into calls, give the
  // same.
  void add(ThreadPool&, const float* x, int64_t first, int64_t count, int64_t cols);
  float most() const;
};

struct InputObserver {
  std::string_view name, summary;
  float (*limit)(const Magnitudes&);  // the magnitude that becomes 127; 0 where all is 0
};
std::span<const InputObserver> input_observers();
// InputError listing what there is.
const InputObserver& input_observer(std::string_view name);

}  // namespace lathe
