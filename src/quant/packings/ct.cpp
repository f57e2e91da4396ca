// compressed-tensors 0.18: "ct.pack32" is its pack-quantized, "ct.int8" its int-quantized.
// https://github.com/vllm-project/compressed-tensors (compressors/pack_quantized/helpers.py)
#include <bit>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

bool holds_integers(const Numerics& n) {
  const bool scale = n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
  return n.is_integer() && scale && n.bits >= 2 && n.bits <= 8 && n.offset != Numerics::Offset::minimum;
}

bool holds_int8(const Numerics& n) { return holds_integers(n) && n.bits == 8; }

int64_t words(int64_t codes, int bits) {
  int64_t n = 0;
  if (__builtin_mul_overflow(codes, bits, &n) || n > INT64_MAX - 31)
    fail("{} codes of {} bits are too many", codes, bits);
  return (n + 31) / 32;
}

struct Dims {
  int64_t rows, cols, groups;
};
Dims dims(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2) fail("compressed-tensors packs matrices, not shape {}", to_string(shape));
  return {shape[0], shape[1], n.groups(shape[1])};
}

std::vector<Part> pack32_parts(const Numerics& n, const Shape& shape) {
  const auto [rows, cols, groups] = dims(n, shape);
  std::vector<Part> parts = {{"weight_packed", DType::i32, {rows, words(cols, n.bits)}},
                             {"weight_scale", n.dtype, {rows, groups}}};
  if (n.offset == Numerics::Offset::zero_point)  // packed down the rows, not along them
    parts.push_back({"weight_zero_point", DType::i32, {words(rows, n.bits), groups}});
  return parts;
}

std::vector<Part> int8_parts(const Numerics& n, const Shape& shape) {
  const auto [rows, cols, groups] = dims(n, shape);
  std::vector<Part> parts = {{"weight", DType::i8, shape}, {"weight_scale", n.dtype, {rows, groups}}};
  if (n.offset == Numerics::Offset::zero_point)
    parts.push_back({"weight_zero_point", DType::i8, {rows, groups}});
  return parts;
}

// A stream of codes: element i occupies bits [i * bits, (i + 1) * bits), bit 0 the lowest of word 0. Codes
// straddle words where bits does not divide 32. `stride` is the distance between words of one stream.
template <class At>
void pack_stream(int64_t n, int bits, At code, uint32_t* out, int64_t stride) {
  uint64_t buffer = 0;
  int filled = 0;
  for (int64_t i = 0; i < n; ++i) {
    buffer |= static_cast<uint64_t>(code(i)) << filled;
    filled += bits;
    if (filled >= 32) {
      *out = static_cast<uint32_t>(buffer);
      out += stride;
      buffer >>= 32;
      filled -= 32;
    }
  }
  if (filled > 0) *out = static_cast<uint32_t>(buffer);
}

void unpack_stream(const uint32_t* in, int64_t n, int bits, int16_t* out) {
  const uint32_t mask = (1u << bits) - 1;
  const int bias = 1 << (bits - 1);
  uint64_t buffer = 0;
  int filled = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (filled < bits) {
      buffer |= static_cast<uint64_t>(*in++) << filled;
      filled += 32;
    }
    out[i] = static_cast<int16_t>(static_cast<int>(buffer & mask) - bias);
    buffer >>= bits;
    filled -= bits;
  }
}

// Code `index` of a stream: a single look, for rows that start anywhere.
int code_at(const uint32_t* in, int64_t stride, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint64_t buffer = in[bit / 32 * stride];
  if (shift + bits > 32) buffer |= static_cast<uint64_t>(in[(bit / 32 + 1) * stride]) << 32;
  return static_cast<int>((buffer >> shift) & ((1u << bits) - 1)) - (1 << (bits - 1));
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

void pack_pack32(const Codes& c, int64_t row, Weight& out) {
  const int bits = c.numerics.bits;
  const uint32_t bias = 1u << (bits - 1), mask = (1u << bits) - 1;
  const int64_t width = words(c.cols, bits), groups = c.numerics.groups(c.cols);
  auto packed = out.parts[0].as_mutable<uint32_t>();
  for (int64_t r = 0; r < c.rows; ++r) {
    const int16_t* codes = c.codes.data() + r * c.cols;
    pack_stream(
        c.cols, bits, [&](int64_t i) { return (static_cast<uint32_t>(codes[i]) + bias) & mask; },
        packed.data() + (row + r) * width, 1);
  }
  store_scales(c, row, out.parts[1]);
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

void unpack_pack32(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int bits = c.numerics.bits;
  const int64_t width = words(c.cols, bits), groups = c.numerics.groups(c.cols);
  const auto packed = w.parts[0].as<uint32_t>();
  for (int64_t r = 0; r < rows; ++r)
    unpack_stream(packed.data() + (row + r) * width, c.cols, bits, c.codes.data() + r * c.cols);
  load_scales(w.parts[1], row, c);
  if (c.zeros.empty()) return;
  const auto zeros = w.parts[2].as<uint32_t>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < groups; ++g)
      c.zeros[static_cast<size_t>(r * groups + g)] =
          static_cast<float>(code_at(zeros.data() + g, groups, row + r, bits));
}

void pack_int8(const Codes& c, int64_t row, Weight& out) {
  auto codes = out.parts[0].as_mutable<int8_t>();
  std::transform(c.codes.begin(), c.codes.end(), codes.begin() + row * c.cols,
                 [](int16_t q) { return static_cast<int8_t>(q); });
  store_scales(c, row, out.parts[1]);
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
  if (c.zeros.empty()) return;
  const auto zeros =
      w.parts[2].as<int8_t>().subspan(static_cast<size_t>(row * c.numerics.groups(c.cols)), c.zeros.size());
  std::copy(zeros.begin(), zeros.end(), c.zeros.begin());
}

constexpr Packing rows[] = {
    {"ct.pack32", holds_integers, pack32_parts, pack_pack32, unpack_pack32},
    {"ct.int8", holds_int8, int8_parts, pack_int8, unpack_int8},
};

}  // namespace

std::span<const Packing> ct_packings() { return rows; }

}  // namespace lathe
