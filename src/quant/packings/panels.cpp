// Layouts that vector kernels read, on x86 and on ARM. Rows are grouped in panels of 32; inside a panel
// everything is column by column, the 32 rows side by side, so that one vector load gives one column of 16
// (AVX-512), 8 (AVX2) or 4 (NEON) rows:
//
//   panel.f32, .bf16, .f16, expand.panel   elements [panels, cols, 32]
//   amx.bf16                               elements [panels, ceil(cols / 32), 2, 16, 16, 2]: see tile_at()
//   panel.int4 (2 to 4 bits)               words [panels, ceil(cols / 8), 32]: 8 columns, lowest first
//   panel.int8 (5 to 8 bits)               words [panels, ceil(cols / 4), 32]: 4 columns of a row
//     scales [panels, groups, 32]         of numerics.dtype; f32 where there is a minimum
//     zeros  [panels, groups, 32]         i8 zero points, or f32 minima
//   panel.lut4 (e2m1, nf4)                 as panel.int4
//     scales [panels, groups, 32]         of numerics.dtype
//     table  [17]                         f32: what the 16 codes mean, and the global scale
//   panel.fp8 (e4m3)                       bytes [panels, cols, 32]; scales as above, shared ones too
//
// Codes are stored without sign: q + 2^(stored bits - 1), or q itself with a minimum and of grids. Rows and
// columns that pad are 0. Elements are stored as integers of their size: the tensors are bits for one kernel,
// not a matrix for anyone else.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

constexpr int64_t panel = 32;
static_assert(panel == pack_row_multiple);

struct Dims {
  int64_t panels, cols;
};
Dims dims(const Shape& shape) {
  if (shape.size() != 2) fail("panels hold matrices, not shape {}", to_string(shape));
  return {(shape[0] + panel - 1) / panel, shape[1]};
}

// Where element [row, column] of a [panels, columns, 32] tensor lies.
size_t at(int64_t row, int64_t column, int64_t columns) {
  return static_cast<size_t>((row / panel * columns + column) * panel + row % panel);
}

template <DType dtype>
bool holds_dense(const Numerics& n) {
  return n == Numerics::dense(dtype);
}
bool holds_all(const Numerics&) { return true; }

template <DType dtype>
std::vector<Part> dense_parts(const Numerics&, const Shape& shape) {
  const auto [panels, cols] = dims(shape);
  return {{"elements", dtype_bytes(dtype) == 4 ? DType::i32 : DType::i16, {panels, cols, panel}}};
}

// Tiles of 16 columns: each is read along rows and written as one run.
template <DType dtype>
void pack_dense(const Codes& c, int64_t row, Weight& out) {
  constexpr int64_t width = 16;
  std::vector<float> dequantized;
  const float* values = c.values.data();
  if (!c.numerics.is_dense()) {
    dequantized.resize(static_cast<size_t>(c.rows * c.cols));
    dequantize(c, dequantized.data());
    values = dequantized.data();
  }
  std::byte* elements = out.parts[0].storage.data;
  for (int64_t top = 0; top < c.rows; top += panel)
    for (int64_t left = 0; left < c.cols; left += width) {
      const int64_t rows = std::min(panel, c.rows - top), columns = std::min(width, c.cols - left);
      float tile[width * panel] = {};
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < columns; ++i) tile[i * panel + r] = values[(top + r) * c.cols + left + i];
      from_f32(dtype, tile, elements + at(row + top, left, c.cols) * dtype_bytes(dtype), columns * panel);
    }
}

template <DType dtype>
void unpack_dense(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, Numerics::dense(dtype), rows, w.cols());
  const std::byte* elements = w.parts[0].storage.data;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i)
      to_f32(dtype, elements + at(row + r, i, c.cols) * dtype_bytes(dtype),
             &c.values[static_cast<size_t>(r * c.cols + i)], 1);
}

bool has_minimum(const Numerics& n) { return n.offset == Numerics::Offset::minimum; }
DType scale_dtype(const Numerics& n) { return has_minimum(n) ? DType::f32 : n.dtype; }

template <int bits>
bool holds_integer(const Numerics& n) {
  const bool scale = n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
  return n.is_integer() && scale && (bits == 4 ? n.bits >= 2 && n.bits <= 4 : n.bits >= 5 && n.bits <= 8) &&
         !n.act_order && !n.column_scales;
}

template <int bits>
std::vector<Part> integer_parts(const Numerics& n, const Shape& shape) {
  const auto [panels, cols] = dims(shape);
  const int64_t step = 32 / bits, groups = n.groups(cols);
  std::vector<Part> parts = {{"codes", DType::i32, {panels, (cols + step - 1) / step, panel}},
                             {"scales", scale_dtype(n), {panels, groups, panel}}};
  if (n.offset != Numerics::Offset::none)
    parts.push_back({"zeros", has_minimum(n) ? DType::f32 : DType::i8, {panels, groups, panel}});
  return parts;
}

