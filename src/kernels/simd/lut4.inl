// Weights of 16 values in integer dot products, rows of x rounded to int8 in groups of 32 columns: what
// simd/int4.inl does, with a look-up of bytes behind the masks. Integers stand for the values: twice an e2m1,
// exactly; for nf4 two integers, 128 of the one and one of the other, right to 2^-15 of the largest value.
// Sums of a step (16 columns where scales are as near, else 32) are exact, and scales come in one order, so a
// row's bits depend neither on the other rows nor on the ISA.
#pragma once

#include "kernels/simd/row_blocks.inl"

namespace lathe {
namespace {

// S: of the scales; columns: of a step; parts: integers for a value.
template <class S, int columns, int parts>
struct Lut4Dot {
  static constexpr int64_t panel = 32, word_row = 4 * panel;  // rows of W side by side; bytes of 8 columns
  static constexpr int panel_vectors = panel / lanes, words = columns / 8;
  static constexpr int64_t read_ahead = 2048;
  // Words whose small products fit what they are summed in: 16 bits, unless bytes are unsigned (dot.h).
  static constexpr int middle = 12, small_words = code_offset == 128 ? words : 2;
  const LinearArgs& a;
  Int8Groups x;
  const char *values, *codes;
  const float* x_scales;
  const int32_t* x_sums;
  int64_t steps, groups, per_group;  // per row: of x; of weights; and steps in one
  uint8_t table[2][16];
  float unit;  // what an integer of the last part is worth, with the global scale

  explicit Lut4Dot(const LinearArgs& args)
      : a(args),
        x(a.m, a.k),
        values(static_cast<const char*>(a.packed_x)),
        codes(static_cast<const char*>(a.codes)),
        x_scales(reinterpret_cast<const float*>(values + x.scales())),
        x_sums(reinterpret_cast<const int32_t*>(values + (columns == 16 ? x.half_sums() : x.sums()))),
        steps(a.k / columns),
        groups(ceil_div(a.k, a.group)),
        per_group((a.group < a.k ? a.group : a.k) / columns) {
    const auto* real = static_cast<const float*>(a.zeros);
    float most = 0;
    for (int i = 0; i < 16; ++i) most = real[i] > most ? real[i] : -real[i] > most ? -real[i] : most;
    const float largest = parts == 1 ? 2 * most : 127.0f * 128;
    // One integer is at most 12 (e2m1) and stored as 0 .. 24, for which AVX2 has the shorter product.
    for (int i = 0; i < 16; ++i) {
      const float scaled = real[i] * (largest / most);
      const int whole = static_cast<int>(scaled + (scaled < 0 ? -0.5f : 0.5f));
      const int high = parts == 1 ? whole : (whole + (whole < 0 ? -64 : 64)) / 128;
      table[0][i] = static_cast<uint8_t>(high + (parts == 1 ? middle : 128));
      table[1][i] = static_cast<uint8_t>(whole - 128 * high + 128);
    }
    unit = most / largest * real[16];
  }

  const char* eight_of_x(int64_t row, int64_t word) const {
    return values + row * x.count * x.columns + word * 8;
  }

  template <int R, int C>
  __attribute__((always_inline)) void small_products(const ByteTable& t, const char* const* from, int64_t row,
                                                     int64_t g, I (&exact)[R][C]) const {
#pragma GCC unroll 2
    for (int first = 0; first < words; first += small_words) {
      I small[R][C];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) small[r][v] = set_words(0);
#pragma GCC unroll 4
      for (int w = first; w < first + small_words; ++w) {
        I even[C], odd[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
          const char* at = from[v] + (g * words + w) * word_row;
          if (v * lanes % 16 == 0) __builtin_prefetch(at + read_ahead);
          const I eight = load_words(at);
          even[v] = t[low_nibbles(eight)];
          odd[v] = t[high_nibbles(eight)];
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const char* eight = eight_of_x(row + r, g * words + w);
          const I x_even = broadcast_word(eight), x_odd = broadcast_word(eight + 4);
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v)
            small[r][v] = small_dot(small_dot(small[r][v], even[v], x_even), odd[v], x_odd);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) exact[r][v] = add_words(exact[r][v], small_total(small[r][v]));
    }
  }

