// The meaning of every op: walks the graph one node at a time with plain loops. Slow and obvious.
// Calibration, tracing and debugging are observers of this walk.
#pragma once

#include <span>

#include "core/tensor.h"
#include "models/model.h"
#include "runtime/batch.h"

namespace lathe {

struct Observer {
  virtual ~Observer() = default;
  virtual void before(const Node&, std::span<const Tensor> /*inputs*/) {}
  virtual void after(const Node&, std::span<const Tensor> /*outputs*/) {}
};

// Logits [outputs, vocab] in f32. Sequences attend within the batch; Batch::slots must be empty.
Tensor interpret(const Model&, const Batch&, Observer* = nullptr);

}  // namespace lathe
