// Walks the table of linear kernels: every row that this machine can run, on every numerics that it accepts.
#include <cstring>
#include <gmock/gmock.h>
#include <numeric>
#include <set>

#include "core/float.h"
#include "kernels/harness.h"
#include "kernels/ref/ref.h"
#include "kernels/tables.h"
#include "quant/activations.h"
#include "quant/levels.h"

namespace lathe {
namespace {

using Offset = Numerics::Offset;

// Every width and offset; groups of every kind: whole row, dividing the row or not, smaller than a kernel's
// step.
std::vector<Numerics> all_numerics() {
  std::vector<Numerics> out;
  for (DType t : {DType::f32, DType::bf16, DType::f16, DType::f8e4m3}) out.push_back(Numerics::dense(t));
  for (DType t : {DType::f32, DType::bf16, DType::f16}) out.push_back(Numerics::w8a8(t));
  for (DType t : {DType::f32, DType::bf16, DType::f16}) out.push_back(Numerics::w8a8_static(t));
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {0, 6, 32, 128})
      for (DType t : {DType::bf16, DType::f16, DType::f32})
        for (Offset offset : {Offset::none, Offset::zero_point, Offset::minimum}) {
          const bool stored_width = bits == 4 || bits == 8;  // the others are these with some codes unused
          if (!stored_width && (t != DType::f16 || group % 32 != 0 || group > 32)) continue;
          out.push_back({Numerics::Kind::integer, t, static_cast<uint8_t>(bits), group, offset, {}});
        }
  for (int bits : {4, 8})
    for (int group : {6, 32, 128})
      for (DType t : {DType::bf16, DType::f16, DType::f32})
        for (Offset offset : {Offset::none, Offset::zero_point})
          out.push_back({Numerics::Kind::integer, t, static_cast<uint8_t>(bits), group, offset,
                         Numerics::Activations::int8_per_row});
  out.push_back(Numerics::integer(4, 32, true).over(Activations::int8_static));
  using Kind = Numerics::Kind;
  for (const Numerics& n :
       {Numerics::nvfp4(), Numerics::mxfp4(), Numerics::nf4(), Numerics::grid(Kind::nf4, 0, DType::f32),
        Numerics::grid(Kind::e2m1, 8, DType::f32), Numerics::grid(Kind::e2m1, 6, DType::f8e8m0),
        Numerics::fp8(DType::bf16), Numerics::fp8(DType::f16), Numerics::fp8_tensor(DType::f32),
        Numerics::fp8_block(DType::bf16), Numerics::mxfp8(), Numerics::grid(Kind::e4m3, 6, DType::f32)})
    out.push_back(n);
  using A = Activations;
  for (const Numerics& n :
       {Numerics::fp8(DType::bf16).over(A::fp8_per_row), Numerics::fp8(DType::f16).over(A::fp8_groups),
        Numerics::fp8_tensor(DType::f32).over(A::fp8_static), Numerics::mxfp8().over(A::mxfp8),
        Numerics::mxfp8().over(A::mxfp8_rceil), Numerics::nvfp4().over(A::nvfp4),
        Numerics::mxfp4().over(A::mxfp4), Numerics::grid(Kind::e2m1, 8, DType::f32).over(A::fp8_static),
        Numerics::integer(4, 128, false).over(A::fp8_per_row),
        Numerics::integer(8, 0, false).over(A::fp8_per_row)})
    out.push_back(n);
  for (int bits : {4, 5}) out.push_back(Numerics::k_quant(bits, 32, true));
  for (int bits : {3, 6}) out.push_back(Numerics::k_quant(bits, 16, false));
  out.push_back(Numerics::k_quant(2, 16, true));
  return out;
}

Codes random_codes(const Numerics& numerics, int64_t rows, int64_t cols, Rng& rng) {
  Codes c;
  c.numerics = numerics;
  c.rows = rows;
  c.cols = cols;
  if (numerics.has_input_scale()) c.input_scale = 0.0156f;  // normals beyond 2 are cut off
  const auto rounded = [&](DType dtype, float f) {
    uint32_t bits = 0;
    from_f32(dtype, &f, &bits, 1);
    to_f32(dtype, &bits, &f, 1);
    return f;
  };
  if (numerics.is_dense()) {
    for (int64_t i = 0; i < rows * cols; ++i) c.values.push_back(rounded(numerics.dtype, rng.normal()));
    return c;
  }
  const int low = numerics.code_min(), high = numerics.code_max();
  const auto code = [&] { return low + static_cast<int>(rng.below(static_cast<uint64_t>(high - low + 1))); };
  for (int64_t i = 0; i < rows * cols; ++i) {
    const int q = code(), nan = numerics.kind == Numerics::Kind::e4m3 && (q & 0x7f) == 0x7f;
    c.codes.push_back(static_cast<int16_t>(q - nan));
  }
  if (numerics.super > 0) {  // an f16 number for each super-block times integers
    float unit = 0, unit_of_minimum = 0;
    const LevelRange range = level_range(numerics);
    const auto multiple = [&] {
      return static_cast<float>(range.lo +
                                static_cast<int>(rng.below(static_cast<uint64_t>(range.hi - range.lo + 1))));
    };
    for (int64_t i = 0; i < rows * numerics.groups(cols); ++i) {
      if (i % (numerics.super / numerics.group) == 0) {
        unit = rounded(DType::f16, 0.001f + 0.001f * static_cast<float>(rng.uniform()));
        unit_of_minimum = rounded(DType::f16, 0.003f * rng.normal());
      }
      c.scales.push_back(unit * multiple());
      if (numerics.offset == Offset::minimum) c.zeros.push_back(unit_of_minimum * multiple());
    }
    return c;
  }
  for (int64_t i = 0; i < rows * numerics.groups(cols); ++i) {
    c.scales.push_back(rounded(numerics.dtype, 0.01f + 0.1f * static_cast<float>(rng.uniform())));
    if (numerics.offset == Offset::zero_point) c.zeros.push_back(static_cast<float>(code()));
    if (numerics.offset == Offset::minimum) c.zeros.push_back(rounded(numerics.dtype, 0.3f * rng.normal()));
  }
  const int64_t groups = numerics.groups(cols), block = numerics.block_rows == 0 ? rows : numerics.block_rows;
  for (int64_t r = 0; r < rows; ++r)  // rows of a block share
    std::copy_n(c.scales.begin() + r / block * block * groups, groups, c.scales.begin() + r * groups);
  if (numerics.global) c.global = 0.3f;
  return c;
}

// The weights as numbers. For a minimum the fast rows round scale * q - minimum once and dequantize() twice.
std::vector<float> weights_rounded_once(const Codes& c) {
  std::vector<float> out(static_cast<size_t>(c.rows * c.cols));
  dequantize(c, out.data());
  if (c.numerics.offset != Offset::minimum) return out;
  const int64_t groups = c.numerics.groups(c.cols), group = c.numerics.group == 0 ? c.cols : c.numerics.group;
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t i = 0; i < c.cols; ++i) {
      const auto at = static_cast<size_t>(r * c.cols + i), g = static_cast<size_t>(r * groups + i / group);
      out[at] = std::fma(c.scales[g], static_cast<float>(c.codes[at]), -c.zeros[g]);
    }
  return out;
}

