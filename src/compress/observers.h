// Static scales of activations: what is seen of a layer's input, and a table of ways to choose from it how
// large a number the integers, or small floats, reach.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "quant/activation_numerics.h"

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
  // The magnitude that becomes the largest: 127, 448, or 6 * 448 of NVFP4 (largest_activation); 0 where all
  // is 0. `to` has a scale that is given.
  float (*limit)(const Magnitudes&, Activations to);
  bool integers_only = false;
};
std::span<const InputObserver> input_observers();
// InputError listing what there is.
const InputObserver& input_observer(std::string_view name);
// The scale of an input that was seen; 1 / largest_activation where it is all zeros, 0 where nothing was seen
// (an expert that no row was routed to). InputError where the observer is for integers only and `to` is
// floats.
float input_scale(const InputObserver&, const Magnitudes&, Activations to);

}  // namespace lathe
