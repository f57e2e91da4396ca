// The packings that others defined and Lathe only reads, or writes for them alone. Each is checked against
// words written down from the format's definition, and against a packer of a few lines that is nothing but
// that.
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

// u[n][k] without sign, z[n][g] likewise, s[n][g]: w[n][k] = s * (u - z).
struct Matrix {
  int bits;
  int64_t rows, cols, group;
  std::vector<uint32_t> u, z;
  std::vector<float> s;
  std::vector<int32_t> group_of;

  int64_t groups() const { return (cols + group - 1) / group; }
  float at(int64_t n, int64_t k) const {
    const auto g = static_cast<size_t>(n * groups() + group_of[static_cast<size_t>(k)]);
    return s[g] * (static_cast<float>(u[static_cast<size_t>(n * cols + k)]) - static_cast<float>(z[g]));
  }
};

Matrix random_matrix(int bits, int64_t rows, int64_t cols, int64_t group, Rng& rng) {
  Matrix m{bits, rows, cols, group, {}, {}, {}, {}};
  for (int64_t i = 0; i < rows * cols; ++i) m.u.push_back(static_cast<uint32_t>(rng.below(1u << bits)));
  for (int64_t i = 0; i < rows * m.groups(); ++i) {
    m.z.push_back(static_cast<uint32_t>(rng.below(1u << bits)));
    m.s.push_back(static_cast<float>(1 + rng.below(255)) / 64);
  }
  for (int64_t k = 0; k < cols; ++k) m.group_of.push_back(static_cast<int32_t>(k / group));
  return m;
}

// Sets a field of a stream of bits in words that lie `stride` apart.
void put(std::vector<uint32_t>& words, int64_t first, int64_t stride, int64_t index, int bits,
         uint32_t value) {
  for (int b = 0; b < bits; ++b) {
    const int64_t bit = index * bits + b;
    words[static_cast<size_t>(first + bit / 32 * stride)] |= (value >> b & 1u) << bit % 32;
  }
}

Tensor words_of(const Shape& shape, const std::vector<uint32_t>& words) {
  return Tensor::of<uint32_t>(DType::i32, shape, words);
}

Tensor scales_of(const Matrix& m) {  // f16 [groups, rows]
  std::vector<uint16_t> out;
  for (int64_t g = 0; g < m.groups(); ++g)
    for (int64_t n = 0; n < m.rows; ++n)
      out.push_back(f32_to_f16(m.s[static_cast<size_t>(n * m.groups() + g)]));
  return Tensor::of<uint16_t>(DType::f16, {m.groups(), m.rows}, out);
}

Weight gptq(const Matrix& m, std::string_view name, bool act_order) {
  const int64_t G = m.groups(), code_words = m.cols / 32 * m.bits, zero_words = m.rows * m.bits / 32;
  std::vector<uint32_t> codes(static_cast<size_t>(code_words * m.rows)),
      zeros(static_cast<size_t>(G * zero_words));
  for (int64_t n = 0; n < m.rows; ++n) {
    for (int64_t k = 0; k < m.cols; ++k)
      put(codes, n, m.rows, k, m.bits, m.u[static_cast<size_t>(n * m.cols + k)]);
    for (int64_t g = 0; g < G; ++g) {
      const uint32_t zero = m.z[static_cast<size_t>(n * G + g)] - (name == "gptq.v1");
      put(zeros, g * zero_words, 1, n, m.bits, zero & ((1u << m.bits) - 1));
    }
  }
  Numerics n = Numerics::integer(m.bits, static_cast<int>(m.group), true, DType::f16);
  n.act_order = act_order;
  Weight w{n, &packing(name), {m.rows, m.cols}, {}};
  w.parts = {words_of({code_words, m.rows}, codes), scales_of(m), words_of({G, zero_words}, zeros)};
  if (act_order) w.parts.push_back(Tensor::of<int32_t>(DType::i32, {m.cols}, m.group_of));
  check_parts(w, name);
  return w;
}

