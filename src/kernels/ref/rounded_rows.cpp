// Rows rounded to what the numerics say and back to floats, then the reference product.
#include "kernels/ref/ref.h"
#include "quant/activations.h"

namespace lathe {

size_t rounded_rows_bytes(int64_t m, int64_t k) { return static_cast<size_t>(m * k) * sizeof(float); }

void pack_rounded_rows(const PackRowsArgs& a, const Share& share) noexcept {
  for (int64_t r = share.worker; r < a.m; r += share.workers)
    round_row(a.to, a.x + r * a.x_stride, a.k, static_cast<float*>(a.out) + r * a.k, a.scale);
}

void linear_rounded_ref(const LinearArgs& a, const Share& share) noexcept {
  LinearArgs rounded = a;
  rounded.x = static_cast<const float*>(a.packed_x);
  rounded.x_stride = a.k;
  linear_ref(rounded, share);
}

}  // namespace lathe