Weight packed(const Codes& c, std::string_view name) {
  Weight w = make_weight(c.numerics, packing(name), {c.rows, c.cols});
  for (int64_t row = 0; row < c.rows; row += pack_row_multiple) {  // a strip at a time, as repack() does
    const int64_t rows = std::min(pack_row_multiple, c.rows - row), groups = c.numerics.groups(c.cols);
    const auto cut = [&](auto& from, auto& to, int64_t cols) {
      if (!from.empty()) to.assign(from.begin() + row * cols, from.begin() + (row + rows) * cols);
    };
    Codes strip;
    strip.numerics = c.numerics;
    strip.rows = rows;
    strip.cols = c.cols;
    strip.global = c.global;
    cut(c.values, strip.values, c.cols);
    cut(c.codes, strip.codes, c.cols);
    cut(c.scales, strip.scales, groups);
    cut(c.zeros, strip.zeros, groups);
    w.packing->pack(strip, row, w);
  }
  return w;
}

LinearArgs arguments(const Weight& w, const Matrix& x, const float* bias, Matrix& y, int64_t m) {
  const auto part = [&](size_t i) -> const void* {
    return i < w.parts.size() ? w.parts[i].storage.data : nullptr;
  };
  const int64_t k = w.cols(), group = w.numerics.group == 0 ? k : w.numerics.group;
  return {part(0), part(1),  part(2), x.data.data(), bias,     y.data.data(),
          m,       w.rows(), k,       group,         x.stride, y.stride};
}

std::string describe(const LinearKernel& row, const Codes& c, int64_t m, bool bias) {
  return fmt::format("{} {} [{}, {}] m={} bias={}", row.name, to_string(c.numerics), c.rows, c.cols, m, bias);
}

struct Shape2 {
  int64_t n, k;
};
// Around the panel (32), the step (4, 8), a group, the strip (512 columns, 8 panels) and both ways through
// it.
constexpr Shape2 shapes[] = {{1, 1},    {3, 5},     {31, 33},  {32, 64},  {65, 40},
                             {97, 257}, {33, 1030}, {300, 70}, {70, 704}, {100, 256}};
constexpr int64_t most_rows = emulated ? 37 : 64;
constexpr int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 8, 13, 17, most_rows};

float to_bf16(float f) {
  uint32_t bits = 0;
  from_f32(DType::bf16, &f, &bits, 1);
  to_f32(DType::bf16, &bits, &f, 1);
  return f;
}

// x as the path wants it, beside the arguments that point to it.
struct PathArgs {
  std::vector<std::byte> storage;
  LinearArgs args;
};
// `scale`: of rows that are all rounded with one; 0: with their own.
PathArgs path_arguments(const LinearPath& path, const LinearArgs& args, int workers, float scale = 0,
                        Activations to = Activations::as_they_are) {
  PathArgs out{{}, args};
  if (!path.rows) return out;
  out.storage.resize(path.rows->bytes(args.m, args.k) + 64, std::byte{0xff});
  auto* at = out.storage.data();
  at += 64 - reinterpret_cast<uintptr_t>(at) % 64;
  run_as(path.rows->run, PackRowsArgs{args.x, args.m, args.k, args.x_stride, at, scale, to}, workers);
  out.args.packed_x = at;
  return out;
}

