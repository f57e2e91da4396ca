// Integers as AutoGPTQ ("gptq.v1"), GPTQModel ("gptq.v2") and AutoAWQ ("awq.gemm") store them: column by
// column of the matrix, scales and zero points group by group, codes and zero points without sign.
// https://github.com/ModelCloud/GPTQModel (nn_modules/qlinear), https://github.com/casper-hansen/AutoAWQ
// (awq/modules/linear/gemm.py). Read only.
//
//   GPTQ   qweight i32 [cols * bits / 32, rows]     a stream of codes down the columns, for each row
//          qzeros  i32 [groups, rows * bits / 32]   a stream along the rows; v1 stores them less one, modulo
//                                                   2^bits
//          scales      [groups, rows]
//          g_idx   i32 [cols]                       the group of a column, where that is not column / group
//   AWQ    qweight i32 [cols, rows / 8]             row 8 w + j of a word in nibble 0 4 1 5 2 6 3 7 [j]
//          qzeros  i32 [groups, rows / 8]           likewise
//          scales      [groups, rows]
#include <algorithm>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/bit_stream.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

constexpr int64_t run = 32;  // columns: of any width they fill whole words

bool holds_integers(const Numerics& n) {
  const bool scale = n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
  return n.is_integer() && scale && n.offset != Numerics::Offset::minimum && !n.column_scales &&
         n.super == 0 && n.activations == Numerics::Activations::as_they_are;
}
bool holds_gptq(const Numerics& n) {
  return holds_integers(n) && (n.bits == 2 || n.bits == 3 || n.bits == 4 || n.bits == 8);
}
bool holds_awq(const Numerics& n) { return holds_integers(n) && n.bits == 4 && !n.act_order; }

void require(const Shape& shape, int64_t rows, int64_t cols) {
  if (shape.size() != 2 || shape[0] % rows != 0 || shape[1] % cols != 0)
    fail("whole words need a multiple of {} rows and of {} columns, not {}", rows, cols, to_string(shape));
}

std::vector<Part> gptq_parts(const Numerics& n, const Shape& shape) {
  require(shape, n.bits == 3 ? 32 : 32 / n.bits, run);
  const int64_t rows = shape[0], cols = shape[1], groups = n.groups(cols);
  std::vector<Part> parts = {{"qweight", DType::i32, {cols / run * n.bits, rows}},
                             {"scales", n.dtype, {groups, rows}}};
  if (n.offset == Numerics::Offset::zero_point)
    parts.push_back({"qzeros", DType::i32, {groups, rows * n.bits / 32}});
  if (n.act_order) parts.push_back({"g_idx", DType::i32, {cols}});
  return parts;
}

std::vector<Part> awq_parts(const Numerics& n, const Shape& shape) {
  require(shape, 8, 1);
  const int64_t rows = shape[0], cols = shape[1], groups = n.groups(cols);
  std::vector<Part> parts = {{"qweight", DType::i32, {cols, rows / 8}}, {"scales", n.dtype, {groups, rows}}};
  if (n.offset == Numerics::Offset::zero_point) parts.push_back({"qzeros", DType::i32, {groups, rows / 8}});
  return parts;
}

// Stored group by group.
void load_scales(const Weight& w, int64_t row, Codes& c) {
  const Tensor& in = w.parts[1];
  const int64_t groups = c.numerics.groups(c.cols), all = w.rows();
  std::vector<float> of_group(static_cast<size_t>(c.rows));
  for (int64_t g = 0; g < groups; ++g) {
    to_f32(in.dtype, in.storage.data + static_cast<size_t>(g * all + row) * dtype_bytes(in.dtype),
           of_group.data(), c.rows);
    for (int64_t r = 0; r < c.rows; ++r)
      c.scales[static_cast<size_t>(r * groups + g)] = of_group[static_cast<size_t>(r)];
  }
}

// `zero_less`: what the stored zero points lack.
template <int zero_less>
void unpack_gptq(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int bits = c.numerics.bits, bias = 1 << (bits - 1), mask = 2 * bias - 1;
  const int64_t all = w.rows(), groups = c.numerics.groups(c.cols);
  const uint32_t* codes = w.parts[0].as<uint32_t>().data();
  for (int64_t begin = 0; begin < c.cols; begin += run)
    for (int64_t r = 0; r < rows; ++r)
      unpack_stream(codes + begin / run * bits * all + row + r, all, run, bits, bias,
                    c.codes.data() + r * c.cols + begin);
  load_scales(w, row, c);
  if (c.numerics.act_order) std::ranges::copy(w.parts.back().as<int32_t>(), c.group_of.begin());
  if (c.zeros.empty()) return;
  const uint32_t* zeros = w.parts[2].as<uint32_t>().data();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < rows; ++r) {
      const int stored = code_at(zeros + g * (all * bits / 32), 1, row + r, bits);
      c.zeros[static_cast<size_t>(r * groups + g)] = static_cast<float>(((stored + zero_less) & mask) - bias);
    }
}

int awq_code(uint32_t word, int64_t row) {
  constexpr int nibbles[] = {0, 4, 1, 5, 2, 6, 3, 7};
  return static_cast<int>(word >> 4 * nibbles[row % 8] & 15) - 8;
}

void unpack_awq(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int64_t width = w.rows() / 8, groups = c.numerics.groups(c.cols);
  const auto codes = w.parts[0].as<uint32_t>();
  for (int64_t col = 0; col < c.cols; ++col)
    for (int64_t r = 0; r < rows; ++r)
      c.codes[static_cast<size_t>(r * c.cols + col)] =
          static_cast<int16_t>(awq_code(codes[static_cast<size_t>(col * width + (row + r) / 8)], row + r));
  load_scales(w, row, c);
  if (c.zeros.empty()) return;
  const auto zeros = w.parts[2].as<uint32_t>();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < rows; ++r)
      c.zeros[static_cast<size_t>(r * groups + g)] =
          static_cast<float>(awq_code(zeros[static_cast<size_t>(g * width + (row + r) / 8)], row + r));
}

constexpr Packing rows[] = {
    {"gptq.v1", holds_gptq, gptq_parts, nullptr, unpack_gptq<1>},
    {"gptq.v2", holds_gptq, gptq_parts, nullptr, unpack_gptq<0>},
    {"awq.gemm", holds_awq, awq_parts, nullptr, unpack_awq},
};

}  // namespace

std::span<const Packing> gptq_packings() { return rows; }

}  // namespace lathe
