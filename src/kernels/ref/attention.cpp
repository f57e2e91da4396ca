// softmax(scale * q k^T) v over the keys that a query sees, one query and one head at a time.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ref/ref.h"

namespace lathe {

void attention_ref(const AttentionArgs& a, const Share& share) noexcept {
  const int64_t heads_per_kv = a.heads / a.kv_heads;
  std::vector<float> weights(static_cast<size_t>(a.keys));
  const Range mine = part_of(a.rows * a.heads, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / a.heads, head = item % a.heads, kv_head = head / heads_per_kv;
    const int64_t position = a.first + row;
    const int64_t begin = a.window == 0 ? 0 : std::max<int64_t>(0, position - a.window + 1),
                  end = position + 1;
    const float* q = a.q + row * a.q_stride + head * a.head_dim;

    float largest = -INFINITY;
    for (int64_t j = begin; j < end; ++j) {
      const float* k = a.k + j * a.kv_stride + kv_head * a.kv_head_stride;
      float score = 0;
      for (int64_t d = 0; d < a.head_dim; ++d) score += q[d] * k[d];
      weights[static_cast<size_t>(j)] = score * a.scale;
      largest = std::max(largest, weights[static_cast<size_t>(j)]);
    }
    float total = 0;
    for (int64_t j = begin; j < end; ++j) {
      float& w = weights[static_cast<size_t>(j)];
      w = std::exp(w - largest);
      total += w;
    }
    float* out = a.out + row * a.out_stride + head * a.head_dim;
    std::fill(out, out + a.head_dim, 0.0f);
    for (int64_t j = begin; j < end; ++j) {
      const float* v = a.v + j * a.kv_stride + kv_head * a.kv_head_stride;
      for (int64_t d = 0; d < a.head_dim; ++d) out[d] += weights[static_cast<size_t>(j)] * v[d];
    }
    for (int64_t d = 0; d < a.head_dim; ++d) out[d] /= total;
  }
}

}  // namespace lathe
