// compressed-tensors: "ct.pack32" is its pack-quantized since 0.18, "ct.words32" the same before, where codes
// of 3, 5, 6 and 7 bits did not cross words; "ct.int8" is its int-quantized.
// https://github.com/vllm-project/compressed-tensors (compressors/pack_quantized/helpers.py)
#include "core/error.h"
#include "core/float.h"
#include "core/vector_clones.h"
#include "quant/packings/bit_stream.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

bool holds_integers(const Numerics& n) {
  const bool scale = n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
  return n.is_integer() && scale && n.bits >= 2 && n.bits <= 8 && n.offset != Numerics::Offset::minimum &&
         !n.column_scales && !(n.act_order && n.group == 0);
}

bool holds_int8(const Numerics& n) { return holds_integers(n) && n.bits == 8 && !n.act_order; }
bool holds_words(const Numerics& n) { return holds_integers(n) && 32 % n.bits != 0; }

int64_t words(int64_t codes, int bits) {
  int64_t n = 0;
  if (__builtin_mul_overflow(codes, bits, &n) || n > INT64_MAX - 31)
    fail("{} codes of {} bits are too many", codes, bits);
  return (n + 31) / 32;
}

int64_t whole_words(int64_t codes, int bits) {
  const int64_t per_word = 32 / bits;
  return codes / per_word + (codes % per_word != 0);
}

struct Dims {
  int64_t rows, cols, groups;
};
Dims dims(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2) fail("compressed-tensors packs matrices, not shape {}", to_string(shape));
  return {shape[0], shape[1], n.groups(shape[1])};
}

template <int64_t (*width)(int64_t codes, int bits)>
std::vector<Part> packed_parts(const Numerics& n, const Shape& shape) {
  const auto [rows, cols, groups] = dims(n, shape);
  std::vector<Part> parts = {{"weight_packed", DType::i32, {rows, width(cols, n.bits)}},
                             {"weight_scale", n.dtype, {rows, groups}}};
  if (n.offset == Numerics::Offset::zero_point)  // packed down the rows, not along them
    parts.push_back({"weight_zero_point", DType::i32, {width(rows, n.bits), groups}});
  if (n.has_input_scale()) parts.push_back({"input_scale", n.dtype, {1}});
  if (n.act_order) parts.push_back({"weight_g_idx", DType::i32, {cols}});
  return parts;
}

std::vector<Part> int8_parts(const Numerics& n, const Shape& shape) {
  const auto [rows, cols, groups] = dims(n, shape);
  std::vector<Part> parts = {{"weight", DType::i8, shape}, {"weight_scale", n.dtype, {rows, groups}}};
  if (n.offset == Numerics::Offset::zero_point)
    parts.push_back({"weight_zero_point", DType::i8, {rows, groups}});
  if (n.has_input_scale()) parts.push_back({"input_scale", n.dtype, {1}});
  return parts;
}

void store_scales(const Codes& c, int64_t row, Tensor& out) {
  const int64_t groups = c.numerics.groups(c.cols);
  from_f32(out.dtype, c.scales.data(),
           out.storage.data + static_cast<size_t>(row * groups) * dtype_bytes(out.dtype), c.rows * groups);
}

void load_scales(const Tensor& in, int64_t row, Codes& c) {
  const int64_t groups = c.numerics.groups(c.cols);
  to_f32(in.dtype, in.storage.data + static_cast<size_t>(row * groups) * dtype_bytes(in.dtype),
         c.scales.data(), c.rows * groups);
}

