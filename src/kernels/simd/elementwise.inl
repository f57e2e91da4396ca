// Norms, rotary embedding and the pointwise ops. All bound by memory or cache; items are split so that one
// row of a decode step still feeds several workers.
#pragma once

#include "kernels/simd/exp.inl"

namespace lathe {
namespace {

float sum_of_squares(const float* x, int64_t n) {
  V s[4] = {zero(), zero(), zero(), zero()};
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes)
    for (int i = 0; i < 4; ++i) {
      const V v = load(x + c + i * lanes);
      s[i] = fma(v, v, s[i]);
    }
  for (; c < n; c += lanes) {
    const V v = load_n(x + c, n - c);
    s[0] = fma(v, v, s[0]);
  }
  return sum(add(add(s[0], s[1]), add(s[2], s[3])));
}

void normalize(const float* x, const float* weight, float* out, int64_t n, float eps) {
  const V scale = set(1.0f / __builtin_sqrtf(sum_of_squares(x, n) / static_cast<float>(n) + eps));
  for (int64_t c = 0; c < n; c += lanes)
    store_n(out + c, mul(mul(load_n(x + c, n - c), scale), load_n(weight + c, n - c)), n - c);
}

void rms_norm(const RmsNormArgs& a, const Share& share) {
  const int64_t runs = a.cols / a.width;
  const Range mine = part_of(a.rows * runs, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / runs, column = item % runs * a.width;
    normalize(a.x + row * a.x_stride + column, a.weight, a.out + row * a.out_stride + column, a.width, a.eps);
  }
}

void add_rms_norm(const AddRmsNormArgs& a, const Share& share) {
  const Range mine = part_of(a.rows, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const int64_t at = row * a.stride;
    for (int64_t c = 0; c < a.cols; c += lanes)
      store_n(a.sum + at + c, add(load_n(a.a + at + c, a.cols - c), load_n(a.b + at + c, a.cols - c)),
              a.cols - c);
    normalize(a.sum + at, a.weight, a.out + at, a.cols, a.eps);
  }
}

void rope(const RopeArgs& a, const Share& share) {
  const int64_t heads = a.cols / a.head_dim, half = a.head_dim / 2;
  const Range mine = part_of(a.rows * heads, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / heads, column = item % heads * a.head_dim;
    const float* x = a.x + row * a.x_stride + column;
    float* out = a.out + row * a.out_stride + column;
    for (int64_t d = 0; d < half; d += lanes) {
      const int64_t n = half - d;
      const V low = load_n(x + d, n), high = load_n(x + half + d, n);
      const V cos = load_n(a.cos + row * half + d, n), sin = load_n(a.sin + row * half + d, n);
      store_n(out + d, sub(mul(low, cos), mul(high, sin)), n);
      store_n(out + half + d, add(mul(high, cos), mul(low, sin)), n);
    }
  }
}

float dot(const float* x, const float* y, int64_t n) {
  V s[4] = {zero(), zero(), zero(), zero()};
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes)
    for (int i = 0; i < 4; ++i) s[i] = fma(load(x + c + i * lanes), load(y + c + i * lanes), s[i]);
  for (; c < n; c += lanes) s[0] = fma(load_n(x + c, n - c), load_n(y + c, n - c), s[0]);
  return sum(add(add(s[0], s[1]), add(s[2], s[3])));
}

// A few rows are shared out by columns: each worker then computes x A^T for itself, which costs less than
// waiting for another.
void low_rank(const LowRankArgs& a, const Share& share) {
  constexpr int64_t block = 64;
  const bool by_rows = a.rows >= 4 * share.workers;
  const int64_t blocks = (a.n + block - 1) / block;
  const Range rows = by_rows ? part_of(a.rows, share.worker, share.workers) : Range{0, a.rows};
  Range columns = by_rows ? Range{0, blocks} : part_of(blocks, share.worker, share.workers);
  columns = {columns.begin * block, columns.end * block < a.n ? columns.end * block : a.n};
  float* between = static_cast<float*>(share.scratch);
  for (int64_t row = rows.begin; row < rows.end && columns.begin < columns.end; ++row) {
    for (int64_t r = 0; r < a.rank; ++r)
      between[r] = a.scale * dot(a.x + row * a.x_stride, a.a + r * a.k, a.k);
    const float* base = a.base + row * a.out_stride;
    float* out = a.out + row * a.out_stride;
    for (int64_t c = columns.begin; c < columns.end; c += lanes) {
      V y = load_n(base + c, columns.end - c);
      for (int64_t r = 0; r < a.rank; ++r)
        y = fma(set(between[r]), load_n(a.b + r * a.n + c, columns.end - c), y);
      store_n(out + c, y, columns.end - c);
    }
  }
}

// One element at a time is as fast as the CPU's gathers.
void take_columns(const TakeColumnsArgs& a, const Share& share) {
  constexpr int64_t block = 512;
  const int64_t blocks = (a.cols + block - 1) / block;
  const Range mine = part_of(a.rows * blocks, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / blocks, begin = item % blocks * block;
    const int64_t n = begin + block < a.cols ? block : a.cols - begin;
    const float* x = a.x + row * a.x_stride;
    float* out = a.out + row * a.out_stride + begin;
    if (a.from)
      for (int64_t c = 0; c < n; ++c) out[c] = x[a.from[begin + c]];
    if (a.from && !a.scales) continue;
    const float* taken = a.from ? out : x + begin;
    for (int64_t c = 0; c < n; c += lanes) {
      const V v = load_n(taken + c, n - c);
      store_n(out + c, a.scales ? mul(v, load_n(a.scales + begin + c, n - c)) : v, n - c);
    }
  }
}

// f(a, b) on every element; `b` is not read where it is null.
template <class F>
void each_vector(const BinaryArgs& args, const Share& share, F f) {
  constexpr int64_t block = 512;
  const int64_t blocks = (args.cols + block - 1) / block;
  const Range mine = part_of(args.rows * blocks, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / blocks, begin = item % blocks * block;
    const int64_t end = begin + block < args.cols ? begin + block : args.cols;
    const float* a = args.a + row * args.a_stride;
    const float* b = args.b ? args.b + row * args.b_stride : nullptr;
    float* out = args.out + row * args.out_stride;
    for (int64_t c = begin; c < end; c += lanes) {
      const int64_t n = end - c;
      store_n(out + c, f(load_n(a + c, n), b ? load_n(b + c, n) : zero()), n);
    }
  }
}

void add_rows(const BinaryArgs& args, const Share& share) {
  each_vector(args, share, [](V a, V b) { return add(a, b); });
}
void mul_rows(const BinaryArgs& args, const Share& share) {
  each_vector(args, share, [](V a, V b) { return mul(a, b); });
}
void silu_rows(const BinaryArgs& args, const Share& share) {
  BinaryArgs one = args;
  one.b = nullptr;
  each_vector(one, share, [](V a, V) { return silu(a); });
}
void silu_mul_rows(const BinaryArgs& args, const Share& share) {
  each_vector(args, share, [](V a, V b) { return mul(silu(a), b); });
}
// NaN stays NaN: the second operand of min and max is what they give then.
void clamped_silu_mul_rows(const ClampedSiluArgs& args, const Share& share) {
  const V most = set(args.limit), least = set(-args.limit), alpha = set(args.alpha), one = set(1.0f);
  each_vector(args, share, [&](V a, V b) {
    const V gate = min(most, a), up = add(max(least, min(most, b)), one);
    return mul(div(gate, add(one, exp(mul(sub(zero(), alpha), gate)))), up);
  });
}

}  // namespace
}  // namespace lathe
