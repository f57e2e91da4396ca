#include <cmath>
#include <gmock/gmock.h>

#include "core/error.h"
#include "quant/activations.h"
#include "quant/codes.h"
#include "quant/numerics.h"

namespace lathe {
namespace {

TEST(Numerics, Names) {
  EXPECT_EQ(to_string(Numerics::dense(DType::bf16)), "bf16");
  EXPECT_EQ(to_string(Numerics::integer(8, 0, false)), "int8");
  EXPECT_EQ(to_string(Numerics::integer(4, 32, true)), "int4 g32 asym");
  EXPECT_EQ(to_string(Numerics{Numerics::Kind::integer, DType::f32, 4, 32, Numerics::Offset::minimum}),
            "int4 g32 min");
  EXPECT_EQ(to_string(Numerics::fp8(DType::f32)), "fp8");
  EXPECT_EQ(to_string(Numerics::fp8_tensor()), "fp8 tensor");
  EXPECT_EQ(to_string(Numerics::fp8_block()), "fp8 128x128");
  EXPECT_EQ(to_string(Numerics::nvfp4()), "nvfp4");
  EXPECT_EQ(to_string(Numerics::mxfp4()), "mxfp4");
  EXPECT_EQ(to_string(Numerics::mxfp8()), "mxfp8");
  EXPECT_EQ(to_string(Numerics::nf4()), "nf4 g64");
  EXPECT_EQ(to_string(Numerics::grid(Numerics::Kind::e2m1, 32, DType::bf16)), "fp4 g32");
  EXPECT_EQ(to_string(Numerics::k_quant(6, 16, false)), "int6 g16/256");
}

TEST(Numerics, NamesOfRoundedActivations) {
  using A = Activations;
  EXPECT_EQ(to_string(Numerics::w8a8()), "int8 a8");
  EXPECT_EQ(to_string(Numerics::w8a8_static()), "int8 a8 static");
  EXPECT_EQ(to_string(Numerics::fp8().over(A::fp8_per_row)), "fp8 afp8");
  EXPECT_EQ(to_string(Numerics::fp8_tensor().over(A::fp8_static)), "fp8 tensor afp8 static");
  EXPECT_EQ(to_string(Numerics::fp8_block(DType::f32).over(A::fp8_groups)), "fp8 128x128 afp8 g128");
  EXPECT_EQ(to_string(Numerics::nvfp4().over(A::nvfp4)), "nvfp4 anvfp4");
  EXPECT_EQ(to_string(Numerics::nvfp4().over(A::nvfp4).with_column_scales()), "nvfp4 anvfp4 column scales");
  EXPECT_EQ(to_string(Numerics::mxfp8().over(A::mxfp8_rceil)), "mxfp8 amxfp8 rceil");
  EXPECT_EQ(to_string(Numerics::integer(4, 128, false).over(A::fp8_per_row)), "int4 g128 afp8");
}

TEST(Numerics, CodeRanges) {
  const Numerics s = Numerics::integer(4, 32, false);
  EXPECT_EQ(s.code_min(), -8);
  EXPECT_EQ(s.code_max(), 7);
  const Numerics m{Numerics::Kind::integer, DType::f32, 4, 32, Numerics::Offset::minimum};
  EXPECT_EQ(m.code_min(), 0);
  EXPECT_EQ(m.code_max(), 15);
  EXPECT_EQ(s.groups(33), 2);
  EXPECT_EQ(Numerics::integer(8, 0, false).groups(33), 1);
}

TEST(ParseScheme, KnownNamesWithTheirDefaults) {
  EXPECT_EQ(parse_scheme("w8a16", -1, false, DType::bf16), Numerics::integer(8, 0, false));
  EXPECT_EQ(parse_scheme("w4a16", -1, false, DType::bf16), Numerics::integer(4, 128, false));
  EXPECT_EQ(parse_scheme("w4a16", 0, true, DType::f16), Numerics::integer(4, 0, true, DType::f16));
  EXPECT_EQ(parse_scheme("w8a16", 64, false, DType::f32), Numerics::integer(8, 64, false, DType::f32));
  EXPECT_EQ(parse_scheme("w8a8", -1, false, DType::f16), Numerics::w8a8(DType::f16));
  EXPECT_EQ(parse_scheme("w8a8-static", -1, false, DType::f16), Numerics::w8a8_static(DType::f16));
  Numerics w4a8 = Numerics::integer(4, 32, true);
  w4a8.activations = Numerics::Activations::int8_per_row;
  EXPECT_EQ(parse_scheme("w4a8", 32, true, DType::bf16), w4a8);
  EXPECT_EQ(parse_scheme("w4a8", -1, false, DType::bf16).group, 128);
  EXPECT_EQ(parse_scheme("w4a8-static", 32, true, DType::bf16), w4a8.over(Activations::int8_static));
  for (int bits = 2; bits <= 8; ++bits)
    EXPECT_EQ(parse_scheme(fmt::format("w{}a16", bits), 32, false, DType::bf16).bits, bits);
}

TEST(ParseScheme, Grids) {
  EXPECT_EQ(parse_scheme("fp8", -1, false, DType::f16), Numerics::fp8(DType::f16));
  EXPECT_EQ(parse_scheme("fp8-tensor", 0, false, DType::bf16), Numerics::fp8_tensor());
  EXPECT_EQ(parse_scheme("fp8-block", -1, false, DType::f32), Numerics::fp8_block(DType::f32));
  EXPECT_EQ(parse_scheme("nvfp4", -1, false, DType::f16), Numerics::nvfp4());
  EXPECT_EQ(parse_scheme("mxfp4", -1, false, DType::f16), Numerics::mxfp4());
  EXPECT_EQ(parse_scheme("mxfp8", -1, false, DType::f16), Numerics::mxfp8());
  EXPECT_EQ(parse_scheme("nf4", -1, false, DType::bf16), Numerics::nf4());
  EXPECT_EQ(parse_scheme("nf4", 128, false, DType::bf16), Numerics::nf4(128));
  EXPECT_THROW(parse_scheme("nf4", 32, false, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("nf4", 0, false, DType::bf16), InputError);
  for (std::string_view scheme : {"fp8", "fp8-tensor", "fp8-block", "nvfp4", "mxfp4", "mxfp8", "nf4"})
    EXPECT_EQ(scheme_of(parse_scheme(scheme, -1, false, DType::f16)), scheme);
  for (std::string_view scheme :
       {"w8a8-fp8", "w8a8-fp8-static", "w8a8-fp8-block", "w4a4-nvfp4", "w4a4-mxfp4", "w8a8-mxfp8"}) {
    const Numerics n = parse_scheme(scheme, -1, false, DType::f16);
    EXPECT_EQ(scheme_of(n), scheme);
    EXPECT_TRUE(n.rounds_activations() && !n.rounds_to_int8()) << scheme;
    EXPECT_FALSE(scheme_of(n.weights_alone()).empty()) << scheme;
    EXPECT_THROW(parse_scheme(scheme, 64, false, DType::bf16), InputError);
  }
  EXPECT_EQ(parse_scheme("w4a8-fp8", 32, true, DType::bf16),
            Numerics::integer(4, 32, true).over(Activations::fp8_per_row));
  EXPECT_EQ(scheme_of(Numerics::nvfp4().over(Activations::fp8_static)), "");
  EXPECT_EQ(scheme_of(Numerics::integer(8, 0, false)), "");
  EXPECT_THROW(parse_scheme("mxfp4", 64, false, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("nvfp4", -1, true, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("nf4", -1, true, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("nf4", -2, false, DType::bf16), InputError);
}

TEST(Grids, Values) {
  EXPECT_THAT(grid_values(Numerics::Kind::e2m1),
              testing::ElementsAre(0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6));
  EXPECT_EQ(grid_values(Numerics::Kind::e4m3)[0x7e], 448);
  EXPECT_EQ(grid_values(Numerics::Kind::e4m3)[0x81], -0x1p-9f);
  const auto nf4 = grid_values(Numerics::Kind::nf4);
  EXPECT_TRUE(std::is_sorted(nf4.begin(), nf4.end()));
  EXPECT_EQ(nf4[7], 0);
  EXPECT_EQ(nf4[15], 1);
  for (const Numerics::Kind kind : {Numerics::Kind::e4m3, Numerics::Kind::e2m1, Numerics::Kind::nf4}) {
    float most = 0;
    for (const float v : grid_values(kind)) most = v > most ? v : most;
    EXPECT_EQ(largest_of_grid(kind), most);
  }
  EXPECT_THROW(grid_values(Numerics::Kind::integer), Error);
}

TEST(Activations, RoundToInt8PerRow) {
  const float x[] = {0, 1, -127, 63.4f, 0.5f, 1.5f, -0.5f};  // the scale is 1; halves go to the even integer
  float y[7];
  round_row_to_int8(x, 7, y);
  EXPECT_THAT(y, testing::ElementsAre(0, 1, -127, 63, 0, 2, 0));
  const float zeros[] = {0, 0};
  round_row_to_int8(zeros, 2, y);
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0);
}

TEST(Activations, AScaleThatIsGivenCutsOffWhatIsBeyondIt) {
  const float x[] = {0, 0.9f, -63.5f, 63.6f, 0.25f, 0.75f, -1e30f};  // halves go to the even integer
  float y[7];
  round_row_to_int8(x, 7, y, 0.5f);
  EXPECT_THAT(y, testing::ElementsAre(0, 1, -63.5, 63.5, 0, 1, -63.5));
}

std::vector<float> rounded(Activations to, std::vector<float> x, float given = 0) {
  round_row(to, x.data(), std::ssize(x), x.data(), given);
  return x;
}

// e4m3: three bits of fraction, steps of 2^-9 below 2^-6, nothing above 448; ties to even.
TEST(Activations, Fp8PerRow) {
  EXPECT_THAT(rounded(Activations::fp8_per_row,  // the scale is 1
                      {448, 432, 431, 400, 17, -17.5f, 19, 0x1p-9f, 0x1p-10f, 0x1.8p-9f, -0x1p-11f, 0}),
              testing::ElementsAre(448, 448, 416, 384, 16, -18, 20, 0x1p-9f, 0, 0x1p-8f, 0, 0));
  // compressed-tensors: amax / 448, x / scale to the grid, times the scale, all in f32.
  const float scale = 3.0f / 448;
  EXPECT_THAT(rounded(Activations::fp8_per_row, {-3, 1, 0.001f}),
              testing::ElementsAre(-448 * scale, 144 * scale, 0.15625f * scale));
  EXPECT_THAT(rounded(Activations::fp8_per_row, {0, -0.0f, 0}), testing::Each(0));
  EXPECT_TRUE(std::isnan(rounded(Activations::fp8_per_row, {NAN, 1})[0]));
}

TEST(Activations, Fp8OfAScaleThatIsGiven) {
  EXPECT_THAT(rounded(Activations::fp8_static, {1000, -1000, 8.5f, 0x1p-10f, 0x1p-11f, 0}, 0.5f),
              testing::ElementsAre(224, -224, 8, 0x1p-10f, 0, 0));
}

TEST(Activations, Fp8InGroupsOf128) {
  std::vector<float> x(132, 0);
  x[0] = 448, x[127] = 17, x[128] = -44.8f, x[131] = 1.71f;  // the second group's scale is a tenth
  const std::vector<float> y = rounded(Activations::fp8_groups, x);
  const float tenth = 44.8f / 448;
  EXPECT_EQ(y[0], 448);
  EXPECT_EQ(y[127], 16);
  EXPECT_EQ(y[128], -448 * tenth);
  EXPECT_EQ(y[131], 18 * tenth);
  EXPECT_EQ(y[130], 0);
}

// The block's scale is an e4m3 of the given one: 6 / 6 = 1; 6000 / 6 is cut to 448; .001 / 6 becomes 0, and
// what is there with it (compressed-tensors takes 1/8 for it, of which everything rounds to 0).
TEST(Activations, Nvfp4) {
  std::vector<float> x(3 * 16, 0);
  const std::vector<float> block = {6,     5,     5.01f, 4.9f, 0.25f, 0.26f, 0.75f, -0.74f,
                                    1.25f, 1.75f, -2.5f, 3.5f, 0,     3,     1.5f,  -6};
  std::ranges::copy(block, x.begin());
  x[16] = 6000, x[17] = 448, x[32] = 0.001f;
  std::vector<float> y = rounded(Activations::nvfp4, x, 1);
  EXPECT_THAT(std::vector<float>(y.begin(), y.begin() + 16),
              testing::ElementsAre(6, 4, 6, 4, 0, 0.5f, 1, -0.5f, 1, 2, -2, 4, 0, 3, 1.5f, -6));
  EXPECT_EQ(y[16], 2688);
  EXPECT_EQ(y[17], 448);
  EXPECT_THAT(std::vector<float>(y.begin() + 32, y.end()), testing::Each(0));
  // Another scale: those of blocks are e4m3 numbers times it. 5 / 6 / .25 is 10/3, of e4m3 3.25.
  y = rounded(Activations::nvfp4, {5, 1, 0.2f}, 0.25f);
  EXPECT_THAT(y, testing::ElementsAre(6 * 0.8125f, 0.8125f * 1, 0.8125f * 0.0f));
}

// The exponent is that of the largest, one more from 1.75 on (even), or where it would be cut off (rceil).
TEST(Activations, MxBlocks) {
  EXPECT_THAT(rounded(Activations::mxfp4, {6.9f, 1, -2.5f}), testing::ElementsAre(6, 1, -2));
  EXPECT_THAT(rounded(Activations::mxfp4, {7, 1, -2.5f}), testing::ElementsAre(8, 1, -2));
  EXPECT_THAT(rounded(Activations::mxfp8, {447, 17}), testing::ElementsAre(448, 16));
  EXPECT_THAT(rounded(Activations::mxfp8, {448, 0x1p-9f}), testing::ElementsAre(448, 0));  // the scale is 2
  EXPECT_THAT(rounded(Activations::mxfp8_rceil, {448, 0x1p-9f}), testing::ElementsAre(448, 0x1p-9f));
  EXPECT_THAT(rounded(Activations::mxfp8_rceil, {449, 0x1p-9f}), testing::ElementsAre(448, 0));
  std::vector<float> x(40, 0);
  x[0] = 6, x[32] = 0x1p-20f;  // blocks of 32 know nothing of each other
  EXPECT_EQ(rounded(Activations::mxfp4, x)[32], 0x1p-20f);
  EXPECT_THAT(rounded(Activations::mxfp4, {0, 0}), testing::Each(0));
}

TEST(ParseScheme, RefusesOthers) {
  for (std::string_view bad : {"", "w4", "w1a16", "w9a16", "w1a8", "w4a4", "w4a16-static", "w5a8-fp8",
                               "w16a16", "W4A16", "w4a16 ", "int4"})
    EXPECT_THROW(parse_scheme(bad, -1, false, DType::bf16), InputError) << bad;
  EXPECT_THROW(parse_scheme("w8a8", 128, false, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("w8a8", -1, true, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("w4a16", -2, false, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("w4a16", 1 << 30, false, DType::bf16), InputError);
  EXPECT_THROW(parse_scheme("w4a16", -1, false, DType::i8), InputError);
}

TEST(Dequantize, TheThreeOffsets) {
  Codes c{Numerics::integer(4, 2, false), 1, 3, {}, {-8, 7, 3}, {0.5f, 2}, {}};  // the last group is ragged
  std::vector<float> out(3);
  dequantize(c, out.data());
  EXPECT_THAT(out, testing::ElementsAre(-4, 3.5, 6));
  c.numerics.offset = Numerics::Offset::zero_point;
  c.zeros = {-8, 1};
  dequantize(c, out.data());
  EXPECT_THAT(out, testing::ElementsAre(0, 7.5, 4));
  c.numerics.offset = Numerics::Offset::minimum;
  c.zeros = {1, 0.25f};
  dequantize(c, out.data());
  EXPECT_THAT(out, testing::ElementsAre(-5, 2.5, 5.75));
}

TEST(Dequantize, ColumnsAreScaledWhateverTheirGroups) {
  Codes c{Numerics::integer(4, 2, false), 1, 4, {}, {1, 2, 3, 4}, {10, 100}, {}};
  c.numerics.act_order = c.numerics.column_scales = true;
  c.group_of = {1, 0, 1, 0};
  c.columns = {1, 2, 3, 4};
  float out[4];
  dequantize(c, out);
  EXPECT_THAT(out, testing::ElementsAre(100, 40, 900, 160));
}

TEST(Dequantize, GridsTimesBothScales) {
  Codes c{Numerics::nvfp4(), 1, 18, {}, std::vector<int16_t>(18, 7), {448, 0.5f}, {}, 1 / 1792.0f};
  c.codes[1] = 9;
  std::vector<float> out(18);
  dequantize(c, out.data());
  EXPECT_EQ(out[0], 6 * (448 * c.global));
  EXPECT_EQ(out[1], -0.5f * (448 * c.global));
  EXPECT_EQ(out[17], 6 * (0.5f * c.global));
}

}  // namespace
}  // namespace lathe
