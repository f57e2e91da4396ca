// GGUF blocks whose codes are those of a grid: IQ4_NL, MXFP4 and NVFP4. Nibbles are half a (sub-)block apart,
// as in Q4_0, not neighbours as in compressed-tensors. "gguf.nvfp4" keeps the scale of the whole weight,
// where there is one, in an f32 tensor of its own beside it ("<name>.scale").
#include "quant/packings/gguf_blocks.h"

namespace lathe {
namespace {

// n codes in n / 2 bytes: byte j holds codes j (low) and j + n / 2.
template <int n>
void decode_nibbles(const uint8_t* b, int16_t* codes) {
  for (int j = 0; j < n / 2; ++j) {
    codes[j] = static_cast<int16_t>(b[j] & 15);
    codes[j + n / 2] = static_cast<int16_t>(b[j] >> 4);
  }
}
template <int n>
void encode_nibbles(const int16_t* codes, uint8_t* b) {
  for (int j = 0; j < n / 2; ++j) b[j] = static_cast<uint8_t>(codes[j] | codes[j + n / 2] << 4);
}

// f16 d; nibbles of 32 elements.
struct Iq4Nl {
  static constexpr int elements = 32, bytes = 18;
  static constexpr std::array halves = {0};
  static Numerics numerics() { return Numerics::iq4_nl(); }
  static void decode(const uint8_t* b, Block out) {
    *out.scales = read_f16(b);
    decode_nibbles<32>(b + 2, out.codes);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    write_f16(b, *in.scales);
    encode_nibbles<32>(in.codes, b + 2);
  }
};

// e8m0 d; nibbles of 32 elements.
struct Mxfp4 {
  static constexpr int elements = 32, bytes = 17;
  static Numerics numerics() { return Numerics::mxfp4(); }
  static bool nonfinite(const uint8_t* b) { return b[0] == 0xff; }
  static void decode(const uint8_t* b, Block out) {
    to_f32(DType::f8e8m0, b, out.scales, 1);
    decode_nibbles<32>(b + 1, out.codes);
  }
  static void encode(ConstBlock in, uint8_t* b) {
    from_f32(DType::f8e8m0, in.scales, b, 1);
    encode_nibbles<32>(in.codes, b + 1);
  }
};

// Four e4m3 d, whose sign ggml does not read; four times the nibbles of 16 elements.
struct Nvfp4 {
  static constexpr int elements = 64, bytes = 36, runs = 4, run = 16;
  static bool nonfinite(const uint8_t* b) {
    for (int i = 0; i < runs; ++i)
      if ((b[i] & 0x7f) == 0x7f) return true;
    return false;
  }
  static void decode(const uint8_t* b, Block out) {
    for (int i = 0; i < runs; ++i) {
      const uint8_t scale = b[i] & 0x7f;
      to_f32(DType::f8e4m3, &scale, out.scales + i, 1);
      decode_nibbles<run>(b + runs + i * run / 2, out.codes + i * run);
    }
  }
  static void encode(ConstBlock in, uint8_t* b) {
    from_f32(DType::f8e4m3, in.scales, b, runs);
    for (int i = 0; i < runs; ++i) encode_nibbles<run>(in.codes + i * run, b + runs + i * run / 2);
  }
};

bool holds_nvfp4(const Numerics& n) {
  return n == Numerics::grid(Numerics::Kind::e2m1, 16, DType::f8e4m3, 1, n.global);
}
std::vector<Part> nvfp4_parts(const Numerics& n, const Shape& shape) {
  std::vector<Part> parts = block_parts<Nvfp4>(n, shape);
  if (n.global) parts.push_back({"scale", DType::f32, {1}});
  return parts;
}
void pack_nvfp4(const Codes& c, int64_t row, Weight& out) {
  pack_blocks<Nvfp4>(c, row, out);
  if (c.numerics.global && row == 0) out.parts[1].as_mutable<float>()[0] = c.global;
}
void unpack_nvfp4(const Weight& w, int64_t row, int64_t rows, Codes& c) {
  unpack_blocks<Nvfp4>(w, row, rows, c);
  if (c.numerics.global) c.global = w.parts[1].as<float>()[0];
}

constexpr Packing rows[] = {
    packing_of_blocks<Iq4Nl>("gguf.iq4_nl"),
    packing_of_blocks<Mxfp4>("gguf.mxfp4"),
    {"gguf.nvfp4", holds_nvfp4, nvfp4_parts, pack_nvfp4, unpack_nvfp4, nonfinite_block<Nvfp4>},
};

}  // namespace

std::span<const Packing> gguf_float_packings() { return rows; }

}  // namespace lathe
