// GGUF's k-quants (panel.k) in integer dot products, rows of x rounded to int8 in groups of 32 columns: the
// sums of int4.inl, with scales and minima that are an f16 number times an integer, and codes of 2 to 6 bits.
// Groups of 16 columns take their half of a group of x. Scales as floats, units times multiples, are exact.
//
// small_chain(bits): after how many quads small_total() must take what small_dot() has summed.
#pragma once

// Order matters: the second is written in the first.
// clang-format off
#include "kernels/simd/row_blocks.inl"
#include "kernels/simd/k_format.inl"
// clang-format on

namespace lathe {
namespace {

template <int bits, int group_columns, bool minimum>
struct KQuant {
  using Panels = KPanels<bits, group_columns, minimum>;
  static constexpr int64_t panel = 32, read_ahead = 2048;
  static constexpr int panel_vectors = panel / lanes, parts = 32 / group_columns;  // scales in 32 columns
  static constexpr int bias = minimum ? 0 : 1 << (bits - 1);
  const LinearArgs& a;
  Panels w;
  Int8Groups x;
  const char* values;
  const float* x_scales;
  const int32_t *x_sums, *x_halves;

  explicit KQuant(const LinearArgs& args)
      : a(args),
        w(args),
        x(a.m, a.k),
        values(static_cast<const char*>(a.packed_x)),
        x_scales(reinterpret_cast<const float*>(values + x.scales())),
        x_sums(reinterpret_cast<const int32_t*>(values + x.sums())),
        x_halves(reinterpret_cast<const int32_t*>(values + x.half_sums())) {}

  // R rows of x from `row` times C vectors of rows of W: those from `first` of the panels from p.
  template <int R, int C>
  void block(int64_t row, int64_t p, int64_t first) const {
    constexpr int chain = small_chain(bits) < 8 / parts ? small_chain(bits) : 8 / parts;
    V sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sums[r][v] = zero();
    const auto panel_of = [&](int v) { return p + (first + v) / panel_vectors; };
    const auto lane_of = [&](int v) { return (first + v) % panel_vectors * lanes; };
    for (int64_t g = 0; g < x.count;) {
      V unit[C], unit_of_minimum[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        const F16* at = w.unit(panel_of(v), g / 8, lane_of(v));
        unit[v] = load_as_f32(at);
        if constexpr (minimum) unit_of_minimum[v] = load_as_f32(at + panel);
      }
      for (const int64_t end = g + 8; g < end; ++g) {  // 8 groups of x in a super-block
        I dots[R][C], exact[R][C];
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          if (half % (2 / parts) == 0) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
              for (int v = 0; v < C; ++v) dots[r][v] = exact[r][v] = set_words(0);
          }
          I quads[C][4];
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            const uint32_t* at = w.codes(panel_of(v), g, lane_of(v));
            if (half == 0 && v * lanes % 16 == 0)
#pragma GCC unroll 6
              for (int i = 0; i < bits; ++i)
                __builtin_prefetch(reinterpret_cast<const char*>(at + i * panel) + read_ahead);
            const KCodes<bits> codes(at, half);
            quads[v][0] = codes.template quad<0>();
            quads[v][1] = codes.template quad<1>();
            quads[v][2] = codes.template quad<2>();
            quads[v][3] = codes.template quad<3>();
          }
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const char* from = values + ((row + r) * x.count + g) * x.columns + half * 16;
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
              const I of_x = broadcast_word(from + 4 * i);
#pragma GCC unroll 8
              for (int v = 0; v < C; ++v) {
                dots[r][v] = small_dot(dots[r][v], quads[v][i], of_x);
                const int done = half * 4 % (8 / parts) + i + 1;
                if (chain < 8 / parts && done % chain == 0) {
                  exact[r][v] = add_words(exact[r][v], small_total(dots[r][v]));
                  dots[r][v] = set_words(0);
                }
              }
            }
          }
          if (parts == 1 && half == 0) continue;
          V scale[C], offset[C];
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            const int8_t* at = w.multiple(panel_of(v), g * parts + half % parts, lane_of(v));
            scale[v] = mul(unit[v], load_as_f32(at));
            if constexpr (minimum) offset[v] = mul(unit_of_minimum[v], load_as_f32(at + panel));
          }
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const int64_t at = (row + r) * x.count + g;
            const V x_scale = set(x_scales[at]);
            const int32_t part = parts == 1 ? x_sums[at] : x_halves[2 * at + half];
            const V x_sum = words_to_f32(set_words(part));
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) {
              V product = words_to_f32(chain < 8 / parts ? exact[r][v] : small_total(dots[r][v]));
              if constexpr (minimum) {
                sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
                sums[r][v] = sub(sums[r][v], mul(mul(x_sum, x_scale), offset[v]));
              } else {
                product = fma(x_sum, set(-bias), product);  // integers below 2^24: exact
                sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
              }
            }
          }
        }
      }
    }
    for (int v = 0; v < C; ++v) {
      const int64_t column = p * panel + (first + v) * lanes, left = a.n - column;
      if (left <= 0) break;
      for (int r = 0; r < R; ++r) {
        const V y = a.bias ? add(sums[r][v], load_n(a.bias + column, left)) : sums[r][v];
        store_n(a.y + (row + r) * a.y_stride + column, y, left);
      }
    }
  }

  template <int R>
  void blocks(int64_t row, int64_t p, int64_t panels) const {
    constexpr int C = small_vectors(R);
    const int64_t vectors = panels * panel_vectors;
    int64_t v = 0;
    for (; v + C <= vectors; v += C) block<R, C>(row, p, v);
    if constexpr (C > panel_vectors)
      if (v < vectors) block<R, panel_vectors>(row, p, v);
  }

  void rows(int64_t p, int64_t panels, int64_t begin, int64_t end) const {
    each_tile<small_rows>(
        begin, end, [&](auto rows_of, int64_t row) { blocks<decltype(rows_of)::value>(row, p, panels); });
  }

  // As in int4.inl: one and two rows may read two panels at a time.
  void run(Range mine) const {
    constexpr int64_t wide = small_vectors(1) > panel_vectors ? small_vectors(1) / panel_vectors : 1;
    const int64_t step = a.m <= 2 ? wide : 1;
    if (a.m > few_rows)
      return each_block(mine, a.m, x.count * x.columns,
                        [&](int64_t p, int64_t begin, int64_t end) { rows(p, 1, begin, end); });
    for (int64_t p = mine.begin; p < mine.end; p += step)
      rows(p, mine.end - p < step ? mine.end - p : step, 0, a.m);
  }
};

template <int bits, int group_columns, bool minimum>
void k_quant(const LinearArgs& a, const Share& share) {
  KQuant<bits, group_columns, minimum>(a).run(part_of(ceil_div(a.n, pair), share.worker, share.workers));
}

}  // namespace
}  // namespace lathe