Weight awq(const Matrix& m) {
  constexpr int order[] = {0, 2, 4, 6, 1, 3, 5, 7};  // of the columns in a word, lowest nibble first
  const int64_t width = m.rows / 8, G = m.groups();
  std::vector<uint32_t> codes(static_cast<size_t>(m.cols * width)), zeros(static_cast<size_t>(G * width));
  for (int64_t word = 0; word < width; ++word)
    for (int i = 0; i < 8; ++i) {
      const int64_t n = 8 * word + order[i];
      for (int64_t k = 0; k < m.cols; ++k)
        put(codes, k * width + word, 1, i, 4, m.u[static_cast<size_t>(n * m.cols + k)]);
      for (int64_t g = 0; g < G; ++g)
        put(zeros, g * width + word, 1, i, 4, m.z[static_cast<size_t>(n * G + g)]);
    }
  Weight w{Numerics::integer(4, static_cast<int>(m.group), true, DType::f16),
           &packing("awq.gemm"),
           {m.rows, m.cols},
           {}};
  w.parts = {words_of({m.cols, width}, codes), scales_of(m), words_of({G, width}, zeros)};
  check_parts(w, "awq");
  return w;
}

// All rows, and runs of rows that begin and end anywhere. Products of f16 and small integers are exact.
void expect_numbers(const Weight& w, const Matrix& m) {
  std::vector<float> expected;
  for (int64_t n = 0; n < m.rows; ++n)
    for (int64_t k = 0; k < m.cols; ++k) expected.push_back(m.at(n, k));
  ASSERT_EQ(read_all(w), expected);
  for (const auto& [row, rows] : {std::pair<int64_t, int64_t>{0, 1}, {3, 7}, {m.rows - 5, 5}}) {
    std::vector<float> some(static_cast<size_t>(rows * m.cols));
    read_rows(w, row, rows, some.data());
    ASSERT_THAT(some,
                ElementsAreArray(expected.begin() + row * m.cols, expected.begin() + (row + rows) * m.cols));
  }
}

TEST(GptqPacking, EveryWidthBothVersionsAnyOrderOfColumns) {
  Rng rng(11);
  for (const int bits : {2, 3, 4, 8})
    for (const std::string_view version : {"gptq.v1", "gptq.v2"})
      for (const auto& [rows, cols, group] :
           {std::tuple<int64_t, int64_t, int64_t>{32, 32, 32}, {96, 64, 32}, {64, 96, 64}, {32, 128, 16}}) {
        SCOPED_TRACE(fmt::format("{} {} bits {} x {} g{}", version, bits, rows, cols, group));
        Matrix m = random_matrix(bits, rows, cols, group, rng);
        expect_numbers(gptq(m, version, false), m);
        for (int32_t& g : m.group_of) g = static_cast<int32_t>(rng.below(static_cast<uint64_t>(m.groups())));
        expect_numbers(gptq(m, version, true), m);
      }
}

TEST(GptqPacking, GoldenWords) {
  Matrix m{
      4, 8, 32, 32, {}, std::vector<uint32_t>(8, 8), std::vector<float>(8, 1), std::vector<int32_t>(32, 0)};
  for (int n = 0; n < 8; ++n)
    for (uint32_t k = 0; k < 32; ++k) m.u.push_back(k % 8);
  for (const auto& [version, zeros] : {std::pair{"gptq.v1", 0x77777777u}, {"gptq.v2", 0x88888888u}}) {
    const Weight w = gptq(m, version, false);
    EXPECT_EQ(w.parts[0].as<uint32_t>()[0], 0x76543210u);
    EXPECT_THAT(w.parts[2].as<uint32_t>(), ElementsAre(zeros));
    EXPECT_THAT(unpack(w, 0, 1).zeros, ElementsAre(0));
  }
  // Three bits: codes i mod 8 along the columns are the dense stream of compressed-tensors.
  const Numerics n = Numerics::integer(3, 0, false, DType::f16);
  Weight w = make_weight(n, packing("gptq.v2"), {32, 32});
  const uint32_t words[] = {0x88FAC688, 0xC688FAC6, 0xFAC688FA};
  for (size_t i = 0; i < 3; ++i)
    for (size_t r = 0; r < 32; ++r) w.parts[0].as_mutable<uint32_t>()[32 * i + r] = words[i];
  const Codes c = unpack(w, 5, 1);
  for (int k = 0; k < 32; ++k) EXPECT_EQ(c.codes[static_cast<size_t>(k)], k % 8 - 4) << k;
}

