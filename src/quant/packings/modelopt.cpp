// "modelopt.int4": W4A16_AWQ of ModelOpt (https://github.com/NVIDIA/Model-Optimizer, modelopt/torch/export/
// quant_utils.py): byte [r, k] of the weight holds rows 2 r (low nibble) and 2 r + 1, both signed; a
// pre_quant_scale multiplies the columns where no layer before could take it. Its floats are in float.cpp.
#include <algorithm>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

bool holds_int4(const Numerics& n) {
  Numerics plain = Numerics::integer(4, n.group, false, n.dtype);
  plain.column_scales = n.column_scales;
  return n == plain && n.group > 0 &&
         (n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16);
}

std::vector<Part> int4_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2 || shape[0] % 2 != 0) fail("rows in pairs, not {}", to_string(shape));
  std::vector<Part> parts = {{"weight", DType::u8, {shape[0] / 2, shape[1]}},
                             {"weight_scale", n.dtype, {shape[0], n.groups(shape[1])}}};
  if (n.column_scales) parts.push_back({"pre_quant_scale", DType::f32, {shape[1]}});
  return parts;
}

void pack_int4(const Codes& c, int64_t row, Weight& out) {
  auto bytes = out.parts[0].as_mutable<uint8_t>();
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i) {
      uint8_t& byte = bytes[static_cast<size_t>((row + r) / 2 * c.cols + i)];
      const int shift = 4 * static_cast<int>((row + r) % 2),
                code = c.codes[static_cast<size_t>(r * c.cols + i)];
      byte = static_cast<uint8_t>((byte & ~(15 << shift)) | (code & 15) << shift);
    }
  const int64_t groups = c.numerics.groups(c.cols);
  from_f32(c.numerics.dtype, c.scales.data(),
           out.parts[1].storage.data + static_cast<size_t>(row * groups) * dtype_bytes(c.numerics.dtype),
           c.rows * groups);
  if (c.numerics.column_scales && row == 0)
    std::ranges::copy(c.columns, out.parts[2].as_mutable<float>().begin());
}

void unpack_int4(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto bytes = w.parts[0].as<uint8_t>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i) {
      const int code = bytes[static_cast<size_t>((row + r) / 2 * c.cols + i)] >> 4 * ((row + r) % 2) & 15;
      c.codes[static_cast<size_t>(r * c.cols + i)] = static_cast<int16_t>(code < 8 ? code : code - 16);
    }
  const int64_t groups = c.numerics.groups(c.cols);
  to_f32(c.numerics.dtype,
         w.parts[1].storage.data + static_cast<size_t>(row * groups) * dtype_bytes(c.numerics.dtype),
         c.scales.data(), rows * groups);
  if (c.numerics.column_scales) std::ranges::copy(w.parts[2].as<float>(), c.columns.begin());
}

constexpr Packing rows[] = {{"modelopt.int4", holds_int4, int4_parts, pack_int4, unpack_int4}};

}  // namespace

std::span<const Packing> modelopt_packings() { return rows; }

}  // namespace lathe