template <int bits>
int bias(const Numerics& n) {
  return has_minimum(n) || n.is_grid() ? 0 : 1 << (bits - 1);
}

template <int bits>
void pack_integer(const Codes& c, int64_t row, Weight& out) {
  constexpr int64_t step = 32 / bits;
  const int64_t groups = c.numerics.groups(c.cols), columns = (c.cols + step - 1) / step;
  const auto words = out.parts[0].as_mutable<int32_t>();
  const DType dtype = scale_dtype(c.numerics);
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t i = 0; i < columns; ++i) {
      uint32_t word = 0;
      for (int64_t j = 0; j < step && i * step + j < c.cols; ++j) {
        const int code = c.codes[static_cast<size_t>(r * c.cols + i * step + j)] + bias<bits>(c.numerics);
        word |= static_cast<uint32_t>(code) << (bits * j);
      }
      words[at(row + r, i, columns)] = std::bit_cast<int32_t>(word);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const size_t from = static_cast<size_t>(r * groups + g), to = at(row + r, g, groups);
      from_f32(dtype, &c.scales[from], out.parts[1].storage.data + to * dtype_bytes(dtype), 1);
      if (c.zeros.empty()) continue;
      if (has_minimum(c.numerics))
        out.parts[2].as_mutable<float>()[to] = c.zeros[from];
      else
        out.parts[2].as_mutable<int8_t>()[to] = static_cast<int8_t>(std::lround(c.zeros[from]));
    }
  }
}

template <int bits>
void unpack_integer(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  constexpr int64_t step = 32 / bits;
  prepare(c, w.numerics, rows, w.cols());
  const int64_t groups = c.numerics.groups(c.cols), columns = (c.cols + step - 1) / step;
  const auto words = w.parts[0].as<int32_t>();
  const DType dtype = scale_dtype(c.numerics);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < c.cols; ++i) {
      const auto word = std::bit_cast<uint32_t>(words[at(row + r, i / step, columns)]);
      const int code = static_cast<int>(word >> (bits * (i % step)) & ((1u << bits) - 1));
      c.codes[static_cast<size_t>(r * c.cols + i)] = static_cast<int16_t>(code - bias<bits>(c.numerics));
    }
    for (int64_t g = 0; g < groups; ++g) {
      const size_t to = static_cast<size_t>(r * groups + g), from = at(row + r, g, groups);
      to_f32(dtype, w.parts[1].storage.data + from * dtype_bytes(dtype), &c.scales[to], 1);
      if (c.zeros.empty()) continue;
      c.zeros[to] = has_minimum(c.numerics) ? w.parts[2].as<float>()[from]
                                            : static_cast<float>(w.parts[2].as<int8_t>()[from]);
    }
  }
}

constexpr size_t table_size = 16;
bool is_stored_scale(DType d) {
  return d == DType::f32 || d == DType::f16 || d == DType::bf16 || d == DType::f8e4m3 || d == DType::f8e8m0;
}
bool holds_lut4(const Numerics& n) {
  return n.is_grid() && n.bits == 4 && n.block_rows == 1 && is_stored_scale(n.dtype);
}
std::vector<Part> lut4_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = integer_parts<4>(n, shape);
  parts.push_back({"table", DType::f32, {table_size + 1}});
  return parts;
}
void pack_lut4(const Codes& c, int64_t row, Weight& out) {
  pack_integer<4>(c, row, out);
  if (row > 0) return;
  const auto table = out.parts[2].as_mutable<float>();
  std::ranges::copy(grid_values(c.numerics.kind), table.begin());
  table[table_size] = c.global;
}
void unpack_lut4(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  unpack_integer<4>(w, row, rows, c);
  c.global = w.parts[2].as<float>()[table_size];
}