TEST(GptqPacking, TheFirstVersionsZeroPointWraps) {  // 0 less one is stored as 15
  Rng rng(12);
  Matrix m = random_matrix(4, 32, 32, 32, rng);
  std::fill(m.z.begin(), m.z.end(), 0u);
  const Weight w = gptq(m, "gptq.v1", false);
  EXPECT_EQ(w.parts[2].as<uint32_t>()[0], 0xffffffffu);
  expect_numbers(w, m);
}

TEST(AwqPacking, AnyShape) {
  Rng rng(13);
  for (const auto& [rows, cols, group] :
       {std::tuple<int64_t, int64_t, int64_t>{16, 16, 16}, {40, 64, 32}, {104, 128, 128}, {32, 30, 10}}) {
    SCOPED_TRACE(fmt::format("{} x {} g{}", rows, cols, group));
    const Matrix m = random_matrix(4, rows, cols, group, rng);
    expect_numbers(awq(m), m);
  }
}

TEST(AwqPacking, GoldenWord) {  // columns 0 to 7 of the output have codes 0 to 7
  Weight w = make_weight(Numerics::integer(4, 0, false, DType::f16), packing("awq.gemm"), {8, 1});
  w.parts[0].as_mutable<uint32_t>()[0] = 0x75316420;
  EXPECT_THAT(unpack(w, 0, 8).codes, ElementsAre(-8, -7, -6, -5, -4, -3, -2, -1));
  EXPECT_THROW(packed_bytes(w.numerics, *w.packing, {12, 1}), Error);  // no whole words
}

TEST(Packings, KernelsDoNotTakeColumnsOutOfOrderForRuns) {
  Numerics n = Numerics::integer(4, 16, true, DType::f16);
  n.act_order = true;
  for (const Packing& p : packings()) {
    if (p.holds(n)) {
      EXPECT_TRUE(p.name.starts_with("gptq.") || p.name == "ct.pack32" || p.name.starts_with("expand."))
          << p.name;
    }
  }
}

// Codes i mod 2^b of 32 columns in compressed-tensors up to 0.17: whole codes in words.
TEST(CtWords32, GoldenWords) {
  struct Case {
    int bits;
    std::vector<uint32_t> words;
  };
  const Case cases[] = {
      {3, {0x08FAC688, 0x1A23EB1A, 0x2C688FAC, 0x0000003E}},
      {5, {0x0A418820, 0x16A4A0E6, 0x2307B9AC, 0x2F6AD272, 0x3BCDEB38, 0x000003FE}},
      {6, {0x040C2040, 0x09207185, 0x0E34C2CA, 0x1349140F, 0x185D6554, 0x1D71B699, 0x000007DE}},
      {7, {0x00608080, 0x00E18284, 0x01628488, 0x01E3868C, 0x02648890, 0x02E58A94, 0x03668C98, 0x03E78E9C}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.bits);
    const auto n = static_cast<int64_t>(c.words.size());
    // The zero points of 32 rows are the same codes, down the rows of one group.
    Weight w{Numerics::integer(c.bits, 0, true, DType::f32), &packing("ct.words32"), {32, 32}, {}};
    std::vector<uint32_t> codes;
    for (int r = 0; r < 32; ++r) codes.insert(codes.end(), c.words.begin(), c.words.end());
    w.parts = {words_of({32, n}, codes), Tensor::of<float>(DType::f32, {32, 1}, std::vector<float>(32, 1)),
               words_of({n, 1}, c.words)};
    check_parts(w, "w");
    const Codes all = unpack(w, 0, 32), some = unpack(w, 11, 3);
    const auto code = [&](int i) { return i % (1 << c.bits) - (1 << (c.bits - 1)); };
    for (int r = 0; r < 32; ++r) {
      EXPECT_EQ(all.zeros[static_cast<size_t>(r)], code(r)) << r;
      for (int k = 0; k < 32; ++k) EXPECT_EQ(all.codes[static_cast<size_t>(32 * r + k)], code(k));
    }
    EXPECT_EQ(some.zeros[2], code(13));
    // What it is written as is the other packing, with the same numbers.
    EXPECT_EQ(read_all(repack(w, packing("ct.pack32"))), read_all(w));
  }
  EXPECT_FALSE(packing("ct.words32").holds(Numerics::integer(4, 0, false)));  // the same in both
}

