// The kernel that makes one of gate and up.
#pragma once

#include "graph/ops.h"
#include "kernels/tables.h"

namespace lathe {

inline ClampedSiluArgs with_limit(const op::SiluMul& op, const BinaryArgs& a) {
  return {a.a, a.b, a.out, a.rows, a.cols, a.a_stride, a.b_stride, a.out_stride, op.limit, op.alpha};
}

inline void multiply(const ElementwiseKernels& kernels, const op::SiluMul& op, const BinaryArgs& args,
                     const Share& share) {
  if (op.limit > 0)
    kernels.clamped_silu_mul(with_limit(op, args), share);
  else
    kernels.silu_mul(args, share);
}

}  // namespace lathe
