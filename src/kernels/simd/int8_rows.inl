// Rows of x as int8, for integer dot products: rint(x * 127 / m) and the scale m / 127, m = max |x| of a
// whole row (W8A8) or of 32 columns of it; or rint(x / scale), cut to +-127, of a given scale. The same bits
// on every ISA.
#pragma once

#include "kernels/simd/packed_rows.h"
#include "quant/int8_step.h"

namespace lathe {
namespace {

// Calls use(i, integers) for the vectors of `columns` floats, of which `n` exist; the others count as zeros.
// Returns the sum of the integers. `scale` is theirs: given, or 0 and then found.
template <class Use>
inline int32_t round_to_int8(const float* x, int64_t n, int64_t columns, float& scale, Use&& use) {
  V inverse;
  if (scale > 0) {
    inverse = set(1.0f / scale);
  } else {
    V most = zero();
    for (int64_t i = 0; i < n; i += lanes) most = max(most, abs(load_n(x + i, n - i)));
    const float m = largest(most);
    scale = m / 127.0f;
    inverse = set(inverse_of_step(m));
  }
  const V limit = set(127.0f), lowest = set(-127.0f);  // a row's own scale keeps within them
  I sum = set_words(0);
  for (int64_t i = 0; i < columns; i += lanes) {
    const V q_real = mul(i < n ? load_n(x + i, n - i) : zero(), inverse);
    const I q = round_to_words(min(max(q_real, lowest), limit));
    sum = add_words(sum, q);
    use(i, q);
  }
  return sum_words(sum);
}

// Columns as they are.
struct PlainColumns {
  static constexpr int64_t bytes = 1;  // of a column
  void put(char* row, int64_t column, I integers) { store_bytes(row + column, integers); }
  int32_t sum(int32_t of_integers) const { return of_integers; }
};

template <class Columns = PlainColumns>
void int8_rows(const PackRowsArgs& a, const Share& share) {
  const Int8Rows rows(a.m, a.k, Columns::bytes);
  const PackedRows& packed = rows.tiles;
  auto* out = static_cast<char*>(a.out);
  auto* scales = reinterpret_cast<float*>(out + rows.scales());
  auto* sums = reinterpret_cast<int32_t*>(out + rows.sums());
  Range mine = part_of(a.m, share.worker, share.workers);
  if (mine.end == a.m) mine.end = packed.row_tiles * tile_side;  // the last tile's other rows are zeros
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const bool exists = row < a.m;
    char* to = out + row % tile_side * (packed.each / tile_side);
    Columns columns;
    scales[row] = a.scale;
    const int32_t sum = round_to_int8(
        a.x + (exists ? row * a.x_stride : 0), exists ? a.k : 0, packed.depth * 64, scales[row],
        [&](int64_t column, I integers) {
          const int64_t tile = column / 64;
          columns.put(to + packed.at(tile / depth_tiles, row / tile_side) + tile % depth_tiles * packed.each,
                      column % 64, integers);
        });
    sums[row] = columns.sum(sum);
  }
}

// Of each 8 bytes of 16, those of even number first.
inline void even_bytes_first(const char* from, char* to) {
  typedef char Bytes __attribute__((vector_size(16)));
  Bytes b;
  __builtin_memcpy(&b, from, sizeof b);
  b = __builtin_shufflevector(b, b, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  __builtin_memcpy(to, &b, sizeof b);
}

inline void int8_groups(const PackRowsArgs& a, const Share& share) {
  const Int8Groups x(a.m, a.k);
  constexpr int64_t half = Int8Groups::columns / 2;
  auto* out = static_cast<char*>(a.out);
  auto* scales = reinterpret_cast<float*>(out + x.scales());
  auto* sums = reinterpret_cast<int32_t*>(out + x.sums());
  auto* half_sums = reinterpret_cast<int32_t*>(out + x.half_sums());
  const Range mine = part_of(a.m * x.count, share.worker, share.workers);
  int64_t row = mine.begin / x.count, column = mine.begin % x.count * x.columns;
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    char bytes[Int8Groups::columns];
    I first = set_words(0);
    scales[item] = 0;
    sums[item] =
        round_to_int8(a.x + row * a.x_stride + column, a.k - column < x.columns ? a.k - column : x.columns,
                      x.columns, scales[item], [&](int64_t i, I integers) {
                        store_bytes(bytes + i, integers);
                        if (i < half) first = add_words(first, integers);
                      });
    half_sums[2 * item] = sum_words(first);
    half_sums[2 * item + 1] = sums[item] - half_sums[2 * item];
    for (int64_t i = 0; i < x.columns; i += half) even_bytes_first(bytes + i, out + item * x.columns + i);
    column += x.columns;
    if (column >= a.k) column = 0, ++row;
  }
}

}  // namespace
}  // namespace lathe
