// GPTQ (Frantar et al. 2022): columns are rounded one after the other, and what each one loses is made up for
// by those that are still to come, as far as the inputs of the calibration text make them alike.
#pragma once

#include <vector>

#include "compress/fit_grid.h"
#include "core/thread_pool.h"

namespace lathe {

// What all layers with one input share: the Hessian of their squared output error, and its factor.
class GptqFactor {
 public:
  // hessian [cols, cols] = x^T x / rows, which has to outlive the factor. damping: of the mean of its
  // diagonal, added to it; tried again ten and a hundred times larger when there is no factor. act_order:
  // columns of the largest inputs first.
  GptqFactor(ThreadPool&, const float* hessian, int64_t cols, double damping, bool act_order);

  bool usable() const { return usable_; }      // no: the layers are rounded to nearest
  double damping() const { return damping_; }  // that was needed, in parts of the mean diagonal
  int64_t cols() const { return cols_; }
  const std::vector<int32_t>& order() const { return order_; }
  const std::vector<float>& factor() const { return factor_; }  // of the columns in order(); upper triangular
  const std::vector<float>& importance() const { return importance_; }  // the diagonal of the Hessian
  const float* hessian() const { return hessian_; }                     // columns as they lie, not damped
  float added() const { return added_; }  // to its diagonal, before it was factored

 private:
  int64_t cols_;
  double damping_;
  float added_ = 0;
  bool usable_ = false;
  std::vector<int32_t> order_;
  std::vector<float> factor_, importance_;
  const float* hessian_;
};

struct GptqOptions {
  // Scales from the weights as they were (so that columns may come in any order), or from what is left of
  // them when the group begins. The latter needs a factor without act_order.
  bool static_groups = true;
  ScaleRule scales = {};  // mse: weighted by the importance of the columns, where they are integers
  // Afterwards, times that all codes and scales are gone through once more, each moved to where it fits best
  // with the others as they are (coordinate descent on the same error).
  int descent = 0;
  float largest = -1;  // of grids: as round_to_nearest() has it
};

// Rows [rows, cols] of a layer's weight to codes. Grids have the scales of round_to_nearest(), and no
// descent. Threads never change a bit.
Codes gptq(ThreadPool&, const float* w, int64_t rows, int64_t cols, const Numerics&, const GptqFactor&,
           const GptqOptions&);

// trace((Q - W) H (Q - W)^T): the mean squared error of the layer's outputs, summed over them.
double output_error(ThreadPool&, const float* w, const float* rounded, int64_t rows, int64_t cols,
                    const float* hessian);

}  // namespace lathe