TEST(ModelOpt, Int4PairsRows) {
  Codes c{Numerics::integer(4, 2, false), 2, 2, {}, {-8, 3, 7, -1}, {1, 1}, {}};
  Weight w = make_weight(c.numerics, packing("modelopt.int4"), {2, 2});
  w.packing->pack(c, 0, w);
  EXPECT_THAT(w.parts[0].as<uint8_t>(), ElementsAre(0x78, 0xf3));
  c.numerics.column_scales = true;
  c.columns = {0.5f, 3};
  w = make_weight(c.numerics, packing("modelopt.int4"), {2, 2});
  w.packing->pack(c, 0, w);
  EXPECT_THAT(read_all(w), ElementsAre(-4, 9, 3.5f, -3));
  EXPECT_THROW(packed_bytes(c.numerics, *w.packing, {3, 2}), Error);
}

TEST(ModelOpt, Int8RowsAndScalesOfColumns) {
  Codes c{
      Numerics::w8a8_static(DType::f32).with_column_scales(), 2, 2, {}, {-128, 3, 127, -1}, {0.5f, 2}, {}};
  c.input_scale = 0.25f;
  c.columns = {1, 3};
  const Weight w = [&] {
    Weight out = make_weight(c.numerics, packing("modelopt.int8"), {2, 2});
    out.packing->pack(c, 0, out);
    return out;
  }();
  ASSERT_EQ(w.parts.size(), 4u);
  EXPECT_THAT(w.parts[0].as<int8_t>(), ElementsAre(-128, 3, 127, -1));
  EXPECT_THAT(w.parts[1].as<float>(), ElementsAre(0.5f, 2));
  EXPECT_THAT(w.parts[2].as<float>(), ElementsAre(0.25f));
  EXPECT_THAT(w.parts[3].as<float>(), ElementsAre(1, 3));
  EXPECT_EQ(input_scale(w), 0.25f);
  EXPECT_THAT(read_all(w), ElementsAre(-64, 4.5f, 254, -6));
  const Codes again = unpack(w, 1, 1);
  EXPECT_EQ(again.input_scale, 0.25f);
  EXPECT_THAT(again.codes, ElementsAre(127, -1));
  EXPECT_FALSE(w.packing->holds(Numerics::w8a8(DType::f32)));  // which it has no name for
}

