// y = x W^T + bias over row-major elements where they lie, in a mapped file as in memory: nothing is repacked
// or copied. For few rows of x (decode): bound by memory.
//
// Each y is the sum of 2 x 16 fma chains in a fixed order, so a row's bits do not depend on the other rows or
// on the workers. For few rows of x the rows of W are read one after the other: on the machine of
// docs/measurements.md one stream per thread reads 36 GB/s, two rows side by side 30, four 29. For more the
// fma units are what counts, and two rows of W share every load of x.
#include "kernels/amx/amx.h"
#include "kernels/avx512/vec.h"

namespace lathe::amx {
namespace {

constexpr int chains = 2, step = chains * lanes;
constexpr int read_ahead = 3072;      // bytes: 25 GB/s become 35
constexpr int most = 6;               // rows of x in registers at once
constexpr int64_t most_streamed = 4;  // rows of x up to which W is read row by row

// As many elements of the last columns as there are, and zeros.
template <class T>
struct Tail {
  T elements[step] = {};
  Tail(const T* from, int64_t n) { __builtin_memcpy(elements, from, static_cast<size_t>(n) * sizeof(T)); }
};

// Rows [row, row + R) of x, rows [column, column + W) of W.
template <int R, int W, class T>
void block(const LinearArgs& a, int64_t row, int64_t column) {
  const T* w = static_cast<const T*>(a.codes) + column * a.k;
  const float* x = a.x + row * a.x_stride;
  const int64_t k = a.k, x_stride = a.x_stride;
  V sums[R][W][chains];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < W; ++j)
#pragma GCC unroll 2
      for (int i = 0; i < chains; ++i) sums[r][j][i] = zero();
  int64_t c = 0;
  for (; c + step <= k; c += step) {
#pragma GCC unroll 2
    for (int j = 0; j < W; ++j)  // past the end of this row lies the next one
#pragma GCC unroll 2
      for (size_t b = 0; b < step * sizeof(T); b += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(w + j * k + c) + b + read_ahead);
#pragma GCC unroll 2
    for (int i = 0; i < chains; ++i) {
      V weights[W];
#pragma GCC unroll 2
      for (int j = 0; j < W; ++j) weights[j] = load_as_f32(w + j * k + c + i * lanes);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const V v = load(x + r * x_stride + c + i * lanes);
#pragma GCC unroll 2
        for (int j = 0; j < W; ++j) sums[r][j][i] = fma(v, weights[j], sums[r][j][i]);
      }
    }
  }
  if (c < k)
    for (int j = 0; j < W; ++j) {
      const Tail<T> tail(w + j * k + c, k - c);
      for (int i = 0; i < chains; ++i) {
        const V weights = load_as_f32(tail.elements + i * lanes);
        const int64_t left = k - c - i * lanes;
        for (int r = 0; r < R; ++r)
          sums[r][j][i] = fma(load_n(x + r * x_stride + c + i * lanes, left), weights, sums[r][j][i]);
      }
    }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < W; ++j)
      a.y[(row + r) * a.y_stride + column + j] =
          sum(add(sums[r][j][0], sums[r][j][1])) + (a.bias ? a.bias[column + j] : 0.0f);
}

template <int W, class T>
void all_rows(const LinearArgs& a, int64_t column) {
  for (int64_t row = 0; row < a.m;) {  // in a second pass these rows of W are still in cache
    const int64_t left = a.m - row, passes = (left + most - 1) / most, now = (left + passes - 1) / passes;
    if (now == 1) block<1, W, T>(a, row, column);
    if (now == 2) block<2, W, T>(a, row, column);
    if (now == 3) block<3, W, T>(a, row, column);
    if (now == 4) block<4, W, T>(a, row, column);
    if (now == 5) block<5, W, T>(a, row, column);
    if (now == 6) block<6, W, T>(a, row, column);
    row += now;
  }
}

template <class T>
void rows(const LinearArgs& a, const Share& share) {
  const Range mine = part_of(a.n, share.worker, share.workers);
  int64_t column = mine.begin;
  if (a.m > most_streamed)
    for (; column + 2 <= mine.end; column += 2) all_rows<2, T>(a, column);
  for (; column < mine.end; ++column) all_rows<1, T>(a, column);
}

}  // namespace

void rows_f32(const LinearArgs& a, const Share& s) noexcept { rows<float>(a, s); }
void rows_bf16(const LinearArgs& a, const Share& s) noexcept { rows<BF16>(a, s); }
void rows_f16(const LinearArgs& a, const Share& s) noexcept { rows<F16>(a, s); }

}  // namespace lathe::amx
