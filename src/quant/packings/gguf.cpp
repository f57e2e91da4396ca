// GGUF blocks of 32 elements with f16 scales: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
#include "quant/packings/gguf_blocks.h"

namespace lathe {
namespace {

// f16 d, or f16 d and f16 m; of five bits, the fifth ones in a u32, element by element; byte j of 16 with the
// low four bits of element j in its low nibble and those of element j + 16 in the high one.
// w = d * (u - 2^(bits - 1)), or d * u + m.
template <int bits, bool minimum>
struct Nibbles {
  static constexpr int elements = 32, fifths = minimum ? 4 : 2, low = fifths + (bits == 5 ? 4 : 0),
                       bytes = low + 16, bias = minimum ? 0 : 1 << (bits - 1);
  static constexpr std::array<int, minimum ? 2 : 1> halves = [] {
    std::array<int, minimum ? 2 : 1> at = {};
    if (minimum) at.back() = 2;
    return at;
  }();
  static Numerics numerics() {
    Numerics n = Numerics::integer(bits, elements, false, DType::f16);
    if (minimum) n.offset = Numerics::Offset::minimum;
    return n;
  }
  static void decode(const uint8_t* b, Block out) {
    *out.scales = read_f16(b);
    if (minimum) *out.minima = -read_f16(b + 2);
    uint32_t fifth = 0;
    if (bits == 5) std::memcpy(&fifth, b + fifths, sizeof fifth);
    for (int j = 0; j < 16; ++j) {
      out.codes[j] = static_cast<int16_t>((b[low + j] & 15) + 16 * (fifth >> j & 1)) - bias;
      out.codes[j + 16] = static_cast<int16_t>((b[low + j] >> 4) + 16 * (fifth >> (j + 16) & 1)) - bias;
    }
  }
  static void encode(ConstBlock in, uint8_t* b) {
    write_f16(b, *in.scales);
    if (minimum) write_f16(b + 2, -*in.minima);
    uint32_t fifth = 0;
    const auto code = [&](int i) { return static_cast<uint32_t>(in.codes[i] + bias); };
    for (int i = 0; i < 32; ++i) fifth |= code(i) >> 4 << i;
    if (bits == 5) std::memcpy(b + fifths, &fifth, sizeof fifth);
    for (int j = 0; j < 16; ++j) b[low + j] = static_cast<uint8_t>((code(j) & 15) | (code(j + 16) & 15) << 4);
  }
};

// f16 d; 32 signed bytes; w = d * byte.
struct Q8_0 {
  static constexpr int elements = 32, bytes = 34;
  static constexpr std::array halves = {0};
  static Numerics numerics() { return Numerics::integer(8, 32, false, DType::f16); }
  static void decode(const uint8_t* b, Block out) {
    *out.scales = read_f16(b);
    for (int j = 0; j < 32; ++j) out.codes[j] = static_cast<int8_t>(b[2 + j]);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    write_f16(b, *in.scales);
    for (int j = 0; j < 32; ++j) b[2 + j] = static_cast<uint8_t>(in.codes[j]);
  }
};

constexpr Packing rows[] = {
    packing_of_blocks<Nibbles<4, false>>("gguf.q4_0"),
    packing_of_blocks<Nibbles<4, true>>("gguf.q4_1"),
    packing_of_blocks<Nibbles<5, false>>("gguf.q5_0"),
    packing_of_blocks<Nibbles<5, true>>("gguf.q5_1"),
    packing_of_blocks<Q8_0>("gguf.q8_0"),
};

}  // namespace

std::span<const Packing> gguf_packings() { return rows; }

}  // namespace lathe
