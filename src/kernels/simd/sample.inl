// Passes over logits: see kernels/sample.h. NaN is never the largest, and reaches no bound.
#pragma once

#include "kernels/simd/exp.inl"

namespace lathe {
namespace {

float largest_of(const float* x, int64_t n) {
  V most[4];
  for (V& m : most) m = set(-__builtin_inff());
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes)
    for (int i = 0; i < 4; ++i) most[i] = larger(load(x + c + i * lanes), most[i]);
  float best = largest(larger(larger(most[0], most[1]), larger(most[2], most[3])));
  for (; c < n; ++c)
    if (x[c] > best) best = x[c];
  return best;
}

void exponentials(const ExponentialsArgs& a) {
  const V peak = set(a.largest), scale = set(a.scale), least = set(-87);
  for (int64_t c = 0; c < a.n; c += lanes) {
    const V x = mul(sub(load_n(a.x + c, a.n - c), peak), scale);
    store_n(a.out + c, where_at_least(x, least, exp(max(x, least))), a.n - c);
  }
}

Tail at_least(const float* x, int64_t n, float bound) {
  const V least = set(bound), one = set(1);
  Tail tail = {0, 0};
  for (int64_t c = 0; c < n;) {
    const int64_t end = c + tail_block < n ? c + tail_block : n;
    V sums[4], counts[4];
    for (int i = 0; i < 4; ++i) sums[i] = counts[i] = zero();
    const auto take = [&](V v, int i) {
      sums[i] = add(sums[i], where_at_least(v, least, v));
      counts[i] = add(counts[i], where_at_least(v, least, one));
    };
    for (; c + 4 * lanes <= end; c += 4 * lanes)
      for (int i = 0; i < 4; ++i) take(load(x + c + i * lanes), i);
    for (; c < end; c += lanes) take(load_n(x + c, end - c), 0);
    c = end;
    tail.sum += static_cast<double>(sum(add(add(sums[0], sums[1]), add(sums[2], sums[3]))));
    tail.count += static_cast<int64_t>(sum(add(add(counts[0], counts[1]), add(counts[2], counts[3]))));
  }
  return tail;
}

}  // namespace
}  // namespace lathe
