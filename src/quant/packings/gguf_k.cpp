// GGUF's k-quants: super-blocks of 256 elements whose scales, and minima, are small integers times an f16
// number.
#include "quant/levels.h"
#include "quant/packings/gguf_blocks.h"

namespace lathe {
namespace {

constexpr int super = 256;

// 8 six-bit (scale, minimum) pairs in 12 bytes: Q4_K and Q5_K.
struct Pairs {
  static constexpr int count = 8;
  static void decode(const uint8_t* s, float d, float dmin, Block out) {
    for (int j = 0; j < count; ++j) {
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4);
      const int minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4);
      out.scales[j] = d * static_cast<float>(scale);
      out.minima[j] = dmin * static_cast<float>(minimum);
    }
  }
  static void encode(ConstBlock in, LevelRange range, uint8_t* d, uint8_t* dmin, uint8_t* s) {
    int8_t scale[count], minimum[count];
    write_f16(d, find_levels({in.scales, count}, range, scale));
    write_f16(dmin, find_levels({in.minima, count}, range, minimum));
    for (int j = 0; j < 4; ++j) {
      s[j] = static_cast<uint8_t>(scale[j] | scale[j + 4] >> 4 << 6);
      s[j + 4] = static_cast<uint8_t>(minimum[j] | minimum[j + 4] >> 4 << 6);
      s[j + 8] = static_cast<uint8_t>((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
    }
  }
};

// Elements [64 p, 64 p + 32) in the low nibbles of q[32 p ...], the next 32 in the high ones.
void decode_nibbles(const uint8_t* q, int16_t* codes) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l) {
      codes[64 * pair + l] = q[32 * pair + l] & 15;
      codes[64 * pair + 32 + l] = q[32 * pair + l] >> 4;
    }
}
void encode_nibbles(const int16_t* codes, uint8_t* q) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l)
      q[32 * pair + l] =
          static_cast<uint8_t>((codes[64 * pair + l] & 15) | (codes[64 * pair + 32 + l] & 15) << 4);
}

// Bit pairs: of each half of 128 elements, [32 i, 32 i + 32) in bits 2i of 32 bytes. (Loops of 32 elements
// with one shift each vectorize: repacking is part of start-up.)
void decode_pairs(const uint8_t* q, int16_t* codes) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; ++i)
      for (int l = 0; l < 32; ++l)
        codes[128 * half + 32 * i + l] = static_cast<int16_t>(q[32 * half + l] >> (2 * i) & 3);
}
void encode_pairs(const int16_t* codes, uint8_t* q) {
  std::memset(q, 0, super / 4);
  for (int i = 0; i < super; ++i)
    q[i / 128 * 32 + i % 32] |= static_cast<uint8_t>((codes[i] & 3) << (i / 32 % 4 * 2));
}

// Single bits: elements [32 i, 32 i + 32) in bit i of 32 bytes. Adds `unit` where they are set.
void add_bits(const uint8_t* bits, int unit, int16_t* codes) {
  for (int i = 0; i < 8; ++i)
    for (int l = 0; l < 32; ++l)
      codes[32 * i + l] = static_cast<int16_t>(codes[32 * i + l] + unit * (bits[l] >> i & 1));
}
void set_bit(uint8_t* bits, int element, int bit) {
  bits[element % 32] |= static_cast<uint8_t>(bit << (element / 32));
}

// 16 (scale, minimum) nibble pairs, 64 bytes of bit pairs, f16 d, f16 dmin; w = d * scale * u - dmin *
// minimum.
struct Q2_K {
  static constexpr int elements = super, bytes = 84;
  static constexpr std::array halves = {80, 82};
  static Numerics numerics() { return Numerics::k_quant(2, 16, true); }
  static void decode(const uint8_t* b, Block out) {
    const float d = read_f16(b + 80), dmin = read_f16(b + 82);
    for (int j = 0; j < 16; ++j) {
      out.scales[j] = d * static_cast<float>(b[j] & 15);
      out.minima[j] = dmin * static_cast<float>(b[j] >> 4);
    }
    decode_pairs(b + 16, out.codes);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    int8_t scale[16], minimum[16];
    write_f16(b + 80, find_levels({in.scales, 16}, level_range(numerics()), scale));
    write_f16(b + 82, find_levels({in.minima, 16}, level_range(numerics()), minimum));
    for (int j = 0; j < 16; ++j) b[j] = static_cast<uint8_t>(scale[j] | minimum[j] << 4);
    encode_pairs(in.codes, b + 16);
  }
};

