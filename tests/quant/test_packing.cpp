#include <algorithm>
#include <cmath>
#include <cstring>
#include <gmock/gmock.h>

#include "core/error.h"
#include "core/float.h"
#include "core/rng.h"
#include "quant/packing.h"

namespace lathe {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

std::vector<uint8_t> bytes_of_hex(std::string_view hex) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i < hex.size(); i += 2)
    out.push_back(static_cast<uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return out;
}

// A weight of one u8 part, as GGUF files hold it.
Weight blocks(std::string_view name, const Numerics& numerics, int64_t cols,
              const std::vector<uint8_t>& bytes) {
  Weight w{numerics, &packing(name), {1, cols}, {}};
  w.parts.push_back(Tensor::of<uint8_t>(DType::u8, {1, static_cast<int64_t>(bytes.size())}, bytes));
  check_parts(w, name);
  return w;
}

Codes random_codes(const Numerics& n, int64_t rows, int64_t cols, Rng& rng) {
  Codes c{n, rows, cols, {}, {}, {}, {}};
  if (n.is_dense()) {
    for (int64_t i = 0; i < rows * cols; ++i)
      c.values.push_back(static_cast<float>(rng.below(257)) - 128);  // exact in every float
    return c;
  }
  auto code = [&] {
    const int q = n.code_min() + static_cast<int>(rng.below(1u << n.bits));
    return n.kind == Numerics::Kind::e4m3 && (q & 0x7f) == 0x7f ? q - 1 : q;  // a NaN equals nothing
  };
  for (int64_t i = 0; i < rows * cols; ++i) c.codes.push_back(static_cast<int16_t>(code()));
  // Of two levels: integers that every packing of them holds (Q2_K has four bits) times an f16 number.
  const auto multiple = [&] { return static_cast<float>(rng.below(16)) * (n.super ? 0.375f : 1); };
  for (int64_t i = 0; i < rows * n.groups(cols); ++i) {
    const float scale = static_cast<float>(1 + rng.below(255)) / 64;
    float stored = 0;
    from_f32(n.dtype, &scale, &stored, 1);
    to_f32(n.dtype, &stored, &stored, 1);
    c.scales.push_back(n.super ? multiple() : stored);
    if (n.offset == Numerics::Offset::zero_point) c.zeros.push_back(static_cast<float>(code()));
    if (n.offset == Numerics::Offset::minimum) c.zeros.push_back(multiple());
  }
  const int64_t groups = n.groups(cols), block = n.block_rows == 0 ? rows : n.block_rows;
  for (int64_t r = 0; r < rows; ++r)  // rows of a block share
    std::copy_n(c.scales.begin() + r / block * block * groups, groups, c.scales.begin() + r * groups);
  if (n.global) c.global = 1 / 1792.0f;
  if (n.has_input_scale()) c.input_scale = 0x1p-10f;  // exact in every type that it is stored in
  for (int64_t i = 0; n.act_order && i < cols; ++i)
    c.group_of.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(groups))));
  for (int64_t i = 0; n.column_scales && i < cols; ++i) c.columns.push_back(rng.normal());
  return c;
}

Codes slice(const Codes& c, int64_t row, int64_t rows) {
  Codes out{c.numerics, rows, c.cols, {}, {}, {}, {}, c.global};
  auto cut = [&](const auto& from, auto& to) {
    const int64_t width = static_cast<int64_t>(from.size()) / c.rows;
    to.assign(from.begin() + row * width, from.begin() + (row + rows) * width);
  };
  cut(c.values, out.values);
  cut(c.codes, out.codes);
  cut(c.scales, out.scales);
  cut(c.zeros, out.zeros);
  out.group_of = c.group_of;
  out.columns = c.columns;
  out.input_scale = c.input_scale;
  return out;
}

bool same(const Codes& a, const Codes& b) {
  return a.numerics == b.numerics && a.rows == b.rows && a.cols == b.cols && a.values == b.values &&
         a.codes == b.codes && a.scales == b.scales && a.zeros == b.zeros && a.global == b.global &&
         a.group_of == b.group_of && a.columns == b.columns;
}

