// W8A8: int8 weights with a scale per row, int8 activations with a scale per token.
//
// The weights need no expansion: a panel of panel.int8 holds, for each 4 columns, 32 rows' words side by
// side, which is the order of integer dot products and of AMX's weight tiles. They are stored as q + 128;
// where a kernel multiplies that, the sum of the row's integers takes the 128 out again. Sums are exact and
// scaled in one order, so every ISA gives the same bits.
//
// Few rows (decode): each strip's weights stream through registers once, bound by memory. More: blocks of
// strips and passes over k, so that a pass's 16 KiB of weights stay in L1 for all rows.
#pragma once

#include "kernels/simd/exp.inl"
#include "kernels/simd/packed_rows.h"

namespace lathe {
namespace {

constexpr int64_t word_row = 128;              // bytes of 4 columns of a panel
constexpr int64_t deep_tile = 2 * tile_bytes;  // bytes of 64 columns of a panel
constexpr int64_t tile_words = 16;             // words of a row of a tile of x, and
constexpr int64_t x_word = 4 * column_bytes;   // the bytes of one
constexpr int64_t x_row = tile_words * x_word, x_tile = tile_side * x_row;
// Rows of x whose part of a pass and sums stay in the second-level cache (512 KiB on Zen 3).
constexpr int64_t rows_at_once = column_bytes == 1 ? block_rows_most : 128;
constexpr int panel_vectors = pair / lanes;

inline int64_t words_of(int64_t k) { return ceil_div(k, 4); }  // per row of W, as panel.int8 pads it

// 16 rows x 16 columns of exact sums to y.
template <class S>
struct Output {
  const LinearArgs& a;
  const float* row_scales;
  const int32_t* row_sums;

  Output(const LinearArgs& args, const Int8Rows& rows)
      : a(args),
        row_scales(reinterpret_cast<const float*>(static_cast<const char*>(args.packed_x) + rows.scales())),
        row_sums(reinterpret_cast<const int32_t*>(static_cast<const char*>(args.packed_x) + rows.sums())) {}

  void store(const int32_t* sums, int64_t row, int64_t column) const {
    store(sums, row, a.m - row < tile_side ? a.m - row : tile_side, column);
  }
  void store(const int32_t* sums, int64_t row, int64_t rows, int64_t column) const {
    for (int64_t v = 0; v < tile_side; v += lanes) {
      const int64_t at = column + v, left = a.n - at;
      if (left <= 0) return;
      const V scale = load_as_f32(static_cast<const S*>(a.scales) + at);  // padded to whole panels
      const V bias = a.bias ? load_n(a.bias + at, left) : zero();
      for (int64_t r = 0; r < rows; ++r)
        store_n(a.y + (row + r) * a.y_stride + at,
                add(scaled(sums + r * tile_side + v, row + r, scale), bias), left);
    }
  }
  void store_gated(const int32_t* gate, const int32_t* up, const LinearArgs& up_args, int64_t row,
                   int64_t column) const {
    const int64_t rows = a.m - row < tile_side ? a.m - row : tile_side;
    for (int64_t v = 0; v < tile_side; v += lanes) {
      const int64_t at = column + v, left = a.n - at;
      if (left <= 0) return;
      const V gate_scale = load_as_f32(static_cast<const S*>(a.scales) + at),
              up_scale = load_as_f32(static_cast<const S*>(up_args.scales) + at);
      for (int64_t r = 0; r < rows; ++r) {
        const V g = scaled(gate + r * tile_side + v, row + r, gate_scale),
                u = scaled(up + r * tile_side + v, row + r, up_scale);
        store_n(a.y + (row + r) * a.y_stride + at, mul(silu(g), u), left);
      }
    }
  }

