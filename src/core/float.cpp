#include "core/float.h"

#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "core/error.h"
#include "core/vector_clones.h"

namespace lathe {
namespace {

// One rounding routine for the IEEE-like formats narrower than f32: `E` exponent and `M` mantissa bits.
// Returns the code without its sign for a finite magnitude; the caller deals with overflow and NaN.
// Scaling by a power of two is exact.
template <int E, int M>
uint32_t round_magnitude(float magnitude) {
  constexpr int bias = (1 << (E - 1)) - 1;
  if (magnitude == 0) return 0;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = f * 2^exponent, f in [0.5, 1)
  const int unbiased = std::max(exponent - 1, 1 - bias);
  // Steps of this binade, rounded to nearest even in double precision (exact: far fewer than 53 bits are in
  // play).
  const double steps = std::nearbyint(std::ldexp(static_cast<double>(magnitude), M - unbiased));
  // A carry out of the mantissa runs into the exponent field, as it should.
  return static_cast<uint32_t>(steps) + (static_cast<uint32_t>(unbiased + bias - 1) << M);
}

template <int E, int M>
float decode(uint32_t code) {
  constexpr int bias = (1 << (E - 1)) - 1;
  const uint32_t exponent = (code >> M) & ((1u << E) - 1), mantissa = code & ((1u << M) - 1);
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - bias - M)
                                        : std::ldexp(static_cast<float>(mantissa | (1u << M)),
                                                     static_cast<int>(exponent) - bias - M);
  return (code >> (E + M)) & 1 ? -magnitude : magnitude;
}

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

uint16_t f32_to_f16(float f) {
  const uint16_t sign = static_cast<uint16_t>((std::bit_cast<uint32_t>(f) >> 16) & 0x8000u);
  if (std::isnan(f)) return sign | 0x7e00u;
  const float magnitude = std::fabs(f);
  if (magnitude >= 65520.0f) return sign | 0x7c00u;  // 65520 is half way to 2^16: ties to even, upwards
  return static_cast<uint16_t>(sign | round_magnitude<5, 10>(magnitude));
}

float f8e4m3_to_f32(uint8_t c) { return (c & 0x7f) == 0x7f ? nan : decode<4, 3>(c); }

uint8_t f32_to_f8e4m3(float f) {
  const uint8_t sign = std::signbit(f) ? 0x80 : 0;
  if (std::isnan(f)) return sign | 0x7f;
  const float magnitude = std::fabs(f);
  if (magnitude >= 448.0f) return sign | 0x7e;
  return static_cast<uint8_t>(sign | round_magnitude<4, 3>(magnitude));
}

float f8e5m2_to_f32(uint8_t c) {
  if ((c & 0x7c) == 0x7c) return (c & 3) ? nan : (c & 0x80 ? -infinity : infinity);
  return decode<5, 2>(c);
}

uint8_t f32_to_f8e5m2(float f) {
  const uint8_t sign = std::signbit(f) ? 0x80 : 0;
  if (std::isnan(f)) return sign | 0x7e;
  const float magnitude = std::fabs(f);
  if (magnitude >= 61440.0f) return sign | 0x7c;  // half way between 57344 and 2^16
  return static_cast<uint8_t>(sign | round_magnitude<5, 2>(magnitude));
}

float f8e8m0_to_f32(uint8_t c) {
  if (c == 0xff) return nan;
  return c == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<uint32_t>(c) << 23);
}

uint8_t f32_to_f8e8m0(float f) {
  if (!(f > 0)) return 0xff;
  if (f >= 0x1p127f) return 0xfe;
  int exponent = 0;
  const float fraction = std::frexp(f, &exponent);  // in [0.5, 1): half way between 2^(e-1) and 2^e is 0.75
  return static_cast<uint8_t>(std::max(exponent - (fraction < 0.75f ? 1 : 0) + 127, 0));
}

// bf16 is what most checkpoints are in, and every step reads embeddings so: by the widest vectors that
// LATHE_ISA allows.
LATHE_ALWAYS_INLINE static void widen_each(const uint16_t* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = std::bit_cast<float>(static_cast<uint32_t>(in[i]) << 16);
}
static void widen_128(const uint16_t* in, float* out, int64_t n) { widen_each(in, out, n); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void widen_256(const uint16_t* in, float* out, int64_t n) {
  widen_each(in, out, n);
}
__attribute__((target("avx512f"))) static void widen_512(const uint16_t* in, float* out, int64_t n) {
  widen_each(in, out, n);
}
#endif
static auto choose_widen() {
#if defined(__x86_64__)
  const uint32_t features = allowed_features();
  if (features & isa_avx512) return widen_512;
  if (features & isa_avx2) return widen_256;
#endif
  return widen_128;
}
static void widen(const uint16_t* in, float* out, int64_t n) {
  static const auto chosen = choose_widen();
  chosen(in, out, n);
}

void to_f32(DType dtype, const void* in, float* out, int64_t n) {
  auto each = [&]<class T>(const T* x, auto convert) {
    for (int64_t i = 0; i < n; ++i) out[i] = convert(x[i]);
  };
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, in, static_cast<size_t>(n) * 4);
      return;
    case DType::f16:
      return each(static_cast<const uint16_t*>(in), f16_to_f32);
    case DType::bf16:
      return widen(static_cast<const uint16_t*>(in), out, n);
    case DType::f8e4m3:
      return each(static_cast<const uint8_t*>(in), f8e4m3_to_f32);
    case DType::f8e5m2:
      return each(static_cast<const uint8_t*>(in), f8e5m2_to_f32);
    case DType::f8e8m0:
      return each(static_cast<const uint8_t*>(in), f8e8m0_to_f32);
    default:
      fail("to_f32: {} is not a float", dtype_name(dtype));
  }
}

void from_f32(DType dtype, const float* in, void* out, int64_t n) {
  auto each = [&]<class T>(T* y, auto convert) {
    for (int64_t i = 0; i < n; ++i) y[i] = convert(in[i]);
  };
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, in, static_cast<size_t>(n) * 4);
      return;
    case DType::f16:
      return each(static_cast<uint16_t*>(out), f32_to_f16);
    case DType::bf16:
      return each(static_cast<uint16_t*>(out), f32_to_bf16);
    case DType::f8e4m3:
      return each(static_cast<uint8_t*>(out), f32_to_f8e4m3);
    case DType::f8e5m2:
      return each(static_cast<uint8_t*>(out), f32_to_f8e5m2);
    case DType::f8e8m0:
      return each(static_cast<uint8_t*>(out), f32_to_f8e8m0);
    default:
      fail("from_f32: {} is not a float", dtype_name(dtype));
  }
}

}  // namespace lathe
