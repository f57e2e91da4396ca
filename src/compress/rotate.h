// Orthogonal rotations folded into the weights (QuaRot, Ashkboos et al. 2024; SpinQuant's R1 and R2): the
// function stays, but no channel and no weight is an outlier any more. Of these nothing is left to do at run
// time. SpinQuant's R3 and R4 are Hadamard transforms of activations that no weight can take: they become
// nodes of the graph (op::Hadamard), which the runtime executes.
#pragma once

#include <cstdint>
#include <vector>

#include "models/model.h"

namespace lathe {

// Hadamard transforms are of the largest power of two in the columns, in blocks: docs/decisions/021.
struct Rotations {
  bool residual =
      true;           // R1: of what the blocks add to; needs its norms folded into the layers that read them
  bool heads = true;  // R2: of each value head, between v and o
  uint64_t seed = 0;  // of the signs of R1 and R2
  bool keys = false;  // R3: of rotated queries and keys, per head, for caches of few bits
  bool products =
      false;  // R4: of inputs that are products, down_proj's, with its inverse folded into the layers
  bool any() const { return residual || heads || keys || products; }
};

// An orthogonal matrix of any size: random signs, then Hadamard (Sylvester) of the largest power of two in n,
// and a cosine transform across the remaining odd factor.
class Rotation {
 public:
  Rotation(int64_t n, uint64_t seed);
  void apply(double* x) const;  // x <- x R, [n]

 private:
  int64_t n_, power_;
  std::vector<double> signs_, cosines_;
};

// Edges decide what is rotated. Rotated matrices become f32 (computed in double), norms inside the rotated
// stream become ones; a head that shares the embedding's table gets its own, since the last norm is folded
// into it alone. InputError naming the node that stands in the way: one that reads the stream and is neither
// a norm, an addition nor a linear layer.
void rotate(Model&, const Rotations&, int threads = 0);

}  // namespace lathe
