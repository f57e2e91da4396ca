// Norms, rotary embedding and the pointwise ops, one row at a time.
#include <algorithm>
#include <cmath>

#include "kernels/clamped_silu.h"
#include "kernels/ref/ref.h"

namespace lathe {
namespace {

// The mean is summed in double: the definition is a plain f32 mean, which frameworks compute as a tree of
// partial sums; a single f32 chain would be further from the true mean than any of them, and the error would
// scale a whole row.
float inverse_rms(const float* x, int64_t n, float eps) {
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  return 1.0f / std::sqrt(static_cast<float>(sum / static_cast<double>(n)) + eps);
}

float silu(float x) { return x / (1.0f + std::exp(-x)); }

template <class F>
void each_element(const BinaryArgs& a, const Share& share, F f) {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t c = 0; c < a.cols; ++c) a.out[row * a.out_stride + c] = f(row, c);
}

}  // namespace

void rms_norm_ref(const RmsNormArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t run = 0; run < a.cols; run += a.width) {
      const float* x = a.x + row * a.x_stride + run;
      float* out = a.out + row * a.out_stride + run;
      const float scale = inverse_rms(x, a.width, a.eps);
      for (int64_t c = 0; c < a.width; ++c) out[c] = x[c] * scale * a.weight[c];
    }
}

void add_rms_norm_ref(const AddRmsNormArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const int64_t at = row * a.stride;
    for (int64_t c = 0; c < a.cols; ++c) a.sum[at + c] = a.a[at + c] + a.b[at + c];
    const float scale = inverse_rms(a.sum + at, a.cols, a.eps);
    for (int64_t c = 0; c < a.cols; ++c) a.out[at + c] = a.sum[at + c] * scale * a.weight[c];
  }
}

void rope_ref(const RopeArgs& a, const Share& share) noexcept {
  const int64_t half = a.head_dim / 2;
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t head = 0; head < a.cols; head += a.head_dim)
      for (int64_t d = 0; d < half; ++d) {
        const float* x = a.x + row * a.x_stride + head;
        float* out = a.out + row * a.out_stride + head;
        const float low = x[d], high = x[d + half];
        const float cos = a.cos[row * half + d], sin = a.sin[row * half + d];
        out[d] = low * cos - high * sin;
        out[d + half] = high * cos + low * sin;
      }
}

void low_rank_ref(const LowRankArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  float* between = static_cast<float*>(share.scratch);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const float* x = a.x + row * a.x_stride;
    for (int64_t r = 0; r < a.rank; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < a.k; ++c) sum += x[c] * a.a[r * a.k + c];
      between[r] = a.scale * sum;
    }
    for (int64_t c = 0; c < a.n; ++c) {
      float y = a.base[row * a.out_stride + c];
      for (int64_t r = 0; r < a.rank; ++r) y += between[r] * a.b[r * a.n + c];
      a.out[row * a.out_stride + c] = y;
    }
  }
}

void hadamard_ref(const HadamardArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  const float scale = 1.0f / std::sqrt(static_cast<float>(a.size));
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t run = 0; run < a.cols; run += a.size) {
      float* out = a.out + row * a.out_stride + run;
      for (int64_t c = 0; c < a.size; ++c) out[c] = a.x[row * a.x_stride + run + c] * scale;
      for (int64_t apart = 1; apart < a.size; apart *= 2)
        for (int64_t begin = 0; begin < a.size; begin += 2 * apart)
          for (int64_t c = begin; c < begin + apart; ++c) {
            const float low = out[c], high = out[c + apart];
            out[c] = low + high;
            out[c + apart] = low - high;
          }
    }
}

void take_columns_ref(const TakeColumnsArgs& a, const Share& share) noexcept {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t c = 0; c < a.cols; ++c)
      a.out[row * a.out_stride + c] =
          a.x[row * a.x_stride + (a.from ? a.from[c] : c)] * (a.scales ? a.scales[c] : 1);
}

void add_ref(const BinaryArgs& a, const Share& share) noexcept {
  each_element(a, share,
               [&](int64_t r, int64_t c) { return a.a[r * a.a_stride + c] + a.b[r * a.b_stride + c]; });
}

void mul_ref(const BinaryArgs& a, const Share& share) noexcept {
  each_element(a, share,
               [&](int64_t r, int64_t c) { return a.a[r * a.a_stride + c] * a.b[r * a.b_stride + c]; });
}

void silu_ref(const BinaryArgs& a, const Share& share) noexcept {
  each_element(a, share, [&](int64_t r, int64_t c) { return silu(a.a[r * a.a_stride + c]); });
}

void silu_mul_ref(const BinaryArgs& a, const Share& share) noexcept {
  each_element(a, share,
               [&](int64_t r, int64_t c) { return silu(a.a[r * a.a_stride + c]) * a.b[r * a.b_stride + c]; });
}

void clamped_silu_mul_ref(const ClampedSiluArgs& a, const Share& share) noexcept {
  each_element(a, share, [&](int64_t r, int64_t c) {
    const float gate = std::min(a.a[r * a.a_stride + c], a.limit),
                up = std::clamp(a.b[r * a.b_stride + c], -a.limit, a.limit);
    return gate / (1 + std::exp(-a.alpha * gate)) * (up + 1);
  });
}

}  // namespace lathe
