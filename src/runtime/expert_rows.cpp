#include "runtime/expert_rows.h"

#include <algorithm>

namespace lathe {

ExpertRows::ExpertRows(int64_t most_rows, int64_t most_entries_per_row, int64_t most_experts) {
  const auto entries = static_cast<size_t>(most_rows * most_entries_per_row);
  rows_.reserve(entries);
  weights_.reserve(entries);
  by_row_.reserve(entries);
  begin_.reserve(static_cast<size_t>(most_experts) + 1);
  first_.reserve(static_cast<size_t>(most_rows) + 2);
}

void ExpertRows::find(const float* weights, int64_t rows, int64_t stride, int64_t first, int64_t experts) {
  rows_.clear();
  weights_.clear();
  begin_.clear();
  first_.assign(static_cast<size_t>(rows) + 2, 0);
  for (int64_t e = first; e < first + experts; ++e) {
    begin_.push_back(static_cast<int32_t>(rows_.size()));
    for (int64_t r = 0; r < rows; ++r) {
      const float weight = weights[r * stride + e];
      if (weight == 0) continue;
      rows_.push_back(static_cast<int32_t>(r));
      weights_.push_back(weight);
      ++first_[static_cast<size_t>(r) + 2];
    }
  }
  begin_.push_back(static_cast<int32_t>(rows_.size()));
  // first_[r + 1] is where row r's next entry goes; when all are placed, it is where row r + 1 begins.
  for (size_t r = 2; r < first_.size(); ++r) first_[r] += first_[r - 1];
  by_row_.resize(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i)
    by_row_[static_cast<size_t>(first_[static_cast<size_t>(rows_[i]) + 1]++)] = static_cast<int32_t>(i);
  first_.pop_back();
}

Range ExpertRows::entries_below(int64_t expert, int64_t row) const {
  const Range all = entries_of(expert);
  const auto* end = std::lower_bound(rows_.data() + all.begin, rows_.data() + all.end, row);
  return {all.begin, end - rows_.data()};
}

}  // namespace lathe
