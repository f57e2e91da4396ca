#include "kernels/routing.h"

#include <cmath>
#include <cstring>

namespace lathe {
namespace {

void softmax(const float* x, float* out, int64_t n) {
  float largest = x[0];
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += out[i] = std::exp(x[i] - largest);
  for (int64_t i = 0; i < n; ++i) out[i] /= sum;
}

// All but the k largest become 0; of equals the first stays. Exactly k stay whatever the numbers are: buffers
// have room for no more.
void keep_largest(float* weights, int64_t n, int64_t k) {
  const auto above = [&](int64_t i, int64_t j) {  // NaN above all, so that it shows
    if (std::isnan(weights[i]) != std::isnan(weights[j])) return std::isnan(weights[i]);
    return weights[i] > weights[j] || (!(weights[i] < weights[j]) && i < j);
  };
  int64_t last = -1;  // the k-th: all that are below it go
  for (int64_t kept = 0; kept < k; ++kept) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i)
      if ((last < 0 || above(last, i)) && (best < 0 || above(i, best))) best = i;
    last = best;
  }
  for (int64_t i = 0; i < n; ++i)
    if (above(last, i)) weights[i] = 0;
}

}  // namespace

void route(const RouteArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const float* x = a.logits + row * a.experts;
    float* out = a.weights + row * a.experts;
    if (a.sigmoid)
      for (int64_t i = 0; i < a.experts; ++i) out[i] = 1 / (1 + std::exp(-x[i]));
    else
      softmax(x, out, a.experts);
    if (a.top_k < a.experts) keep_largest(out, a.experts, a.top_k);
    float sum = 1;
    if (a.normalize) {
      sum = 0;
      for (int64_t i = 0; i < a.experts; ++i) sum += out[i];
    }
    for (int64_t i = 0; i < a.experts; ++i)
      if (out[i] != 0) out[i] = out[i] / sum * a.scale;
  }
}

void take_rows(const TakeRowsArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t i = mine.begin; i < mine.end; ++i)
    std::memcpy(a.out + i * a.cols, a.x + a.from[i] * a.cols, static_cast<size_t>(a.cols) * sizeof(float));
}

void combine_rows(const CombineArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    float* out = a.out + row * a.cols;
    if (out != a.base + row * a.cols)
      std::memcpy(out, a.base + row * a.cols, static_cast<size_t>(a.cols) * sizeof(float));
    for (int32_t i = a.first[row]; i < a.first[row + 1]; ++i) {
      const float scale = a.scales[a.entries[i]];
      const float* y = a.y + a.entries[i] * a.cols;
      for (int64_t c = 0; c < a.cols; ++c) out[c] += scale * y[c];
    }
  }
}

}  // namespace lathe
