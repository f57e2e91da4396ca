// Decides which rows the next step computes. Pure bookkeeping: tested without a model.
//
// There are no prefill and decode phases of the engine: each sequence has `computed` tokens chasing its
// `tokens`, and a step takes one row of each that decodes, then parts of prompts up to a budget (continuous
// batching with chunked prefill, after vLLM's scheduler). When blocks run out, the least important sequence
// gives all of its up and is computed again later; what it generated, it keeps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_blocks.h"

namespace lathe {

struct Sequence {
  uint64_t id = 0;
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  int64_t prompt = 0;           // of them given
  int64_t computed = 0;         // of them with keys and values in `table`
  int64_t cached = 0;           // of the prompt that had been computed when it was last admitted
  // Of the prompt, each token once however often the sequence was preempted: those with keys and values at
  // some time, and of them those that another sequence had computed.
  int64_t reached = 0, hits = 0;
  int priority = 0;     // lower is more important; equals: first come, first served
  int64_t width = 1;    // sequences it will be forked into
  bool scores = false;  // every row of its prompt wants logits: none is taken from another sequence
  Origin origin;
  BlockTable table;
  int32_t slot = -1;  // while it runs: no other has it, and it is below the most that ever ran at once

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  bool decodes() const { return computed >= prompt; }
};

// Seconds of a step: decode + stream * sequences for what decodes, prompt + (row + key * past) * rows for
// prompts beside it, `past` tokens after a prompt's beginning.
struct StepCost {
  double decode = 0, stream = 0;
  double prompt = 0, row = 0, key = 0;
};

struct StepLimits {
  int64_t tokens = 512;       // rows of a step
  int64_t prompt_rows = 512;  // of them prompts'
  // ... while some sequence decodes: what delays its next token. 0: as many as the cost allows, see
  // prompt_weight.
  int64_t mixed_prompt = 64;
  StepCost cost = {};
  // Prompts beside decoding take as long as the decoding itself times this and the number of prompts, over
  // that of sequences which decode; and at least as long. So a prompt that meets eight streams doubles the
  // time between their tokens, and eight prompts that meet one stream are soon streams themselves. A
  // prompt that fits a step is cut in two at most: two long gaps in a stream rather than many that are less
  // so.
  double prompt_weight = 8;
  int64_t sequences = 64;       // running at once
  int64_t outputs = 64;         // rows of a step that want logits; at least `sequences`
  int64_t recompute_rows = 64;  // of generated tokens that one step computes again for one sequence
};

// Rows [first, first + count) of one sequence, all of its prompt or all generated.
struct Work {
  Sequence* sequence;
  int64_t first, count;
  bool samples;     // the last row is the last token: its logits choose the next
  int64_t outputs;  // so many of the last rows want logits
};

struct Step {
  std::vector<Work> prompts, decodes;
  std::vector<BlockCopy> copies;     // to make before the step
  std::vector<Sequence*> preempted;  // for reports
  // Tokens of prompts that the prefix cache gave to those admitted, and that are computed; none of them
  // twice.
  int64_t cached = 0, computed = 0;
  bool empty() const { return prompts.empty() && decodes.empty(); }
};

class Scheduler {
 public:
  // Error when a sequence that may run alone would not fit: `longest` tokens need blocks_for(longest) blocks.
  Scheduler(KvBlocks&, const StepLimits&, int64_t longest);

  // The caller owns sequences and keeps them until remove(). Error when one is longer than `longest`.
  void add(Sequence&);
  // A sequence whose past is that of `of`, running at once.
  void add_fork(const Sequence& of, Sequence&);
  void remove(Sequence&);  // finished or cancelled: its blocks are free

  // The next step; empty when nothing can run. Valid until the next call.
  const Step& next();
  // The step was computed: counts its rows and publishes the blocks they filled. Then the caller appends the
  // tokens it sampled.
  void done();

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

 private:
  void insert(std::vector<Sequence*>&, Sequence&);
  void run(Sequence&);
  void stop(Sequence&);
  void preempt(Sequence&);
  bool grow(Sequence&, int64_t tokens);
  int64_t rows_beside_decoding() const;
  void take_decodes(int64_t& budget);
  void take_prompts(int64_t& budget);
  void admit();

  KvBlocks& blocks_;
  StepLimits limits_;
  int64_t longest_;
  std::vector<Sequence*> running_, waiting_;  // most important first
  std::vector<int32_t> free_slots_;
  int32_t slots_ = 0;
  Step step_;
};

}  // namespace lathe
