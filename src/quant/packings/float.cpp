// 8- and 4-bit floats as checkpoints hold them. "ct.fp8", "ct.mxfp8", "ct.mxfp4" and "ct.nvfp4" are
// compressed-tensors' float-quantized, mxfp8-quantized, mxfp4-pack-quantized and nvfp4-pack-quantized
// (https://github.com/vllm-project/compressed-tensors, compressors/); "hf.fp8" is transformers' quant_method
// fp8, whose weight_scale_inv multiplies all the same. "modelopt.fp8", "modelopt.nvfp4" and "modelopt.mxfp4"
// are ModelOpt's (https://github.com/NVIDIA/Model-Optimizer, modelopt/torch/export), whose weight_scale_2
// multiplies where compressed-tensors' weight_global_scale divides; "openai.mxfp4" is that of gpt-oss, whose
// matrices are stacked in one tensor of experts (transformers, integrations/mxfp4.py), rows of gate and of up
// by turns: one of them is a view whose rows lie apart.
//
// Codes of 8 bits are a byte each; of 4 bits, a byte holds columns 2 j (low) and 2 j + 1. Scales that rows
// share are stored once: [1] for the whole weight, [row blocks, column blocks], the last ones ragged. A scale
// of the input that comes with the model is "input_scale", and for NVFP4 "input_global_scale", which divides,
// in compressed-tensors.
#include "core/float.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

using Kind = Numerics::Kind;

void require_matrix(const Shape& shape) {
  if (shape.size() != 2) fail("float packings hold matrices, not shape {}", to_string(shape));
}

// Rows of stored scales.
int64_t scale_rows(const Numerics& n, int64_t rows) {
  return n.block_rows == 0 ? 1 : (rows + n.block_rows - 1) / n.block_rows;
}

void store_scales(const Codes& c, int64_t row, Tensor& out) {
  const int64_t groups = c.numerics.groups(c.cols), block = c.numerics.block_rows;
  for (int64_t r = 0; r < c.rows; ++r)
    if (block == 0 ? row + r == 0 : (row + r) % block == 0)
      from_f32(c.numerics.dtype, &c.scales[static_cast<size_t>(r * groups)],
               out.storage.data + static_cast<size_t>((block == 0 ? 0 : (row + r) / block) * groups) *
                                      dtype_bytes(out.dtype),
               groups);
}

void load_scales(const Tensor& in, int64_t row, Codes& c) {
  const int64_t groups = c.numerics.groups(c.cols), block = c.numerics.block_rows;
  for (int64_t r = 0; r < c.rows; ++r)
    to_f32(c.numerics.dtype,
           in.storage.data +
               static_cast<size_t>((block == 0 ? 0 : (row + r) / block) * groups) * dtype_bytes(in.dtype),
           &c.scales[static_cast<size_t>(r * groups)], groups);
}

bool wide_scale(const Numerics& n) {
  return n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
}

bool holds_fp8(const Numerics& n) {
  return n.kind == Kind::e4m3 && wide_scale(n) && !n.global && n.activations != Activations::nvfp4;
}
bool holds_fp8_blocks(const Numerics& n) { return holds_fp8(n) && n.block_rows > 1 && n.group > 0; }
bool holds_mxfp8(const Numerics& n) {
  return n.weights_alone() == Numerics::mxfp8() && n.activations != Activations::nvfp4;
}
bool holds_mxfp4(const Numerics& n) { return n.weights_alone() == Numerics::mxfp4(); }
bool holds_mxfp4_alone(const Numerics& n) { return n == Numerics::mxfp4(); }
bool holds_nvfp4(const Numerics& n) { return n.weights_alone() == Numerics::nvfp4(); }
bool holds_modelopt_nvfp4(const Numerics& n) {
  return holds_nvfp4(n) || n.weights_alone() == Numerics::nvfp4().with_column_scales();
}
bool holds_modelopt_fp8(const Numerics& n) {
  const Numerics alone = n.weights_alone();
  return holds_fp8(n) && (alone == Numerics::fp8(n.dtype) || alone == Numerics::fp8_tensor(n.dtype) ||
                          alone == Numerics::fp8_block(n.dtype));
}

// The last part, where there is one: the scale of the input, or what it is 1 divided by (NVFP4 of
// compressed-tensors).
void add_input_scale(const Numerics& n, std::vector<Part>& parts) {
  if (!n.has_input_scale()) return;
  if (n.activations == Activations::nvfp4)
    parts.push_back({"input_global_scale", DType::f32, {1}});
  else
    parts.push_back({"input_scale", wide_scale(n) ? n.dtype : DType::f32, {1}});
}
void add_modelopt_input_scale(const Numerics& n, std::vector<Part>& parts) {
  if (n.has_input_scale()) parts.push_back({"input_scale", DType::f32, {}});
}

