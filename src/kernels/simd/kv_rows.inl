// Keys and values of attention.h: rows of floats to how a cache holds them, and back. The same bits on every
// ISA.
#pragma once

#include "quant/int8_step.h"

namespace lathe {
namespace {

// run<type>(), for the code that is compiled once for each way to hold rows.
template <class Run>
inline void of_type(KvType type, Run run) {
  switch (type) {
    case KvType::f32:
      return run.template operator()<KvType::f32>();
    case KvType::bf16:
      return run.template operator()<KvType::bf16>();
    case KvType::int8:
      return run.template operator()<KvType::int8>();
    case KvType::int4:
      return run.template operator()<KvType::int4>();
    case KvType::fp8:
      return run.template operator()<KvType::fp8>();
    case KvType::nvfp4:
      return run.template operator()<KvType::nvfp4>();
    case KvType::int4_channel:
      return run.template operator()<KvType::int4_channel>();
  }
}

// Where the rows of a tile lie.
constexpr int64_t key_tile = 64;
struct Rows {
  const char* at[key_tile];
  bool together;  // the same distance apart
};
inline void find_rows(const KvLayout& l, const void* base, const int32_t* blocks, int64_t kv_head,
                      int64_t key, int64_t count, Rows& rows) {
  rows.together = true;
  for (int64_t j = 0; j < count;) {
    const char* at = kv_row(l, base, blocks, kv_head, key + j);
    const int64_t left = l.block_tokens - (key + j) % l.block_tokens;
    const int64_t end = left < count - j ? j + left : count;
    if (j > 0) rows.together = false;
    for (; j < end; ++j, at += l.token_bytes) rows.at[j] = at;
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

// e4m3 of nearest, ties to even, at most 448; NaN stays NaN. A float's top bits are those of an e4m3 of
// another bias; below 2^-6, where its steps are 2^-9, adding 2^14 rounds to them.
inline uint8_t round_to_e4m3(float f) {
  const uint32_t u = bits_of(f), size = u & 0x7fffffffu;
  const uint32_t normal = ((size + 0x7ffffu + ((size >> 20) & 1u)) >> 20) - (120u << 3);
  const uint32_t small = bits_of(float_of(size) + 0x1p14f) - bits_of(0x1p14f);
  const uint32_t code = size < bits_of(0x1p-6f) ? small : normal < 0x7eu ? normal : 0x7eu;
  return static_cast<uint8_t>((u >> 24 & 0x80u) | (f != f ? 0x7fu : code));
}
inline float e4m3_to_f32(uint8_t code) {  // of scales, which are no NaN and not below 0
  return float_of(static_cast<uint32_t>(code) << 20) * 0x1p120f;
}

alignas(64) constexpr float e2m1_values[] = {0,     0.5f,  1,     1.5f,  2,     3,     4,     6,
                                             -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
inline int round_to_e2m1(float f) {  // ties to even codes
  const float size = f < 0 ? -f : f;
  const int code = (size > 0.25f) + (size >= 0.75f) + (size > 1.25f) + (size >= 1.75f) + (size > 2.5f) +
                   (size >= 3.5f) + (size > 5.0f);
  return f < 0 ? code | 8 : code;
}

// use(d, vector) for a row's vectors; those of int4 and nvfp4 do not come in order.
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
  } else if constexpr (type == KvType::fp8) {
    float scale;
    __builtin_memcpy(&scale, row, sizeof scale);
    const auto* codes = reinterpret_cast<const E4M3*>(row + 4);
    for (int64_t d = 0; d < dim; d += lanes) use(d, mul(set(scale), load_as_f32(codes + d)));
  } else if constexpr (type == KvType::nvfp4) {
    float scale;
    __builtin_memcpy(&scale, row, sizeof scale);
    const auto* scales = reinterpret_cast<const uint8_t*>(row + 4);
    const uint8_t* codes = scales + dim / 16;
    const FloatTable values(e2m1_values);
    for (int64_t d = 0; d < dim; d += kv_group) {
      const V low = set(scale * e4m3_to_f32(scales[d / 16])),
              high = set(scale * e4m3_to_f32(scales[d / 16 + 1]));
      for (int64_t i = 0; i < kv_group / 2; i += lanes) {
        const I bytes = load_bytes(codes + d / 2 + i);
        use(d + i, mul(low, values[low_nibbles(bytes)]));
        use(d + kv_group / 2 + i, mul(high, values[high_nibbles(bytes)]));
      }
    }
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

inline float largest_size(const float* x, int64_t dim) {
  V most = zero();
  for (int64_t d = 0; d < dim; d += lanes) most = max(most, abs(load(x + d)));
  return largest(most);
}

// One row of `dim` floats. `given`: the scale of int8, fp8 or nvfp4; 0: the row finds its own.
inline void write_kv_row(KvType type, const float* x, int64_t dim, char* row, float given) {
  if (type == KvType::f32) {
    __builtin_memcpy(row, x, static_cast<size_t>(dim) * 4);
  } else if (type == KvType::bf16) {
    for (int64_t d = 0; d < dim; ++d) {
      const auto half = static_cast<uint16_t>(round_to_bf16(x[d]));
      __builtin_memcpy(row + d * 2, &half, sizeof half);
    }
  } else if (type == KvType::int8) {
    if (given > 0) {
      __builtin_memcpy(row, &given, sizeof given);
      for (int64_t d = 0; d < dim; d += lanes)
        store_bytes(row + 4 + d, round_to_words(max(set(-128), min(set(127), div(load(x + d), set(given))))));
      return;
    }
    const float most = largest_size(x, dim), scale = most / 127.0f;
    const V inverse = set(inverse_of_step(most));
    __builtin_memcpy(row, &scale, sizeof scale);
    for (int64_t d = 0; d < dim; d += lanes)
      store_bytes(row + 4 + d, round_to_words(mul(load(x + d), inverse)));
  } else if (type == KvType::fp8) {
    const float scale = given > 0 ? given : largest_size(x, dim) / 448.0f;
    __builtin_memcpy(row, &scale, sizeof scale);
    const float divisor = scale > 0 ? scale : 1;
    auto* codes = reinterpret_cast<uint8_t*>(row + 4);
    for (int64_t d = 0; d < dim; ++d) codes[d] = round_to_e4m3(x[d] / divisor);
  } else if (type == KvType::nvfp4) {
    const float scale = given > 0 ? given : largest_size(x, dim) / (6 * 448.0f);
    __builtin_memcpy(row, &scale, sizeof scale);
    auto* scales = reinterpret_cast<uint8_t*>(row + 4);
    uint8_t* codes = scales + dim / 16;
    for (int64_t d = 0; d < dim; d += kv_group) {
      float divisors[2];
      for (int64_t half = 0; half < 2; ++half) {
        const float most = largest_size(x + d + half * 16, 16);
        const uint8_t code = scale > 0 ? round_to_e4m3(most / (6 * scale)) : uint8_t{0};
        scales[d / 16 + half] = code;
        divisors[half] = code > 0 ? scale * e4m3_to_f32(code) : __builtin_inff();  // codes of 0
      }
      for (int64_t i = 0; i < kv_group / 2; ++i)
        codes[d / 2 + i] = static_cast<uint8_t>(round_to_e2m1(x[d + i] / divisors[0]) |
                                                round_to_e2m1(x[d + kv_group / 2 + i] / divisors[1]) << 4);
    }
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