TEST(Linear, EveryRowIsOneFmaChainPerElement) {
  // Rows in f32 vectors promise more than closeness: y[i][j] is fma(x[i][k-1], w[j][k-1], ... fma(x[i][0],
  // w[j][0], 0))
  // + bias[j], the same bits for every ISA, number of rows and number of workers. The reference rounds the
  // product and the sum apart, so against it the bound is that of two sums of k terms: each has |error| <= (k
  // + 1) u sum |x| |w| to first order (u = 2^-24: k additions, one multiplication), and one rounding each for
  // the bias.
  Rng rng(1);
  std::set<std::string_view> seen;
  size_t turn = 0;
  for (const Numerics& numerics : all_numerics()) {
    ++turn;
    for (const auto [n, k] : shapes) {
      // Of plain integers an emulator takes every other: neighbours differ in offset, so every row meets
      // every group in every shape.
      ++turn;
      if (emulated && turn % 2 == 0 && numerics.kind == Numerics::Kind::integer && numerics.super == 0 &&
          numerics.activations == Activations::as_they_are)
        continue;
      const Codes codes = random_codes(numerics, n, k, rng);
      const std::vector<float> weights = weights_rounded_once(codes);
      Matrix given = random_matrix(most_rows, k, rng), x = given, grouped = given;
      for (int64_t i = 0; i < most_rows; ++i)
        for (int64_t c = 0; c < k; c += 32)
          round_row_to_int8(given.row(i) + c, std::min<int64_t>(32, k - c), grouped.row(i) + c);
      if (numerics.rounds_activations())
        for (int64_t i = 0; i < most_rows; ++i)
          round_row(numerics.activations, given.row(i), k, x.row(i), codes.input_scale);
      const Matrix bias = random_matrix(1, n, rng, 0);
      std::vector<float> columns(weights.size());  // of W: chains side by side do not wait for each other
      for (int64_t j = 0; j < n; ++j)
        for (int64_t c = 0; c < k; ++c)
          columns[static_cast<size_t>(c * n + j)] = weights[static_cast<size_t>(j * k + c)];
      Matrix chain(most_rows, n), magnitude(most_rows, n);
      for (int64_t i = 0; i < most_rows; ++i) {
        float *sums = chain.row(i), *sizes = magnitude.row(i);
        std::fill_n(sums, n, 0.0f);
        std::fill_n(sizes, n, 0.0f);
        for (int64_t c = 0; c < k; ++c) {
          const float of_x = x.at(i, c), *w = columns.data() + c * n;
          for (int64_t j = 0; j < n; ++j) {
            sums[j] = std::fma(of_x, w[j], sums[j]);
            sizes[j] += std::fabs(of_x * w[j]);
          }
        }
      }
      for (const LinearKernel& row : linear_kernels()) {
        if (!runs_here(row.isa) || !row.accepts(numerics, n, k)) continue;
        seen.insert(row.name);
        const bool expanded = row.packing.starts_with("expand");
        if (expanded && (emulated || numerics.bits == 8) && numerics.group != 6)
          continue;  // to it, all numerics are the same
        const Weight w = packed(codes, row.packing);
        for (int64_t m : row_counts) {
          if (emulated && row.isa == 0 && m > 3) break;
          const bool with_bias = m % 2 == 1;
          SCOPED_TRACE(describe(row, codes, m, with_bias));
          Matrix y(m, n, 5);
          const int workers = static_cast<int>(m % 3 + 1);
          const PathArgs path =
              path_arguments(row.decode, arguments(w, given, with_bias ? bias.row(0) : nullptr, y, m),
                             workers, codes.input_scale, numerics.activations);
          run_as(row.decode.run, path.args, workers);
          ASSERT_TRUE(y.intact());
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              const float b = with_bias ? bias.at(0, j) : 0,
                          expected = with_bias ? chain.at(i, j) + b : chain.at(i, j);
              if (row.decode.rows && row.decode.rows->name == "int8 groups") {
                // x rounded to int8 in groups of 32; codes and their offset apart, so each term counts with
                // both.
                float sum = 0, size = 0, apart = 0;
                const int64_t groups = numerics.groups(k), group = numerics.group ? numerics.group : k;
                for (int64_t c = 0; c < k; ++c) {
                  if (numerics.is_grid()) {
                    // nf4 is two integers, right to half of one in 127 * 128.
                    const auto in = static_cast<size_t>(j * groups + c / group);
                    const float product = grouped.at(i, c) * weights[static_cast<size_t>(j * k + c)];
                    sum += product;
                    size += std::fabs(product);
                    if (numerics.kind == Numerics::Kind::nf4)
                      apart += std::fabs(grouped.at(i, c)) * codes.scales[in] * 0.501f / (127 * 128);
                    continue;
                  }
                  const auto at = static_cast<size_t>(j * k + c),
                             g = static_cast<size_t>(j * groups + c / group);
                  const float zero = codes.zeros.empty() ? 0 : codes.zeros[g];
                  const float part = codes.scales[g] * static_cast<float>(codes.codes[at]),
                              offset = numerics.offset == Offset::minimum ? zero : codes.scales[g] * zero;
                  sum += grouped.at(i, c) * (part - offset);
                  size += std::fabs(grouped.at(i, c)) * (std::fabs(part) + std::fabs(offset));
                }
                ASSERT_NEAR(y.at(i, j), sum + b,
                            static_cast<float>(2 * k + 8) * unit_roundoff * size + apart +
                                4 * unit_roundoff * (std::fabs(b) + 1))
                    << i << ", " << j;
                continue;
              }
              if (row.decode.rows && row.decode.rows->name == "bf16 parts") {
                // x in three parts of at most (1 + 2^-8 + 2^-16) |x| together, so 3 k exact products.
                ASSERT_NEAR(y.at(i, j), expected,
                            1.01f * static_cast<float>(4 * k + 4) * unit_roundoff * magnitude.at(i, j) +
                                4 * unit_roundoff * (std::fabs(b) + 1))
                    << i << ", " << j;
                continue;
              }
              if (row.decode.rows && row.decode.rows->name.starts_with("int8 tiles")) {
                // Exact sums; then three roundings, and one for the bias.
                ASSERT_NEAR(y.at(i, j), expected,
                            (static_cast<float>(2 * k + 4)) * unit_roundoff * magnitude.at(i, j) +
                                4 * unit_roundoff * (std::fabs(b) + 1))
                    << i << ", " << j;
                continue;
              }
              // expand.* hold what dequantize() gave: for a minimum, another rounding of each weight.
              if (row.packing.starts_with("panel.") || row.packing == "amx.bf16" || row.packing == "dense" ||
                  (row.packing == "expand.panel" && numerics.offset != Offset::minimum)) {
                ASSERT_EQ(y.at(i, j), expected) << i << ", " << j;
              } else {
                const float u = unit_roundoff, terms = static_cast<float>(2 * k + 4);
                ASSERT_NEAR(y.at(i, j), expected, terms * u * magnitude.at(i, j) + 4 * u * (std::fabs(b) + 1))
                    << i << ", " << j;
              }
            }
        }
      }
    }
  }
  for (const LinearKernel& row : linear_kernels())
    EXPECT_EQ(seen.contains(row.name), runs_here(row.isa)) << row.name;
}

