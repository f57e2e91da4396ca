// Mixtures of experts: which rows go to which expert, and back. One implementation for every ISA: beside the
// experts' own products this is nothing. Rows lie without gaps. A row's bits depend on that row alone.
#pragma once

#include "kernels/share.h"

namespace lathe {

struct RouteArgs {      // weights = op::Route of logits
  const float* logits;  // [rows, experts]
  float* weights;       // [rows, experts]
  int64_t rows, experts, top_k;
  bool sigmoid, normalize;
  float scale;
};
void route(const RouteArgs&, const Share&) noexcept;

struct TakeRowsArgs {  // out[i] = x[from[i]]
  const float* x;
  const int32_t* from;
  float* out;
  int64_t rows, cols;
};
void take_rows(const TakeRowsArgs&, const Share&) noexcept;

// out[r] = base[r] + the sum of scales[i] * y[i] over i = entries[first[r]], ..., entries[first[r + 1] - 1],
// in that order. In place where out == base.
struct CombineArgs {
  const float *base, *y;  // [rows, cols] and a row for each entry
  const float* scales;
  const int32_t *first, *entries;
  float* out;
  int64_t rows, cols;
};
void combine_rows(const CombineArgs&, const Share&) noexcept;

}  // namespace lathe
