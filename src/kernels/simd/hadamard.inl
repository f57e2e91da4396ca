// The fast Walsh-Hadamard transform of runs: x H / sqrt(size), in log2(size) rounds of sums and differences
// of numbers 1, 2, 4, ... apart. The first rounds take partners within a vector, the next between vectors
// that are held in registers, the rest three rounds to a pass through the cache. The rounds are in the
// reference's order and each result rounds once, so its bits are the same on every ISA level.
#pragma once

namespace lathe {
namespace {

constexpr int most_held = lanes == 8 ? 8 : 16;  // vectors, of the registers that there are

// Lane i of round `apart`: minus where the partner comes before it.
alignas(64) constexpr float partner_signs[4][16] = {
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
    {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
    {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
    {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1},
};

template <int apart>
V round_within(V v) {
  constexpr int at = apart == 1 ? 0 : apart == 2 ? 1 : apart == 4 ? 2 : 3;
  return fma(v, load(partner_signs[at]), swap_lanes<apart>(v));
}

V rounds_within(V v) {
  v = round_within<2>(round_within<1>(v));
  if constexpr (lanes > 4) v = round_within<4>(v);
  if constexpr (lanes > 8) v = round_within<8>(v);
  return v;
}

// All rounds among `count` vectors.
template <int count>
void rounds_between(V* v) {
#pragma GCC unroll 4
  for (int apart = 1; apart < count; apart *= 2)
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) {
      if ((i & apart) != 0) continue;
      const V low = v[i], high = v[i + apart];
      v[i] = add(low, high);
      v[i + apart] = sub(low, high);
    }
}

template <int count>
void first_rounds(const float* x, float* out, V scale) {
  V v[count];
#pragma GCC unroll 16
  for (int i = 0; i < count; ++i) v[i] = rounds_within(mul(load(x + i * lanes), scale));
  rounds_between<count>(v);
#pragma GCC unroll 16
  for (int i = 0; i < count; ++i) store(out + i * lanes, v[i]);
}

// Rounds `apart`, 2 `apart`, ... of one pass: as many as `count` has factors of two.
template <int count>
void later_rounds(float* x, int64_t n, int64_t apart) {
  for (int64_t begin = 0; begin < n; begin += apart * count)
    for (int64_t c = begin; c < begin + apart; c += lanes) {
      V v[count];
#pragma GCC unroll 8
      for (int i = 0; i < count; ++i) v[i] = load(x + c + i * apart);
      rounds_between<count>(v);
#pragma GCC unroll 8
      for (int i = 0; i < count; ++i) store(x + c + i * apart, v[i]);
    }
}

// Runs shorter than a vector.
void transform_few(const float* x, float* out, int64_t n, float scale) {
  for (int64_t c = 0; c < n; ++c) out[c] = x[c] * scale;
  for (int64_t apart = 1; apart < n; apart *= 2)
    for (int64_t begin = 0; begin < n; begin += 2 * apart)
      for (int64_t c = begin; c < begin + apart; ++c) {
        const float low = out[c], high = out[c + apart];
        out[c] = low + high;
        out[c + apart] = low - high;
      }
}

void transform(const float* x, float* out, int64_t n) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(n));
  if (n < lanes) return transform_few(x, out, n, scale);
  const int64_t held = n < most_held * lanes ? n : most_held * lanes;
  const auto first = held == lanes       ? first_rounds<1>
                     : held == 2 * lanes ? first_rounds<2>
                     : held == 4 * lanes ? first_rounds<4>
                     : held == 8 * lanes ? first_rounds<8>
                                         : first_rounds<most_held>;
  for (int64_t c = 0; c < n; c += held) first(x + c, out + c, set(scale));
  for (int64_t apart = held; apart < n;) {
    const int64_t left = n / apart, count = left < 8 ? left : 8;
    (left == 2 ? later_rounds<2> : left == 4 ? later_rounds<4> : later_rounds<8>)(out, n, apart);
    apart *= count;
  }
}

void hadamard(const HadamardArgs& a, const Share& share) {
  const int64_t runs = a.cols / a.size;
  const Range mine = part_of(a.rows * runs, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / runs, column = item % runs * a.size;
    transform(a.x + row * a.x_stride + column, a.out + row * a.out_stride + column, a.size);
  }
}

}  // namespace
}  // namespace lathe
