// c = a b (+ c) (+ bias): the one f32 matrix product that linear layers and attention are made of.
//
// Register tile: tile_rows rows of a x tile_vectors vectors of columns of b. Per step of k: tile_vectors
// loads of b, tile_rows broadcasts of a and the fma of both; bound by the fma units. Each element of c is one
// chain of fma in the order of k, whatever the tile, so that it does not depend on the number of rows or on
// how workers share the columns.
#pragma once

namespace lathe {
namespace {

constexpr int panel = 32;  // columns of b that lie together; see Matrix
constexpr int panel_vectors = panel / lanes;

// b[k][column] is at data[(column / 32) * panel_stride + k * row_stride + column % 32].
struct Matrix {
  const float* data;
  int64_t panel_stride, row_stride;
};

struct Product {
  const float* a;  // [rows, k]
  int64_t a_stride;
  Matrix b;  // [k, columns]
  float* c;  // [rows, columns]
  int64_t c_stride;
  const float* bias;  // [columns] or null
  int64_t rows, columns, k;
  bool accumulate;  // c holds the sum over earlier k
};

// What an element of a (in every lane) and a vector of b add to a sum.
struct F32 {
  static V multiply_add(V a, V b, V sum) { return fma(a, b, sum); }
};

// Rows [row, row + R) and columns [column, column + C * lanes) of c; the last columns may lie outside.
template <class Element, int R, int C>
void product_tile(const Product& p, int64_t row, int64_t column) {
  const float* a = p.a + row * p.a_stride;
  const int64_t a_stride = p.a_stride, b_stride = p.b.row_stride;
  const float* b0 = p.b.data + column / panel * p.b.panel_stride + column % panel;
  const float* b1 = b0 + p.b.panel_stride;  // where a tile is wider than a panel
  float* c = p.c + row * p.c_stride + column;
  const int64_t c_stride = p.c_stride, left = p.columns - column;

  V sum[R][C];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v) sum[r][v] = zero();
  if (p.accumulate) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) sum[r][v] = load_n(c + r * c_stride + v * lanes, left - v * lanes);
  }
  for (int64_t k = 0; k < p.k; ++k) {
    if constexpr (tile_rows < C) {  // few registers are left: rather one for b
      V x[R];
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) x[r] = set(a[r * a_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) {
        const V b = load((v < panel_vectors ? b0 : b1) + v % panel_vectors * lanes);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) sum[r][v] = Element::multiply_add(x[r], b, sum[r][v]);
      }
    } else {
      V b[C];
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) b[v] = load((v < panel_vectors ? b0 : b1) + v % panel_vectors * lanes);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const V x = set(a[r * a_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < C; ++v) sum[r][v] = Element::multiply_add(x, b[v], sum[r][v]);
      }
    }
    a += 1;
    b0 += b_stride;
    b1 += b_stride;
  }
#pragma GCC unroll 4
  for (int v = 0; v < C; ++v) {
    const V bias = p.bias ? load_n(p.bias + column + v * lanes, left - v * lanes) : zero();
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
      store_n(c + r * c_stride + v * lanes, p.bias ? add(sum[r][v], bias) : sum[r][v], left - v * lanes);
  }
}

template <class Element, int C>
void product_rows(const Product& p, int64_t row, int64_t rows, int64_t column) {
  switch (rows) {
    case 1:
      return product_tile<Element, 1, C>(p, row, column);
    case 2:
      return product_tile<Element, 2, C>(p, row, column);
    case 3:
      return product_tile<Element, 3, C>(p, row, column);
  }
  if constexpr (tile_rows > 3) {
    if (rows == 4) return product_tile<Element, 4, C>(p, row, column);
    if (rows == 5) return product_tile<Element, 5, C>(p, row, column);
    product_tile<Element, 6, C>(p, row, column);
  }
}

// Reads columns of b up to the next multiple of `lanes`.
template <class Element = F32>
void multiply(const Product& p) {
  for (int64_t row = 0; row < p.rows;) {
    const int64_t tiles = (p.rows - row + tile_rows - 1) / tile_rows;
    const int64_t rows = (p.rows - row + tiles - 1) / tiles;  // 8 rows are 4 + 4, not 6 + 2
    int64_t column = 0;
    while (column < p.columns) {
      const int64_t left = p.columns - column;
      if (left > (tile_vectors - 1) * lanes) {
        product_rows<Element, tile_vectors>(p, row, rows, column);
        column += tile_vectors * lanes;
      } else if (tile_vectors == 4 && left > lanes) {
        product_rows<Element, 2>(p, row, rows, column);
        column += 2 * lanes;
      } else {
        product_rows<Element, 1>(p, row, rows, column);
        column += lanes;
      }
    }
    row += rows;
  }
}

}  // namespace
}  // namespace lathe
