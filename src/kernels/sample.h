// Passes over the logits of one token, some 150,000 of them: what choosing a token spends its time on. Each
// is one call by one thread: a row of that size lies in cache, and a pass takes microseconds.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace lathe {

// out = exp((x - largest) * scale); 0 where that would be below exp(-87), whose multiples are still normal
// numbers, and where x is NaN.
struct ExponentialsArgs {
  const float* x;
  float* out;
  int64_t n;
  float largest, scale;
};

// The numbers that reach a bound: how many, and their sum. Summed in f32 over blocks of tail_block, and the
// blocks in double: within 4096 / 16 + 8 units of roundoff.
struct Tail {
  int64_t count;
  double sum;
};
inline constexpr int64_t tail_block = 4096;

}  // namespace lathe
