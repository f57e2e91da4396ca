// Walks the table of elementwise kernels against the reference.
#include <functional>

#include "kernels/harness.h"
#include "kernels/ref/ref.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

constexpr int64_t widths[] = {1, 2, 7, 8, 16, 31, 64, 100, 600, 1025};
constexpr int64_t row_counts[] = {1, 2, 5};

template <class Check>
void each_row(Check check) {
  for (const ElementwiseKernels& row : elementwise_kernels())
    if (runs_here(row.isa)) {
      SCOPED_TRACE(row.name);
      check(row);
    }
}

void expect_close(const Matrix& got, const Matrix& expected, float relative) {
  EXPECT_TRUE(got.intact());
  for (int64_t r = 0; r < got.rows; ++r)
    for (int64_t c = 0; c < got.cols; ++c)
      ASSERT_NEAR(got.at(r, c), expected.at(r, c), relative * std::fabs(expected.at(r, c))) << r << ", " << c;
}

// What a kernel writes from `x`, for any number of workers and in place, has the bits of the reference. Of
// the arguments, those of the output are set here.
template <class Args>
void expect_bits_of(void (*reference)(const Args&, const Share&) noexcept,
                    void (*kernel)(const Args&, const Share&) noexcept, Args args, const Matrix& x) {
  Matrix expected(x.rows, x.cols), got(x.rows, x.cols);
  args.out = expected.row(0);
  args.out_stride = got.stride;
  run_as(reference, args, 1);
  args.out = got.row(0);
  for (int workers : {1, 2, 5}) expect_partition(kernel, args, got, workers);
  run_as(kernel, args, 2);
  expect_close(got, expected, 0);
  Matrix place = x;
  args.x = args.out = place.row(0);
  args.out_stride = place.stride;
  run_as(kernel, args, 2);
  expect_close(place, expected, 0);
}

// A sum of n squares is within n u of the truth, its root within n u / 2; then five roundings of one u.
float norm_bound(int64_t n) { return (static_cast<float>(n) / 2 + 5) * unit_roundoff; }

TEST(Elementwise, RmsNorm) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(7);
    for (int64_t width : widths)
      for (int64_t rows : row_counts)
        for (int64_t runs : {1, 3}) {
          const Matrix x = random_matrix(rows, runs * width, rng, 5),
                       weight = random_matrix(1, width, rng, 0);
          Matrix expected(rows, runs * width), got(rows, runs * width);
          RmsNormArgs args{x.row(0), weight.row(0), expected.row(0), rows, runs * width,
                           width,    x.stride,      got.stride,      1e-5f};
          run_as(rms_norm_ref, args, 1);
          args.out = got.row(0);
          for (int workers : {1, 2, 4}) expect_partition(row.rms_norm, args, got, workers);
          run_as(row.rms_norm, args, 2);
          expect_close(got, expected, norm_bound(width));
          Matrix place = x;
          args.x = args.out = place.row(0);
          args.out_stride = place.stride;
          run_as(row.rms_norm, args, 2);
          expect_close(place, expected, norm_bound(width));
        }
  });
}

TEST(Elementwise, AddRmsNorm) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(8);
    for (int64_t cols : widths)
      for (int64_t rows : row_counts) {
        const Matrix a = random_matrix(rows, cols, rng), b = random_matrix(rows, cols, rng);
        const Matrix weight = random_matrix(1, cols, rng, 0);
        Matrix sum(rows, cols), expected(rows, cols), got_sum(rows, cols), got(rows, cols);
        AddRmsNormArgs args{a.row(0), b.row(0), weight.row(0), sum.row(0), expected.row(0),
                            rows,     cols,     a.stride,      1e-6f};
        run_as(add_rms_norm_ref, args, 1);
        args.sum = got_sum.row(0);
        args.out = got.row(0);
        for (int workers : {1, 2, 4}) {
          expect_partition(row.add_rms_norm, args, got, workers);
          expect_partition(row.add_rms_norm, args, got_sum, workers);
        }
        run_as(row.add_rms_norm, args, 2);
        expect_close(got_sum, sum, 0);
        expect_close(got, expected, norm_bound(cols));
        Matrix place = a;  // the residual stream: sum replaces a
        args.a = args.sum = place.row(0);
        run_as(row.add_rms_norm, args, 1);
        expect_close(place, sum, 0);
        expect_close(got, expected, norm_bound(cols));
      }
  });
}

