// ModelOpt (https://github.com/NVIDIA/Model-Optimizer, modelopt/torch/export/quant_utils.py). Its floats are
// in float.cpp. A pre_quant_scale multiplies the columns where no layer before could take it.
//
//   "modelopt.int4"      W4A16_AWQ, W4A8_AWQ: byte [r, k] holds rows 2 r (low nibble) and 2 r + 1, signed
//   "modelopt.int8"      W8A16, W8A8_SQ_PER_CHANNEL: a byte each
//   "modelopt.low_rank"  NVFP4_SVD's svdquant_lora_a, which sees what pre_quant_scale makes of the input
#include <algorithm>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

Numerics without_column_scales(Numerics n) {
  n.column_scales = false;
  return n;
}

bool wide(DType scale) { return scale == DType::f32 || scale == DType::f16 || scale == DType::bf16; }

bool holds_int4(const Numerics& n) {
  const bool given = n.activations == Activations::fp8_static || !n.rounds_activations();
  return without_column_scales(n.weights_alone()) == Numerics::integer(4, n.group, false, n.dtype) &&
         n.group > 0 && wide(n.dtype) && given;
}
bool holds_int8(const Numerics& n) {
  const Numerics plain = without_column_scales(n);
  return wide(n.dtype) &&
         (plain == Numerics::integer(8, 0, false, n.dtype) || plain == Numerics::w8a8_static(n.dtype));
}
bool holds_low_rank(const Numerics& n) {
  return n.column_scales && without_column_scales(n) == Numerics::dense(n.dtype) && wide(n.dtype);
}

std::vector<Part> int4_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2 || shape[0] % 2 != 0) fail("rows in pairs, not {}", to_string(shape));
  std::vector<Part> parts = {{"weight", DType::u8, {shape[0] / 2, shape[1]}},
                             {"weight_scale", n.dtype, {shape[0], n.groups(shape[1])}}};
  if (n.has_input_scale()) parts.push_back({"input_scale", DType::f32, {}});
  if (n.column_scales) parts.push_back({"pre_quant_scale", DType::f32, {shape[1]}});
  return parts;
}

std::vector<Part> int8_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2) fail("a matrix, not {}", to_string(shape));
  std::vector<Part> parts = {{"weight", DType::i8, shape}, {"weight_scale", n.dtype, {shape[0]}}};
  if (n.has_input_scale()) parts.push_back({"input_scale", DType::f32, {}});
  if (n.column_scales) parts.push_back({"pre_quant_scale", DType::f32, {shape[1]}});
  return parts;
}

std::vector<Part> low_rank_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2) fail("a matrix, not {}", to_string(shape));
  return {{"svdquant_lora_a", n.dtype, shape}, {"pre_quant_scale", DType::f32, {shape[1]}}};
}

// Of the whole weight: parts after codes and scales.
void store_rest(const Codes& c, int64_t row, Weight& out) {
  if (c.numerics.has_input_scale() && row == 0) out.parts[2].as_mutable<float>()[0] = c.input_scale;
  if (c.numerics.column_scales && row == 0)
    std::ranges::copy(c.columns, out.parts.back().as_mutable<float>().begin());
}
void load_rest(const Weight& w, Codes& c) {
  if (c.numerics.has_input_scale()) c.input_scale = w.parts[2].as<float>()[0];
  if (c.numerics.column_scales) std::ranges::copy(w.parts.back().as<float>(), c.columns.begin());
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
  store_rest(c, row, out);
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
  load_rest(w, c);
}

void pack_int8(const Codes& c, int64_t row, Weight& out) {
  std::ranges::transform(c.codes, out.parts[0].as_mutable<int8_t>().begin() + row * c.cols,
                         [](int16_t q) { return static_cast<int8_t>(q); });
  from_f32(c.numerics.dtype, c.scales.data(),
           out.parts[1].storage.data + static_cast<size_t>(row) * dtype_bytes(c.numerics.dtype), c.rows);
  store_rest(c, row, out);
}

void unpack_int8(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  std::ranges::copy(w.parts[0].as<int8_t>().subspan(static_cast<size_t>(row * c.cols), c.codes.size()),
                    c.codes.begin());
  to_f32(c.numerics.dtype, w.parts[1].storage.data + static_cast<size_t>(row) * dtype_bytes(c.numerics.dtype),
         c.scales.data(), rows);
  load_rest(w, c);
}

void unpack_low_rank(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  to_f32(c.numerics.dtype,
         w.parts[0].storage.data + static_cast<size_t>(row * c.cols) * dtype_bytes(c.numerics.dtype),
         c.values.data(), rows * c.cols);
  load_rest(w, c);
}

constexpr Packing rows[] = {
    {"modelopt.int4", holds_int4, int4_parts, pack_int4, unpack_int4},
    {"modelopt.int8", holds_int8, int8_parts, pack_int8, unpack_int8},
    {"modelopt.low_rank", holds_low_rank, low_rank_parts, nullptr, unpack_low_rank},
};

}  // namespace

std::span<const Packing> modelopt_packings() { return rows; }

}  // namespace lathe
