// Every code of every small float both ways, and the f32 neighbourhood of every rounding boundary.
#include <cmath>
#include <functional>
#include <gmock/gmock.h>
#include <limits>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"

namespace lathe {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Inputs that matter for a format: its values, the midpoints between neighbours, and the f32 numbers beside
// those.
std::vector<float> boundaries(const std::vector<float>& sorted_values) {
  std::vector<float> out = {0.0f,
                            -0.0f,
                            infinity,
                            -infinity,
                            std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::denorm_min()};
  auto around = [&](float x) {
    for (float v : {std::nextafter(x, -infinity), x, std::nextafter(x, infinity)}) {
      out.push_back(v);
      out.push_back(-v);
    }
  };
  for (size_t i = 0; i < sorted_values.size(); ++i) {
    around(sorted_values[i]);
    if (i > 0) around(static_cast<float>((double{sorted_values[i]} + double{sorted_values[i - 1]}) / 2));
  }
  return out;
}

// Nearest code by search in double precision: ties to the even code. `values` are the finite magnitudes by
// code.
uint32_t nearest_code(const std::vector<float>& values, float magnitude) {
  const auto above = std::lower_bound(values.begin(), values.end(), magnitude);
  const auto hi = static_cast<uint32_t>(
      std::min<ptrdiff_t>(above - values.begin(), static_cast<ptrdiff_t>(values.size()) - 1));
  if (hi == 0) return 0;
  const double up = std::fabs(double{values[hi]} - double{magnitude}),
               down = std::fabs(double{magnitude} - double{values[hi - 1]});
  return up < down || (up == down && hi % 2 == 0) ? hi : hi - 1;
}

TEST(Float, Bf16EveryCodeAndEveryBoundary) {
  std::vector<float> values;
  for (uint32_t code = 0; code < 0x7f80; ++code) {
    uint32_t bits = code << 16;
    float expected;
    std::memcpy(&expected, &bits, 4);
    ASSERT_EQ(bf16_to_f32(static_cast<uint16_t>(code)), expected);
    ASSERT_EQ(f32_to_bf16(expected), code);
    ASSERT_EQ(f32_to_bf16(-expected), code | 0x8000u);
    values.push_back(expected);
  }
  const double overflow = 0x1.ffp127;  // half way between the largest finite value and 2^128
  for (float x : boundaries(values)) {
    const uint32_t sign = std::signbit(x) ? 0x8000u : 0;
    const uint32_t expected = std::fabs(double{x}) >= overflow ? 0x7f80u : nearest_code(values, std::fabs(x));
    ASSERT_EQ(f32_to_bf16(x), sign | expected) << std::hexfloat << x;
  }
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()) & 0x7fc0u, 0x7fc0u);
  EXPECT_TRUE(std::isnan(
      bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));  // a NaN whose low bits alone say so
}

#ifdef __FLT16_MAX__
__extension__ typedef _Float16 Half;

TEST(Float, F16EveryCodeAndEveryBoundaryAsTheCompilerDoes) {
  std::vector<float> values;
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const auto half = std::bit_cast<Half>(static_cast<uint16_t>(code));
    const float expected = static_cast<float>(half), found = f16_to_f32(static_cast<uint16_t>(code));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found));
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(found))));
      continue;
    }
    ASSERT_EQ(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(expected)) << code;
    ASSERT_EQ(f32_to_f16(expected), code);
    if (code < 0x7c00) values.push_back(expected);
  }
  auto check = [](float x) {
    ASSERT_EQ(f32_to_f16(x), std::bit_cast<uint16_t>(static_cast<Half>(x))) << std::hexfloat << x;
  };
  for (float x : boundaries(values)) check(x);
  Rng rng(1);
  for (int i = 0; i < 2'000'000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(rng.next()));
    if (!std::isnan(x)) check(x);
  }
}
#endif

struct F8 {
  const char* name;
  int exponent_bits, mantissa_bits;
  uint32_t finite_codes;  // of one sign
  bool saturates;         // otherwise overflow is infinity, the code after the largest finite one
  float (*decode)(uint8_t);
  uint8_t (*encode)(float);
};

