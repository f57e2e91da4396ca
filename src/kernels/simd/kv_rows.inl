// Keys and values of attention.h: rows of floats to how a cache holds them, and back. The same bits on every
// ISA.
#pragma once

namespace lathe {
namespace {

// Where the rows of a tile lie.
constexpr int64_t key_tile = 64;
struct Rows {
  const char* at[key_tile];
  bool together;  // the same distance apart
};
inline void find_rows(const AttentionArgs& a, const void* base, const int32_t* blocks, int64_t kv_head,
                      int64_t key, int64_t count, Rows& rows) {
  rows.together = true;
  for (int64_t j = 0; j < count;) {
    const char* at = kv_row(a, base, blocks, kv_head, key + j);
    const int64_t left = a.kv.block_tokens - (key + j) % a.kv.block_tokens;
    const int64_t end = left < count - j ? j + left : count;
    if (j > 0) rows.together = false;
    for (; j < end; ++j, at += a.kv.token_bytes) rows.at[j] = at;
  }
}

inline uint32_t bits_of(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, sizeof u);
  return u;
}
inline float float_of(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, sizeof f);
  return f;
}
inline uint32_t round_to_bf16(float f) {  // nearest even; NaN stays NaN
  const uint32_t u = bits_of(f);
  return f != f ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

// use(d, vector) for a row's vectors; those of int4 do not come in order.
template <KvType type, class Use>
inline void read_kv_row(const char* row, int64_t dim, Use&& use) {
  if constexpr (type == KvType::f32) {
    for (int64_t d = 0; d < dim; d += lanes) use(d, load(reinterpret_cast<const float*>(row) + d));
  } else if constexpr (type == KvType::bf16) {
    for (int64_t d = 0; d < dim; d += lanes) use(d, load_as_f32(reinterpret_cast<const BF16*>(row) + d));
  } else if constexpr (type == KvType::int8) {
    float scale;
    __builtin_memcpy(&scale, row, sizeof scale);
    const auto* codes = reinterpret_cast<const int8_t*>(row + 4);
    for (int64_t d = 0; d < dim; d += lanes) use(d, mul(set(scale), load_as_f32(codes + d)));
  } else {
    const auto* codes = reinterpret_cast<const uint8_t*>(row + dim / kv_group * 4);
    for (int64_t d = 0; d < dim; d += kv_group) {
      uint32_t word;
      __builtin_memcpy(&word, row + d / kv_group * 4, sizeof word);
      const V scale = set(float_of(word << 16)), minimum = set(float_of(word & 0xffff0000u));
      for (int64_t i = 0; i < kv_group / 2; i += lanes) {
        const I bytes = load_bytes(codes + d / 2 + i);
        use(d + i, fma(scale, words_to_f32(low_nibbles(bytes)), minimum));
        use(d + kv_group / 2 + i, fma(scale, words_to_f32(high_nibbles(bytes)), minimum));
      }
    }
  }
}

// One row of `dim` floats.
inline void write_kv_row(KvType type, const float* x, int64_t dim, char* row) {
  if (type == KvType::f32) {
    __builtin_memcpy(row, x, static_cast<size_t>(dim) * 4);
  } else if (type == KvType::bf16) {
    for (int64_t d = 0; d < dim; ++d) {
      const auto half = static_cast<uint16_t>(round_to_bf16(x[d]));
      __builtin_memcpy(row + d * 2, &half, sizeof half);
    }
  } else if (type == KvType::int8) {
    V most = zero();
    for (int64_t d = 0; d < dim; d += lanes) most = max(most, abs(load(x + d)));
    const float m = largest(most), scale = m / 127.0f;
    const V inverse = set(m > 0 ? 127.0f / m : 0.0f);
    __builtin_memcpy(row, &scale, sizeof scale);
    for (int64_t d = 0; d < dim; d += lanes)
      store_bytes(row + 4 + d, round_to_words(mul(load(x + d), inverse)));
  } else {
    for (int64_t d = 0; d < dim; d += kv_group) {
      V high = load(x + d), low = high;
      for (int64_t i = lanes; i < kv_group; i += lanes) {
        high = max(high, load(x + d + i));
        low = min(low, load(x + d + i));
      }
      const float bottom = 0.0f - largest(sub(zero(), low));
      const uint32_t scale = round_to_bf16((largest(high) - bottom) / 15.0f), minimum = round_to_bf16(bottom);
      const uint32_t word = scale | minimum << 16;
      __builtin_memcpy(row + d / kv_group * 4, &word, sizeof word);
      const float step = float_of(scale << 16);
      const V inverse = set(step > 0 ? 1.0f / step : 0.0f), start = set(float_of(minimum << 16));
      int32_t codes[kv_group];
      for (int64_t i = 0; i < kv_group; i += lanes) {
        const V code = mul(sub(load(x + d + i), start), inverse);
        store_words(codes + i, round_to_words(max(zero(), min(set(15), code))));
      }
      char* out = row + dim / kv_group * 4 + d / 2;
      for (int64_t i = 0; i < kv_group / 2; ++i)
        out[i] = static_cast<char>(codes[i] | codes[i + kv_group / 2] << 4);
    }
  }
}

}  // namespace
}  // namespace lathe