std::vector<Numerics> all_numerics() {
  std::vector<Numerics> out;
  for (DType d : {DType::f32, DType::f16, DType::bf16}) {
    out.push_back(Numerics::dense(d));
    for (int bits = 2; bits <= 8; ++bits)
      for (int group : {0, 16, 32, 128})
        for (bool asymmetric : {false, true}) out.push_back(Numerics::integer(bits, group, asymmetric, d));
  }
  for (DType d : {DType::f32, DType::f16, DType::bf16}) {
    for (const Numerics& n :
         {Numerics::fp8(d), Numerics::fp8_tensor(d), Numerics::fp8_block(d),
          Numerics::grid(Numerics::Kind::e4m3, 32, d, 64), Numerics::grid(Numerics::Kind::nf4, 32, d)})
      out.push_back(n);
  }
  for (const Numerics& n : {Numerics::mxfp8(), Numerics::mxfp4(), Numerics::nvfp4(), Numerics::nf4(32),
                            Numerics::grid(Numerics::Kind::e2m1, 16, DType::f8e4m3), Numerics::iq4_nl()})
    out.push_back(n);
  for (const std::string_view scheme :
       {"w8a8-static", "w4a8-static", "w3a8-static", "w8a8-fp8", "w8a8-fp8-static", "w8a8-fp8-block",
        "w8a8-mxfp8", "w4a4-nvfp4", "w4a4-mxfp4", "w4a8-fp8"})
    out.push_back(parse_scheme(scheme, -1, false, DType::bf16));
  for (const Numerics& n :
       {Numerics::nvfp4(), Numerics::mxfp4(), Numerics::integer(4, 128, false).with_column_scales()})
    out.push_back(n.over(Activations::fp8_static));
  for (const int bits : {2, 3, 4, 8}) {  // columns that look up their group, columns with a scale
    Numerics n = Numerics::integer(bits, 16, true, DType::f16);
    n.act_order = true;
    out.push_back(n);
    out.push_back(n.over(Activations::int8_static));
    n = Numerics::integer(bits, 16, false);
    n.column_scales = true;
    out.push_back(n);
  }
  for (DType d : {DType::f32, DType::f16})
    for (uint8_t bits : {uint8_t{4}, uint8_t{5}})
      out.push_back({Numerics::Kind::integer, d, bits, 32, Numerics::Offset::minimum});
  for (int bits : {2, 4, 5}) out.push_back(Numerics::k_quant(bits, bits == 2 ? 16 : 32, true));
  for (int bits : {3, 6}) out.push_back(Numerics::k_quant(bits, 16, false));
  return out;
}

bool same_bytes(const Weight& a, const Weight& b) {
  for (size_t i = 0; i < a.parts.size(); ++i)
    if (a.parts[i].bytes() != b.parts[i].bytes() ||
        std::memcmp(a.parts[i].storage.data, b.parts[i].storage.data, a.parts[i].bytes()) != 0)
      return false;
  return true;
}