std::vector<Part> fp8_codes(const Numerics& n, const Shape& shape) {
  require_matrix(shape);
  const Shape scales =
      n.block_rows == 0 && n.group == 0 ? Shape{1} : Shape{scale_rows(n, shape[0]), n.groups(shape[1])};
  return {{"weight", DType::f8e4m3, shape}, {"weight_scale", n.dtype, scales}};
}

std::vector<Part> fp8_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = fp8_codes(n, shape);
  add_input_scale(n, parts);
  return parts;
}

std::vector<Part> hf_fp8_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = fp8_parts(n, shape);
  parts[1].name = "weight_scale_inv";
  return parts;
}

std::vector<Part> mxfp8_parts(const Numerics& n, const Shape& shape) {
  require_matrix(shape);
  std::vector<Part> parts = {{"weight", DType::f8e4m3, shape},
                             {"weight_scale", DType::u8, {shape[0], n.groups(shape[1])}}};
  add_input_scale(n, parts);
  return parts;
}

// compressed-tensors stores e8m0 as u8.
std::vector<Part> fp4_codes(const Numerics& n, const Shape& shape) {
  require_matrix(shape);
  if (shape[1] % 2 != 0) fail("{} columns are not pairs", shape[1]);
  std::vector<Part> parts = {
      {"weight_packed", DType::u8, {shape[0], shape[1] / 2}},
      {"weight_scale", n.dtype == DType::f8e8m0 ? DType::u8 : n.dtype, {shape[0], n.groups(shape[1])}}};
  if (n.global) parts.push_back({"weight_global_scale", DType::f32, {1}});
  return parts;
}

std::vector<Part> fp4_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = fp4_codes(n, shape);
  add_input_scale(n, parts);
  return parts;
}

// One scale is no vector of one, and one for each row no matrix of one column.
std::vector<Part> modelopt_fp8_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = fp8_codes(n, shape);
  if (n.group == 0) parts[1].shape = n.block_rows == 0 ? Shape{} : Shape{shape[0]};
  add_modelopt_input_scale(n, parts);
  return parts;
}

std::vector<Part> modelopt_fp4_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = fp4_codes(n, shape);
  parts[0].name = "weight";
  if (n.global) parts[2] = {"weight_scale_2", DType::f32, {}};
  if (n.column_scales) parts.push_back({"pre_quant_scale", DType::f32, {shape[1]}});
  add_modelopt_input_scale(n, parts);
  return parts;
}

// [experts, rows, cols], or [rows, cols] of one: of 32 columns, 16 bytes.
std::vector<Part> openai_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() < 2 || shape.size() > 3 || shape.back() % n.group != 0)
    fail("experts of rows of whole groups of {}, not {}", n.group, to_string(shape));
  Shape scales = shape;
  scales.back() /= n.group;
  Shape blocks = scales;
  blocks.push_back(n.group / 2);
  return {{"blocks", DType::u8, std::move(blocks)}, {"scales", DType::u8, std::move(scales)}};
}

void pack_fp8(const Codes& c, int64_t row, Weight& out) {
  auto bytes = out.parts[0].as_mutable<uint8_t>();
  std::transform(c.codes.begin(), c.codes.end(), bytes.begin() + row * c.cols,
                 [](int16_t q) { return static_cast<uint8_t>(q); });
  store_scales(c, row, out.parts[1]);
  store_input_scale(c, row, out);
}

void unpack_fp8(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto bytes = w.parts[0].as<uint8_t>().subspan(static_cast<size_t>(row * c.cols), c.codes.size());
  std::copy(bytes.begin(), bytes.end(), c.codes.begin());
  load_scales(w.parts[1], row, c);
  load_input_scale(w, c);
}

// The global scale is stored inverted. Of the divisors that 1 / f32 brings back to `global` (two at most,
// seldom none), the one that ends in more zeros.
float inverted(float global) {
  const float near = 1 / global;
  float best = near;
  int zeros = -1;
  for (const float divisor : {near, std::nextafter(near, 0.0f), std::nextafter(near, INFINITY)})
    if (const int n = std::countr_zero(std::bit_cast<uint32_t>(divisor));
        1 / divisor == global && n > zeros) {
      best = divisor;
      zeros = n;
    }
  return best;
}

