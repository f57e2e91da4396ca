// panel.k: GGUF's k-quants at their own size, in the order of kernels (kernels/simd/k_quants.inl). Panels of
// 32 rows side by side, as in panels.cpp:
//
//   codes      words [panels, cols / 32, bits, 32]: 32 columns of a row are `bits` words
//   multiples  i8 [panels, cols / group, 1 or 2, 32]: of the scale, then of the minimum
//   units      f16 [panels, cols / 256, 1 or 2, 32]: what multiples multiply
//
// The 32 columns are eight quads of four bytes: column c is byte c % 8 / 2 of quad c / 8 * 2 + c % 2. Codes
// without sign are cut into planes, whose words follow each other: nibbles (quad 2w in the low ones of word
// w, quad 2w + 1 in the high ones), bit pairs (quad 4v + i in bits 2i of the bytes of word v) and single bits
// (quad i in bit i). Six bits are nibbles and then pairs, five nibbles and bits, three pairs and bits. Rows
// that pad are 0.
#include <array>
#include <type_traits>

#include "core/error.h"
#include "core/float.h"
#include "quant/levels.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

constexpr int64_t panel = pack_row_multiple, quad_columns = 32;

bool holds_k(const Numerics& n) {
  return n.super > 0 && n == Numerics::k_quant(n.bits, n.group, n.offset == Numerics::Offset::minimum) &&
         (n.group == 16 || n.group == 32) && n.bits >= 2 && n.bits <= 6;
}

int64_t levels(const Numerics& n) { return n.offset == Numerics::Offset::minimum ? 2 : 1; }

std::vector<Part> parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2 || shape[1] % n.super != 0)
    fail("panel.k holds matrices of whole super-blocks of {}, not {}", n.super, to_string(shape));
  const int64_t panels = (shape[0] + panel - 1) / panel, cols = shape[1];
  return {{"codes", DType::i32, {panels, cols / quad_columns, n.bits, panel}},
          {"multiples", DType::i8, {panels, cols / n.group, levels(n), panel}},
          {"units", DType::f16, {panels, cols / n.super, levels(n), panel}}};
}

// The planes of `bits` bits, lowest first: their widths.
constexpr std::array<int, 2> planes_of(int bits) {
  return bits >= 4 ? std::array{4, bits - 4} : std::array{2, bits - 2};
}

constexpr int quads = 8;

// Calls use(quad, word, bits below, mask, shift) for every piece of every quad.
template <int bits, class Use>
void for_pieces(Use&& use) {
  int word = 0, below = 0;
  for (const int width : planes_of(bits)) {
    if (width == 0) continue;
    const int per_word = 8 / width;
    const uint32_t mask = ((1u << width) - 1) * 0x01010101u;
    for (int q = 0; q < quads; ++q) use(q, word + q / per_word, below, mask, width * (q % per_word));
    word += quads / per_word;
    below += width;
  }
}

int column_of(int quad, int byte) { return quad / 2 * 8 + byte * 2 + quad % 2; }

int bias(const Numerics& n) { return n.code_min(); }

// Word `word` of the 32 columns from `column`, of row `row`.
size_t word_at(const Numerics& n, int64_t cols, int64_t row, int64_t column, int word) {
  return static_cast<size_t>(
      ((row / panel * (cols / quad_columns) + column / quad_columns) * n.bits + word) * panel + row % panel);
}
// Of `count` things per row.
size_t level_at(const Numerics& n, int64_t count, int64_t row, int64_t i, int64_t level) {
  return static_cast<size_t>(((row / panel * count + i) * levels(n) + level) * panel + row % panel);
}

template <int bits>
void pack_codes(const Codes& c, int64_t row, Weight& out) {
  auto* words = reinterpret_cast<uint32_t*>(out.parts[0].storage.data);
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t column = 0; column < c.cols; column += quad_columns) {
      uint32_t quad[quads] = {}, planes[bits] = {};
      const int16_t* codes = c.codes.data() + r * c.cols + column;
      for (int q = 0; q < quads; ++q)
        for (int b = 0; b < 4; ++b)
          quad[q] |= static_cast<uint32_t>(codes[column_of(q, b)] - bias(c.numerics)) << (8 * b);
      for_pieces<bits>([&](int q, int word, int below, uint32_t mask, int shift) {
        planes[word] |= (quad[q] >> below & mask) << shift;
      });
      for (int w = 0; w < bits; ++w) words[word_at(c.numerics, c.cols, row + r, column, w)] = planes[w];
    }
}

template <int bits>
void unpack_codes(const Weight& w, int64_t row, Codes& c) {
  const auto* words = reinterpret_cast<const uint32_t*>(w.parts[0].storage.data);
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t column = 0; column < c.cols; column += quad_columns) {
      uint32_t quad[quads] = {};
      for_pieces<bits>([&](int q, int word, int below, uint32_t mask, int shift) {
        quad[q] |= (words[word_at(c.numerics, c.cols, row + r, column, word)] >> shift & mask) << below;
      });
      int16_t* codes = c.codes.data() + r * c.cols + column;
      for (int q = 0; q < quads; ++q)
        for (int b = 0; b < 4; ++b)
          codes[column_of(q, b)] =
              static_cast<int16_t>(static_cast<int>(quad[q] >> (8 * b) & 255) + bias(c.numerics));
    }
}

// f(bits as a constant).
template <class F>
void by_bits(int bits, F&& f) {
  switch (bits) {
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    default:
      return f(std::integral_constant<int, 6>{});
  }
}

void pack_k(const Codes& c, int64_t row, Weight& out) {
  const Numerics& n = c.numerics;
  by_bits(n.bits, [&](auto bits) { pack_codes<bits()>(c, row, out); });
  const int64_t groups = n.groups(c.cols), supers = c.cols / n.super, per_super = n.super / n.group;
  auto* multiples = reinterpret_cast<int8_t*>(out.parts[1].storage.data);
  auto* units = reinterpret_cast<uint16_t*>(out.parts[2].storage.data);
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t s = 0; s < supers; ++s)
      for (int64_t level = 0; level < levels(n); ++level) {
        const std::vector<float>& from = level == 0 ? c.scales : c.zeros;
        int8_t found[16];
        const float unit =
            find_levels({from.data() + r * groups + s * per_super, static_cast<size_t>(per_super)},
                        level_range(n), found);
        units[level_at(n, supers, row + r, s, level)] = f32_to_f16(unit);
        for (int64_t g = 0; g < per_super; ++g)
          multiples[level_at(n, groups, row + r, s * per_super + g, level)] = found[g];
      }
}

void unpack_k(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const Numerics& n = c.numerics;
  const int64_t groups = n.groups(c.cols), supers = c.cols / n.super, per_super = n.super / n.group;
  const auto* multiples = reinterpret_cast<const int8_t*>(w.parts[1].storage.data);
  const auto* units = reinterpret_cast<const uint16_t*>(w.parts[2].storage.data);
  by_bits(n.bits, [&](auto bits) { unpack_codes<bits()>(w, row, c); });
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t level = 0; level < levels(n); ++level)
        (level == 0 ? c.scales : c.zeros)[static_cast<size_t>(r * groups + g)] =
            f16_to_f32(units[level_at(n, supers, row + r, g / per_super, level)]) *
            static_cast<float>(multiples[level_at(n, groups, row + r, g, level)]);
}

constexpr Packing rows[] = {{"panel.k", holds_k, parts, pack_k, unpack_k}};

}  // namespace

std::span<const Packing> k_panel_packings() { return rows; }

}  // namespace lathe