// x rounded to int8, `columns` at a time: the integers, and per group its scale.
struct Rounded {
  std::vector<int> values;
  std::vector<float> scales;
};
Rounded round_to_int8(const float* x, int64_t k, int64_t columns, float scale) {
  Rounded out;
  for (int64_t begin = 0; begin < k; begin += columns) {
    const int64_t end = std::min(k, begin + columns);
    float most = 0;
    for (int64_t c = begin; c < end; ++c) most = std::max(most, std::fabs(x[c]));
    const float inverse = scale > 0 ? 1 / scale : most > 0 ? 127.0f / most : 0;
    out.scales.push_back(scale > 0 ? scale : most / 127.0f);
    for (int64_t c = begin; c < end; ++c)
      out.values.push_back(std::clamp(static_cast<int>(std::rint(x[c] * inverse)), -127, 127));
  }
  return out;
}

// The same of a grid: steps of 16 columns where scales are that near, and the values as integers.
float lut4_dot(const Codes& w, int64_t j, const Rounded& x, float bias) {
  const Numerics& n = w.numerics;
  const bool two = n.kind == Numerics::Kind::nf4;
  const int64_t k = w.cols, groups = n.groups(k), group = n.group ? n.group : k, columns = n.global ? 16 : 32;
  const float most = largest_of_grid(n.kind), largest = two ? 127 * 128 : 2 * most;
  int upper[16] = {}, lower[16] = {};
  for (size_t i = 0; i < grid_values(n.kind).size(); ++i) {
    const int whole = static_cast<int>(std::lround(grid_values(n.kind)[i] * (largest / most)));
    upper[i] = two ? static_cast<int>(std::lround(static_cast<float>(whole) / 128)) : 0;
    lower[i] = whole - 128 * upper[i];
  }
  float sum = 0;
  for (int64_t begin = 0; begin < k; begin += columns) {
    int high = 0, low = 0;
    for (int64_t c = begin; c < begin + columns; ++c) {
      const int code = w.codes[static_cast<size_t>(j * k + c)];
      high += x.values[static_cast<size_t>(c)] * upper[code];
      low += x.values[static_cast<size_t>(c)] * lower[code];
    }
    const float product = std::fma(static_cast<float>(high), 128.0f, static_cast<float>(low));
    sum = std::fma(product * x.scales[static_cast<size_t>(begin / 32)],
                   w.scales[static_cast<size_t>(j * groups + begin / group)], sum);
  }
  return sum * (most / largest * w.global) + bias;
}

// What every integer kernel computes for row `j` of W, bit for bit.
float integer_dot(const Codes& w, int64_t j, const Rounded& x, float bias) {
  const Numerics& n = w.numerics;
  if (n.is_grid()) return lut4_dot(w, j, x, bias);
  const int64_t k = w.cols, groups = n.groups(k), group = n.group ? n.group : k;
  const int64_t columns = k / std::ssize(x.scales);
  float sum = 0;
  const int64_t step = std::min(columns, group);  // what shares a scale on both sides
  for (int64_t first = 0; first < k; first += step) {
    int exact = 0, of_x = 0;
    for (int64_t c = first; c < first + step; ++c) {
      exact += x.values[static_cast<size_t>(c)] * w.codes[static_cast<size_t>(j * k + c)];
      of_x += x.values[static_cast<size_t>(c)];
    }
    const auto at = static_cast<size_t>(first / columns),
               wg = static_cast<size_t>(j * groups + first / group);
    if (n.rounds_activations()) return static_cast<float>(exact) * x.scales[0] * w.scales[wg] + bias;
    if (n.offset == Offset::zero_point) exact -= of_x * static_cast<int>(w.zeros[wg]);
    sum = std::fma(static_cast<float>(exact) * x.scales[at], w.scales[wg], sum);
    if (n.offset == Offset::minimum) sum -= static_cast<float>(of_x) * x.scales[at] * w.zeros[wg];
  }
  return sum + bias;
}

TEST(Linear, IntegerRowsGiveTheSameBitsOnEveryLevel) {
  // Sums of integers are exact and the scales come in one order. Extreme numbers would show a 16-bit sum that
  // saturates: codes and activations at the ends of their ranges, with and without a change of sign.
  Rng rng(21);
  std::set<std::string_view> seen;
  const auto has_integer_rows = [](const LinearKernel& row) {
    return row.decode.rows && row.decode.rows->name.starts_with("int8");
  };
  for (const Numerics& numerics : all_numerics())
    for (const auto [n, k] : {Shape2{31, 4}, Shape2{97, 96}, Shape2{70, 320}, Shape2{33, 1088},
                              Shape2{300, 100}, Shape2{70, 512}})
      for (const bool extreme : {false, true}) {
        constexpr int64_t most = emulated ? 37 : 83;
        Codes codes = random_codes(numerics, n, k, rng);
        Matrix x = random_matrix(most, k, rng);
        const Matrix bias = random_matrix(1, n, rng, 0);
        if (extreme) {
          if (numerics.has_input_scale()) codes.input_scale = 1.0f / 200;  // ones are cut off
          const int low =
              numerics.kind == Numerics::Kind::e2m1 ? 7 : numerics.code_min();  // 6, and -6 is last
          for (size_t i = 0; i < codes.codes.size(); ++i)
            codes.codes[i] = static_cast<int16_t>(
                i / static_cast<size_t>(k) % 3 == 0 && rng.below(2) == 0 ? numerics.code_max() : low);
          for (int64_t i = 0; i < most; ++i)
            for (int64_t c = 0; c < k; ++c) x.at(i, c) = i % 2 ? 1 : rng.below(2) ? 1.0f : -1.0f;
        }
        std::vector<float> expected;
        for (const LinearKernel& row : linear_kernels()) {
          if (!runs_here(row.isa) || !has_integer_rows(row) || !row.accepts(numerics, n, k)) continue;
          seen.insert(row.name);
          if (expected.empty())
            for (int64_t i = 0; i < most; ++i) {
              const Rounded rounded =
                  round_to_int8(x.row(i), k, numerics.rounds_activations() ? k : 32, codes.input_scale);
              for (int64_t j = 0; j < n; ++j)
                expected.push_back(integer_dot(codes, j, rounded, bias.at(0, j)));
            }
          const Weight w = packed(codes, row.packing);
          for (int64_t m : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{4}, int64_t{9}, int64_t{17}, most})
            for (bool prompt : {false, true}) {
              const LinearPath& path = row.path(prompt);
              if (!path.rows || !path.rows->name.starts_with("int8")) continue;
              SCOPED_TRACE(describe(row, codes, m, true) + (prompt ? " prompt" : "") +
                           (extreme ? " extreme" : ""));
              Matrix y(m, n, 5);
              const PathArgs args =
                  path_arguments(path, arguments(w, x, bias.row(0), y, m), 2, codes.input_scale);
              run_as(path.run, args.args, 1 + static_cast<int>(m % 3));
              ASSERT_TRUE(y.intact());
              for (int64_t i = 0; i < m; ++i)
                for (int64_t j = 0; j < n; ++j)
                  ASSERT_EQ(y.at(i, j), expected[static_cast<size_t>(i * n + j)]) << i << ", " << j;
            }
        }
      }
  for (const LinearKernel& row : linear_kernels())
    EXPECT_EQ(seen.contains(row.name), runs_here(row.isa) && has_integer_rows(row)) << row.name;
}

