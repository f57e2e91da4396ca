#include "export/onnx_weights.h"

#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/float.h"

namespace lathe {
namespace {

using Offset = Numerics::Offset;
using Strings = std::vector<std::string>;

template <class F>
void for_strips(const Weight& w, F&& f) {
  constexpr int64_t rows = 8 * pack_row_multiple;
  for (int64_t row = 0; row < w.rows(); row += rows) f(row, std::min(rows, w.rows() - row));
}

std::string scale_of(const OnnxWeight& w) { return w.name + "_scale"; }
std::string input_scale_of(const OnnxWeight& w) { return w.name + "_input_scale"; }
std::string zero_of(const OnnxWeight& w) { return w.name + "_zero_point"; }

// codes [rows, groups, n] and what belongs to them [rows, groups, 1] -> rows of floats.
std::string scaled(OnnxFile& out, const OnnxWeight& w, std::string codes, const std::string& zeros,
                   const std::string& scales) {
  const int64_t groups = w.numerics.groups(w.cols);
  const auto floats = [&](const std::string& x, std::vector<int64_t> shape) {
    const std::string cast = out.add({.op = "Cast", .inputs = {x}, .attributes = {{"to", int64_t{1}}}});
    return out.add("Reshape", {cast, out.numbers(shape)});
  };
  codes = floats(codes, {-1, groups, w.cols / groups});
  if (!zeros.empty()) codes = out.add("Sub", {codes, floats(zeros, {-1, groups, 1})});
  const std::string values =
      out.add("Mul", {codes, out.add("Reshape", {scales, out.numbers({-1, groups, 1})})});
  return out.add("Reshape", {values, out.numbers({-1, w.cols})});
}

std::string gemm(OnnxFile& out, const std::string& x, const std::string& matrix, const std::string& bias) {
  Strings inputs = {x, matrix};
  if (!bias.empty()) inputs.push_back(bias);
  return out.add({.op = "Gemm", .inputs = std::move(inputs), .attributes = {{"transB", int64_t{1}}}});
}

// --- MatMulNBits of com.microsoft: codes and zero points unsigned, of 4 or 8 bits, low bits first; each row
// [groups, group * bits / 8]. Codes of 2 and 3 bits take 4, of 5 to 7 bits 8.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits

int stored_bits(const Numerics& n) { return n.bits <= 4 ? 4 : 8; }

bool holds_nbits(const Numerics& n, int64_t cols) {
  return n.is_integer() && n.offset != Offset::minimum && n.super == 0 && !n.act_order && !n.column_scales &&
         !n.rounds_activations() && n.group >= 16 && std::has_single_bit(static_cast<unsigned>(n.group)) &&
         cols % n.group == 0;
}

void store_nbits(OnnxFile& out, const OnnxWeight& as, const Weight& w, DType) {
  const int bits = stored_bits(w.numerics), middle = 1 << (bits - 1), per_byte = 8 / bits;
  const int64_t groups = w.numerics.groups(w.cols()), zero_bytes = (groups + per_byte - 1) / per_byte;
  std::vector<uint8_t> codes(static_cast<size_t>(w.rows() * w.cols() / per_byte)), zeros;
  std::vector<float> scales;
  if (w.numerics.offset == Offset::zero_point) zeros.resize(static_cast<size_t>(w.rows() * zero_bytes));
  for_strips(w, [&](int64_t row, int64_t rows) {
    const Codes strip = unpack(w, row, rows);
    const auto put = [&](std::vector<uint8_t>& to, int64_t at, int value) {
      to[static_cast<size_t>(at / per_byte)] |=
          static_cast<uint8_t>((value + middle) << (at % per_byte * bits));
    };
    for (int64_t i = 0; i < rows * w.cols(); ++i)
      put(codes, row * w.cols() + i, strip.codes[static_cast<size_t>(i)]);
    scales.insert(scales.end(), strip.scales.begin(), strip.scales.end());
    if (zeros.empty()) return;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t g = 0; g < groups; ++g)
        put(zeros, (row + r) * zero_bytes * per_byte + g,
            static_cast<int>(strip.zeros[static_cast<size_t>(r * groups + g)]));
  });
  out.tensor(as.name, OnnxType::u8, {w.rows(), groups, w.numerics.group / per_byte},
             std::as_bytes(std::span(codes)));
  out.tensor(scale_of(as), OnnxType::f32, {w.rows(), groups}, std::as_bytes(std::span(scales)));
  if (!zeros.empty())
    out.tensor(zero_of(as), OnnxType::u8, {w.rows(), zero_bytes}, std::as_bytes(std::span(zeros)));
}

std::string linear_nbits(OnnxFile& out, const OnnxWeight& w, const std::string& x, const std::string& bias) {
  Strings inputs = {x, w.name, scale_of(w)};
  if (w.numerics.offset == Offset::zero_point) inputs.push_back(zero_of(w));
  const std::string y = out.add({.op = "MatMulNBits",
                                 .inputs = std::move(inputs),
                                 .attributes = {{"K", w.cols},
                                                {"N", w.rows},
                                                {"bits", int64_t{stored_bits(w.numerics)}},
                                                {"block_size", int64_t{w.numerics.group}}},
                                 .domain = "com.microsoft"});
  return bias.empty() ? y : out.add("Add", {y, bias});
}

std::string gather_nbits(OnnxFile& out, const OnnxWeight& w, const std::string& ids) {
  const int bits = stored_bits(w.numerics);
  const int64_t groups = w.numerics.groups(w.cols);
  const auto u8 = [&](uint8_t value) {
    return out.add(
        {.op = "Cast", .inputs = {out.number(int64_t{value})}, .attributes = {{"to", int64_t{2}}}});
  };
  // [rows, n] or [rows, groups, n] bytes -> [rows, codes]
  const auto unpacked = [&](const std::string& from) {
    const std::string bytes = out.add("Gather", {from, ids});
    if (bits == 8) return bytes;
    const std::string low = out.add("BitwiseAnd", {bytes, u8(15)});
    const std::string high = out.add(
        {.op = "BitShift", .inputs = {bytes, u8(4)}, .attributes = {{"direction", std::string("RIGHT")}}});
    const std::string last = out.numbers({-1});
    return out.add({.op = "Concat",
                    .inputs = {out.add("Unsqueeze", {low, last}), out.add("Unsqueeze", {high, last})},
                    .attributes = {{"axis", int64_t{-1}}}});
  };
  std::string zeros = out.number(static_cast<float>(1 << (bits - 1)));
  zeros = out.add("Expand", {zeros, out.numbers({1, groups})});
  if (w.numerics.offset == Offset::zero_point) {
    zeros = out.add("Reshape", {unpacked(zero_of(w)), out.numbers({0, -1})});
    zeros = out.add("Slice", {zeros, out.numbers({0}), out.numbers({groups}), out.numbers({1})});
  }
  return scaled(out, w, unpacked(w.name), zeros, out.add("Gather", {scale_of(w), ids}));
}

// --- DequantizeLinear before an op in floats ("QDQ"), and QuantizeLinear on its input where that is rounded
// too. Codes are int8 whatever their bits.

bool holds_qdq(const Numerics& n, int64_t cols) {
  return n.is_integer() && n.offset != Offset::minimum && n.super == 0 && !n.act_order && !n.column_scales &&
         (n.group == 0 || cols % n.group == 0) && (!n.rounds_activations() || n.rounds_to_int8());
}

void store_qdq(OnnxFile& out, const OnnxWeight& as, const Weight& w, DType) {
  std::vector<int8_t> codes, zeros;
  std::vector<float> scales;
  for_strips(w, [&](int64_t row, int64_t rows) {
    const Codes strip = unpack(w, row, rows);
    for (const int16_t code : strip.codes) codes.push_back(static_cast<int8_t>(code));
    for (const float zero : strip.zeros) zeros.push_back(static_cast<int8_t>(zero));
    scales.insert(scales.end(), strip.scales.begin(), strip.scales.end());
  });
  const Shape per_group =
      w.numerics.group == 0 ? Shape{w.rows()} : Shape{w.rows(), w.numerics.groups(w.cols())};
  out.tensor(as.name, OnnxType::i8, {w.rows(), w.cols()}, std::as_bytes(std::span(codes)));
  out.tensor(scale_of(as), OnnxType::f32, per_group, std::as_bytes(std::span(scales)));
  if (!zeros.empty()) out.tensor(zero_of(as), OnnxType::i8, per_group, std::as_bytes(std::span(zeros)));
  if (!w.numerics.has_input_scale()) return;
  const float scale = input_scale(w);
  out.tensor(input_scale_of(as), OnnxType::f32, {}, std::as_bytes(std::span(&scale, 1)));
}

// Rows rounded to integers in -127 .. 127 times max |x| / 127: quant/activations.h. A row of zeros would
// divide by its scale: there it is as small as it gets.
std::string rounded_rows(OnnxFile& out, const std::string& x) {
  const std::string most = out.add({.op = "ReduceMax",
                                    .inputs = {out.add("Abs", {x}), out.numbers({1})},
                                    .attributes = {{"keepdims", int64_t{0}}}});
  const std::string scale =
      out.add("Max", {out.add("Div", {most, out.number(127.0f)}), out.number(1.1754944e-38f)});
  const std::string zeros = out.add({.op = "Cast",
                                     .inputs = {out.add("Mul", {scale, out.number(0.0f)})},
                                     .attributes = {{"to", static_cast<int64_t>(OnnxType::i8)}}});
  const std::vector<OnnxAttribute> rows = {{"axis", int64_t{0}}};
  const std::string codes =
      out.add({.op = "QuantizeLinear", .inputs = {x, scale, zeros}, .attributes = rows});
  return out.add({.op = "DequantizeLinear", .inputs = {codes, scale, zeros}, .attributes = rows});
}

// The same with the scale that the weight brings. QuantizeLinear would cut off at -128.
std::string rounded(OnnxFile& out, const OnnxWeight& w, const std::string& x) {
  const std::string scale = input_scale_of(w);
  const std::string from = out.add("Max", {x, out.add("Mul", {scale, out.number(-127.0f)})});
  const std::string zero = out.add({.op = "Cast",
                                    .inputs = {out.number(int64_t{0})},
                                    .attributes = {{"to", static_cast<int64_t>(OnnxType::i8)}}});
  return out.add("DequantizeLinear", {out.add("QuantizeLinear", {from, scale, zero}), scale, zero});
}

std::string linear_qdq(OnnxFile& out, const OnnxWeight& w, const std::string& x, const std::string& bias) {
  Strings inputs = {w.name, scale_of(w)};
  if (w.numerics.offset == Offset::zero_point) inputs.push_back(zero_of(w));
  const bool grouped = w.numerics.group != 0;
  const std::vector<OnnxAttribute> per_row = {{"axis", int64_t{0}}},
                                   per_group = {{"axis", int64_t{1}},
                                                {"block_size", int64_t{w.numerics.group}}};
  const std::string matrix =
      out.add({.op = "DequantizeLinear", .inputs = inputs, .attributes = grouped ? per_group : per_row});
  if (!w.numerics.rounds_activations()) return gemm(out, x, matrix, bias);
  return gemm(out, w.numerics.has_input_scale() ? rounded(out, w, x) : rounded_rows(out, x), matrix, bias);
}

std::string gather_qdq(OnnxFile& out, const OnnxWeight& w, const std::string& ids) {
  const auto rows = [&](const std::string& from) { return out.add("Gather", {from, ids}); };
  return scaled(out, w, rows(w.name), w.numerics.offset == Offset::zero_point ? rows(zero_of(w)) : "",
                rows(scale_of(w)));
}

// --- Floats as they are, or as the type that was asked for; ops compute in f32.

bool holds_dense(const Numerics& n, int64_t) { return n.is_dense(); }
bool holds_all(const Numerics&, int64_t) { return true; }

void store_dense(OnnxFile& out, const OnnxWeight& as, const Weight& w, DType dense) {
  out.begin_tensor(as.name, onnx_type(dense), {w.rows(), w.cols()});
  if (w.numerics == Numerics::dense(dense)) {
    out.append({w.parts[0].storage.data, w.parts[0].bytes()});
    return;
  }
  std::vector<float> values;
  std::vector<std::byte> stored;
  for_strips(w, [&](int64_t row, int64_t rows) {
    values.resize(static_cast<size_t>(rows * w.cols()));
    read_rows(w, row, rows, values.data());
    if (dense == DType::f16)
      for (const float v : values)
        if (!(std::fabs(v) <= 65504))
          throw InputError(fmt::format("{}: {} does not fit f16; choose --type bf16", as.name, v));
    stored.resize(values.size() * dtype_bytes(dense));
    from_f32(dense, values.data(), stored.data(), std::ssize(values));
    out.append(stored);
  });
}

std::string as_f32(OnnxFile& out, const OnnxWeight& w, const std::string& x) {
  if (w.numerics == Numerics::dense(DType::f32)) return x;
  return out.add({.op = "Cast", .inputs = {x}, .attributes = {{"to", int64_t{1}}}});
}

std::string linear_dense(OnnxFile& out, const OnnxWeight& w, const std::string& x, const std::string& bias) {
  return gemm(out, x, as_f32(out, w, w.name), bias);
}

std::string gather_dense(OnnxFile& out, const OnnxWeight& w, const std::string& ids) {
  return as_f32(out, w, out.add("Gather", {w.name, ids}));
}

constexpr OnnxForm forms[] = {
    {"MatMulNBits", "integers of 2 to 8 bits in groups of 16, 32, 64, ...", holds_nbits, store_nbits,
     linear_nbits, gather_nbits},
    {"QDQ", "other integers, and rounded activations", holds_qdq, store_qdq, linear_qdq, gather_qdq},
    {"dense", "floats", holds_dense, store_dense, linear_dense, gather_dense},
    {"dequantized", "all else, as f32", holds_all, store_dense, linear_dense, gather_dense},
};

}  // namespace

std::span<const OnnxForm> onnx_forms() { return forms; }

OnnxWeight write_onnx_weight(OnnxFile& out, const std::string& name, const Weight& w, const DType* dense) {
  if (w.numerics.rounds_activations() && !w.numerics.rounds_to_int8())
    throw input_error(name, "activations that are not rounded, or to int8", to_string(w.numerics),
                      "quantize the model to a scheme of weights alone");
  const auto* form = std::find_if(std::begin(forms), std::end(forms),
                                  [&](const OnnxForm& f) { return f.holds(w.numerics, w.cols()); });
  DType type = DType::f32;
  if (w.numerics.is_dense()) type = dense ? *dense : w.numerics.dtype;
  OnnxWeight as{form, name, form->store == store_dense ? Numerics::dense(type) : w.numerics, w.rows(),
                w.cols()};
  form->store(out, as, w, type);
  return as;
}

}  // namespace lathe
