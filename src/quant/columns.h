// What a linear layer does to the columns of its input before the weight's kernel reads them. A weight whose
// groups are no runs of columns (Numerics::act_order), or whose columns have scales, becomes an ordinary one
// for an input that is taken in another order and multiplied.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/packing.h"

namespace lathe {

// Column k of what the kernel reads is x[from[k]] * scales[k].
struct Columns {
  std::vector<int32_t> from;  // [cols]; empty: k
  std::vector<float> scales;  // [cols], in the kernel's order; empty: 1
  bool empty() const { return from.empty() && scales.empty(); }
  bool operator==(const Columns&) const = default;
  // The numbers of the weight that is left.
  Numerics leave(Numerics) const;
};

// Of a matrix. Empty where it has neither, and where groups are not of Numerics::group columns each (the last
// takes the rest): only expanded weights have that.
Columns columns_of(const Weight&);

// Codes in the kernel's order; their numerics as Columns::leave says.
void arrange(Codes&, const Columns&);
Weight repack(const Weight&, const Packing&, const Columns&);

}  // namespace lathe