// Sums of k products, times their number of terms' worth of roundings on either side, then of `rank` more.
TEST(Elementwise, LowRank) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(12);
    for (int64_t k : {1, 31, 64, 100, 600})
      for (int64_t n : {1, 17, 64, 130, 1025})
        for (int64_t rank : {1, 3, 16})
          for (int64_t rows : {1, 3, 20}) {
            const Matrix x = random_matrix(rows, k, rng), a = random_matrix(rank, k, rng, 0),
                         b = random_matrix(rank, n, rng, 0), base = random_matrix(rows, n, rng);
            Matrix expected(rows, n), got(rows, n);
            LowRankArgs args{x.row(0), a.row(0), b.row(0), base.row(0), expected.row(0), rows,
                             k,        n,        rank,     x.stride,    got.stride,      0.5f};
            run_as(low_rank_ref, args, 1);
            args.out = got.row(0);
            for (int workers : {1, 2, 5}) expect_partition(row.low_rank, args, got, workers);
            run_as(row.low_rank, args, 1);
            EXPECT_TRUE(got.intact());
            for (int64_t r = 0; r < rows; ++r) {
              float inner = 0;  // the largest possible sum |x a|
              for (int64_t i = 0; i < rank; ++i) {
                float sum = 0;
                for (int64_t c = 0; c < k; ++c) sum += std::fabs(x.at(r, c) * a.at(i, c));
                inner = std::max(inner, sum);
              }
              for (int64_t c = 0; c < n; ++c) {
                float size = std::fabs(base.at(r, c));
                for (int64_t i = 0; i < rank; ++i) size += 0.5f * inner * std::fabs(b.at(i, c));
                ASSERT_NEAR(got.at(r, c), expected.at(r, c),
                            2 * static_cast<float>(k + rank + 2) * unit_roundoff * size);
              }
            }
            // However rows and columns are shared out, and whichever rows come along: the same bits.
            for (int workers : {2, 5}) {
              Matrix again(rows, n);
              args.out = again.row(0);
              run_as(row.low_rank, args, workers);
              for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < n; ++c) ASSERT_EQ(again.at(r, c), got.at(r, c));
            }
            LowRankArgs last = args;
            Matrix alone(1, n);
            last.rows = 1;
            last.x = x.row(rows - 1);
            last.base = base.row(rows - 1);
            last.out = alone.row(0);
            run_as(row.low_rank, last, 1);
            for (int64_t c = 0; c < n; ++c) ASSERT_EQ(alone.at(0, c), got.at(rows - 1, c));
            Matrix place = base;
            args.base = args.out = place.row(0);
            run_as(row.low_rank, args, 2);
            for (int64_t c = 0; c < n; ++c) ASSERT_EQ(place.at(rows - 1, c), got.at(rows - 1, c));
          }
  });
}

// Every number is a sum of n products with +-1 / sqrt(n): the scale rounds twice and its product once, then
// log2(n) sums round, all relative to sum |x| / sqrt(n).
TEST(Elementwise, HadamardReferenceIsSylvesters) {
  Rng rng(13);
  for (int64_t n : {1, 2, 4, 8, 64, 512}) {
    const Matrix x = random_matrix(2, 3 * n, rng);
    Matrix got(2, 3 * n), back(2, 3 * n);
    HadamardArgs args{x.row(0), got.row(0), 2, 3 * n, n, x.stride, got.stride};
    run_as(hadamard_ref, args, 1);
    const double scale = 1 / std::sqrt(static_cast<double>(n)),
                 roundings = (3 + std::log2(static_cast<double>(n))) * static_cast<double>(unit_roundoff);
    for (int64_t r = 0; r < 2; ++r)
      for (int64_t begin = 0; begin < 3 * n; begin += n)
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0, size = 0;
          for (int64_t i = 0; i < n; ++i) {
            const double v = scale * static_cast<double>(x.at(r, begin + i));
            sum += __builtin_parityll(static_cast<unsigned long long>(i & j)) ? -v : v;
            size += std::abs(v);
          }
          ASSERT_NEAR(static_cast<double>(got.at(r, begin + j)), sum, roundings * size) << n;
        }
    args.x = got.row(0);
    args.out = back.row(0);
    run_as(hadamard_ref, args, 1);
    // What the first transform is off by, at most all n of it in one place, comes through the second.
    for (int64_t c = 0; c < 3 * n; ++c)
      ASSERT_NEAR(back.at(1, c), x.at(1, c), 2 * static_cast<float>(roundings) * 4 * static_cast<float>(n));
  }
}

