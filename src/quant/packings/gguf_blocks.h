// What the files of GGUF packings share: a row is a run of ggml's blocks (ggml-common.h), and the bytes of a
// weight are one u8 part. A format is a struct with
//   elements, bytes     of a block
//   numerics()          which numbers it holds, and no others
//   halves              where a block has f16 numbers; else
//   nonfinite           whether a block has a scale that is no number
//   decode, encode      a block to and from Codes
#pragma once

#include <array>
#include <cstring>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {

inline float read_f16(const uint8_t* p) {
  uint16_t h = 0;
  std::memcpy(&h, p, sizeof h);
  return f16_to_f32(h);
}

inline void write_f16(uint8_t* p, float f) {
  const uint16_t h = f32_to_f16(f);
  std::memcpy(p, &h, sizeof h);
}

// One block's view into Codes: where its elements and its groups go.
struct Block {
  int16_t* codes;
  float* scales;
  float* minima;
};
struct ConstBlock {
  const int16_t* codes;
  const float* scales;
  const float* minima;
};

template <class Format>
bool holds_blocks(const Numerics& n) {
  return n == Format::numerics();
}

template <class Format>
std::vector<Part> block_parts(const Numerics&, const Shape& shape) {
  const int64_t cols = shape.empty() ? 1 : shape.back();
  if (cols % Format::elements != 0) fail("rows of {} are not whole blocks of {}", cols, Format::elements);
  Shape bytes = shape.empty() ? Shape{1} : shape;
  bytes.back() = cols / Format::elements * Format::bytes;
  return {{"weight", DType::u8, bytes}};
}

template <class Format>
void unpack_blocks(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  prepare(c, w.numerics, rows, w.cols());
  const int64_t blocks = rows * (c.cols / Format::elements), first = row * (c.cols / Format::elements);
  const int groups = Format::elements / c.numerics.group;
  const uint8_t* in = w.parts[0].as<uint8_t>().data() + first * Format::bytes;
  for (int64_t i = 0; i < blocks; ++i)
    Format::decode(in + i * Format::bytes,
                   {c.codes.data() + i * Format::elements, c.scales.data() + i * groups,
                    c.zeros.empty() ? nullptr : c.zeros.data() + i * groups});
}

template <class Format>
void pack_blocks(const Codes& c, int64_t row, Weight& out) {
  const int64_t blocks = c.rows * (c.cols / Format::elements), first = row * (c.cols / Format::elements);
  const int groups = Format::elements / c.numerics.group;
  uint8_t* to = out.parts[0].as_mutable<uint8_t>().data() + first * Format::bytes;
  for (int64_t i = 0; i < blocks; ++i)
    Format::encode({c.codes.data() + i * Format::elements, c.scales.data() + i * groups,
                    c.zeros.empty() ? nullptr : c.zeros.data() + i * groups},
                   to + i * Format::bytes);
}

template <class Format>
bool is_nonfinite(const uint8_t* block) {
  if constexpr (requires { Format::nonfinite(block); }) {
    return Format::nonfinite(block);
  } else {
    for (const int at : Format::halves) {
      uint16_t half = 0;
      std::memcpy(&half, block + at, sizeof half);
      if ((half & 0x7c00) == 0x7c00) return true;
    }
    return false;
  }
}

template <class Format>
int64_t nonfinite_block(const Weight& w) {
  const auto bytes = w.parts[0].as<uint8_t>();
  const auto blocks = static_cast<int64_t>(bytes.size()) / Format::bytes;
  for (int64_t i = 0; i < blocks; ++i)
    if (const uint8_t* block = bytes.data() + i * Format::bytes; is_nonfinite<Format>(block)) return i;
  return -1;
}

template <class Format>
constexpr Packing packing_of_blocks(std::string_view name) {
  return {name,
          holds_blocks<Format>,
          block_parts<Format>,
          pack_blocks<Format>,
          unpack_blocks<Format>,
          nonfinite_block<Format>};
}

}  // namespace lathe
