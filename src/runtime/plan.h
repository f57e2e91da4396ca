// A graph made flat: rewritten, kernels chosen, weights repacked, buffers placed in one arena.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/cpu.h"
#include "core/tensor.h"
#include "kernels/attention.h"
#include "models/model.h"
#include "runtime/batch.h"
#include "runtime/packed_cache.h"

namespace lathe {

// Prompts are cut into chunks of so many tokens, unless a tuning says otherwise.
inline constexpr int64_t default_chunk = 512;

// What tune() found to be fastest: runtime/tune.h.
struct Tuning {
  struct Row {
    std::string kernel;
    double times_faster = 1;  // than the first row that accepts, when it was measured
  };
  int threads = 0, prefill_threads = 0;
  int64_t chunk = default_chunk;
  // By format and shape of a matrix and phase, where it is not the first row that accepts.
  std::map<std::pair<std::string, Phase>, Row> rows;
  static std::string kind_of(const Weight&);
};

struct Target {
  int threads = 0;          // 0: the tuning's, or physical cores
  int prefill_threads = 0;  // of steps with prompts; 0: the tuning's, or as many as `threads`
  uint32_t isa = allowed_features();
  int64_t max_tokens = 512;   // rows in one run; longer prompts go in chunks
  int64_t max_outputs = 512;  // rows that reach the head in one run
  // KV cache: `slots` sequences of up to `context` tokens (0: no cache) ...
  int64_t slots = 1, context = 0;
  // ... or, where block_tokens is not 0, paged: sequences of any length over so many blocks (Batch::tables).
  // InputError where keys are rounded in spans and a block is not some of them.
  int64_t kv_blocks = 0, block_tokens = 0;
  // How keys and values are held, in a cache or within the batch; none: as the model says (kv_type_of), f32
  // where it says nothing. f32 and the tiles' own rounding apart, the others change the numbers:
  // docs/measurements.md.
  std::optional<KvType> kv = {};
  // Start on weights as they lie in a mapped file, where a kernel gives the same bits so, and repack some of
  // them before each later run: a large model answers at once, and is at full speed some dozens of runs on.
  bool ready_at_once = false;
  bool profile = false;  // keep the time of every node: see Plan::take_timings
  // The folder of packed weights to map instead of repacking, see Plan::keep_packed. With ready_at_once they
  // are used where they lie, else copied.
  PackedCache packed_cache = {};
  std::optional<Tuning> tuning = {};
};

class Plan {
 public:
  static Plan compile(const Model&, const Target&);
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;
  ~Plan();

  // Logits [outputs, vocab], valid until the next run. Allocates nothing, but for weights that settle
  // (Target::ready_at_once). Error when the batch is beyond the target's limits.
  const Tensor& run(const Batch&);

  // For the report: node and kernel, in order; "emulated" marks a weight format without a kernel of its own
  // here, and rows that are rounded to small floats and multiplied as f32.
  struct Choice {
    // A better row of the kernel's table, and why it does not run: the CPU (or LATHE_ISA) lacks what it
    // needs, or, where not `reads`, it is for another format.
    struct Passed {
      std::string kernel, reason;
      bool reads = true;
    };
    std::string node, kernel, packing;  // the kernel is a row of its table
    bool emulated = false;
    std::string param = {};    // the weight of a linear layer; a node may have several
    std::string columns = {};  // what is done to those of x first: "reordered", "scaled"; empty: nothing
    std::string prompts = {}, decode = {};           // whose code runs in each phase, by name of the row
    std::string prompt_rows = {}, decode_rows = {};  // how that wants x packed; empty: as it is
    std::vector<Passed> passed_over = {};            // best first
    std::string tuned = {};  // where not the first row that accepts runs: the phase, and how much faster
  };
  std::span<const Choice> choices() const;
  // Seconds per node since the last call, where Target::profile is set.
  struct Timing {
    std::string node;
    double seconds = 0;
  };
  std::vector<Timing> take_timings();

  // Parallel regions of the last run, each a barrier for all workers: a decode step of one sequence has five
  // per layer (q k v, attention, o, gate and up, down) and one for the head; where rows are worth sharing
  // out, nine, or ten with packed rows (docs/decisions/025-rows-in-chains.md).
  int64_t regions_per_step() const;

  size_t weight_bytes() const;  // as packed
  size_t kv_bytes() const;
  int64_t kv_blocks() const;                  // slots, where the cache is not paged
  int64_t kv_block_tokens() const;            // 0: no cache
  void copy_block(int32_t from, int32_t to);  // keys and values of all layers: copy on write
  void copy_slot(int32_t from, int32_t to);   // Batch::slots of a paged plan: `to` becomes a fork of `from`
  size_t arena_bytes() const;
  const Graph& graph() const;  // after the rewrites
  int threads() const;
  int prefill_threads() const;

  // Writes what was repacked to Target::packed_cache, for the next start. Does nothing where that is little,
  // came from there, or has not settled yet: a few tokens are not worth a copy of the model.
  void keep_packed();
  bool mapped_packed() const;  // it came from there

  struct Impl;  // runtime/plan_impl.h

 private:
  friend Tuning tune(const Model&, const Target&);
  Plan();
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