// Pairs of codes of 4 bits as bytes: (q + 8) & 15 is (q & 15) ^ 8. A quarter of pack_stream's time.
LATHE_VECTOR_CLONES void pack_nibbles(const int16_t* codes, int64_t pairs, uint8_t* out) {
  for (int64_t i = 0; i < pairs; ++i)
    out[i] = static_cast<uint8_t>(((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4) ^ 0x88);
}

void pack_pack32(const Codes& c, int64_t row, Weight& out) {
  const int bits = c.numerics.bits;
  const uint32_t bias = 1u << (bits - 1), mask = (1u << bits) - 1;
  const int64_t width = words(c.cols, bits), groups = c.numerics.groups(c.cols);
  auto packed = out.parts[0].as_mutable<uint32_t>();
  for (int64_t r = 0; r < c.rows; ++r) {
    const int16_t* codes = c.codes.data() + r * c.cols;
    uint32_t* to = packed.data() + (row + r) * width;
    if (bits == 4 && c.cols % 8 == 0) {
      pack_nibbles(codes, c.cols / 2, reinterpret_cast<uint8_t*>(to));
      continue;
    }
    pack_stream(
        c.cols, bits, [&](int64_t i) { return (static_cast<uint32_t>(codes[i]) + bias) & mask; }, to, 1);
  }
  store_scales(c, row, out.parts[1]);
  store_input_scale(c, row, out);
  if (c.numerics.act_order && row == 0)
    std::ranges::copy(c.group_of, out.parts.back().as_mutable<int32_t>().begin());
  if (c.zeros.empty()) return;
  // Rows come in multiples of 32, so a strip's zero points begin and end on whole words.
  auto zeros = out.parts[2].as_mutable<uint32_t>();
  for (int64_t g = 0; g < groups; ++g)
    pack_stream(
        c.rows, bits,
        [&](int64_t r) {
          return (static_cast<uint32_t>(static_cast<int>(c.zeros[static_cast<size_t>(r * groups + g)])) +
                  bias) &
                 mask;
        },
        zeros.data() + row * bits / 32 * groups + g, groups);
}

// All but codes and zero points.
void unpack_rest(const Weight& w, int64_t row, Codes& c) {
  load_scales(w.parts[1], row, c);
  load_input_scale(w, c);
  if (c.numerics.act_order) std::ranges::copy(w.parts.back().as<int32_t>(), c.group_of.begin());
}

void unpack_pack32(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int bits = c.numerics.bits, bias = 1 << (bits - 1);
  const int64_t width = words(c.cols, bits), groups = c.numerics.groups(c.cols);
  const auto packed = w.parts[0].as<uint32_t>();
  for (int64_t r = 0; r < rows; ++r)
    unpack_stream(packed.data() + (row + r) * width, 1, c.cols, bits, bias, c.codes.data() + r * c.cols);
  unpack_rest(w, row, c);
  if (c.zeros.empty()) return;
  const auto zeros = w.parts[2].as<uint32_t>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g)
      c.zeros[static_cast<size_t>(r * groups + g)] =
          static_cast<float>(code_at(zeros.data() + g, groups, row + r, bits) - bias);
}

void unpack_words32(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int bits = c.numerics.bits, bias = 1 << (bits - 1);
  const int64_t per_word = 32 / bits, width = whole_words(c.cols, bits), groups = c.numerics.groups(c.cols);
  const auto code = [&](const Tensor& in, int64_t word, int64_t index) {
    const uint32_t bits_of_word = in.as<uint32_t>()[static_cast<size_t>(word)];
    return static_cast<int>(bits_of_word >> (index % per_word * bits) & ((1u << bits) - 1)) - bias;
  };
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i)
      c.codes[static_cast<size_t>(r * c.cols + i)] =
          static_cast<int16_t>(code(w.parts[0], (row + r) * width + i / per_word, i));
  unpack_rest(w, row, c);
  if (c.zeros.empty()) return;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g)
      c.zeros[static_cast<size_t>(r * groups + g)] =
          static_cast<float>(code(w.parts[2], (row + r) / per_word * groups + g, row + r));
}

void pack_int8(const Codes& c, int64_t row, Weight& out) {
  auto codes = out.parts[0].as_mutable<int8_t>();
  std::transform(c.codes.begin(), c.codes.end(), codes.begin() + row * c.cols,
                 [](int16_t q) { return static_cast<int8_t>(q); });
  store_scales(c, row, out.parts[1]);
  store_input_scale(c, row, out);
  if (c.zeros.empty()) return;
  auto zeros = out.parts[2].as_mutable<int8_t>();
  std::transform(c.zeros.begin(), c.zeros.end(), zeros.begin() + row * c.numerics.groups(c.cols),
                 [](float z) { return static_cast<int8_t>(z); });
}

void unpack_int8(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto codes = w.parts[0].as<int8_t>().subspan(static_cast<size_t>(row * c.cols), c.codes.size());
  std::copy(codes.begin(), codes.end(), c.codes.begin());
  load_scales(w.parts[1], row, c);
  load_input_scale(w, c);
  if (c.zeros.empty()) return;
  const auto zeros =
      w.parts[2].as<int8_t>().subspan(static_cast<size_t>(row * c.numerics.groups(c.cols)), c.zeros.size());
  std::copy(zeros.begin(), zeros.end(), c.zeros.begin());
}

constexpr Packing rows[] = {
    {"ct.pack32", holds_integers, packed_parts<words>, pack_pack32, unpack_pack32},
    {"ct.words32", holds_words, packed_parts<whole_words>, nullptr, unpack_words32},
    {"ct.int8", holds_int8, int8_parts, pack_int8, unpack_int8},
};

}  // namespace

std::span<const Packing> ct_packings() { return rows; }

}  // namespace lathe
