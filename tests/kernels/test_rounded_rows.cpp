// Rows that kernels of f32 products read rounded (RowPacking::any_numerics) have the bits that round_row
// gives.
#include <bit>
#include <gmock/gmock.h>
#include <set>

#include "kernels/harness.h"
#include "kernels/tables.h"
#include "quant/activations.h"

namespace lathe {
namespace {

constexpr Activations all[] = {Activations::as_they_are, Activations::int8_per_row, Activations::int8_static,
                               Activations::fp8_per_row, Activations::fp8_static,   Activations::fp8_groups,
                               Activations::nvfp4,       Activations::mxfp4,        Activations::mxfp8,
                               Activations::mxfp8_rceil};

std::set<const RowPacking*> packings_here() {
  std::set<const RowPacking*> out;
  for (const LinearKernel& row : linear_kernels())
    if (runs_here(row.isa) && row.decode.rows && row.decode.rows->any_numerics) out.insert(row.decode.rows);
  return out;
}

// Rows of normals, of every power of two, of ties between codes, of numbers near both ends, and of zeros.
Matrix rows_of(int64_t k, Rng& rng) {
  Matrix x = random_matrix(8, k, rng);
  for (int64_t c = 0; c < k; ++c) {
    x.at(1, c) *= std::ldexp(1.0f, static_cast<int>(rng.below(60)) - 30);
    x.at(2, c) = static_cast<float>(rng.below(897)) / 2 - 224;
    x.at(3, c) = static_cast<float>(rng.below(64)) * 0x1p-11f;
    x.at(4, c) *= c % 3 == 1 ? 0 : 0x1p-124f;  // 127 / that is no float
    x.at(5, c) *= 0x1p+100f;
    x.at(6, c) = c % 17 == 3 ? -0x1.cp+2f : 0;
    x.at(7, c) = 0;
  }
  return x;
}

TEST(RoundedRows, HaveTheBitsOfRoundRow) {
  Rng rng(1);
  for (const RowPacking* packing : packings_here())
    for (const int64_t k : {1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 127, 128, 129, 257, 704}) {
      const Matrix x = rows_of(k, rng);
      for (const Activations to : all)
        for (const float given : {0.0156f, 0x1p-9f, 3.0f}) {
          std::vector<float> out(static_cast<size_t>(x.rows * k), NAN), expected(static_cast<size_t>(k));
          ASSERT_EQ(packing->bytes(x.rows, k), out.size() * sizeof(float));
          const float scale = scale_is_given(to) ? given : 0;
          run_as(packing->run, PackRowsArgs{x.data.data(), x.rows, k, x.stride, out.data(), scale, to}, 3);
          for (int64_t r = 0; r < x.rows; ++r) {
            round_row(to, x.row(r), k, expected.data(), scale);
            for (int64_t c = 0; c < k; ++c)
              ASSERT_EQ(out[static_cast<size_t>(r * k + c)], expected[static_cast<size_t>(c)])
                  << to_string(to) << " k " << k << " row " << r << " column " << c << " of " << x.at(r, c);
          }
        }
    }
}

TEST(RoundedRows, KeepNaN) {
  for (const RowPacking* packing : packings_here())
    for (const Activations to : all) {
      if (to == Activations::int8_per_row || to == Activations::int8_static) continue;  // integers have none
      std::vector<float> x(40, 1.0f), out(40);
      x[37] = NAN;
      run_as(packing->run, PackRowsArgs{x.data(), 1, 40, 40, out.data(), 0.5f, to}, 1);
      EXPECT_TRUE(std::isnan(out[37])) << to_string(to);
    }
}

}  // namespace
}  // namespace lathe