float as_it_is(float global) { return global; }

template <float (*stored)(float global)>
void pack_fp4(const Codes& c, int64_t row, Weight& out) {
  auto bytes = out.parts[0].as_mutable<uint8_t>();
  for (int64_t i = 0; i < c.rows * c.cols; i += 2)
    bytes[static_cast<size_t>((row * c.cols + i) / 2)] =
        static_cast<uint8_t>(c.codes[static_cast<size_t>(i)] | c.codes[static_cast<size_t>(i + 1)] << 4);
  store_scales(c, row, out.parts[1]);
  if (c.numerics.global && row == 0) out.parts[2].as_mutable<float>()[0] = stored(c.global);
  if (c.numerics.column_scales && row == 0)
    std::ranges::copy(c.columns, out.parts[3].as_mutable<float>().begin());
  store_input_scale(c, row, out, stored);
}

float inverse(float divisor) { return 1 / divisor; }

template <float (*global)(float stored)>
void unpack_fp4(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto bytes = w.parts[0].as<uint8_t>();
  for (int64_t i = 0; i < rows * c.cols; i += 2) {
    const int both = bytes[static_cast<size_t>((row * c.cols + i) / 2)];
    c.codes[static_cast<size_t>(i)] = static_cast<int16_t>(both & 15);
    c.codes[static_cast<size_t>(i + 1)] = static_cast<int16_t>(both >> 4);
  }
  load_scales(w.parts[1], row, c);
  if (c.numerics.global) c.global = global(w.parts[2].as<float>()[0]);
  if (c.numerics.column_scales) std::ranges::copy(w.parts[3].as<float>(), c.columns.begin());
  load_input_scale(w, c, global);
}

void unpack_openai(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int64_t groups = w.numerics.groups(c.cols);
  const auto of_row = [&](const Tensor& part, int64_t r, int64_t bytes) {
    return reinterpret_cast<const uint8_t*>(part.storage.data) +
           r * (part.strides.empty() ? bytes : part.strides[0]);
  };
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* pairs = of_row(w.parts[0], row + r, c.cols / 2);
    int16_t* codes = &c.codes[static_cast<size_t>(r * c.cols)];
    for (int64_t i = 0; i < c.cols; i += 2) {
      codes[i] = static_cast<int16_t>(pairs[i / 2] & 15);
      codes[i + 1] = static_cast<int16_t>(pairs[i / 2] >> 4);
    }
    to_f32(w.numerics.dtype, of_row(w.parts[1], row + r, groups), &c.scales[static_cast<size_t>(r * groups)],
           groups);
  }
}

// Exponents are stored as u8: of all values 255 alone is no number.
int64_t nonfinite_exponent(const Weight& w) {
  const auto exponents = w.parts[1].as<uint8_t>();
  const auto found = std::ranges::find(exponents, 0xff);
  return found == exponents.end() ? -1 : found - exponents.begin();
}

int64_t nonfinite_divisor(const Weight& w) {
  return std::isnormal(inverse(w.parts[2].as<float>()[0])) ? -1 : 0;
}

constexpr Packing rows[] = {
    {"ct.fp8", holds_fp8, fp8_parts, pack_fp8, unpack_fp8},
    {"ct.mxfp8", holds_mxfp8, mxfp8_parts, pack_fp8, unpack_fp8, nonfinite_exponent},
    {"ct.mxfp4", holds_mxfp4, fp4_parts, pack_fp4<inverted>, unpack_fp4<inverse>, nonfinite_exponent},
    {"ct.nvfp4", holds_nvfp4, fp4_parts, pack_fp4<inverted>, unpack_fp4<inverse>, nonfinite_divisor},
    {"hf.fp8", holds_fp8_blocks, hf_fp8_parts, pack_fp8, unpack_fp8},
    {"modelopt.fp8", holds_modelopt_fp8, modelopt_fp8_parts, pack_fp8, unpack_fp8},
    {"modelopt.nvfp4", holds_modelopt_nvfp4, modelopt_fp4_parts, pack_fp4<as_it_is>, unpack_fp4<as_it_is>},
    {"modelopt.mxfp4", holds_mxfp4, modelopt_fp4_parts, pack_fp4<as_it_is>, unpack_fp4<as_it_is>,
     nonfinite_exponent},
    {"openai.mxfp4", holds_mxfp4_alone, openai_parts, nullptr, unpack_openai, nonfinite_exponent},
};

}  // namespace

std::span<const Packing> float_packings() { return rows; }

}  // namespace lathe