TEST(ModelOpt, Nvfp4WithScalesOfColumnsIsPackedAgainAlike) {
  Codes c;
  c.numerics = Numerics::nvfp4().with_column_scales();
  c.rows = 1, c.cols = 16;
  c.scales = {2};
  c.global = 0.5f;
  for (int16_t k = 0; k < 16; ++k) c.codes.push_back(k), c.columns.push_back(static_cast<float>(k));
  Weight w = make_weight(c.numerics, packing("modelopt.nvfp4"), {1, 16});
  w.packing->pack(c, 0, w);
  EXPECT_THAT(w.parts[0].as<uint8_t>(), ElementsAre(0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe));
  const std::vector<float> values = read_all(w);
  const std::span<const float> grid = grid_values(Numerics::Kind::e2m1);
  for (size_t k = 0; k < 16; ++k) EXPECT_EQ(values[k], grid[k] * static_cast<float>(k));
  const Weight again = repack(w, *w.packing);
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(std::memcmp(again.parts[i].storage.data, w.parts[i].storage.data, w.parts[i].bytes()), 0);
  EXPECT_FALSE(packing("ct.nvfp4").holds(c.numerics));
  EXPECT_FALSE(packing("dense").holds(Numerics::dense(DType::bf16).with_column_scales()));
}

// The weights of ModelOpt's and compressed-tensors' NVFP4 are the same bytes; the global scale multiplies in
// the one and divides in the other.
TEST(ModelOpt, Nvfp4MultipliesByItsSecondScale) {
  const std::vector<uint8_t> bytes = {0xde, 0xac, 0x10, 0x22, 0x43, 0x54, 0x65, 0xf6};
  Weight w{Numerics::nvfp4(), &packing("modelopt.nvfp4"), {1, 16}, {}};
  w.parts = {Tensor::of<uint8_t>(DType::u8, {1, 8}, bytes),
             Tensor::of<uint8_t>(DType::f8e4m3, {1, 1}, std::array<uint8_t, 1>{0x7e}),
             Tensor::of<float>(DType::f32, {}, std::array{std::bit_cast<float>(0x3A124925u)})};
  check_parts(w, "w");
  const float expected[] = {-1,    -.75f, -.5f, -.25f, 0,    .125f, .25f, .25f,
                            .375f, .5f,   .5f,  .75f,  .75f, 1,     1,    -1.5f};
  const std::vector<float> found = read_all(w);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(found[i], expected[i], 1e-7f) << i;  // 1 / 1792 is no f32
  const Weight ct = repack(w, packing("ct.nvfp4"));
  EXPECT_THAT(ct.parts[0].as<uint8_t>(), ElementsAreArray(bytes));
  EXPECT_EQ(ct.parts[2].as<float>()[0], 1792);
  // GGUF's order of the same numbers, two blocks of which are one of 64.
  Weight four{Numerics::nvfp4(), &packing("modelopt.nvfp4"), {1, 64}, {}};
  std::vector<uint8_t> all;
  for (int i = 0; i < 4; ++i) all.insert(all.end(), bytes.begin(), bytes.end());
  four.parts = {Tensor::of<uint8_t>(DType::u8, {1, 32}, all),
                Tensor::of<uint8_t>(DType::f8e4m3, {1, 4}, std::array<uint8_t, 4>{0x7e, 0x6e, 0x7e, 0x38}),
                w.parts[2]};
  const Weight gguf = repack(four, packing("gguf.nvfp4"));
  const auto block = gguf.parts[0].as<uint8_t>();
  EXPECT_THAT(std::vector(block.begin(), block.begin() + 12),
              ElementsAre(0x7e, 0x6e, 0x7e, 0x38, 0x3e, 0x4d, 0x4c, 0x5a, 0x50, 0x61, 0x62, 0xf2));
  EXPECT_EQ(read_all(gguf), read_all(four));
}

