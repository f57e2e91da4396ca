// What compression made of a model's weights, by format: sizes, and the signal-to-noise ratio of rounding.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"

namespace lathe {

// The matrices and vectors that went from one format to another; "-" to a kind of tensor that stands beside
// the weights (KV scales, low-rank corrections), of which there are only bytes.
struct FormatRow {
  std::string before, after;  // numerics
  int64_t matrices = 0, parameters = 0;
  size_t bytes_before = 0, bytes_after = 0;
  double snr_db = 0;  // of the weights; 0 when they did not change, or were not compared
};

// A row for each pair of formats, sorted by their names. SNR is 10 log10(sum of w^2 / sum of (w - w')^2) in
// decibels over the row's matrices whose numerics changed, w' with its low-rank correction where there is
// one: over all rows of a small matrix, else over strips of pack_row_multiple rows, 8 to 15 of them, spread
// over it. Where the weights are of another basis (rotated, scales folded into others: `same_basis` false)
// their differences say nothing, and none are computed. The same with any number of threads; 0: the machine's
// cores.
std::vector<FormatRow> compare_formats(const Model& before, const Model& after, bool same_basis, int threads);

}  // namespace lathe