// Every packing that packs, everything it holds, awkward shapes: what went in comes out, whole or row by row,
// and packing by strips makes the same bytes.
TEST(Packing, RoundTripsEveryRowOfTheTable) {
  Rng rng(7);
  int checked = 0;
  for (const Packing& p : packings()) {
    if (!p.pack) continue;
    for (const Numerics& n : all_numerics()) {
      if (!p.holds(n)) continue;
      for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 7},
                                       {5, 33},
                                       {37, 64},
                                       {70, 96},
                                       {33, 130},
                                       {96, 32},
                                       {35, 512},
                                       {300, 290}}) {
        if (rows == 300 && n.block_rows == 1) continue;  // for blocks
        if (p.name.starts_with("gguf.") && cols % 32 != 0) continue;
        if (p.name.ends_with("fp4") && cols % 2 != 0) continue;  // pairs
        if (p.name == "bnb.nf4" && cols % n.group != 0) continue;
        if (p.name == "gguf.nvfp4" && cols % 64 != 0) continue;
        if (p.name == "modelopt.int4" && rows % 2 != 0) continue;
        if (n.super > 0 && cols % n.super != 0) continue;
        SCOPED_TRACE(fmt::format("{} {} {} x {}", p.name, to_string(n), rows, cols));
        const Codes codes = random_codes(n, rows, cols, rng);
        Weight whole = make_weight(n, p, {rows, cols}), strips = make_weight(n, p, {rows, cols});
        check_parts(whole, "whole");
        ASSERT_EQ(whole.bytes(), packed_bytes(n, p, {rows, cols}));
        p.pack(codes, 0, whole);
        for (int64_t row = 0; row < rows; row += pack_row_multiple)
          p.pack(slice(codes, row, std::min(pack_row_multiple, rows - row)), row, strips);
        ASSERT_TRUE(same_bytes(whole, strips));

        std::vector<float> expected(static_cast<size_t>(rows * cols));
        dequantize(codes, expected.data());
        ASSERT_EQ(read_all(whole), expected);
        const int64_t row = static_cast<int64_t>(rng.below(static_cast<uint64_t>(rows)));
        const int64_t count = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(rows - row)));
        std::vector<float> some(static_cast<size_t>(count * cols));
        read_rows(whole, row, count, some.data());
        ASSERT_THAT(some,
                    ElementsAreArray(expected.begin() + row * cols, expected.begin() + (row + count) * cols));
        if (std::ranges::any_of(p.parts(n, {rows, cols}),
                                [](const Part& part) { return part.name.starts_with("input_"); })) {
          ASSERT_EQ(input_scale(whole), codes.input_scale);
        }
        if (!p.name.starts_with("expand.")) {
          ASSERT_TRUE(same(unpack(whole, 0, rows), codes));
          ASSERT_TRUE(same(unpack(whole, row, count), slice(codes, row, count)));
        }
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 1000);
}

TEST(Packing, RepackIsLossless) {
  Rng rng(8);
  const Numerics n = Numerics::integer(8, 32, true);
  const Codes codes = random_codes(n, 41, 96, rng);
  Weight a = make_weight(n, packing("ct.pack32"), {41, 96});
  a.packing->pack(codes, 0, a);
  const Weight b = repack(a, packing("ct.int8"));
  EXPECT_TRUE(same(unpack(b, 0, 41), codes));
  EXPECT_TRUE(same_bytes(repack(b, packing("ct.pack32")), a));
  EXPECT_EQ(read_all(repack(a, packing("expand.f32"))), read_all(a));
  EXPECT_THROW(repack(a, packing("dense")), Error);      // holds no integers
  EXPECT_THROW(repack(a, packing("gguf.q4_k")), Error);  // holds no free scales
  EXPECT_THROW(packing("no such packing"), Error);
}

TEST(Packing, VectorsCountAsOneRow) {
  const Weight w = dense_weight(Tensor::of<float>(DType::f32, {3}, std::array{1.f, 2.f, 3.f}));
  EXPECT_EQ(w.rows(), 1);
  EXPECT_EQ(w.cols(), 3);
  EXPECT_THAT(read_all(w), ElementsAre(1, 2, 3));
  EXPECT_EQ(w.bytes(), 12u);
  float x[3];
  EXPECT_THROW(read_rows(w, 1, 1, x), Error);
  EXPECT_THROW(read_rows(w, 0, 2, x), Error);
}

