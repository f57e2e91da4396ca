// Low-rank error correction: W ~ Q + B A, B A of a given rank in bf16 beside the rounded Q.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/thread_pool.h"
#include "quant/codes.h"

namespace lathe {

struct LowRank {
  std::vector<float> a, b;  // [rank, cols], [rows, rank]: bf16 numbers
};

// The B A of that rank for which the outputs of (error - B A) have the least mean square over inputs with
// this Hessian [cols, cols]: B spans the leading eigenvectors of E H E^T, A = B^T E (the singular value
// decomposition of E H^(1/2), whose square root need not be taken). By subspace iteration from a fixed start:
// the same bits whatever the threads. `rank` is at most rows and cols.
LowRank fit_low_rank(ThreadPool&, const float* error, int64_t rows, int64_t cols, int64_t rank,
                     const float* hessian);
// out [rows, cols] += B A.
void add_correction(ThreadPool&, const LowRank&, int64_t rows, int64_t cols, float* out);

// Codes and correction together, by turns: first the B A of the weight itself, which takes what is large out
// of it (SVDQuant, https://arxiv.org/abs/2411.05007), then what the rest rounds to, the B A of what is
// missing, and again: with the codes as they are, the correction of least output error over the calibration
// text (what NNCF's LoRA correction finds by alternating least squares). The turn of least output error is
// kept; `noise` is the variance that rounding adds to each channel of the inputs of Q, which B A does not see
// (0: they are not rounded). `round` turns weights [rows, cols] into codes.
struct Corrected {
  Codes codes;
  LowRank low;
  std::vector<float> values;  // Q + B A
};
Corrected round_and_correct(ThreadPool&, const float* w, int64_t rows, int64_t cols, int64_t rank,
                            const float* hessian, double noise,
                            const std::function<Codes(const float*)>& round);

}  // namespace lathe