TEST(Elementwise, HadamardHasTheBitsOfTheReference) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(14);
    for (int64_t size = 1; size <= 8192; size *= 2)
      for (int64_t runs : {1, 3})
        for (int64_t rows : {1, 3}) {
          const Matrix x = random_matrix(rows, runs * size, rng, 5);
          expect_bits_of(hadamard_ref, row.hadamard,
                         HadamardArgs{x.row(0), nullptr, rows, runs * size, size, x.stride, x.stride}, x);
        }
  });
}

TEST(Elementwise, TakeColumnsIsExact) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(13);
    for (int64_t cols : widths)
      for (int64_t rows : row_counts) {
        const Matrix x = random_matrix(rows, cols, rng), scales = random_matrix(1, cols, rng, 0);
        std::vector<int32_t> from(static_cast<size_t>(cols));
        for (int32_t& column : from)
          column = static_cast<int32_t>(rng.below(from.size()));  // one may come twice
        for (const int32_t* order : std::initializer_list<const int32_t*>{nullptr, from.data()})
          for (const float* scale : std::initializer_list<const float*>{nullptr, scales.row(0)}) {
            Matrix expected(rows, cols), got(rows, cols);
            TakeColumnsArgs args{x.row(0), order, scale, expected.row(0), rows, cols, x.stride, got.stride};
            run_as(take_columns_ref, args, 1);
            args.out = got.row(0);
            for (int workers : {1, 2, 5}) expect_partition(row.take_columns, args, got, workers);
            run_as(row.take_columns, args, 2);
            expect_close(got, expected, 0);
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c = 0; c < cols; ++c)
                ASSERT_EQ(expected.at(r, c), x.at(r, order ? order[c] : c) * (scale ? scale[c] : 1));
          }
      }
  });
}

TEST(Elementwise, RopeIsExact) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(9);
    for (int64_t head_dim : {2, 8, 24, 64, 128})
      for (int64_t heads : {1, 3})
        for (int64_t rows : row_counts) {
          const Matrix x = random_matrix(rows, heads * head_dim, rng, 9);
          const Matrix cos = random_matrix(rows, head_dim / 2, rng, 0),
                       sin = random_matrix(rows, head_dim / 2, rng, 0);
          expect_bits_of(rope_ref, row.rope,
                         RopeArgs{x.row(0), cos.row(0), sin.row(0), nullptr, rows, heads * head_dim, head_dim,
                                  x.stride, x.stride},
                         x);
        }
  });
}

TEST(Elementwise, PointwiseOps) {
  using Op = void (*)(const BinaryArgs&, const Share&) noexcept;
  each_row([](const ElementwiseKernels& row) {
    // silu = x / (1 + exp(-x)): exp within 1.5e-7 and three roundings on each side, one more for the product.
    constexpr float silu_bound = 6e-7f;
    const struct {
      Op got, expected;
      float relative;
      bool unary;
    } ops[] = {{row.add, add_ref, 0, false},
               {row.mul, mul_ref, 0, false},
               {row.silu, silu_ref, silu_bound, true},
               {row.silu_mul, silu_mul_ref, silu_bound, false}};
    Rng rng(10);
    for (const auto& op : ops)
      for (int64_t cols : widths)
        for (int64_t rows : row_counts) {
          const Matrix a = random_matrix(rows, cols, rng, 2), b = random_matrix(rows, cols, rng, 4);
          Matrix expected(rows, cols), got(rows, cols);
          BinaryArgs args{
              a.row(0),  op.unary ? nullptr : b.row(0), expected.row(0), rows, cols, a.stride, b.stride,
              got.stride};
          run_as(op.expected, args, 1);
          args.out = got.row(0);
          for (int workers : {1, 2, 3, 5}) expect_partition(op.got, args, got, workers);
          run_as(op.got, args, 2);
          expect_close(got, expected, op.relative);
          Matrix place = a;
          args.a = args.out = place.row(0);
          args.out_stride = place.stride;
          run_as(op.got, args, 2);
          expect_close(place, expected, op.relative);
        }
  });
}

