// Weights of 4 bits in integer dot products, rows of x rounded to int8 in groups of 32 columns. Sums of a
// group are exact, and scales come in one order, so a row's bits depend neither on the other rows nor on the
// ISA.
//
// In f32 vectors (linear.inl) the same weights take five operations per vector, and decode stopped at 72 % of
// the memory's bandwidth; here unpacking is one shift and two masks per 8 columns. (Tiles fed with unpacked
// bf16 reached 26 GB/s of 36: unpacking and tile loads did not overlap.)
#pragma once

#include "kernels/simd/packed_rows.h"

namespace lathe {
namespace {

enum class Kind { signed_codes, minimum };  // the code is u - 8, or u

template <class S, Kind kind>
struct Int4 {
  static constexpr int64_t panel = 32, word_row = 4 * panel;  // rows of W side by side; bytes of 8 columns
  static constexpr int panel_vectors = panel / lanes, group_words = 4;
  static constexpr int64_t read_ahead = 2048;
  const LinearArgs& a;
  Int8Groups x;
  const char *values, *codes;
  const float* x_scales;
  const int32_t* x_sums;
  int64_t groups;  // of weights, per row

  explicit Int4(const LinearArgs& args)
      : a(args),
        x(a.m, a.k),
        values(static_cast<const char*>(a.packed_x)),
        codes(static_cast<const char*>(a.codes)),
        x_scales(reinterpret_cast<const float*>(values + x.scales())),
        x_sums(reinterpret_cast<const int32_t*>(values + x.sums())),
        groups(ceil_div(a.k, a.group)) {}

  // Of several passes over the same panel, each prefetches its part of the next one: else memory would rest
  // in all but the first.
  struct Ahead {
    const char* next;
    int64_t passes, turn = 0;
    void group() {
      if (++turn < passes) return;
      turn = 0;
#pragma GCC unroll 8
      for (int64_t line = 0; line < group_words * word_row; line += 64) __builtin_prefetch(next + line);
      next += group_words * word_row;
    }
  };

  // Panels from `first`, so many `apart`.
  struct Panels {
    int64_t first, apart, count;
  };

