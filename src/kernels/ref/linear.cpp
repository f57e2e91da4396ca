// y[i][j] = sum over c of x[i][c] * w[j][c], then + bias[j]: one f32 sum in the order of c, as the fast rows
// sum.
#include "kernels/ref/ref.h"

namespace lathe {

void linear_ref(const LinearArgs& a, const Share& share) noexcept {
  const auto* weights = static_cast<const float*>(a.codes);
  const Range mine = part_of(a.n, share.worker, share.workers);
  for (int64_t j = mine.begin; j < mine.end; ++j) {
    const float* w = weights + j * a.k;
    for (int64_t i = 0; i < a.m; ++i) {
      const float* x = a.x + i * a.x_stride;
      float sum = 0;
      for (int64_t c = 0; c < a.k; ++c) sum += x[c] * w[c];
      a.y[i * a.y_stride + j] = a.bias ? sum + a.bias[j] : sum;
    }
  }
}

}  // namespace lathe
