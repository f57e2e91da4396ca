// Why the plan took a kernel: the better rows of its table that it passed over.
#pragma once

#include "kernels/tables.h"
#include "runtime/plan.h"

namespace lathe {

// Everything but the node's name: kernels per phase, how they want their rows, what was passed over.
Plan::Choice explain(const LinearKernel& chosen, const Weight&, uint32_t isa);
Plan::Choice explain(const AttentionKernel& chosen, int64_t head_dim, KvType, uint32_t isa);
Plan::Choice explain(const ElementwiseKernels& chosen, uint32_t isa);

}  // namespace lathe