TEST(Linear, GatedIsSiluOfOneTimesTheOther) {
  // Against the path's own two products: silu and the product round a few times more (simd/exp.inl).
  Rng rng(22);
  int checked = 0;
  for (const Numerics& numerics :
       {Numerics::w8a8(DType::bf16), Numerics::w8a8(DType::f16), Numerics::w8a8(DType::f32),
        Numerics::dense(DType::bf16), Numerics::integer(8, 0, false), Numerics::integer(4, 32, false),
        Numerics::integer(4, 32, true),
        Numerics{Numerics::Kind::integer, DType::f32, 4, 32, Offset::minimum, {}}})
    for (const auto [n, k] : {Shape2{33, 64}, Shape2{300, 640}, Shape2{70, 1091}}) {
      const Codes gate = random_codes(numerics, n, k, rng), up = random_codes(numerics, n, k, rng);
      const Matrix x = random_matrix(37, k, rng);
      for (const LinearKernel& row : linear_kernels()) {
        if (!runs_here(row.isa) || !row.prefill.gated || !row.accepts(numerics, n, k)) continue;
        const LinearPath& path = row.prefill;
        const Weight a = packed(gate, row.packing), b = packed(up, row.packing);
        for (int64_t m : {1, 16, 37}) {
          SCOPED_TRACE(describe(row, gate, m, false));
          Matrix g(m, n), u(m, n), y(m, n, 5);
          const PathArgs packed_x = path_arguments(path, arguments(a, x, nullptr, y, m), 2);
          const auto of = [&](const Weight& w, Matrix& out) {
            LinearArgs args = arguments(w, x, nullptr, out, m);
            args.packed_x = packed_x.args.packed_x;
            return args;
          };
          run_as(path.run, of(a, g), 2);
          run_as(path.run, of(b, u), 2);
          run_as(path.gated, GatedArgs{of(a, y), of(b, y)}, 3);
          ASSERT_TRUE(y.intact());
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              const double v = g.at(i, j), silu = v / (1 + std::exp(-v)), whole = silu * u.at(i, j);
              ASSERT_NEAR(y.at(i, j), whole, 16 * unit_roundoff * std::fabs(whole) + 1e-30) << i << ", " << j;
            }
          ++checked;
        }
      }
    }
  EXPECT_EQ(checked > 0, (cpu_features() & (isa_avx2 | isa_neon)) != 0);
}

TEST(Linear, GatedWritesTheRowsThatPackingWouldMake) {
  // The same numbers rounded in the same way, padding included: equal bytes.
  Rng rng(23);
  int checked = 0;
  for (const Numerics& numerics : all_numerics())
    for (const auto [n, k] :
         {Shape2{1, 33}, Shape2{300, 70}}) {  // 300: two passes of a reader, the last ragged
      const Codes gate = random_codes(numerics, n, k, rng), up = random_codes(numerics, n, k, rng);
      const Matrix x = random_matrix(37, k, rng);
      for (const LinearKernel& row : linear_kernels()) {
        const LinearPath& path = row.prefill;
        if (!runs_here(row.isa) || !path.gated || !path.rows->gated_writes || !row.accepts(numerics, n, k))
          continue;
        if (row.packing.starts_with("expand") && (numerics.group != 6 || numerics.offset == Offset::minimum))
          continue;
        const Weight a = packed(gate, row.packing), b = packed(up, row.packing);
        for (int64_t m : {1, 16, 37}) {
          SCOPED_TRACE(describe(row, gate, m, false));
          Matrix y(m, n), untouched(m, n, 5);
          const PathArgs packed_x = path_arguments(path, arguments(a, x, nullptr, y, m), 2);
          const auto of = [&](const Weight& w, Matrix& out) {
            LinearArgs args = arguments(w, x, nullptr, out, m);
            args.packed_x = packed_x.args.packed_x;
            return args;
          };
          run_as(path.gated, GatedArgs{of(a, y), of(b, y)}, 3);
          const size_t bytes = path.rows->bytes(m, n);
          const Storage expected = Storage::allocate(bytes), found = Storage::allocate(bytes);
          std::memset(found.data, 0x5a, bytes);  // every byte must be written
          run_as(path.rows->run, PackRowsArgs{y.row(0), m, n, y.stride, expected.data}, 2);
          run_as(path.gated, GatedArgs{of(a, untouched), of(b, untouched), found.data}, 3);
          ASSERT_EQ(std::memcmp(expected.data, found.data, bytes), 0);
          for (float f : untouched.data) ASSERT_TRUE(std::isnan(f));
          ++checked;
        }
      }
    }
  EXPECT_EQ(checked > 0, runs_here(isa_amx));
}

