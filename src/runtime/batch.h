// One step's worth of sequences, flattened: no padding, no batch axis.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe {

struct Batch {
  std::span<const int32_t> tokens, positions;  // [T]
  std::span<const int32_t> starts;             // [S + 1]: rows of sequence s are starts[s] .. starts[s + 1]
  std::span<const int32_t> slots;    // [S]: the KV slot of each sequence; empty: attend within the batch
  std::span<const int32_t> outputs;  // rows that reach the head, ascending
  // The first so many sequences are prompts, or parts of them: their rows take the kernels for many rows,
  // whatever their number, so that cutting a prompt into chunks changes no bit. All others decode.
  int64_t prompts = 0;
};

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

// Error when spans disagree: ragged starts, positions that do not count up, outputs out of range or order.
void check(const Batch&, int64_t vocab);

}  // namespace lathe
