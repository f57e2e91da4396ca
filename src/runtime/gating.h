// The kernel that makes one of gate and up.
#pragma once

#include "graph/ops.h"
#include "kernels/tables.h"

namespace lathe {

inline void multiply(const ElementwiseKernels& kernels, const op::SiluMul& op, const BinaryArgs& args,
                     const Share& share) {
  if (op.limit > 0)
    kernels.clamped_silu_mul({args, op.limit, op.alpha}, share);
  else
    kernels.silu_mul(args, share);
}

}  // namespace lathe