TEST(Linear, PromptsAreSumsOfBf16Products) {
  // Where a row has a path of its own for prompts, y is the f32 sum of products of x and w rounded to bf16.
  // Such products are exact in f32, so any order of summation is within (k + 1) u sum |x| |w| of the truth;
  // so is the chain here. Tiles flush subnormal products to zero, which is far below that.
  Rng rng(11);
  int checked = 0;
  const auto of_bf16 = [](const LinearKernel& row) {
    return runs_here(row.isa) && row.prefill.run && row.prefill.rows &&
           row.prefill.products() == Products::bf16;
  };
  if (std::ranges::none_of(linear_kernels(), of_bf16)) return;
  for (const Numerics& numerics : all_numerics())
    for (const auto [n, k] : {Shape2{1, 1}, Shape2{31, 33}, Shape2{97, 257}, Shape2{33, 1030},
                              Shape2{600, 70}, Shape2{300, 768}}) {
      const Codes codes = random_codes(numerics, n, k, rng);
      std::vector<float> weights = weights_rounded_once(codes);
      for (float& w : weights) w = to_bf16(w);
      const int64_t most = 70;
      const Matrix x = random_matrix(most, k, rng), bias = random_matrix(1, n, rng, 0);
      for (const LinearKernel& row : linear_kernels()) {
        if (!of_bf16(row) || !row.accepts(numerics, n, k)) continue;
        if (row.packing.starts_with("expand") && (numerics.group != 6 || numerics.offset == Offset::minimum))
          continue;
        const Weight w = packed(codes, row.packing);
        for (int64_t m : {int64_t{1}, int64_t{16}, int64_t{17}, most}) {
          SCOPED_TRACE(describe(row, codes, m, true));
          Matrix y(m, n, 5);
          const int workers = static_cast<int>(m % 3 + 1);
          const PathArgs a = path_arguments(row.prefill, arguments(w, x, bias.row(0), y, m), workers);
          run_as(row.prefill.run, a.args, workers);
          ASSERT_TRUE(y.intact());
          ++checked;
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              float sum = 0, size = 0;
              for (int64_t c = 0; c < k; ++c) {
                const float product = to_bf16(x.at(i, c)) * weights[static_cast<size_t>(j * k + c)];
                sum += product;
                size += std::fabs(product);
              }
              const float b = bias.at(0, j), u = unit_roundoff;
              ASSERT_NEAR(y.at(i, j), sum + b,
                          static_cast<float>(2 * k + 4) * u * size + 4 * u * (std::fabs(b) + 1))
                  << i << ", " << j;
            }
        }
      }
    }
  if (runs_here(isa_avx512 | isa_avx512bf16)) {
    EXPECT_GT(checked, 100);
  }
}

TEST(Linear, AWorkerForEachRowPacksThatRowAlone) {
  Rng rng(25);
  std::set<const RowPacking*> packings;
  for (const LinearKernel& row : linear_kernels())
    for (bool prompt : {false, true})
      if (runs_here(row.isa) && row.path(prompt).rows) packings.insert(row.path(prompt).rows);
  EXPECT_FALSE(packings.empty());
  for (const RowPacking* packing : packings)
    for (const auto [m, k] : {Shape2{1, 64}, Shape2{5, 33}, Shape2{16, 320}, Shape2{19, 1100}})
      for (float scale : {0.0f, 0.02f}) {
        SCOPED_TRACE(fmt::format("{} [{}, {}]", packing->name, m, k));
        const Matrix x = random_matrix(m, k, rng);
        const size_t bytes = packing->bytes(m, k);
        const Storage whole = Storage::allocate(bytes), rows = Storage::allocate(bytes);
        std::memset(whole.data, 0x5a, bytes);
        std::memset(rows.data, 0x5a, bytes);
        run_as(packing->run, PackRowsArgs{x.row(0), m, k, x.stride, whole.data, scale}, 2);
        for (int64_t r = m; r-- > 0;) {
          Matrix one(m, k);
          std::copy_n(x.row(r), k, one.row(r));
          run_as(packing->run, PackRowsArgs{one.row(0), m, k, one.stride, rows.data, scale},
                 static_cast<int>(m), static_cast<int>(r));
        }
        ASSERT_EQ(std::memcmp(whole.data, rows.data, bytes), 0);
      }
}

// Rows first .. first + m of x through a path, or through its gated kernel where there is `up`.
void run_rows(const LinearPath& path, const Weight& w, const Weight* up, const Matrix& x, int64_t first,
              int64_t m, Matrix& y, int workers) {
  const auto of = [&](const Weight& weight) {
    LinearArgs args = arguments(weight, x, nullptr, y, m);
    args.x += first * args.x_stride;
    args.y += first * args.y_stride;
    return args;
  };
  const PathArgs packed = path_arguments(path, of(w), 2);
  if (!up) return run_as(path.run, packed.args, workers);
  GatedArgs gated{packed.args, of(*up)};
  gated.up.packed_x = packed.args.packed_x;
  run_as(path.gated, gated, workers);
}

// Both paths and the gated kernel of a row: `m` rows at once give the bits of each of `alone` by itself.
void expect_rows_alone(const LinearKernel& row, const Weight& w, const Weight& up, const Matrix& x,
                       const std::vector<int64_t>& alone) {
  const int64_t n = w.rows();
  for (bool prompt : {false, true})
    for (bool gated : {false, true}) {
      const LinearPath& path = row.path(prompt);
      if (gated && !path.gated) continue;
      SCOPED_TRACE(fmt::format("{}{}{} {} of {} rows", row.name, prompt ? " prompt" : "",
                               gated ? " gated" : "", to_string(w.numerics), x.rows));
      Matrix together(x.rows, n), one(x.rows, n);
      run_rows(path, w, gated ? &up : nullptr, x, 0, x.rows, together, 3);
      for (int64_t i : alone) {
        run_rows(path, w, gated ? &up : nullptr, x, i, 1, one, 1 + static_cast<int>(i % 2));
        ASSERT_EQ(std::memcmp(one.row(i), together.row(i), static_cast<size_t>(n) * sizeof(float)), 0)
            << "row " << i;
      }
    }
}