// alpha 1 and no limit that matters leave silu(a) * (b + 1); limits hold on both sides of b and above of a.
TEST(Elementwise, ClampedSiluMulIsTheReferences) {
  each_row([](const ElementwiseKernels& row) {
    Rng rng(12);
    for (int64_t cols : {1, 7, 8, 33, 1029})
      for (const auto& [limit, alpha] : {std::pair{7.0f, 1.702f}, {1.5f, 1.0f}}) {
        const int64_t rows = 3;
        const Matrix a = random_matrix(rows, cols, rng, 4), b = random_matrix(rows, cols, rng, 4);
        Matrix expected(rows, cols), got(rows, cols);
        ClampedSiluArgs args{
            {a.row(0), b.row(0), expected.row(0), rows, cols, a.stride, b.stride, got.stride}, limit, alpha};
        run_as(clamped_silu_mul_ref, args, 1);
        for (int64_t c = 0; c < cols; ++c) {
          const double g = std::min(a.at(1, c), limit), u = std::clamp(b.at(1, c), -limit, limit);
          EXPECT_NEAR(expected.at(1, c), g / (1 + std::exp(-static_cast<double>(alpha) * g)) * (u + 1),
                      1e-5 * (1 + std::fabs(g * u)));
        }
        args.out = got.row(0);
        for (int workers : {1, 2, 5}) expect_partition(row.clamped_silu_mul, args, got, workers);
        run_as(row.clamped_silu_mul, args, 2);
        expect_close(got, expected, 6e-7f);  // as silu_mul: the other steps have one rounding each everywhere
      }
    // NaN shows.
    const float one = 1, nan = NAN;
    for (const auto& [a, b] : {std::pair{nan, one}, {one, nan}}) {
      float out = 0;
      row.clamped_silu_mul({{&a, &b, &out, 1, 1, 1, 1, 1}, 7, 1.702f}, {0, 1, nullptr});
      EXPECT_TRUE(std::isnan(out));
    }
  });
}

