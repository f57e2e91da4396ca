// A graph made flat: rewritten, kernels chosen, weights repacked, buffers placed in one arena.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/cpu.h"
#include "core/tensor.h"
#include "models/model.h"
#include "runtime/batch.h"

namespace lathe {

struct Target {
  int threads = 0;  // 0: physical cores
  uint32_t isa = allowed_features();
  int64_t max_tokens = 512;   // rows in one run; longer prompts go in chunks
  int64_t max_outputs = 512;  // rows that reach the head in one run
  int64_t slots = 1;          // sequences with a KV cache
  int64_t context = 0;        // tokens a slot holds; 0: no KV cache
  bool profile = false;       // keep the time of every node: see Plan::take_timings
};

class Plan {
 public:
  static Plan compile(const Model&, const Target&);
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;
  ~Plan();

  // Logits [outputs, vocab], valid until the next run. Allocates nothing but for unpacking the rows of a
  // quantized embedding, and in the first runs for moving weights from the mapped file to huge pages. Error
  // when the batch is beyond the target's limits.
  const Tensor& run(const Batch&);

  // For the report: node and kernel, in order; "emulated" marks a weight format without a kernel of its own
  // here.
  struct Choice {
    std::string node, kernel, packing;
    bool emulated = false;
    std::string param = {};  // the weight, where a node has several
  };
  std::span<const Choice> choices() const;
  // Seconds per node since the last call, where Target::profile is set.
  struct Timing {
    std::string node;
    double seconds = 0;
  };
  std::vector<Timing> take_timings();

  size_t weight_bytes() const;  // as packed
  size_t kv_bytes() const;
  size_t arena_bytes() const;
  const Graph& graph() const;  // after the rewrites
  int threads() const;

 private:
  Plan();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
