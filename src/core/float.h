// Small floats to f32 and back. Rounding is to nearest, ties to even. Tested over every code.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace lathe {

inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

// NaN stays NaN (quiet); everything else rounds to nearest even, overflowing to infinity.
inline uint16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float f16_to_f32(uint16_t);
uint16_t f32_to_f16(float);    // overflow becomes infinity
float f8e4m3_to_f32(uint8_t);  // "fn": no infinity, 0x7f and 0xff are NaN, largest 448
uint8_t f32_to_f8e4m3(float);  // saturates to +-448; NaN stays NaN
float f8e5m2_to_f32(uint8_t);  // IEEE-like: infinity and NaN, largest finite 57344
uint8_t f32_to_f8e5m2(float);  // overflow becomes infinity
float f8e8m0_to_f32(uint8_t);  // 2^(code - 127); 0xff is NaN
uint8_t f32_to_f8e8m0(float);  // the nearest power of two, saturating; NaN for what is not positive

// Element-wise over a row. `dtype` is one of the floats; `in`/`out` point to elements of it.
void to_f32(DType dtype, const void* in, float* out, int64_t n);
void from_f32(DType dtype, const float* in, void* out, int64_t n);

}  // namespace lathe
