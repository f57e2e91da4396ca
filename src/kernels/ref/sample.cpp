// Passes over logits, one number after the other.
#include <cmath>

#include "kernels/ref/ref.h"

namespace lathe {

float largest_ref(const float* x, int64_t n) noexcept {
  float best = -INFINITY;
  for (int64_t i = 0; i < n; ++i)
    if (x[i] > best) best = x[i];
  return best;
}

void exponentials_ref(const ExponentialsArgs& a) noexcept {
  for (int64_t i = 0; i < a.n; ++i) {
    const float x = (a.x[i] - a.largest) * a.scale;
    a.out[i] = x >= -87 ? std::exp(x) : 0;
  }
}

Tail at_least_ref(const float* x, int64_t n, float bound) noexcept {
  Tail tail{0, 0};
  for (int64_t i = 0; i < n; ++i)
    if (x[i] >= bound) {
      ++tail.count;
      tail.sum += static_cast<double>(x[i]);
    }
  return tail;
}

}  // namespace lathe