 private:
  V scaled(const int32_t* sums, int64_t row, V scale) const {
    const I exact = add_words(load_words(sums), set_words(sum_factor * row_sums[row]));
    return mul(mul(words_to_f32(exact), set(row_scales[row])), scale);
  }
};

// sums += R rows of x times C vectors of rows of W, over `words` words of each. x: in tiles.
// ahead(at, v, c) prefetches when the weights at `at` are read: vector v, word c of the row.
template <int R, int C, class Ahead>
inline __attribute__((always_inline)) void dot_words(I (&sums)[R][C], const char* x,
                                                     const char* const (&w)[C], int64_t words,
                                                     const Ahead& ahead) {
  for (int64_t tile = 0; tile * tile_words < words; ++tile) {
    const int64_t left = words - tile * tile_words, count = left < tile_words ? left : tile_words;
#pragma GCC unroll 4
    for (int64_t c = 0; c < count; ++c) {
      decltype(panel_operand(I())) weights[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        const char* at = w[v] + tile * deep_tile + c * word_row;
        if (v * lanes % 16 == 0) ahead(at, v, tile * tile_words + c);
        weights[v] = panel_operand(load_words(at));
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto four = four_columns(x + tile * x_tile + r * x_row + c * x_word);
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sums[r][v] = dot(sums[r][v], weights[v], four);
      }
    }
  }
}

// R rows from `row`, `strips` strips at a time, so many `apart`: plain loads on two streams keep more of the
// memory's bandwidth than tile loads do, or one stream (AVX-512: 33 GB/s, 26 and 29), and streams that go on
// where they end prefetch what they read next.
template <int R, int strips, class S, class Ahead>
void stream_strips(const LinearArgs& a, const Int8Rows& rows, int64_t row, int64_t s, int64_t apart,
                   const Ahead& ahead) {
  constexpr int vectors = strips * panel_vectors, half = tile_side / lanes;
  const int64_t words = words_of(a.k);
  const char* w[vectors];
  for (int v = 0; v < vectors; ++v)
    w[v] = static_cast<const char*>(a.codes) + (s + v / panel_vectors * apart) * words * word_row +
           v % panel_vectors * lanes * 4;
  I sums[R][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sums[r][v] = set_words(0);
  dot_words(sums, static_cast<const char*>(a.packed_x) + row * x_row, w, words, ahead);
  const Output<S> output(a, rows);
  alignas(64) int32_t out[tile_side * tile_side];
  for (int v = 0; v < vectors; v += half) {
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < half; ++i) store_words(out + r * tile_side + i * lanes, sums[r][v + i]);
    output.store(out, row, R, (s + v / panel_vectors * apart) * pair + v % panel_vectors * lanes);
  }
}

// All rows in one pass.
template <int R, class S>
void stream_rows(const LinearArgs& a, const Int8Rows& rows, Range strips) {
  constexpr int most = 2 * panel_vectors * R <= most_streams ? 2 : 1;
  const int64_t apart = (strips.end - strips.begin) / most;
  const auto ahead = [](const char* at, int, int64_t) { __builtin_prefetch(at + 2048); };
  for (int64_t i = 0; i < apart; ++i) stream_strips<R, most, S>(a, rows, 0, strips.begin + i, apart, ahead);
  for (int64_t s = strips.begin + most * apart; s < strips.end; ++s)
    stream_strips<R, 1, S>(a, rows, 0, s, 0, ahead);
}

// R rows and then the others, of which there are as many or one less: each pass prefetches half of the next
// strip.
template <int R, class S>
void stream_twice(const LinearArgs& a, const Int8Rows& rows, Range strips) {
  const int64_t bytes = words_of(a.k) * word_row;
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    const char* next = static_cast<const char*>(a.codes) + (s + 1) * bytes;
    const auto ahead = [&](const char*, int v, int64_t c) {
      if (v == 0) __builtin_prefetch(next + c * 64);
    };
    stream_strips<R, 1, S>(a, rows, 0, s, 0, ahead);
    next += bytes / 2;
    if (a.m == 2 * R)
      stream_strips<R, 1, S>(a, rows, R, s, 0, ahead);
    else
      stream_strips<R - 1, 1, S>(a, rows, R, s, 0, ahead);
  }
}

// Few rows, of one tile; false: there are more of them than registers.
template <class S>
bool stream(const LinearArgs& a, const Int8Rows& rows, Range strips) {
  if (a.m == 1) return stream_rows<1, S>(a, rows, strips), true;
  if (a.m == 2) return stream_rows<2, S>(a, rows, strips), true;
  if constexpr (4 * panel_vectors <= most_streams) {
    if (a.m == 3) return stream_rows<3, S>(a, rows, strips), true;
    if (a.m == 4) return stream_rows<4, S>(a, rows, strips), true;
  }
  if constexpr (8 * panel_vectors <= most_streams) {
    if (a.m == 5) return stream_rows<5, S>(a, rows, strips), true;
    if (a.m == 6) return stream_rows<6, S>(a, rows, strips), true;
    if (a.m == 7) return stream_rows<7, S>(a, rows, strips), true;
    if (a.m == 8) return stream_rows<8, S>(a, rows, strips), true;
    if (a.m <= 10) return stream_twice<5, S>(a, rows, strips), true;
    if (a.m <= 12) return stream_twice<6, S>(a, rows, strips), true;
    if (a.m <= 14) return stream_twice<7, S>(a, rows, strips), true;
    if (a.m <= 16) return stream_twice<8, S>(a, rows, strips), true;
  }
  return false;
}

// A pass's product of two tiles of rows (`rows` of them exist) and a strip, into 2 x 2 tiles of sums.
struct VectorProduct {
  static void add(int32_t* c, bool first, const char* const (&x)[2], int64_t rows, const char* w,
                  int64_t words, const char* ahead) {
    for (int64_t line = 0; line < words; line += 8) __builtin_prefetch(ahead + line * 8, 0, 2);
    for (int64_t row = 0; row < rows; row += dot_rows)
      for (int64_t v = 0; v < panel_vectors; v += dot_vectors)
        block(c + row / tile_side * 512 + row % tile_side * tile_side, first,
              x[row / tile_side] + row % tile_side * x_row, w, v, words);
  }