TEST(OpenAiMxfp4, BlocksOfStackedExperts) {  // two experts of one row of 64 columns
  Weight w{Numerics::mxfp4(), &packing("openai.mxfp4"), {2, 1, 64}, {}};
  std::vector<uint8_t> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(static_cast<uint8_t>(i % 16 | (i + 1) % 16 << 4));
  w.parts = {Tensor::of<uint8_t>(DType::u8, {2, 1, 2, 16}, blocks),
             Tensor::of<uint8_t>(DType::u8, {2, 1, 2}, std::array<uint8_t, 4>{127, 128, 126, 0})};
  check_parts(w, "w");
  const float values[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};
  const float scales[] = {1, 2, .5f, 0x1p-127f};
  const std::vector<float> found = read_all(w);
  ASSERT_EQ(found.size(), 128u);
  for (size_t i = 0; i < 128; ++i) EXPECT_EQ(found[i], values[(i / 2 + i % 2) % 16] * scales[i / 32]) << i;
}

// Rows of gate and of up by turns: one of them is a view, and nothing that needs dense bytes takes it.
TEST(OpenAiMxfp4, RowsThatLieApart) {
  Rng rng(3);
  std::vector<uint8_t> blocks(2 * 6 * 2 * 16), scales(2 * 6 * 2);
  for (uint8_t& b : blocks) b = static_cast<uint8_t>(rng.below(256));
  for (uint8_t& s : scales) s = static_cast<uint8_t>(120 + rng.below(10));
  Weight all{Numerics::mxfp4(), &packing("openai.mxfp4"), {2, 6, 64}, {}};
  all.parts = {Tensor::of<uint8_t>(DType::u8, {2, 6, 2, 16}, blocks),
               Tensor::of<uint8_t>(DType::u8, {2, 6, 2}, scales)};
  Weight up{Numerics::mxfp4(), all.packing, {3, 64}, {}};  // of the second expert: rows 7, 9 and 11 of all
  up.parts = {all.parts[0].view(7 * 32, {3, 2, 16}, {64, 16, 1}), all.parts[1].view(14, {3, 2}, {4, 1})};
  check_parts(up, "up");
  const std::vector<float> expected = read_all(all), found = read_all(up);
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 64; ++c) ASSERT_EQ(found[r * 64 + c], expected[(7 + 2 * r) * 64 + c]) << r << c;
  const Weight packed = repack(up, packing("ct.mxfp4"));
  EXPECT_EQ(read_all(packed), found);
  for (size_t r = 0; r < 3; ++r)  // byte for byte
    for (size_t b = 0; b < 32; ++b)
      ASSERT_EQ(packed.parts[0].as<uint8_t>()[r * 32 + b], blocks[(7 + 2 * r) * 32 + b]);
}

TEST(Dense, ElementsThatLieApart) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    std::vector<float> values(2 * 5 * 6);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    Tensor all = Tensor::zeros(dtype, {2, 5, 6});
    from_f32(dtype, values.data(), all.storage.data, 60);
    // Row r of the second matrix transposed is its column 2 r + 1.
    const Weight w{
        Numerics::dense(dtype), &packing("dense.strided"), {3, 5}, {all.view(30 + 1, {3, 5}, {2, 6})}};
    check_parts(w, "w");
    const std::vector<float> found = read_all(w);
    EXPECT_EQ(read_all(repack(w, packing("dense"))), found);
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 5; ++c) ASSERT_EQ(found[r * 5 + c], values[30 + 6 * c + 2 * r + 1]);
    const Weight vector{Numerics::dense(dtype), w.packing, {3}, {all.view(6, {3}, {2})}};
    EXPECT_EQ(read_all(vector), (std::vector<float>{6, 8, 10}));
  }
}

