// "bnb.nf4": NF4 as bitsandbytes stores it (functional.py, QuantState.as_dict; https://github.com/
// bitsandbytes-foundation/bitsandbytes), which transformers and vLLM load: blocks run over the rows end to
// end, so only groups that divide the columns are groups of a row; of a byte, the high nibble comes first.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

bool holds_nf4(const Numerics& n) { return n.kind == Numerics::Kind::nf4 && n == Numerics::nf4(n.group); }

// What QuantState.from_dict reads. dtype is that of the matrix that others make of it.
std::string state_of(const Numerics& n, const Shape& shape) {
  return fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "bfloat16", "shape": [{}, {}]}})",
                     n.group, shape[0], shape[1]);
}

std::vector<Part> nf4_parts(const Numerics& n, const Shape& shape) {
  if (shape.size() != 2) fail("bitsandbytes packs matrices, not shape {}", to_string(shape));
  if (n.group <= 0 || n.group % 2 != 0 || shape[1] % n.group != 0)
    fail("{} columns are not whole groups of {}", shape[1], n.group);
  const int64_t count = elements(shape);
  return {
      {"weight", DType::u8, {count / 2, 1}},
      {"weight.absmax", DType::f32, {count / n.group}},
      {"weight.quant_map", DType::f32, {16}},
      {"weight.quant_state.bitsandbytes__nf4", DType::u8, {static_cast<int64_t>(state_of(n, shape).size())}}};
}

void pack_nf4(const Codes& c, int64_t row, Weight& out) {
  auto bytes = out.parts[0].as_mutable<uint8_t>();
  for (int64_t i = 0; i < c.rows * c.cols; i += 2)
    bytes[static_cast<size_t>((row * c.cols + i) / 2)] =
        static_cast<uint8_t>(c.codes[static_cast<size_t>(i)] << 4 | c.codes[static_cast<size_t>(i + 1)]);
  std::ranges::copy(c.scales, out.parts[1].as_mutable<float>().begin() + row * c.numerics.groups(c.cols));
  if (row > 0) return;
  std::ranges::copy(grid_values(c.numerics.kind), out.parts[2].as_mutable<float>().begin());
  const std::string state = state_of(c.numerics, out.shape);
  std::memcpy(out.parts[3].storage.data, state.data(), state.size());
}

void unpack_nf4(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const auto bytes = w.parts[0].as<uint8_t>();
  for (int64_t i = 0; i < rows * c.cols; i += 2) {
    const int both = bytes[static_cast<size_t>((row * c.cols + i) / 2)];
    c.codes[static_cast<size_t>(i)] = static_cast<int16_t>(both >> 4);
    c.codes[static_cast<size_t>(i + 1)] = static_cast<int16_t>(both & 15);
  }
  const auto scales = w.parts[1].as<float>();
  std::copy_n(scales.begin() + row * c.numerics.groups(c.cols), c.scales.size(), c.scales.begin());
}

constexpr Packing rows[] = {{"bnb.nf4", holds_nf4, nf4_parts, pack_nf4, unpack_nf4}};

}  // namespace

std::span<const Packing> bnb_packings() { return rows; }

}  // namespace lathe