 private:
  static void block(int32_t* c, bool first, const char* x, const char* panel, int64_t vector, int64_t words) {
    const char* w[dot_vectors];
    int32_t* at[dot_vectors];
    for (int v = 0; v < dot_vectors; ++v) {
      const int64_t column = (vector + v) * lanes;
      w[v] = panel + column * 4;
      at[v] = c + column / tile_side * 256 + column % tile_side;
    }
    I sums[dot_rows][dot_vectors];
#pragma GCC unroll 8
    for (int r = 0; r < dot_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < dot_vectors; ++v)
        sums[r][v] = first ? set_words(0) : load_words(at[v] + r * tile_side);
    dot_words(sums, x, w, words, [](const char*, int, int64_t) {});
#pragma GCC unroll 8
    for (int r = 0; r < dot_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < dot_vectors; ++v) store_words(at[v] + r * tile_side, sums[r][v]);
  }
};

// Where `up` is given, half of a block's strips are the gate's and half the other weight's, of the same
// columns.
template <class Product, class S>
void many_rows(const LinearArgs& a, const LinearArgs* up, const Int8Rows& rows, Range mine, void* scratch) {
  const PackedRows& x = rows.tiles;
  const auto* packed = static_cast<const char*>(a.packed_x);
  const Output<S> output(a, rows);
  auto* sums = static_cast<int32_t*>(scratch);
  constexpr int64_t most = rows_at_once / tile_side;
  const int64_t most_strips = up ? block_strips / 2 : block_strips, words = words_of(a.k);
  for (int64_t block = mine.begin; block < mine.end; block += most_strips) {
    const int64_t wide = mine.end - block < most_strips ? mine.end - block : most_strips,
                  strips = up ? 2 * wide : wide;
    const auto weights_of = [&](int64_t s, int64_t pass) {
      const auto* codes = static_cast<const char*>(s < wide ? a.codes : up->codes);
      return codes + (block + s % wide) * words * word_row + pass * depth_tiles * deep_tile;
    };
    for (int64_t top = 0; top < x.row_tiles; top += most) {
      const int64_t row_tiles = x.row_tiles - top < most ? x.row_tiles - top : most,
                    pairs = ceil_div(row_tiles, 2);
      const auto sums_of = [&](int64_t s, int64_t p) { return sums + (s * pairs + p) * pair * pair; };
      for (int64_t pass = 0; pass < x.passes(); ++pass) {
        const int64_t left = words - pass * depth_tiles * tile_words,
                      depth = left < depth_tiles * tile_words ? left : depth_tiles * tile_words;
        for (int64_t s = 0; s < strips; ++s) {
          const char* w = weights_of(s, pass);
          // The weights that come next, spread over this strip's products.
          const char* next = s + 1 < strips          ? weights_of(s + 1, pass)
                             : pass + 1 < x.passes() ? weights_of(0, pass + 1)
                                                     : weights_of(0, 0) + wide * words * word_row;
          const int64_t share = depth_tiles * deep_tile / pairs / 64 * 64;
          for (int64_t p = 0; p < pairs; ++p) {
            const int64_t tile = top + 2 * p, row = tile * tile_side;
            const char* const first = packed + x.at(pass, tile);
            const char* const two[2] = {first, 2 * p + 1 < row_tiles ? packed + x.at(pass, tile + 1) : first};
            Product::add(sums_of(s, p), pass == 0, two, a.m - row < pair ? a.m - row : pair, w, depth,
                         next + p * share);
          }
        }
      }
      for (int64_t s = 0; s < wide; ++s)
        for (int64_t tile = 0; tile < row_tiles; ++tile)
          for (int64_t half = 0; half < 2; ++half) {
            const int64_t at = tile % 2 * 512 + half * 256, row = (top + tile) * tile_side,
                          column = (block + s) * pair + half * tile_side;
            if (up)
              output.store_gated(sums_of(s, tile / 2) + at, sums_of(wide + s, tile / 2) + at, *up, row,
                                 column);
            else
              output.store(sums_of(s, tile / 2) + at, row, column);
          }
    }
  }
}

template <class S>
void w8a8(const LinearArgs& a, const Share& share) {
  const Int8Rows rows(a.m, a.k, column_bytes);
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  if (!stream<S>(a, rows, mine)) many_rows<VectorProduct, S>(a, nullptr, rows, mine, share.scratch);
}

template <class S>
void w8a8_gated(const GatedArgs& a, const Share& share) {
  const Range mine = part_of(ceil_div(a.gate.n, pair), share.worker, share.workers);
  many_rows<VectorProduct, S>(a.gate, &a.up, Int8Rows(a.gate.m, a.gate.k, column_bytes), mine, share.scratch);
}

}  // namespace
}  // namespace lathe