// For x < -17, 1 + exp(-x) is exp(-x) within half a unit, so x / silu(x) shows the kernel's own exp, for
// every mantissa of the reduced argument and exponents up to the largest.
// A plan takes a row through several kernels at once: with as many workers as rows, worker r reads and writes
// row r alone.
TEST(Elementwise, AWorkerForEachRowDoesThatRowAlone) {
  constexpr int64_t rows = 7, cols = 1088, head = 64;  // more than two blocks of 512; 17 heads
  Rng rng(31);
  const Matrix a = random_matrix(rows, cols, rng), b = random_matrix(rows, cols, rng, 0);
  std::vector<int32_t> from(cols);
  for (size_t c = 0; c < from.size(); ++c) from[c] = static_cast<int32_t>((c * 7) % from.size());
  each_row([&](const ElementwiseKernels& row) {
    const std::vector<float> weight(cols, 0.5f);
    const auto binary = [&](auto run, const Matrix& x, const Matrix& y, Matrix& out, const Share& share) {
      run(BinaryArgs{x.row(0), y.row(0), out.row(0), rows, cols, x.stride, y.stride, out.stride}, share);
    };
    using Op = std::function<void(const Matrix&, const Matrix&, Matrix&, const Share&)>;
    const std::pair<const char*, Op> ops[] = {
        {"rms_norm",
         [&](const Matrix& x, const Matrix&, Matrix& out, const Share& share) {
           row.rms_norm({x.row(0), weight.data(), out.row(0), rows, cols, head, x.stride, out.stride, 1e-5f},
                        share);
         }},
        {"add_rms_norm",
         [&](const Matrix& x, const Matrix& y, Matrix& out, const Share& share) {
           Matrix sum(rows, cols), residual(rows, cols);
           for (int64_t r = 0; r < rows; ++r) std::copy_n(y.row(r), cols, residual.row(r));
           row.add_rms_norm({x.row(0), residual.row(0), weight.data(), sum.row(0), out.row(0), rows, cols,
                             x.stride, 1e-5f},
                            share);
         }},
        {"rope",
         [&](const Matrix& x, const Matrix& y, Matrix& out, const Share& share) {
           std::vector<float> angles(rows * head / 2);
           for (int64_t r = 0; r < rows; ++r)
             std::copy_n(y.row(r), head / 2, &angles[static_cast<size_t>(r * head / 2)]);
           row.rope(
               {x.row(0), angles.data(), angles.data(), out.row(0), rows, cols, head, x.stride, out.stride},
               share);
         }},
        {"hadamard",
         [&](const Matrix& x, const Matrix&, Matrix& out, const Share& share) {
           row.hadamard({x.row(0), out.row(0), rows, cols, head, x.stride, out.stride}, share);
         }},
        {"take_columns",
         [&](const Matrix& x, const Matrix&, Matrix& out, const Share& share) {
           row.take_columns(
               {x.row(0), from.data(), weight.data(), out.row(0), rows, cols, x.stride, out.stride}, share);
         }},
        {"add", [&](auto&... args) { binary(row.add, args...); }},
        {"mul", [&](auto&... args) { binary(row.mul, args...); }},
        {"silu", [&](auto&... args) { binary(row.silu, args...); }},
        {"silu_mul", [&](auto&... args) { binary(row.silu_mul, args...); }}};
    for (const auto& [name, run] : ops) {
      SCOPED_TRACE(name);
      Matrix whole(rows, cols);
      run(a, b, whole, {});
      for (int64_t r = 0; r < rows; ++r) {
        Matrix x(rows, cols), y(rows, cols, 0), out(rows, cols);
        std::copy_n(a.row(r), cols, x.row(r));
        std::copy_n(b.row(r), cols, y.row(r));
        run(x, y, out, {static_cast<int>(r), static_cast<int>(rows), nullptr});
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t c = 0; c < cols; ++c) {
            if (i == r)
              ASSERT_EQ(out.at(i, c), whole.at(i, c)) << i << ", " << c;
            else
              ASSERT_TRUE(std::isnan(out.at(i, c))) << i << ", " << c;
          }
      }
    }
  });
}

TEST(Elementwise, ExpIsAccurateEverywhere) {
  each_row([](const ElementwiseKernels& row) {
    std::vector<float> x;
    for (float f = -88.0f; f < -17.5f; f += 3.1e-5f) x.push_back(f);
    std::vector<float> y(x.size());
    const auto n = static_cast<int64_t>(x.size());
    run_as(row.silu, BinaryArgs{x.data(), nullptr, y.data(), 1, n, n, n, n}, 1);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = x[i] / (1 + std::exp(-static_cast<double>(x[i])));
      worst = std::max(worst, std::fabs(static_cast<double>(y[i]) / expected - 1));
    }
    EXPECT_LT(worst, 1.5e-7);  // with the sum and the quotient, which round once each
  });
}

TEST(Elementwise, SiluAtTheEdges) {
  each_row([](const ElementwiseKernels& row) {
    const float x[] = {0, -0.0f, 1e-30f, 200, INFINITY, -200, -1e30f, NAN};
    float y[8];
    run_as(row.silu, BinaryArgs{x, nullptr, y, 1, 8, 8, 8, 8}, 1);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], 0);
    EXPECT_EQ(y[2], 0.5e-30f);
    EXPECT_EQ(y[3], 200);
    EXPECT_EQ(y[4], INFINITY);
    EXPECT_NEAR(y[5], 0, 1e-36);
    EXPECT_NEAR(y[6], 0, 1e-7);
    EXPECT_TRUE(std::isnan(y[7]));
  });
}

TEST(Elementwise, DispatchByFeatures) {
  EXPECT_EQ(choose_elementwise(0).name, "ref");
#if defined(__x86_64__)
  EXPECT_EQ(choose_elementwise(isa_avx2).name, "avx2");
  EXPECT_EQ(choose_elementwise(isa_avx2 | isa_avx512).name, "avx512");
#elif defined(__aarch64__)
  EXPECT_EQ(choose_elementwise(isa_neon).name, "neon");
#endif
}

}  // namespace
}  // namespace lathe