bool holds_fp8(const Numerics& n) {
  return n.kind == Numerics::Kind::e4m3 && !n.global && is_stored_scale(n.dtype);
}
std::vector<Part> fp8_parts(const Numerics& n, const Shape& shape) {
  const auto [panels, cols] = dims(shape);
  return {{"codes", DType::u8, {panels, cols, panel}}, {"scales", n.dtype, {panels, n.groups(cols), panel}}};
}
void pack_fp8(const Codes& c, int64_t row, Weight& out) {
  const int64_t groups = c.numerics.groups(c.cols);
  const auto bytes = out.parts[0].as_mutable<uint8_t>();
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t i = 0; i < c.cols; ++i)
      bytes[at(row + r, i, c.cols)] = static_cast<uint8_t>(c.codes[static_cast<size_t>(r * c.cols + i)]);
    for (int64_t g = 0; g < groups; ++g)
      from_f32(c.numerics.dtype, &c.scales[static_cast<size_t>(r * groups + g)],
               out.parts[1].storage.data + at(row + r, g, groups) * dtype_bytes(c.numerics.dtype), 1);
  }
}
void unpack_fp8(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int64_t groups = c.numerics.groups(c.cols);
  const auto bytes = w.parts[0].as<uint8_t>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < c.cols; ++i)
      c.codes[static_cast<size_t>(r * c.cols + i)] = bytes[at(row + r, i, c.cols)];
    for (int64_t g = 0; g < groups; ++g)
      to_f32(c.numerics.dtype,
             w.parts[1].storage.data + at(row + r, g, groups) * dtype_bytes(c.numerics.dtype),
             &c.scales[static_cast<size_t>(r * groups + g)], 1);
  }
}

// amx.bf16: elements as weight tiles. Per strip of 32 rows and 32 columns: the tile of rows 0 to 15, then
// that of rows 16 to 31; a tile holds, for each pair of columns, its 16 rows' pairs. Padding is 0.
constexpr int64_t tile_columns = 32, tile_rows = 16;
std::vector<Part> tile_parts(const Numerics&, const Shape& shape) {
  const auto [panels, cols] = dims(shape);
  return {{"elements", DType::i16, {panels, (cols + tile_columns - 1) / tile_columns, panel * tile_columns}}};
}
size_t tile_at(int64_t row, int64_t column, int64_t cols) {
  const int64_t across = (cols + tile_columns - 1) / tile_columns, in = column % tile_columns;
  const int64_t tile = (row / panel * across + column / tile_columns) * 2 + row % panel / tile_rows;
  return static_cast<size_t>(tile * tile_rows * tile_columns + in / 2 * 2 * tile_rows + row % tile_rows * 2 +
                             in % 2);
}

// Tile by tile, a word of two columns at a time: the rows of a strip as bf16 fit the second-level cache.
void pack_tiles(const Codes& c, int64_t row, Weight& out) {
  const int64_t words = (c.cols + 1) / 2, tile_words = tile_columns / 2;
  std::vector<uint32_t> pairs(static_cast<size_t>(panel * words));
  auto* elements = out.parts[0].as_mutable<uint16_t>().data();
  for (int64_t top = 0; top < c.rows; top += panel) {
    const int64_t rows = std::min(panel, c.rows - top);
    for (int64_t r = 0; r < rows; ++r)
      from_f32(DType::bf16, c.values.data() + (top + r) * c.cols, &pairs[static_cast<size_t>(r * words)],
               c.cols);
    for (int64_t left = 0; left < words; left += tile_words)
      for (int64_t r = 0; r < rows; ++r) {
        auto* tile = reinterpret_cast<uint32_t*>(elements + tile_at(row + top + r, 2 * left, c.cols));
        const uint32_t* from = &pairs[static_cast<size_t>(r * words + left)];
        for (int64_t i = 0; i < std::min(tile_words, words - left); ++i) tile[i * tile_rows] = from[i];
      }
  }
}

void unpack_tiles(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto elements = w.parts[0].as<uint16_t>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i)
      to_f32(DType::bf16, &elements[tile_at(row + r, i, c.cols)],
             &c.values[static_cast<size_t>(r * c.cols + i)], 1);
}

template <DType dtype>
constexpr Packing dense(std::string_view name, bool (*holds)(const Numerics&)) {
  return {name, holds, dense_parts<dtype>, pack_dense<dtype>, unpack_dense<dtype>};
}

constexpr Packing rows[] = {
    dense<DType::f32>("panel.f32", holds_dense<DType::f32>),
    dense<DType::bf16>("panel.bf16", holds_dense<DType::bf16>),
    dense<DType::f16>("panel.f16", holds_dense<DType::f16>),
    {"panel.int4", holds_integer<4>, integer_parts<4>, pack_integer<4>, unpack_integer<4>},
    {"panel.int8", holds_integer<8>, integer_parts<8>, pack_integer<8>, unpack_integer<8>},
    {"panel.lut4", holds_lut4, lut4_parts, pack_lut4, unpack_lut4},
    {"panel.fp8", holds_fp8, fp8_parts, pack_fp8, unpack_fp8},
    dense<DType::f32>("expand.panel", holds_all),
    {"amx.bf16", holds_dense<DType::bf16>, tile_parts, pack_tiles, unpack_tiles},
};

}  // namespace

std::span<const Packing> panel_packings() { return rows; }

}  // namespace lathe