// Third bits in 32 bytes, 64 bytes of bit pairs, 16 six-bit scales, f16 d; w = d * (scale - 32) * (u - 4).
// Scales: low nibbles in the nibbles of 8 bytes, 0 to 7 before 8 to 15, and high pairs in 4 bytes, j % 4.
struct Q3_K {
  static constexpr int elements = super, bytes = 110;
  static constexpr std::array halves = {108};
  static Numerics numerics() { return Numerics::k_quant(3, 16, false); }
  static void decode(const uint8_t* b, Block out) {
    const float d = read_f16(b + 108);
    const uint8_t* s = b + 96;
    for (int j = 0; j < 16; ++j) {
      const int scale = (s[j % 8] >> (j / 8 * 4) & 15) | (s[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
      out.scales[j] = d * static_cast<float>(scale - 32);
    }
    decode_pairs(b + 32, out.codes);
    add_bits(b, 4, out.codes);
    for (int i = 0; i < super; ++i) out.codes[i] = static_cast<int16_t>(out.codes[i] - 4);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    int8_t scale[16];
    write_f16(b + 108, find_levels({in.scales, 16}, level_range(numerics()), scale));
    uint8_t* s = b + 96;
    std::memset(s, 0, 12);
    for (int j = 0; j < 16; ++j) {
      s[j % 8] |= static_cast<uint8_t>(((scale[j] + 32) & 15) << (j / 8 * 4));
      s[8 + j % 4] |= static_cast<uint8_t>((scale[j] + 32) >> 4 << (j / 4 * 2));
    }
    encode_pairs(in.codes, b + 32);  // - 4 has none of the two low bits
    std::memset(b, 0, 32);
    for (int i = 0; i < super; ++i) set_bit(b, i, in.codes[i] >= 0);
  }
};

// f16 d, f16 dmin, pairs, 128 bytes of nibbles; w = d * scale * u - dmin * minimum.
struct Q4_K {
  static constexpr int elements = super, bytes = 144;
  static constexpr std::array halves = {0, 2};
  static Numerics numerics() { return Numerics::k_quant(4, 32, true); }
  static void decode(const uint8_t* b, Block out) {
    Pairs::decode(b + 4, read_f16(b), read_f16(b + 2), out);
    decode_nibbles(b + 16, out.codes);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    Pairs::encode(in, level_range(numerics()), b, b + 2, b + 4);
    encode_nibbles(in.codes, b + 16);
  }
};

// As Q4_K, with the fifth bits in 32 bytes before the nibbles.
struct Q5_K {
  static constexpr int elements = super, bytes = 176;
  static constexpr std::array halves = {0, 2};
  static Numerics numerics() { return Numerics::k_quant(5, 32, true); }
  static void decode(const uint8_t* b, Block out) {
    Pairs::decode(b + 4, read_f16(b), read_f16(b + 2), out);
    decode_nibbles(b + 48, out.codes);
    add_bits(b + 16, 16, out.codes);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    Pairs::encode(in, level_range(numerics()), b, b + 2, b + 4);
    encode_nibbles(in.codes, b + 48);
    std::memset(b + 16, 0, 32);
    for (int i = 0; i < super; ++i) set_bit(b + 16, i, in.codes[i] >> 4);
  }
};

// Low nibbles in ql[128], high bit pairs in qh[64], 16 signed scales, f16 d; w = d * scale * (u - 32). Of
// each half of 128 elements, the low nibbles of 64 bytes before the high ones, and the pairs as in
// decode_pairs.
struct Q6_K {
  static constexpr int elements = super, bytes = 210;
  static constexpr std::array halves = {208};
  static Numerics numerics() { return Numerics::k_quant(6, 16, false); }
  static void decode(const uint8_t* b, Block out) {
    const float d = read_f16(b + 208);
    for (int j = 0; j < 16; ++j) out.scales[j] = d * static_cast<float>(static_cast<int8_t>(b[192 + j]));
    decode_pairs(b + 128, out.codes);
    for (int quarter = 0; quarter < 4; ++quarter) {
      int16_t* codes = out.codes + 64 * quarter;
      for (int l = 0; l < 64; ++l) {
        const int low = b[quarter / 2 * 64 + l] >> (quarter % 2 * 4) & 15;
        codes[l] = static_cast<int16_t>((low | codes[l] << 4) - 32);
      }
    }
  }
  static void encode(ConstBlock in, uint8_t* b) {
    int8_t scale[16];
    write_f16(b + 208, find_levels({in.scales, 16}, level_range(numerics()), scale));
    std::memcpy(b + 192, scale, sizeof scale);
    std::memset(b, 0, 128);
    int16_t high[super];
    for (int i = 0; i < super; ++i) {
      const int u = in.codes[i] + 32;
      b[i / 128 * 64 + i % 64] |= static_cast<uint8_t>((u & 15) << (i % 128 / 64 * 4));
      high[i] = static_cast<int16_t>(u >> 4);
    }
    encode_pairs(high, b + 128);
  }
};

constexpr Packing rows[] = {
    packing_of_blocks<Q2_K>("gguf.q2_k"), packing_of_blocks<Q3_K>("gguf.q3_k"),
    packing_of_blocks<Q4_K>("gguf.q4_k"), packing_of_blocks<Q5_K>("gguf.q5_k"),
    packing_of_blocks<Q6_K>("gguf.q6_k"),
};

}  // namespace

std::span<const Packing> gguf_k_packings() { return rows; }

}  // namespace lathe
