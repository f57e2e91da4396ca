// The integers that a group of weights becomes, and where they lie. Rounding to nearest (quant/round.cpp)
// looks at eight groups at a time, one in each element of a vector; what weighs errors (compress/fit_grid.h)
// and GPTQ at one. A scale, a zero point and a code are what is said here: T is float or Floats.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "core/vector_clones.h"
#include "quant/numerics.h"

namespace lathe {

typedef float Floats __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));

// x - T{} is x in every element. GCC 12 keeps that one instruction where a function of it would not be.

// Round to nearest even for |x| < 2^22 without a call: adding 1.5 * 2^23 leaves no bits for a fraction.
template <class T>
LATHE_ALWAYS_INLINE T round_even(const T& x) {
  return (x + 12582912.0f) - 12582912.0f;
}

template <class T>
LATHE_ALWAYS_INLINE T clamped(const T& x, float lo, float hi) {
  const T above = x < lo ? lo - T{} : x;
  return above > hi ? hi - T{} : above;
}

// The scale as it will be stored. Zero (a group of zeros, or an underflow) becomes compressed-tensors'
// epsilon of the type: any positive number would do. What is no finite positive number becomes the largest.
template <class T>
LATHE_ALWAYS_INLINE T storable(const T& scale, DType dtype) {
  using Bits = std::conditional_t<std::is_same_v<T, float>, uint32_t, Words>;
  const Bits bits = std::bit_cast<Bits>(scale);
  T stored = scale;
  float epsilon = std::numeric_limits<float>::epsilon(), largest = std::numeric_limits<float>::max();
  if (dtype == DType::bf16) {
    stored = std::bit_cast<T>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
    epsilon = 0x1p-7f, largest = 0x1.fep127f;
  } else if (dtype == DType::f16) {
    const T normal = std::bit_cast<T>((bits + 0xfffu + (bits >> 13 & 1u)) & 0xffffe000u);
    stored = scale < 0x1p-14f ? (scale + 0.75f) - 0.75f : normal;  // subnormals are multiples of 2^-24
    epsilon = 0x1p-10f, largest = 65504;
  } else if (dtype != DType::f32) {
    fail("a scale cannot be stored as {}", dtype_name(dtype));
  }
  const T positive = stored > 0 ? stored : stored == 0 ? epsilon - T{} : largest - T{};
  return positive > largest ? largest - T{} : positive;
}

// w = scale * (q - zero), q and zero integers in [lo, hi].
template <class T>
struct GridOf {
  T scale = 1 - T{}, zero = {};
  float lo = 0, hi = 0;

  LATHE_ALWAYS_INLINE T code(const T& x) const { return round_even(clamped<T>(x / scale + zero, lo, hi)); }
  LATHE_ALWAYS_INLINE T value(const T& code) const { return scale * (code - zero); }
};
using Grid = GridOf<float>;

// compressed-tensors' rules for values from lo <= 0 to hi >= 0: symmetric max(-lo, hi) / ((2^b - 1) / 2),
// asymmetric (hi - lo) / (2^b - 1) and a zero point.
template <class T>
LATHE_ALWAYS_INLINE GridOf<T> grid_between(const T& lo, const T& hi, const Numerics& n) {
  GridOf<T> grid;
  grid.lo = static_cast<float>(n.code_min());
  grid.hi = static_cast<float>(n.code_max());
  const float steps = grid.hi - grid.lo;
  if (n.offset == Numerics::Offset::none) {
    const T largest = -lo < hi ? hi : -lo;
    grid.scale = storable<T>(largest / (steps / 2), n.dtype);
  } else {
    grid.scale = storable<T>((hi - lo) / steps, n.dtype);
    grid.zero = round_even(clamped<T>(grid.lo - lo / grid.scale, grid.lo, grid.hi));
  }
  return grid;
}

}  // namespace lathe
