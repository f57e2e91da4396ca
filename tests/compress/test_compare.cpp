#include <cmath>
#include <gtest/gtest.h>

#include "compress/compare.h"
#include "compress/quantize.h"
#include "support.h"

namespace lathe {
namespace {

using testing_support::golden;

const FormatRow* row_of(const std::vector<FormatRow>& rows, const Numerics& after) {
  for (const FormatRow& row : rows)
    if (row.after == to_string(after) && row.before != row.after) return &row;
  return nullptr;
}

// Matrices of so few rows are compared as a whole.
TEST(CompareFormats, TheNoiseIsThatOfAllMatricesOfAFormat) {
  const Model before = load(Checkpoint::open(golden("qwen3")));
  Model after = before;
  const Numerics int4 = Numerics::integer(4, 32, false);
  const Assignment assignment = assign_all(after, int4, {});
  quantize(after, assignment, ScaleSearch::absmax);
  double signal = 0, error = 0;
  int64_t parameters = 0;
  size_t bytes = 0;
  for (const auto& [name, numerics] : assignment) {
    const std::vector<float> a = read_all(before.weights.at(name)), b = read_all(after.weights.at(name));
    for (size_t i = 0; i < a.size(); ++i) {
      signal += std::pow(static_cast<double>(a[i]), 2);
      error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    }
    parameters += std::ssize(a);
    bytes += after.weights.at(name).bytes();
  }
  const std::vector<FormatRow> rows = compare_formats(before, after, true, 1);
  const FormatRow* row = row_of(rows, int4);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->matrices, std::ssize(assignment));
  EXPECT_EQ(row->parameters, parameters);
  EXPECT_EQ(row->bytes_after, bytes);
  // Sums of at most 1e6 terms in another order: 1e6 * 2^-53 of them, 4.4 times that in decibels.
  EXPECT_NEAR(row->snr_db, 10 * std::log10(signal / error), 1e-9);
  for (const FormatRow& other : rows)
    if (other.before == other.after) {
      EXPECT_EQ(other.snr_db, 0) << other.before;
    }
  for (const int threads : {2, 3})
    EXPECT_EQ(row_of(compare_formats(before, after, true, threads), int4)->snr_db, row->snr_db);
  EXPECT_EQ(row_of(compare_formats(before, after, false, 1), int4)->snr_db, 0) << "another basis";
}

}  // namespace
}  // namespace lathe
