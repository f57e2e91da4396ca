// Walks the table of linear kernels: every row that this machine can run, on every numerics that it accepts.
#include <gmock/gmock.h>
#include <set>

#include "core/float.h"
#include "kernels/harness.h"
#include "kernels/ref/ref.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

using Offset = Numerics::Offset;

// Every width and offset; groups of every kind: whole row, dividing the row or not, smaller than a kernel's
// step.
std::vector<Numerics> all_numerics() {
  std::vector<Numerics> out;
  for (DType t : {DType::f32, DType::bf16, DType::f16, DType::f8e4m3}) out.push_back(Numerics::dense(t));
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {0, 6, 32, 128})
      for (DType t : {DType::bf16, DType::f16, DType::f32})
        for (Offset offset : {Offset::none, Offset::zero_point, Offset::minimum}) {
          const bool stored_width = bits == 4 || bits == 8;  // the others are these with some codes unused
          if (!stored_width && (t != DType::f16 || group % 32 != 0 || group > 32)) continue;
          out.push_back({Numerics::Kind::integer, t, static_cast<uint8_t>(bits), group, offset});
        }
  return out;
}

Codes random_codes(const Numerics& numerics, int64_t rows, int64_t cols, Rng& rng) {
  Codes c;
  c.numerics = numerics;
  c.rows = rows;
  c.cols = cols;
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
  for (int64_t i = 0; i < rows * cols; ++i) c.codes.push_back(static_cast<int16_t>(code()));
  for (int64_t i = 0; i < rows * numerics.groups(cols); ++i) {
    c.scales.push_back(rounded(numerics.dtype, 0.01f + 0.1f * static_cast<float>(rng.uniform())));
    if (numerics.offset == Offset::zero_point) c.zeros.push_back(static_cast<float>(code()));
    if (numerics.offset == Offset::minimum) c.zeros.push_back(rounded(numerics.dtype, 0.3f * rng.normal()));
  }
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
constexpr Shape2 shapes[] = {{1, 1}, {3, 5}, {31, 33}, {32, 64}, {65, 40}, {97, 257}, {33, 1030}, {300, 70}};
constexpr int64_t most_rows = 64;
constexpr int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 8, 13, 17, most_rows};

