// int4 over int8 groups for prompts: kernels/simd/int4.inl with the products of smmla. Sums of a group are
// exact and scales come in the same order, so the bits are those of every other ISA.
#include "kernels/neondot/dot.h"
#include "kernels/neoni8mm/neoni8mm.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/int4.inl"
// clang-format on

namespace lathe {
namespace {

// Results lie in squares of two rows of x and two of W, as smmla makes them.
template <class S, Kind kind>
struct Squares {
  static constexpr int R = 2, C = 4;  // squares at once: 16 sums of the 32 registers
  static constexpr int64_t block_rows = 2 * R, block_columns = 2 * C;
  using Body = Int4<S, kind>;
  Body body;

  explicit Squares(const LinearArgs& a) : body(a) {}

  static V twice_low(V v) { return vcombine_f32(vget_low_f32(v), vget_low_f32(v)); }
  static V twice_high(V v) { return vcombine_f32(vget_high_f32(v), vget_high_f32(v)); }
  static V two(float a, float b) { return vcombine_f32(vdup_n_f32(a), vdup_n_f32(b)); }

  // Rows of x from `row` times the rows of W from `column` of panel p.
  void block(int64_t row, int64_t p, int64_t column) const {
    const LinearArgs& a = body.a;
    const Int8Groups& x = body.x;
    const int64_t per_group = (a.group < a.k ? a.group : a.k) / x.columns;
    const char* codes = body.codes + p * x.count * Body::group_words * Body::word_row + column * 4;
    const int64_t scale_at = p * body.groups * Body::panel + column;
    int64_t at[block_rows];  // the last row stands in for those that do not exist
    for (int64_t r = 0; r < block_rows; ++r) at[r] = (row + r < a.m ? row + r : a.m - 1) * x.count;
    V sums[R][C];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) sums[r][v] = zero();
    for (int64_t g = 0, weight_group = 0; g < x.count; ++weight_group) {
      V scale[C], offset[C];
#pragma GCC unroll 2
      for (int half = 0; half < C / 2; ++half) {
        const int64_t s = scale_at + weight_group * Body::panel + half * lanes;
        const V four = load_as_f32(static_cast<const S*>(a.scales) + s);
        V shift = set(-8);
        if constexpr (kind == Kind::minimum)
          shift = load(static_cast<const float*>(a.zeros) + s);
        else if (a.zeros)
          shift = sub(shift, load_as_f32(static_cast<const int8_t*>(a.zeros) + s));
        scale[2 * half] = twice_low(four), scale[2 * half + 1] = twice_high(four);
        offset[2 * half] = twice_low(shift), offset[2 * half + 1] = twice_high(shift);
      }
      const int64_t end = x.count - g < per_group ? x.count : g + per_group;
      for (; g < end; ++g) {
        int32x4_t exact[R][C];
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < C; ++v) exact[r][v] = vdupq_n_s32(0);
        for (int w = 0; w < Body::group_words; ++w) {
          int8x16_t weights[C];
#pragma GCC unroll 2
          for (int half = 0; half < C / 2; ++half) {
            const I words = load_words(codes + (g * Body::group_words + w) * Body::word_row + half * 16);
            const I even = low_nibbles(words), odd = high_nibbles(words);
            weights[2 * half] = vreinterpretq_s8_u32(vzip1q_u32(even, odd));
            weights[2 * half + 1] = vreinterpretq_s8_u32(vzip2q_u32(even, odd));
          }
#pragma GCC unroll 2
          for (int r = 0; r < R; ++r) {
            const auto eight = [&](int i) {
              return vld1_s8(
                  reinterpret_cast<const int8_t*>(body.values + (at[2 * r + i] + g) * x.columns + w * 8));
            };
            const int8x16_t rows = vcombine_s8(eight(0), eight(1));
#pragma GCC unroll 4
            for (int v = 0; v < C; ++v) exact[r][v] = vmmlaq_s32(exact[r][v], rows, weights[v]);
          }
        }
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) {
          const int64_t first = at[2 * r] + g, second = at[2 * r + 1] + g;
          const V x_scale = two(body.x_scales[first], body.x_scales[second]),
                  x_sum =
                      two(static_cast<float>(body.x_sums[first]), static_cast<float>(body.x_sums[second]));
#pragma GCC unroll 4
          for (int v = 0; v < C; ++v) {
            V product = vcvtq_f32_s32(exact[r][v]);
            if constexpr (kind == Kind::minimum) {
              sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
              sums[r][v] = sub(sums[r][v], mul(mul(x_sum, x_scale), offset[v]));
            } else {
              product = fma(x_sum, offset[v], product);  // integers below 2^24: exact
              sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
            }
          }
        }
      }
    }
    float out[block_rows][block_columns];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < C; ++v) {
        vst1_f32(&out[2 * r][2 * v], vget_low_f32(sums[r][v]));
        vst1_f32(&out[2 * r + 1][2 * v], vget_high_f32(sums[r][v]));
      }
    for (int64_t v = 0; v < block_columns; v += lanes) {
      const int64_t to = p * Body::panel + column + v, left = a.n - to;
      if (left <= 0) break;
      const V bias = a.bias ? load_n(a.bias + to, left) : zero();
      for (int64_t r = 0; r < block_rows && row + r < a.m; ++r) {
        const V y = load(&out[r][v]);
        store_n(a.y + (row + r) * a.y_stride + to, a.bias ? add(y, bias) : y, left);
      }
    }
  }

  // A panel's weights stay in L1 for all rows.
  void run(Range mine) const {
    for (int64_t p = mine.begin; p < mine.end; ++p)
      for (int64_t row = 0; row < body.a.m; row += block_rows)
        for (int64_t column = 0; column < Body::panel; column += block_columns) block(row, p, column);
  }
};

template <class S, Kind kind>
void prompt(const LinearArgs& a, const Share& share) {
  Squares<S, kind>(a).run(part_of(ceil_div(a.n, pair), share.worker, share.workers));
}

}  // namespace

namespace neoni8mm {

void int4_bf16(const LinearArgs& a, const Share& s) noexcept { prompt<BF16, Kind::signed_codes>(a, s); }
void int4_f16(const LinearArgs& a, const Share& s) noexcept { prompt<F16, Kind::signed_codes>(a, s); }
void int4_f32(const LinearArgs& a, const Share& s) noexcept { prompt<float, Kind::signed_codes>(a, s); }
void int4_min(const LinearArgs& a, const Share& s) noexcept { prompt<float, Kind::minimum>(a, s); }

}  // namespace neoni8mm
}  // namespace lathe
