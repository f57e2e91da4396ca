// Weights of 4 bits in integer dot products, rows of x rounded to int8 in groups of 32 columns. Sums of a
// group are exact, and scales come in one order, so a row's bits depend neither on the other rows nor on the
// ISA.
//
// In f32 vectors (linear.inl) the same weights take five operations per vector, and decode stopped at 72 % of
// the memory's bandwidth; here unpacking is one shift and two masks per 8 columns. (Tiles fed with unpacked
// bf16 reached 26 GB/s of 36: unpacking and tile loads did not overlap.)
#pragma once

#include "kernels/simd/exp.inl"
#include "kernels/simd/row_blocks.inl"

namespace lathe {
namespace {

enum class Kind {
  signed_codes,
  zero_points,
  minimum
};  // the code is u - 8, with zero points or without, or u

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

  // Of several walks over the same panel, each prefetches its part of the next one: else memory would rest in
  // all but the first.
  static constexpr int64_t group_lines = group_words * word_row / 64;
  struct Ahead {
    const char* next;
    int64_t walks, groups, walk = 0;  // none: nobody else reads the panel
    struct Part {
      const char* from;
      int64_t lines;  // for each group that is read
    };
    Part part() {
      const int64_t each = walks == 0 ? 0 : ceil_div(group_lines, walks), before = walk++ * each,
                    left = group_lines - before;
      return {next + before * groups * 64, left < 0 ? 0 : left < each ? left : each};
    }
  };

  // Panels from `first`, so many `apart`.
  struct Panels {
    int64_t first, apart, count;
  };

  // Of y from a row and a column on.
  struct Out {
    float* y;
    int64_t stride, row = 0, column = 0;
    float* at(int64_t r, int64_t c) const { return y + (r - row) * stride + c - column; }
  };

  // R rows of x from `row` times C vectors of rows of W: those from `first` of the panels.
  template <int R, int C>
  void block(int64_t row, const Panels& panels, int64_t first, const Out& out, Ahead& ahead) const {
    const auto [next, lines] = ahead.part();
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
      V scale[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v)
        scale[v] = load_as_f32(static_cast<const S*>(a.scales) + scale_at[v] + weight_group * panel);
      const int64_t end = x.count - g < per_group ? x.count : g + per_group;
      for (; g < end; ++g) {
        if (ahead.walks == 0) {
#pragma GCC unroll 4
          for (int w = 0; w < group_words; ++w)
#pragma GCC unroll 8
            for (int v = 0; v < C; v += lanes < 16 ? 16 / lanes : 1)
              __builtin_prefetch(from[v] + (g * group_words + w) * word_row + read_ahead);
        }
#pragma GCC unroll 1
        for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(next + (g * lines + line) * 64);
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
            const I words = load_words(from[v] + (g * group_words + w) * word_row);
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
          const I x_sum = set_words(x_sums[at]);
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            const I total = small_total(exact[r][v]);
            const int64_t offset = scale_at[v] + weight_group * panel;
            if constexpr (kind == Kind::minimum) {
              sums[r][v] = fma(mul(words_to_f32(total), x_scale), scale[v], sums[r][v]);
              const V minimum = load(static_cast<const float*>(a.zeros) + offset);
              sums[r][v] = sub(sums[r][v], mul(mul(words_to_f32(x_sum), x_scale), minimum));
            } else {  // integers below 2^24: exact
              V product = words_to_f32(less_eights(total, x_sums[at]));
              if constexpr (kind == Kind::zero_points) {
                const V zero_point = load_as_f32(static_cast<const int8_t*>(a.zeros) + offset);
                product = sub(product, mul(words_to_f32(x_sum), zero_point));
              }
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
        store_n(out.at(row + r, column), y, left);
      }
    }
  }

  template <int R>
  void blocks(int64_t row, const Panels& panels, const Out& out, Ahead& ahead) const {
    constexpr int C = small_vectors(R);
    const int64_t vectors = panels.count * panel_vectors;
    int64_t v = 0;
    for (; v + C <= vectors; v += C) block<R, C>(row, panels, v, out, ahead);
    if constexpr (C > panel_vectors)
      if (v < vectors) block<R, panel_vectors>(row, panels, v, out, ahead);
  }

  // Rows [begin, end) of x.
  void rows(const Panels& panels, int64_t begin, int64_t end, const Out& out) const {
    const int64_t passes = ceil_div(end - begin, small_rows), most = ceil_div(end - begin, passes),
                  walks = passes * (panel_vectors / small_vectors(static_cast<int>(most)));
    Ahead ahead{codes + (panels.first + 1) * x.count * group_words * word_row, passes > 1 ? walks : 0,
                x.count};
    each_tile<small_rows>(begin, end, [&](auto rows_of, int64_t row) {
      blocks<decltype(rows_of)::value>(row, panels, out, ahead);
    });
  }

  // One and two rows may read two panels at a time: two streams keep more of the memory's bandwidth than one.
  // Each goes through a part of its own: what it prefetches at a panel's end is what it reads next.
  void few(Range mine) const {
    constexpr int64_t wide = small_vectors(1) > panel_vectors ? small_vectors(1) / panel_vectors : 1;
    const int64_t streams = a.m <= 2 ? wide : 1, apart = (mine.end - mine.begin) / streams;
    for (int64_t i = 0; i < apart; ++i) rows({mine.begin + i, apart, streams}, 0, a.m, {a.y, a.y_stride});
    for (int64_t p = mine.begin + streams * apart; p < mine.end; ++p)
      rows({p, 0, 1}, 0, a.m, {a.y, a.y_stride});
  }

  void run(Range mine) const {
    if (a.m <= few_rows) return few(mine);
    each_block(mine, a.m, x.count * x.columns, [&](int64_t p, int64_t begin, int64_t end) {
      rows({p, 0, 1}, begin, end, {a.y, a.y_stride});
    });
  }

  // y = silu(x W^T) * (x up^T), both of a panel and some rows in scratch.
  void run_gated(const Int4& up, Range mine, void* scratch) const {
    auto *gates = static_cast<float*>(scratch), *ups = gates + block_rows * panel;
    each_block(mine, a.m, x.count * x.columns, [&](int64_t p, int64_t begin, int64_t end) {
      rows({p, 0, 1}, begin, end, {gates, panel, begin, p * panel});
      up.rows({p, 0, 1}, begin, end, {ups, panel, begin, p * panel});
      for (int64_t row = begin; row < end; ++row)
        for (int64_t lane = 0; lane < panel && p * panel + lane < a.n; lane += lanes) {
          const int64_t at = (row - begin) * panel + lane, column = p * panel + lane;
          store_n(a.y + row * a.y_stride + column, mul(silu(load(gates + at)), load(ups + at)), a.n - column);
        }
    });
  }
};

template <class S, Kind kind>
void int4(const LinearArgs& a, const Share& share) {
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  if constexpr (kind == Kind::signed_codes)
    if (a.zeros) return int4<S, Kind::zero_points>(a, share);
  Int4<S, kind>(a).run(mine);
}

template <class S, Kind kind>
void int4_gated(const GatedArgs& a, const Share& share) {
  const Range mine = part_of(ceil_div(a.gate.n, pair), share.worker, share.workers);
  if constexpr (kind == Kind::signed_codes)
    if (a.gate.zeros) return int4_gated<S, Kind::zero_points>(a, share);
  LinearArgs up = a.gate;
  up.codes = a.up.codes;
  up.scales = a.up.scales;
  up.zeros = a.up.zeros;
  Int4<S, kind>(a.gate).run_gated(Int4<S, kind>(up), mine, share.scratch);
}

}  // namespace
}  // namespace lathe
