// Codes of any width one behind the other in words of 32 bits: element i occupies bits [i * bits,
// (i + 1) * bits), bit 0 the lowest of word 0. Codes straddle words where bits does not divide 32. `stride`
// is the distance between the words of one stream.
#pragma once

#include <cstdint>

namespace lathe {

// n a multiple of 32 / bits: a word is made without looking at where it ends.
template <int bits, class At>
void pack_whole_words(int64_t n, At code, uint32_t* out, int64_t stride) {
  constexpr int per_word = 32 / bits;
  for (int64_t i = 0; i < n; i += per_word, out += stride) {
    uint32_t word = 0;
    for (int j = 0; j < per_word; ++j) word |= static_cast<uint32_t>(code(i + j)) << (j * bits);
    *out = word;
  }
}

template <class At>
void pack_stream(int64_t n, int bits, At code, uint32_t* out, int64_t stride) {
  if (bits == 8 && n % 4 == 0) return pack_whole_words<8>(n, code, out, stride);
  if (bits == 4 && n % 8 == 0) return pack_whole_words<4>(n, code, out, stride);
  if (bits == 2 && n % 16 == 0) return pack_whole_words<2>(n, code, out, stride);
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

inline void unpack_stream(const uint32_t* in, int64_t stride, int64_t n, int bits, int bias, int16_t* out) {
  const uint32_t mask = (1u << bits) - 1;
  uint64_t buffer = 0;
  int filled = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (filled < bits) {
      buffer |= static_cast<uint64_t>(*in) << filled;
      in += stride;
      filled += 32;
    }
    out[i] = static_cast<int16_t>(static_cast<int>(buffer & mask) - bias);
    buffer >>= bits;
    filled -= bits;
  }
}

// Code `index`: a single look, for rows that start anywhere.
inline int code_at(const uint32_t* in, int64_t stride, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint64_t buffer = in[bit / 32 * stride];
  if (shift + bits > 32) buffer |= static_cast<uint64_t>(in[(bit / 32 + 1) * stride]) << 32;
  return static_cast<int>(buffer >> shift & ((1u << bits) - 1));
}

}  // namespace lathe