TEST(Linear, EveryRowIsOneFmaChainPerElement) {
  // Fast rows promise more than closeness: y[i][j] is fma(x[i][k-1], w[j][k-1], ... fma(x[i][0], w[j][0], 0))
  // + bias[j], the same bits for every ISA, number of rows and number of workers. The reference rounds the
  // product and the sum apart, so against it the bound is that of two sums of k terms: each has |error| <= (k
  // + 1) u sum |x| |w| to first order (u = 2^-24: k additions, one multiplication), and one rounding each for
  // the bias.
  Rng rng(1);
  std::set<std::string_view> seen;
  for (const Numerics& numerics : all_numerics())
    for (const auto [n, k] : shapes) {
      const Codes codes = random_codes(numerics, n, k, rng);
      const std::vector<float> weights = weights_rounded_once(codes);
      const Matrix x = random_matrix(most_rows, k, rng);
      const Matrix bias = random_matrix(1, n, rng, 0);
      Matrix chain(most_rows, n), magnitude(most_rows, n);
      for (int64_t i = 0; i < most_rows; ++i)
        for (int64_t j = 0; j < n; ++j) {
          float sum = 0, size = 0;
          for (int64_t c = 0; c < k; ++c) {
            const float w = weights[static_cast<size_t>(j * k + c)];
            sum = std::fma(x.at(i, c), w, sum);
            size += std::fabs(x.at(i, c) * w);
          }
          chain.at(i, j) = sum;
          magnitude.at(i, j) = size;
        }
      for (const LinearKernel& row : linear_kernels()) {
        if (!runs_here(row.isa) || !row.accepts(numerics, n, k)) continue;
        seen.insert(row.name);
        const bool expanded = row.packing.starts_with("expand");
        if (expanded && numerics.bits == 8 && numerics.group != 6)
          continue;  // to it, all numerics are the same
        const Weight w = packed(codes, row.packing);
        for (int64_t m : row_counts) {
          const bool with_bias = m % 2 == 1;
          SCOPED_TRACE(describe(row, codes, m, with_bias));
          Matrix y(m, n, 5);
          run_as(row.run, arguments(w, x, with_bias ? bias.row(0) : nullptr, y, m),
                 static_cast<int>(m % 3 + 1));
          ASSERT_TRUE(y.intact());
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              const float b = with_bias ? bias.at(0, j) : 0,
                          expected = with_bias ? chain.at(i, j) + b : chain.at(i, j);
              // expand.* hold what dequantize() gave: for a minimum, another rounding of each weight.
              if (row.isa != 0 && !(expanded && numerics.offset == Offset::minimum)) {
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
  for (const LinearKernel& row : linear_kernels())
    EXPECT_EQ(seen.contains(row.name), runs_here(row.isa)) << row.name;
}

TEST(Linear, WorkersCoverTheOutputOnce) {
  Rng rng(2);
  for (const LinearKernel& row : linear_kernels()) {
    if (!runs_here(row.isa)) continue;
    for (const Numerics& numerics : {Numerics::dense(DType::f32), Numerics::integer(4, 32, false)}) {
      for (const auto [n, k] : {Shape2{1, 8}, Shape2{33, 40}, Shape2{200, 24}}) {
        if (!row.accepts(numerics, n, k)) continue;
        const Codes codes = random_codes(numerics, n, k, rng);
        const Weight w = packed(codes, row.packing);
        const Matrix x = random_matrix(20, k, rng);
        for (int64_t m : {1, 2, 20})
          for (int workers : {1, 2, 3, 4, 5, 12}) {
            SCOPED_TRACE(describe(row, codes, m, false));
            Matrix y(m, n);
            expect_partition(row.run, arguments(w, x, nullptr, y, m), y, workers);
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
      if (!p.name.starts_with("x86.") || !p.holds(numerics)) continue;
      for (const auto [n, k] : shapes) {
        SCOPED_TRACE(fmt::format("{} {} [{}, {}]", p.name, to_string(numerics), n, k));
        const Codes in = random_codes(numerics, n, k, rng);
        const Weight w = packed(in, p.name);
        EXPECT_NO_THROW(check_parts(w, "packed"));
        const int64_t top = n > 32 ? 32 : 0;  // a strip that does not start at the top
        const Codes out = p.unpack(w, top, n - top);
        const auto tail = [&](const auto& v, int64_t cols) {
          return std::vector(v.begin() + std::min<ptrdiff_t>(std::ssize(v), top * cols), v.end());
        };
        EXPECT_EQ(out.numerics, numerics);
        EXPECT_EQ(out.values, tail(in.values, k));
        EXPECT_EQ(out.codes, tail(in.codes, k));
        EXPECT_EQ(out.scales, tail(in.scales, numerics.groups(k)));
        EXPECT_EQ(out.zeros, tail(in.zeros, numerics.groups(k)));
        ++checked;
      }
    }
#if defined(__x86_64__)
  EXPECT_GT(checked, 100);
#endif
}

TEST(Linear, DispatchTakesTheFirstRowThatFits) {
  const Numerics int4 = Numerics::integer(4, 32, false), odd = Numerics::integer(4, 6, false);
  EXPECT_EQ(choose_linear(int4, 64, 64, 0).name, "ref");
#if defined(__x86_64__)
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_avx2).name, "avx2.int4.bf16");
  EXPECT_EQ(choose_linear(int4, 64, 64, isa_avx2 | isa_avx512).name, "avx512.int4.bf16");
  EXPECT_EQ(choose_linear(odd, 64, 64, isa_avx2 | isa_avx512).name, "avx512.expanded");
  EXPECT_EQ(choose_linear(Numerics::dense(DType::f8e4m3), 64, 64, isa_avx2).name, "avx2.expanded");
#endif
}

}  // namespace
}  // namespace lathe