  template <int R, int C>
  __attribute__((always_inline)) void products(const ByteTable* t, const char* const* from, int64_t row,
                                               int64_t g, I (&exact)[parts][R][C]) const {
#pragma GCC unroll 4
    for (int w = 0; w < words; ++w) {
      Operand even[parts][C], odd[parts][C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        const char* at = from[v] + (g * words + w) * word_row;
        if (v * lanes % 16 == 0) __builtin_prefetch(at + read_ahead);
        const I eight = load_words(at), low = low_nibbles(eight), high = high_nibbles(eight);
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part) {
          even[part][v] = operand(t[part][low]);
          odd[part][v] = operand(t[part][high]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const char* eight = eight_of_x(row + r, g * words + w);
        const I x_even = broadcast_word(eight), x_odd = broadcast_word(eight + 4);
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part)
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v)
            exact[part][r][v] = dot(dot(exact[part][r][v], even[part][v], x_even), odd[part][v], x_odd);
      }
    }
  }

  // R rows of x from `row` times C vectors of rows of W: those from `first` of the panels from p.
  template <int R, int C>
  void block(int64_t row, int64_t p, int64_t first) const {
    const ByteTable tables[2] = {ByteTable(table[0]), ByteTable(table[1])};
    V sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sums[r][v] = zero();
    const char* from[C];
    int64_t scale_at[C];
    for (int v = 0; v < C; ++v) {
      const int64_t in = p + (first + v) / panel_vectors, lane = (first + v) % panel_vectors * lanes;
      from[v] = codes + in * steps * words * word_row + lane * 4;
      scale_at[v] = in * groups * panel + lane;
    }
    for (int64_t g = 0, weight_group = 0; g < steps; ++weight_group) {
      V scale[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v)
        scale[v] = load_as_f32(static_cast<const S*>(a.scales) + scale_at[v] + weight_group * panel);
      const int64_t end = steps - g < per_group ? steps : g + per_group;
      for (; g < end; ++g) {
        I exact[parts][R][C];
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part)
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) exact[part][r][v] = set_words(0);
        if constexpr (parts == 1) {
          small_products<R, C>(tables[0], from, row, g, exact[0]);
        } else {
          products<R, C>(tables, from, row, g, exact);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const V x_scale = set(x_scales[(row + r) * x.count + g * columns / x.columns]);
          // Integers of a part are below 2^24, and so are their sums: exact. fma rounds two parts once.
          constexpr int offset = parts == 1 ? middle : code_offset;
          const V excess = set(static_cast<float>(-offset * x_sums[(row + r) * steps + g]));
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v) {
            V product = add(words_to_f32(exact[parts - 1][r][v]), excess);
            if constexpr (parts == 2)
              product = fma(add(words_to_f32(exact[0][r][v]), excess), set(128), product);
            sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
          }
        }
      }
    }
    for (int v = 0; v < C; ++v) {
      const int64_t column = p * panel + (first + v) * lanes, left = a.n - column;
      if (left <= 0) break;
      for (int r = 0; r < R; ++r) {
        V y = mul(sums[r][v], set(unit));
        if (a.bias) y = add(y, load_n(a.bias + column, left));
        store_n(a.y + (row + r) * a.y_stride + column, y, left);
      }
    }
  }

  // One row of two integers has the sums that two rows of one have.
  static constexpr int vectors_for(int rows) { return small_vectors(rows * parts); }
  static constexpr int most_rows = small_rows / parts;

  template <int R>
  void blocks(int64_t row, int64_t p, int64_t panels) const {
    constexpr int C = vectors_for(R);
    const int64_t vectors = panels * panel_vectors;
    int64_t v = 0;
    for (; v + C <= vectors; v += C) block<R, C>(row, p, v);
    if constexpr (C > panel_vectors)
      if (v < vectors) block<R, panel_vectors>(row, p, v);
  }

  void rows(int64_t p, int64_t panels, int64_t begin, int64_t end) const {
    each_tile<most_rows>(
        begin, end, [&](auto rows_of, int64_t row) { blocks<decltype(rows_of)::value>(row, p, panels); });
  }

  // One and two rows may read two panels at a time: two streams keep more of the memory's bandwidth than one.
  void run(Range mine) const {
    constexpr int64_t wide = vectors_for(1) > panel_vectors ? vectors_for(1) / panel_vectors : 1;
    const int64_t step = a.m <= 2 ? wide : 1;
    if (a.m > few_rows)
      return each_block(mine, a.m, x.count * x.columns,
                        [&](int64_t p, int64_t begin, int64_t end) { rows(p, 1, begin, end); });
    for (int64_t p = mine.begin; p < mine.end; p += step)
      rows(p, mine.end - p < step ? mine.end - p : step, 0, a.m);
  }
};

template <class S, int columns, int parts>
void lut4(const LinearArgs& a, const Share& share) {
  Lut4Dot<S, columns, parts>(a).run(part_of(ceil_div(a.n, pair), share.worker, share.workers));
}

}  // namespace
}  // namespace lathe