TEST(Linear, RowsDoNotDependOnTheirBatch) {
  Rng rng(12);
  std::vector<int64_t> alone(37);
  std::iota(alone.begin(), alone.end(), 0);
  if (emulated) alone = {0, 7, 8, 15, 16, 36};  // the first and last rows of tiles and blocks
  std::set<std::string_view> seen;
  for (const LinearKernel& row : linear_kernels()) {
    if (!runs_here(row.isa)) continue;
    for (const Numerics& numerics : all_numerics()) {
      // Rows of 8,192 columns do not all fit the cache: simd/row_blocks.inl takes them in blocks.
      const bool blocks = numerics == Numerics::integer(4, 32, false) || numerics == Numerics::nvfp4() ||
                          numerics == Numerics::k_quant(4, 32, true);
      const int64_t n = blocks ? 33 : 97, k = blocks ? 8192 : numerics.super > 0 ? 512 : 320;
      if (numerics.group == 6 || numerics.group == 128 || !row.accepts(numerics, n, k)) continue;
      seen.insert(row.name);
      const Weight w = packed(random_codes(numerics, n, k, rng), row.packing),
                   up = packed(random_codes(numerics, n, k, rng), row.packing);
      expect_rows_alone(row, w, up, random_matrix(37, k, rng), alone);
    }
  }
  for (const LinearKernel& row : linear_kernels())
    EXPECT_EQ(seen.contains(row.name), runs_here(row.isa)) << row.name;
}

TEST(Linear, RowsOfLongPromptsDoNotDependOnTheirBlock) {
  // Kernels take x in blocks of at most 512 rows (block_rows_most; 64 in amx/int4.cpp): rows at their edges,
  // and a last block that is nearly empty. One numerics for each row of the table.
  Rng rng(24);
  std::set<std::string_view> seen;
  for (const LinearKernel& row : linear_kernels())
    for (const Numerics& numerics : all_numerics()) {
      const int64_t n = 33, k = numerics.super > 0 ? 256 : 64;
      if (!runs_here(row.isa) || seen.contains(row.name) || !row.accepts(numerics, n, k)) continue;
      seen.insert(row.name);
      const Weight w = packed(random_codes(numerics, n, k, rng), row.packing),
                   up = packed(random_codes(numerics, n, k, rng), row.packing);
      expect_rows_alone(row, w, up, random_matrix(515, k, rng), {0, 63, 64, 130, 511, 512, 514});
    }
  for (const LinearKernel& row : linear_kernels())
    EXPECT_EQ(seen.contains(row.name), runs_here(row.isa)) << row.name;
}

TEST(Linear, WorkersCoverTheOutputOnce) {
  const std::vector<int> several =
      emulated ? std::vector<int>{1, 3, 12} : std::vector<int>{1, 2, 3, 4, 5, 12};
  Rng rng(2);
  for (const LinearKernel& row : linear_kernels()) {
    if (!runs_here(row.isa)) continue;
    for (const Numerics& numerics :
         {Numerics::dense(DType::f32), Numerics::integer(4, 32, false), Numerics::w8a8(), Numerics::nvfp4(),
          Numerics::nf4(), Numerics::fp8_block(), Numerics::k_quant(6, 16, false)}) {
      for (const auto [n, k] : {Shape2{1, 8}, Shape2{33, 40}, Shape2{200, 24}, Shape2{300, 256}}) {
        if (!row.accepts(numerics, n, k)) continue;
        const Codes codes = random_codes(numerics, n, k, rng);
        const Weight w = packed(codes, row.packing);
        const Matrix x = random_matrix(20, k, rng);
        for (int64_t m : {1, 2, 20})
          for (int workers : several) {
            SCOPED_TRACE(describe(row, codes, m, false));
            Matrix y(m, n);
            const PathArgs decode = path_arguments(row.decode, arguments(w, x, nullptr, y, m), 2);
            expect_partition(row.decode.run, decode.args, y, workers);
            if (!row.prefill.run) continue;
            const PathArgs prompt = path_arguments(row.prefill, arguments(w, x, nullptr, y, m), 2);
            expect_partition(row.prefill.run, prompt.args, y, workers);
          }
      }
    }
  }
}

TEST(Linear, X86PackingsRoundTrip) {
  Rng rng(3);
  int checked = 0;
  for (const Numerics& numerics : all_numerics())
    for (const Packing& p : packings()) {
      if (!(p.name.starts_with("panel.") || p.name == "amx.bf16") || !p.holds(numerics)) continue;
      for (const auto [n, k] : shapes) {
        if (numerics.super > 0 && k % numerics.super != 0) continue;
        SCOPED_TRACE(fmt::format("{} {} [{}, {}]", p.name, to_string(numerics), n, k));
        const Codes in = random_codes(numerics, n, k, rng);
        const Weight w = packed(in, p.name);
        EXPECT_NO_THROW(check_parts(w, "packed"));
        const int64_t top = n > 32 ? 32 : 0;  // a strip that does not start at the top
        const Codes out = unpack(w, top, n - top);
        const auto tail = [&](const auto& v, int64_t cols) {
          return std::vector(v.begin() + std::min<ptrdiff_t>(std::ssize(v), top * cols), v.end());
        };
        EXPECT_EQ(out.numerics, numerics);
        EXPECT_EQ(out.values, tail(in.values, k));
        EXPECT_EQ(out.codes, tail(in.codes, k));
        EXPECT_EQ(out.scales, tail(in.scales, numerics.groups(k)));
        EXPECT_EQ(out.zeros, tail(in.zeros, numerics.groups(k)));
        EXPECT_EQ(out.global, in.global);
        ++checked;
      }
    }
  EXPECT_GT(checked, 100);
}

