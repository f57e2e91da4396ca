#pragma once

#include <cstdint>
#include <vector>

namespace lathe {

// A matrix of so many rows, row by row, as its transpose.
inline std::vector<float> transposed(const std::vector<float>& matrix, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(matrix.size()) / rows;
  std::vector<float> out(matrix.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      out[static_cast<size_t>(c * rows + r)] = matrix[static_cast<size_t>(r * cols + c)];
  return out;
}

}  // namespace lathe
