// Which rows each expert of a mixture sees in this step: an entry for every pair, by expert and then by row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/share.h"

namespace lathe {

class ExpertRows {
 public:
  // Room for so many rows, each with at most so many entries: find() allocates nothing then.
  ExpertRows(int64_t most_rows, int64_t most_entries_per_row, int64_t most_experts);

  // Of experts [first, first + experts): the rows whose weight is not 0. weights: [rows, stride].
  void find(const float* weights, int64_t rows, int64_t stride, int64_t first, int64_t experts);

  int64_t entries() const { return std::ssize(rows_); }
  Range entries_of(int64_t expert) const {  // from `first` on
    return {begin_[static_cast<size_t>(expert)], begin_[static_cast<size_t>(expert) + 1]};
  }
  // Those among them whose row is below `row`.
  Range entries_below(int64_t expert, int64_t row) const;

  std::span<const int32_t> rows() const { return rows_; }      // of each entry
  std::span<const float> weights() const { return weights_; }  // of each entry
  // Entries of row r: by_row[first[r]] ... by_row[first[r + 1] - 1], by expert.
  std::span<const int32_t> first() const { return first_; }
  std::span<const int32_t> by_row() const { return by_row_; }

 private:
  std::vector<int32_t> rows_, begin_, first_, by_row_;
  std::vector<float> weights_;
};

}  // namespace lathe
