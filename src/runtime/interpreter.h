// The meaning of every op: walks the graph one node at a time with plain loops. Slow and obvious.
// Calibration, tracing and debugging are observers of this walk.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "core/tensor.h"
#include "models/model.h"
#include "runtime/batch.h"

namespace lathe {

struct Observer {
  virtual ~Observer() = default;
  virtual void before(const Node&, std::span<const Tensor> /*inputs*/) {}
  virtual void after(const Node&, std::span<const Tensor> /*outputs*/) {}
};

// Logits [outputs, vocab] in f32. Sequences attend within the batch, without a KV cache.
Tensor interpret(const Model&, const Batch&, Observer* = nullptr);

// Walks any part of a graph over values that the caller keeps: calibration, block by block.
class Walker {
 public:
  using Values = std::map<ValueId, Tensor>;
  // isa 0: the plain loops. Otherwise the rows of the kernel tables that a plan of that isa takes for
  // prompts. The model may change its weights meanwhile, if forget() is called.
  explicit Walker(const Model&, uint32_t isa = 0, int threads = 1);
  Walker(Walker&&) noexcept;
  ~Walker();

  // Runs `nodes`, which are in topological order. `values` holds what they read, except for the tokens, and
  // gains what they compute: f32 [rows, cols], over what it had there if nobody else holds that. Sequences
  // attend within the batch.
  void run(const Batch&, std::span<const NodeId> nodes, Values& values, Observer* = nullptr);
  // Drops the weights that were repacked for kernels: they take memory, and may have changed.
  void forget();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