  // R rows of x from `row` times C vectors of rows of W: those from `first` of the panels.
  template <int R, int C>
  void block(int64_t row, const Panels& panels, int64_t first, Ahead& ahead) const {
    V sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sums[r][v] = zero();
    const int64_t panel_bytes = x.count * group_words * word_row,
                  per_group = (a.group < a.k ? a.group : a.k) / x.columns;
    const char* from[C];
    int64_t scale_at[C];
    for (int v = 0; v < C; ++v) {
      const int64_t in = panels.first + (first + v) / panel_vectors * panels.apart,
                    lane = (first + v) % panel_vectors * lanes;
      from[v] = codes + in * panel_bytes + lane * 4;
      scale_at[v] = in * groups * panel + lane;
    }
    for (int64_t g = 0, weight_group = 0; g < x.count; ++weight_group) {
      V scale[C], offset[C];  // minima, or zero points
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        const int64_t at = scale_at[v] + weight_group * panel;
        scale[v] = load_as_f32(static_cast<const S*>(a.scales) + at);
        if constexpr (kind == Kind::minimum)
          offset[v] = load(static_cast<const float*>(a.zeros) + at);
        else
          offset[v] = a.zeros ? load_as_f32(static_cast<const int8_t*>(a.zeros) + at) : zero();
      }
      const int64_t end = x.count - g < per_group ? x.count : g + per_group;
      for (; g < end; ++g) {
        if (ahead.passes) ahead.group();
        I exact[R][C];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) exact[r][v] = set_words(0);
#pragma GCC unroll 4
        for (int w = 0; w < group_words; ++w) {
          I even[C], odd[C];
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            const char* at = from[v] + (g * group_words + w) * word_row;
            if (ahead.passes == 0 && v * lanes % 16 == 0) __builtin_prefetch(at + read_ahead);
            const I words = load_words(at);
            even[v] = low_nibbles(words);
            odd[v] = high_nibbles(words);
          }
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const char* eight = values + ((row + r) * x.count + g) * x.columns + w * 8;
            const I x_even = broadcast_word(eight), x_odd = broadcast_word(eight + 4);
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v)
              exact[r][v] = small_dot(small_dot(exact[r][v], even[v], x_even), odd[v], x_odd);
          }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const int64_t at = (row + r) * x.count + g;
          const V x_scale = set(x_scales[at]);
          const I x_sum = set_words(x_sums[at]), eights = set_words(-8 * x_sums[at]);
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            const I total = small_total(exact[r][v]);
            if constexpr (kind == Kind::minimum) {
              sums[r][v] = fma(mul(words_to_f32(total), x_scale), scale[v], sums[r][v]);
              sums[r][v] = sub(sums[r][v], mul(mul(words_to_f32(x_sum), x_scale), offset[v]));
            } else {  // integers below 2^24: exact
              V product = words_to_f32(add_words(total, eights));
              if (a.zeros) product = sub(product, mul(words_to_f32(x_sum), offset[v]));
              sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
            }
          }
        }
      }
    }
    for (int v = 0; v < C; ++v) {
      const int64_t column = (panels.first + (first + v) / panel_vectors * panels.apart) * panel +
                             (first + v) % panel_vectors * lanes,
                    left = a.n - column;
      if (left <= 0) break;
      for (int r = 0; r < R; ++r) {
        const V y = a.bias ? add(sums[r][v], load_n(a.bias + column, left)) : sums[r][v];
        store_n(a.y + (row + r) * a.y_stride + column, y, left);
      }
    }
  }

  template <int R>
  void blocks(int64_t row, const Panels& panels, Ahead& ahead) const {
    constexpr int C = small_vectors(R);
    const int64_t vectors = panels.count * panel_vectors;
    int64_t v = 0;
    for (; v + C <= vectors; v += C) block<R, C>(row, panels, v, ahead);
    if constexpr (C > panel_vectors)
      if (v < vectors) block<R, panel_vectors>(row, panels, v, ahead);
  }

  void rows(const Panels& panels) const {
    const int64_t passes = ceil_div(a.m, small_rows), most = ceil_div(a.m, passes),
                  walks = passes * (panel_vectors / small_vectors(static_cast<int>(most)));
    Ahead ahead{codes + (panels.first + 1) * x.count * group_words * word_row, passes > 1 ? walks : 0};
    for (int64_t row = 0; row < a.m;) {
      const int64_t left = a.m - row, now = ceil_div(left, ceil_div(left, small_rows));  // 8 rows are 4 + 4
      if (now == 1) blocks<1>(row, panels, ahead);
      if (now == 2) blocks<2>(row, panels, ahead);
      if (now == 3) blocks<3>(row, panels, ahead);
      if (now == 4) blocks<4>(row, panels, ahead);
      if constexpr (small_rows > 4) {
        if (now == 5) blocks<5>(row, panels, ahead);
        if (now == 6) blocks<6>(row, panels, ahead);
      }
      row += now;
    }
  }

  // One and two rows may read two panels at a time: two streams keep more of the memory's bandwidth than one.
  // Each goes through a part of its own: what it prefetches at a panel's end is what it reads next.
  void run(Range mine) const {
    constexpr int64_t wide = small_vectors(1) > panel_vectors ? small_vectors(1) / panel_vectors : 1;
    const int64_t streams = a.m <= 2 ? wide : 1, apart = (mine.end - mine.begin) / streams;
    for (int64_t i = 0; i < apart; ++i) rows({mine.begin + i, apart, streams});
    for (int64_t p = mine.begin + streams * apart; p < mine.end; ++p) rows({p, 0, 1});
  }
};

template <class S, Kind kind>
void int4(const LinearArgs& a, const Share& share) {
  Int4<S, kind>(a).run(part_of(ceil_div(a.n, pair), share.worker, share.workers));
}

}  // namespace
}  // namespace lathe