TEST(Packing, CheckPartsNamesExpectedAndFound) {
  const Numerics n = Numerics::integer(4, 32, true);
  auto message = [&](auto spoil) {
    Weight w = make_weight(n, packing("ct.pack32"), {8, 64});
    spoil(w);
    try {
      check_parts(w, "m.safetensors: 'x'");
    } catch (const InputError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([](Weight&) {}), "no error");
  EXPECT_EQ(message([](Weight& w) { w.parts.pop_back(); }),
            "m.safetensors: 'x': expected 3 tensors for ct.pack32, found 2");
  EXPECT_EQ(message([](Weight& w) {
              w.parts[1] = Tensor::zeros(DType::f16, {8, 2});
            }),
            "m.safetensors: 'x': weight_scale: expected bf16 [8, 2], found f16 [8, 2]");
  EXPECT_EQ(message([](Weight& w) {
              w.parts[0] = Tensor::zeros(DType::i32, {8, 9});
            }),
            "m.safetensors: 'x': weight_packed: expected i32 [8, 8], found i32 [8, 9]");
  EXPECT_EQ(message([](Weight& w) { w.parts[0].storage.bytes = 5; }),
            "m.safetensors: 'x': weight_packed: expected 256 bytes, found 5 bytes");
}

// Stored codes i mod 2^b for 32 columns: compressed-tensors' dense bit order.
TEST(CtPack32, GoldenWords) {
  struct Case {
    int bits;
    std::vector<uint32_t> words;
  };
  const Case cases[] = {
      {2, {0xE4E4E4E4, 0xE4E4E4E4}},
      {3, {0x88FAC688, 0xC688FAC6, 0xFAC688FA}},
      {4, {0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98}},
      {5, {0x8A418820, 0xC5A92839, 0xCA307B9A, 0x38BDAB49, 0xFFBBCDEB}},
      {6, {0x440C2040, 0xA2481C61, 0x3CE34C2C, 0x544D2450, 0xA6585D65, 0x7DE75C6D}},
      {7, {0x40608080, 0x880E1828, 0x68C16284, 0x88901E38, 0x58A94264, 0x668C982E, 0x3E78E9C3}},
      {8, {0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C, 0x13121110, 0x17161514, 0x1B1A1918, 0x1F1E1D1C}},
  };
  for (const Case& c : cases) {
    const Numerics n = Numerics::integer(c.bits, 0, false);
    Codes codes{n, 1, 32, {}, {}, {1}, {}};
    for (int i = 0; i < 32; ++i)
      codes.codes.push_back(static_cast<int16_t>(i % (1 << c.bits) - (1 << (c.bits - 1))));
    Weight w = make_weight(n, packing("ct.pack32"), {1, 32});
    w.packing->pack(codes, 0, w);
    EXPECT_THAT(w.parts[0].as<uint32_t>(), ElementsAreArray(c.words)) << c.bits;
  }
}

TEST(CtPack32, ZeroPointsArePackedDownTheRows) {
  const Numerics n = Numerics::integer(4, 2, true);
  Codes codes{n, 9, 4, {}, std::vector<int16_t>(36, 0), std::vector<float>(18, 1), {}};
  for (int r = 0; r < 9; ++r)
    for (int g = 0; g < 2; ++g) codes.zeros.push_back(static_cast<float>(g == 0 ? r % 8 : -8 + r % 8));
  Weight w = make_weight(n, packing("ct.pack32"), {9, 4});
  ASSERT_EQ(w.parts[2].shape, (Shape{2, 2}));
  w.packing->pack(codes, 0, w);
  EXPECT_THAT(w.parts[2].as<uint32_t>(), ElementsAre(0xFEDCBA98, 0x76543210, 0x8, 0x0));
}

TEST(CtFloat, Fp4BytesAndTheInvertedGlobalScale) {  // what compressed-tensors makes of these numbers
  Codes codes{Numerics::nvfp4(), 1, 16, {}, {}, {448}, {}, 1 / 1792.0f};
  for (const int nibble : {14, 13, 12, 10, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 15})
    codes.codes.push_back(static_cast<int16_t>(nibble));
  Weight w = make_weight(codes.numerics, packing("ct.nvfp4"), {1, 16});
  w.packing->pack(codes, 0, w);
  EXPECT_THAT(w.parts[0].as<uint8_t>(), ElementsAreArray(bytes_of_hex("deac1022435465f6")));
  EXPECT_THAT(w.parts[1].as<uint8_t>(), ElementsAre(0x7e));
  EXPECT_THAT(w.parts[2].as<float>(), ElementsAre(1792));
  EXPECT_THROW(packed_bytes(Numerics::nvfp4(), packing("ct.nvfp4"), {1, 15}), Error);  // no pairs

  // Every divisor comes back, or one with the same inverse.
  Rng rng(9);
  for (int i = 0; i < 20000; ++i) {
    codes.global = 1 / std::exp2(static_cast<float>(rng.uniform()) * 40 - 20);
    w.packing->pack(codes, 0, w);
    ASSERT_EQ(unpack(w, 0, 1).global, codes.global);
  }
}

TEST(CtFloat, SharedScalesAreStoredOnce) {
  EXPECT_EQ(packing("ct.fp8").parts(Numerics::fp8_block(), {300, 130})[1].shape, (Shape{3, 2}));
  EXPECT_EQ(packing("ct.fp8").parts(Numerics::fp8_tensor(), {300, 130})[1].shape, (Shape{1}));
  EXPECT_EQ(packing("ct.fp8").parts(Numerics::fp8(), {300, 130})[1].shape, (Shape{300, 1}));
  EXPECT_EQ(packing("hf.fp8").parts(Numerics::fp8_block(DType::f32), {300, 130})[1].name, "weight_scale_inv");
}

TEST(Gguf, Q4_0Block) {  // ggml's quantization of j - 16
  const auto bytes = bytes_of_hex("0040809191a2a2b3b3c4c4d5d5e6e6f7f7f8");
  const Weight w = blocks("gguf.q4_0", Numerics::integer(4, 32, false, DType::f16), 32, bytes);
  const Codes c = unpack(w, 0, 1);
  EXPECT_EQ(c.scales[0], 2);
  for (int j = 0; j < 32; ++j)
    EXPECT_EQ(c.codes[static_cast<size_t>(j)], std::min(15, (j - 16 + 17) / 2) - 8) << j;
  Weight again = make_weight(w.numerics, *w.packing, w.shape);
  w.packing->pack(c, 0, again);
  EXPECT_TRUE(same_bytes(again, w));
}

TEST(Gguf, Q8_0Block) {  // ggml's quantization of j - 16
  const auto bytes = bytes_of_hex("083081899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f77");
  const Weight w = blocks("gguf.q8_0", Numerics::integer(8, 32, false, DType::f16), 32, bytes);
  const std::vector<float> values = read_all(w);
  for (int j = 0; j < 32; ++j) EXPECT_NEAR(values[static_cast<size_t>(j)], j - 16, 0.07) << j;
  Weight again = make_weight(w.numerics, *w.packing, w.shape);
  w.packing->pack(unpack(w, 0, 1), 0, again);
  EXPECT_TRUE(same_bytes(again, w));
}

TEST(Gguf, Q4_KBlock) {  // d = 1, dmin = 0.5
  auto bytes = bytes_of_hex("003c0038051c334a61788fa6bdd4eb02");
  for (int i = 0; i < 128; ++i) bytes.push_back(static_cast<uint8_t>((37 * i + 11) & 255));
  const Weight w = blocks("gguf.q4_k", Numerics::k_quant(4, 32, true), 256, bytes);
  const Codes c = unpack(w, 0, 1);
  EXPECT_THAT(c.scales, ElementsAre(5, 28, 51, 10, 13, 4, 11, 18));
  EXPECT_THAT(c.zeros, ElementsAre(16.5, 28, 7.5, 19, 13.5, 14.5, 23, 16));
  const std::vector<float> v = read_all(w);
  EXPECT_THAT((std::vector{v[0], v[1], v[31], v[32], v[63], v[64], v[127], v[128], v[200], v[255]}),
              ElementsAre(38.5, -16.5, 13.5, -28, 196, 553.5, 1, 129.5, 10, 92));
}

TEST(Gguf, Q6_KBlock) {  // d = 1
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 128; ++i) bytes.push_back(static_cast<uint8_t>((29 * i + 3) & 255));
  for (int i = 0; i < 64; ++i) bytes.push_back(static_cast<uint8_t>((53 * i + 7) & 255));
  for (int i = 0; i < 16; ++i) bytes.push_back(static_cast<uint8_t>(3 * i - 20));
  bytes.insert(bytes.end(), {0x00, 0x3c});
  const Weight w = blocks("gguf.q6_k", Numerics::k_quant(6, 16, false), 256, bytes);
  const std::vector<float> v = read_all(w);
  EXPECT_THAT((std::vector{v[0], v[16], v[31], v[32], v[64], v[96], v[127], v[128], v[200], v[255]}),
              ElementsAre(-380, -323, -102, 182, 256, 44, -14, 76, -480, -650));
}

TEST(Gguf, RowsAreWholeBlocks) {
  EXPECT_THROW(packed_bytes(Numerics::integer(4, 32, false, DType::f16), packing("gguf.q4_0"), {4, 40}),
               Error);
  EXPECT_EQ(packed_bytes(Numerics::integer(4, 32, false, DType::f16), packing("gguf.q4_0"), {4, 64}),
            4u * 36);
}

}  // namespace
}  // namespace lathe