TEST(Float, F8EveryCodeAndEveryBoundary) {
  for (const F8& f : {F8{"e4m3", 4, 3, 0x7f, true, f8e4m3_to_f32, f32_to_f8e4m3},
                      F8{"e5m2", 5, 2, 0x7c, false, f8e5m2_to_f32, f32_to_f8e5m2}}) {
    SCOPED_TRACE(f.name);
    const int bias = (1 << (f.exponent_bits - 1)) - 1;
    std::vector<float> values;
    for (uint32_t code = 0; code < f.finite_codes; ++code) {
      const int exponent = static_cast<int>(code >> f.mantissa_bits);
      const double fraction = (code & ((1u << f.mantissa_bits) - 1)) / std::pow(2.0, f.mantissa_bits);
      const double expected = exponent == 0 ? fraction * std::pow(2.0, 1 - bias)
                                            : (1 + fraction) * std::pow(2.0, exponent - bias);
      ASSERT_EQ(f.decode(static_cast<uint8_t>(code)), expected);
      ASSERT_EQ(f.decode(static_cast<uint8_t>(code | 0x80)), -expected);
      ASSERT_EQ(f.encode(static_cast<float>(expected)), code);
      values.push_back(static_cast<float>(expected));
    }
    // The value that the next exponent step would have: half way to it, rounding leaves the range.
    const double beyond = 2 * double{values.back()} - double{values[values.size() - 2]};
    for (float x : boundaries(values)) {
      const uint32_t sign = std::signbit(x) ? 0x80u : 0;
      const bool over = std::fabs(double{x}) >= (double{values.back()} + beyond) / 2;
      const uint32_t expected = over && !f.saturates ? f.finite_codes : nearest_code(values, std::fabs(x));
      ASSERT_EQ(f.encode(x), sign | expected) << std::hexfloat << x;
    }
    EXPECT_TRUE(std::isnan(f.decode(f.encode(std::numeric_limits<float>::quiet_NaN()))));
    EXPECT_TRUE(std::isnan(f.decode(0x7f)));
    EXPECT_TRUE(std::isnan(f.decode(0xff)));
  }
  EXPECT_EQ(f8e5m2_to_f32(0x7c), infinity);
  EXPECT_EQ(f8e5m2_to_f32(0xfc), -infinity);
}

TEST(Float, F8E4m3KnownCodes) {
  struct Case {
    float value;
    uint8_t code;
  };
  for (const Case& c :
       {Case{1, 0x38}, {0.5, 0x30}, {-1, 0xb8}, {240, 0x77}, {256, 0x78}, {448, 0x7e}, {0x1p-9f, 0x01}}) {
    EXPECT_EQ(f32_to_f8e4m3(c.value), c.code);
    EXPECT_EQ(f8e4m3_to_f32(c.code), c.value);
  }
}

TEST(Float, F8E8m0EveryCodeAndEveryBoundary) {
  for (int code = 0; code < 255; ++code) {
    const float value = f8e8m0_to_f32(static_cast<uint8_t>(code));
    ASSERT_EQ(value, std::ldexp(1.0, code - 127));
    ASSERT_EQ(f32_to_f8e8m0(value), code);
    const float half = value * 1.5f;  // to the next power of two
    ASSERT_EQ(f32_to_f8e8m0(half), std::min(code + 1, 254));
    ASSERT_EQ(f32_to_f8e8m0(std::nextafter(half, 0.0f)), code);
  }
  EXPECT_TRUE(std::isnan(f8e8m0_to_f32(0xff)));
  EXPECT_EQ(f32_to_f8e8m0(0x1p-140f), 0);
  EXPECT_EQ(f32_to_f8e8m0(infinity), 0xfe);
  for (float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_EQ(f32_to_f8e8m0(bad), 0xff);
}

TEST(Float, RowsMatchElements) {
  const std::vector<float> in = {0, 1, -2.5f, 1e-3f, 300, -70000};
  for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::f8e5m2}) {
    std::vector<std::byte> stored(in.size() * 4);
    std::vector<float> out(in.size());
    from_f32(dtype, in.data(), stored.data(), static_cast<int64_t>(in.size()));
    to_f32(dtype, stored.data(), out.data(), static_cast<int64_t>(in.size()));
    for (size_t i = 0; i < 5; ++i)
      EXPECT_NEAR(out[i], in[i], std::fabs(in[i]) * 0.13 + 2e-3) << dtype_name(dtype);
  }
  float x = 0;
  EXPECT_THROW(to_f32(DType::i32, &x, &x, 1), Error);
  EXPECT_THROW(from_f32(DType::i8, &x, &x, 1), Error);
}

}  // namespace
}  // namespace lathe
