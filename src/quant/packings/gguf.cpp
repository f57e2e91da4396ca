// ggml's blocks (ggml-common.h). A row is a run of blocks; the bytes of a weight are one u8 part.
#include <cstring>

#include "core/error.h"
#include "core/float.h"
#include "quant/packings/families.h"

namespace lathe {
namespace {

float read_f16(const uint8_t* p) {
  uint16_t h = 0;
  std::memcpy(&h, p, sizeof h);
  return f16_to_f32(h);
}

void write_f16(uint8_t* p, float f) {
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
};

// f16 d; byte j of 16: element j in the low nibble, element j + 16 in the high one; w = d * (nibble - 8).
struct Q4_0 {
  static constexpr int elements = 32, bytes = 18;
  static Numerics numerics() { return Numerics::integer(4, 32, false, DType::f16); }
  static void decode(const uint8_t* b, Block out) {
    *out.scales = read_f16(b);
    for (int j = 0; j < 16; ++j) {
      out.codes[j] = static_cast<int16_t>((b[2 + j] & 15) - 8);
      out.codes[j + 16] = static_cast<int16_t>((b[2 + j] >> 4) - 8);
    }
  }
  static void encode(ConstBlock in, uint8_t* b) {
    write_f16(b, *in.scales);
    for (int j = 0; j < 16; ++j)
      b[2 + j] = static_cast<uint8_t>(((in.codes[j] + 8) & 15) | ((in.codes[j + 16] + 8) << 4));
  }
};

// f16 d; 32 signed bytes; w = d * byte.
struct Q8_0 {
  static constexpr int elements = 32, bytes = 34;
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

// f16 d, f16 dmin, 8 six-bit (scale, minimum) pairs in 12 bytes, 128 bytes of nibbles; w = d * scale * q -
// dmin * minimum.
struct Q4_K {
  static constexpr int elements = 256, bytes = 144;
  static Numerics numerics() {
    return {Numerics::Kind::integer, DType::f32, 4, 32, Numerics::Offset::minimum};
  }
  static void decode(const uint8_t* b, Block out) {
    const float d = read_f16(b), dmin = read_f16(b + 2);
    const uint8_t *s = b + 4, *q = b + 16;
    for (int j = 0; j < 8; ++j) {
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4);
      const int minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4);
      out.scales[j] = d * static_cast<float>(scale);
      out.minima[j] = dmin * static_cast<float>(minimum);
    }
    for (int pair = 0; pair < 4; ++pair)
      for (int l = 0; l < 32; ++l) {
        out.codes[64 * pair + l] = q[32 * pair + l] & 15;
        out.codes[64 * pair + 32 + l] = q[32 * pair + l] >> 4;
      }
  }
};

// Low nibbles in ql[128], high bit pairs in qh[64], 16 signed scales, f16 d; w = d * scale * (six bits - 32).
struct Q6_K {
  static constexpr int elements = 256, bytes = 210;
  static Numerics numerics() { return Numerics::integer(6, 16, false, DType::f32); }
  static void decode(const uint8_t* b, Block out) {
    const float d = read_f16(b + 208);
    for (int j = 0; j < 16; ++j) out.scales[j] = d * static_cast<float>(static_cast<int8_t>(b[192 + j]));
    for (int half = 0; half < 2; ++half) {
      const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
      int16_t* q = out.codes + 128 * half;
      for (int l = 0; l < 32; ++l) {
        q[l] = static_cast<int16_t>(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
        q[l + 32] = static_cast<int16_t>(((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
        q[l + 64] = static_cast<int16_t>(((ql[l] >> 4) | (qh[l] >> 4 & 3) << 4) - 32);
        q[l + 96] = static_cast<int16_t>(((ql[l + 32] >> 4) | (qh[l] >> 6) << 4) - 32);
      }
    }
  }
};

template <class Format>
bool holds(const Numerics& n) {
  return n == Format::numerics();
}

template <class Format>
int64_t blocks_per_row(const Shape& shape) {
  const int64_t cols = shape.empty() ? 1 : shape.back();
  if (cols % Format::elements != 0) fail("rows of {} are not whole blocks of {}", cols, Format::elements);
  return cols / Format::elements;
}

template <class Format>
std::vector<Part> parts(const Numerics&, const Shape& shape) {
  Shape bytes = shape.empty() ? Shape{1} : shape;
  bytes.back() = blocks_per_row<Format>(shape) * Format::bytes;
  return {{"weight", DType::u8, bytes}};
}

template <class Format>
void unpack(const Weight& w, int64_t row, int64_t rows, Codes& c) {
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
void pack(const Codes& c, int64_t row, Weight& out) {
  const int64_t blocks = c.rows * (c.cols / Format::elements), first = row * (c.cols / Format::elements);
  uint8_t* to = out.parts[0].as_mutable<uint8_t>().data() + first * Format::bytes;
  for (int64_t i = 0; i < blocks; ++i)
    Format::encode({c.codes.data() + i * Format::elements, c.scales.data() + i}, to + i * Format::bytes);
}

constexpr Packing rows[] = {
    {"gguf.q4_0", holds<Q4_0>, parts<Q4_0>, pack<Q4_0>, unpack<Q4_0>},
    {"gguf.q8_0", holds<Q8_0>, parts<Q8_0>, pack<Q8_0>, unpack<Q8_0>},
    {"gguf.q4_k", holds<Q4_K>, parts<Q4_K>, nullptr, unpack<Q4_K>},
    {"gguf.q6_k", holds<Q6_K>, parts<Q6_K>, nullptr, unpack<Q6_K>},
};

}  // namespace

std::span<const Packing> gguf_packings() { return rows; }

}  // namespace lathe
