// One step's worth of sequences, flattened: no padding, no batch axis.
//
// What an engine sits on. Keys and values live in the plan, in `Target::kv_blocks` blocks of `block_tokens`
// tokens; a block holds those tokens of every layer. Who owns which block is the caller's bookkeeping: a
// batch brings, per sequence, the table of the blocks that hold its positions in order, and the run writes
// the keys and values of the batch's rows at their positions before any row attends. Several tables may name
// the same block, as long as no two sequences of a batch write to it. A row's bits depend neither on the rest
// of the batch, nor on where blocks lie or how large they are, nor on the number of workers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe {

struct Batch {
  std::span<const int32_t> tokens, positions;  // [T]
  std::span<const int32_t> starts;             // [S + 1]: rows of sequence s are starts[s] .. starts[s + 1]
  // [S]: the slot of each sequence. In a plan that is not paged, its one KV block. In one that is, read only
  // where keys are rounded in spans (KvType::int4_channel): its place for those that are not yet, which holds
  // what the sequence's last run left there, or another that it was forked from (Plan::copy_slot), or, where
  // the run begins with a span, anything. The last key_span positions that a sequence ever reached may be
  // written again.
  // With neither slots nor tables sequences attend within the batch.
  std::span<const int32_t> slots;
  std::span<const int32_t> outputs;  // rows that reach the head, ascending
  // The first so many sequences are prompts, or parts of them: their rows take the kernels for many rows,
  // whatever their number, so that cutting a prompt into chunks changes no bit. All others decode: any number
  // of rows each (the verification of drafts), with the bits of one row at a time.
  int64_t prompts = 0;
  // [S]: the block table of each sequence: position p is token p % block_tokens of tables[s][p /
  // block_tokens]. At least as long as its last position needs.
  std::span<const std::span<const int32_t>> tables = {};
  // [S]: the adapter of each sequence, from 1; 0: none. Empty: none has one.
  std::span<const int32_t> adapters = {};

  bool cached() const { return !slots.empty() || !tables.empty(); }
  std::span<const int32_t> table(size_t sequence) const {
    return tables.empty() ? slots.subspan(sequence, 1) : tables[sequence];
  }
  // Of a sequence that attends within the batch: one, its first row (attention_args.h).
  const int32_t* blocks(size_t sequence) const {
    return cached() ? table(sequence).data() : starts.data() + sequence;
  }
  int32_t adapter(size_t sequence) const { return adapters.empty() ? 0 : adapters[sequence]; }
};

// f(first row, last row, sequence) for every sequence that has rows: all its tokens, or those that reach the
// head.
template <class F>
void each_sequence(const Batch& b, bool outputs, F f) {
  int64_t row = 0;
  for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
    int64_t end = b.starts[s + 1];
    if (outputs)
      for (end = row; end < static_cast<int64_t>(b.outputs.size()) &&
                      b.outputs[static_cast<size_t>(end)] < b.starts[s + 1];)
        ++end;
    if (row < end) f(row, end, s);
    row = end;
  }
}

// More outputs than this in a step of prompts only score a text: the head takes the kernels for many rows
// too.
inline constexpr int64_t most_sampled_outputs = 64;

enum class Phase : uint8_t { prefill, decode };

// One sequence: positions first .. first + tokens, the last `outputs` rows to the head. Holds the spans'
// storage.
class SingleSequence {
 public:
  SingleSequence(std::span<const int32_t> tokens, int32_t first, int64_t outputs, bool cached,
                 Phase phase = Phase::prefill);
  operator Batch() const;

 private:
  std::span<const int32_t> tokens_;
  std::vector<int32_t> positions_, outputs_;
  int32_t starts_[2], slot_ = 0;
  bool cached_;
  Phase phase_;
};

// The KV cache that a batch runs on.
struct KvBounds {
  int64_t blocks = 0, block_tokens = 0;
  int64_t open_slots = 0;  // that sequences must be in, besides their blocks; 0: none
};

// Error when spans disagree: ragged starts, positions that do not count up, outputs out of range or order,
// blocks that do not exist or tables that end before the last position.
void check(const Batch&, int64_t vocab, const KvBounds& = {});

}  // namespace lathe