TEST(Linear, ARowThatStartsForAnotherGivesItsBits) {
  Rng rng(13);
  int checked = 0;
  for (const LinearKernel& row : linear_kernels()) {
    if (row.starts_for.empty() || !runs_here(row.isa)) continue;
    const auto rows = linear_kernels();
    const auto other = std::ranges::find(rows, row.starts_for, &LinearKernel::name);
    ASSERT_NE(other, rows.end()) << row.name;
    EXPECT_EQ(row_that_starts_for(*other, row.packing), &row);
    for (const Numerics& numerics : all_numerics())
      for (const auto [n, k] : shapes) {
        ASSERT_EQ(row.accepts(numerics, n, k), other->accepts(numerics, n, k)) << row.name;
        if (!row.accepts(numerics, n, k)) continue;
        const Codes codes = random_codes(numerics, n, k, rng);
        const Weight stored = packed(codes, row.packing), settled = packed(codes, other->packing);
        const Matrix x = random_matrix(40, k, rng);
        for (bool prompt : {false, true}) {
          // A plan packs x once for both.
          ASSERT_EQ(row.path(prompt).rows, other->path(prompt).rows) << row.name;
          ASSERT_EQ(row.path(prompt).gated == nullptr, other->path(prompt).gated == nullptr) << row.name;
          for (int64_t m : {1, 5, 40}) {
            Matrix y(m, n), expected(m, n);
            const PathArgs a = path_arguments(row.path(prompt), arguments(stored, x, nullptr, y, m), 1),
                           b = path_arguments(other->path(prompt),
                                              arguments(settled, x, nullptr, expected, m), 1);
            run_as(row.path(prompt).run, a.args, 2);
            run_as(other->path(prompt).run, b.args, 3);
            for (int64_t i = 0; i < m; ++i)
              for (int64_t j = 0; j < n; ++j)
                ASSERT_EQ(y.at(i, j), expected.at(i, j))
                    << describe(row, codes, m, false) << (prompt ? " prompt " : " ") << i << ", " << j;
            ++checked;
          }
        }
      }
  }
  EXPECT_GT(checked, 0);
}

// A row's products, each up to 2^14, are summed in one int32.
TEST(Linear, SumsOfWholeRowsFitTheirIntegers) {
  for (const Numerics& numerics : {Numerics::w8a8(), Numerics::w8a8_static()})
    for (const IsaLevel& level : isa_levels()) {
      const int64_t most = (1 << 17) - 1;
      EXPECT_EQ(choose_linear(numerics, 64, most, level.features).name.find("w8a8") != std::string_view::npos,
                level.features != 0)
          << level.name;
      EXPECT_EQ(choose_linear(numerics, 64, most + 1, level.features).name.find("w8a8"),
                std::string_view::npos)
          << level.name;
    }
}

TEST(Linear, DispatchTakesTheFirstRowThatFits) {
  const Numerics q4_k = Numerics::k_quant(4, 32, true);
  const Numerics int4 = Numerics::integer(4, 32, false), odd = Numerics::integer(4, 6, false);
  EXPECT_EQ(choose_linear(int4, 64, 64, 0).name, "ref");
#if defined(__x86_64__)
  const Numerics w8a8 = Numerics::w8a8();
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_avx2).name, "avx2.dot.int4.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_avx2 | isa_avxvnni).name, "avxvnni.int4.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 40, isa_avx2).name, "avx2.int4.bf16");
  EXPECT_EQ(choose_linear(q4_k, 64, 256, isa_avx2).name, "avx2.k4");
  EXPECT_EQ(choose_linear(q4_k, 64, 256, isa_avx2 | isa_avx512 | isa_avx512vnni).name, "avx512vnni.k4");
  EXPECT_EQ(choose_linear(w8a8, 64, 40, isa_avx2).name, "avx2.w8a8.bf16");
  EXPECT_EQ(choose_linear(w8a8, 64, 40, isa_avx2 | isa_avx512).name, "avx2.w8a8.bf16");
  EXPECT_EQ(choose_linear(w8a8, 64, 40, isa_avx2 | isa_avx512 | isa_avx512vnni).name, "avx512vnni.w8a8.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_avx2 | isa_avx512).name, "avx512.int4.bf16");
  EXPECT_EQ(choose_linear(odd, 64, 64, isa_avx2 | isa_avx512).name, "avx512.expanded");
  EXPECT_EQ(choose_linear(Numerics::dense(DType::f8e4m3), 64, 64, isa_avx2).name, "avx2.expanded");
  const uint32_t vnni = isa_avx2 | isa_avx512 | isa_avx512vnni;
  EXPECT_EQ(choose_linear(Numerics::nvfp4(), 64, 64, vnni).name, "avx512vnni.nvfp4");
  EXPECT_EQ(choose_linear(Numerics::mxfp4(), 64, 64, isa_avx2 | isa_avxvnni).name, "avxvnni.mxfp4");
  EXPECT_EQ(choose_linear(Numerics::nf4(), 64, 64, isa_avx2).name, "avx2.dot.nf4");
  EXPECT_EQ(choose_linear(Numerics::nvfp4(), 64, 48, vnni).name, "avx512.lut4.e4m3");
  EXPECT_EQ(choose_linear(Numerics::fp8_block(), 64, 48, vnni).name, "avx512.fp8.bf16");
  EXPECT_EQ(choose_linear(Numerics::mxfp8(), 64, 48, isa_avx2).name, "avx2.fp8.e8m0");
  const Numerics bf16 = Numerics::dense(DType::bf16);
  EXPECT_EQ(choose_linear(bf16, 64, 64, vnni).name, "avx512.bf16");
  EXPECT_EQ(choose_linear(bf16, 64, 64, vnni | isa_avx512bf16).name, "avx512bf16.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 64, vnni | isa_avx512bf16).name, "avx512vnni.int4.bf16");
  EXPECT_EQ(choose_linear(odd, 64, 64, vnni | isa_avx512bf16).name, "avx512bf16.expanded");
#elif defined(__aarch64__)
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_neon).name, "neon.int4.bf16");
  EXPECT_EQ(choose_linear(q4_k, 64, 256, isa_neon).name, "neon.k4");
  EXPECT_EQ(choose_linear(q4_k, 64, 256, isa_neon | isa_neondot).name, "neondot.k4");
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_neon | isa_neondot).name, "neondot.int4.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_neon | isa_neondot | isa_neoni8mm).name, "neoni8mm.int4.bf16");
  EXPECT_EQ(choose_linear(Numerics::w8a8(), 64, 40, isa_neon).name, "neon.w8a8.bf16");
  EXPECT_EQ(choose_linear(odd, 64, 64, isa_neon).name, "neon.expanded");
#endif
}

}  // namespace
}  // namespace lathe