TEST(GgufFloat, GoldenBlocks) {
  const float e2m1[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};
  const float table[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  std::vector<uint8_t> iq4_nl = {0x00, 0x38}, mxfp4 = {126};  // 0.5
  for (int j = 0; j < 16; ++j) {
    const auto nibbles = static_cast<uint8_t>(j | (15 - j) << 4);  // element j, element j + 16
    iq4_nl.push_back(nibbles);
    mxfp4.push_back(nibbles);
  }
  const auto values = [](std::string_view name, const Numerics& n, const std::vector<uint8_t>& bytes) {
    Weight w{n, &packing(name), {1, 32}, {}};
    w.parts = {Tensor::of<uint8_t>(DType::u8, {1, std::ssize(bytes)}, bytes)};
    check_parts(w, name);
    EXPECT_EQ(w.packing->nonfinite(w), -1);
    Weight again = make_weight(n, *w.packing, w.shape);
    w.packing->pack(unpack(w, 0, 1), 0, again);
    EXPECT_THAT(again.parts[0].as<uint8_t>(), ElementsAreArray(bytes));
    return read_all(w);
  };
  const auto a = values("gguf.iq4_nl", Numerics::iq4_nl(), iq4_nl),
             b = values("gguf.mxfp4", Numerics::mxfp4(), mxfp4);
  for (size_t j = 0; j < 16; ++j) {
    EXPECT_EQ(a[j], 0.5f * table[j]);
    EXPECT_EQ(a[j + 16], 0.5f * table[15 - j]);
    EXPECT_EQ(b[j], 0.5f * e2m1[j]);
    EXPECT_EQ(b[j + 16], 0.5f * e2m1[15 - j]);
  }
}

// What is stored as bytes or as a divisor; scales that are floats are looked at as such.
TEST(FloatPackings, ScalesThatAreNoNumbersAreFound) {
  for (const auto& [name, numerics] :
       {std::pair("ct.mxfp8", Numerics::mxfp8()), std::pair("ct.mxfp4", Numerics::mxfp4()),
        std::pair("modelopt.mxfp4", Numerics::mxfp4()), std::pair("openai.mxfp4", Numerics::mxfp4())}) {
    Weight w = make_weight(numerics, packing(name), {3, 64});
    ASSERT_NE(w.packing->nonfinite, nullptr) << name;
    w.parts[0].as_mutable<uint8_t>()[7] = 0xff;  // codes may be anything
    w.parts[1].as_mutable<uint8_t>()[1] = 0xfe;
    EXPECT_EQ(w.packing->nonfinite(w), -1) << name;
    w.parts[1].as_mutable<uint8_t>()[4] = 0xff;
    EXPECT_EQ(w.packing->nonfinite(w), 4) << name;
  }
  Weight w = make_weight(Numerics::nvfp4(), packing("ct.nvfp4"), {2, 32});
  for (const float divisor : {0.0f, -0.0f, 1e-39f, INFINITY, NAN}) {
    w.parts[2].as_mutable<float>()[0] = divisor;
    EXPECT_EQ(w.packing->nonfinite(w), 0) << divisor;
  }
  w.parts[2].as_mutable<float>()[0] = 2048;
  EXPECT_EQ(w.packing->nonfinite(w), -1);
}

TEST(GgufFloat, ScalesThatAreNoNumbersAreFound) {
  const auto nonfinite = [](std::string_view name, const Numerics& n, int64_t cols, size_t at,
                            uint8_t value) {
    Weight w = make_weight(n, packing(name), {1, 2 * cols});
    w.parts[0].as_mutable<uint8_t>()[w.parts[0].bytes() / 2 + at] = value;
    return w.packing->nonfinite(w);
  };
  EXPECT_EQ(nonfinite("gguf.iq4_nl", Numerics::iq4_nl(), 32, 1, 0x7c), 1);
  EXPECT_EQ(nonfinite("gguf.mxfp4", Numerics::mxfp4(), 32, 0, 0xff), 1);
  EXPECT_EQ(nonfinite("gguf.mxfp4", Numerics::mxfp4(), 32, 1, 0xff), -1);  // codes may be anything
  const Numerics nvfp4 = Numerics::grid(Numerics::Kind::e2m1, 16, DType::f8e4m3);
  EXPECT_EQ(nonfinite("gguf.nvfp4", nvfp4, 64, 3, 0x7f), 1);
  EXPECT_EQ(nonfinite("gguf.nvfp4", nvfp4, 64, 4, 0x7f), -1);
}

}  // namespace
}  // namespace lathe
