#include "runtime/batch.h"

#include <numeric>

#include "core/error.h"

namespace lathe {

SingleSequence::SingleSequence(std::span<const int32_t> tokens, int32_t first, int64_t outputs, bool cached,
                               Phase phase)
    : tokens_(tokens),
      positions_(tokens.size()),
      outputs_(static_cast<size_t>(outputs)),
      cached_(cached),
      phase_(phase) {
  const auto n = static_cast<int32_t>(tokens.size());
  std::iota(positions_.begin(), positions_.end(), first);
  std::iota(outputs_.begin(), outputs_.end(), n - static_cast<int32_t>(outputs));
  starts_[0] = 0;
  starts_[1] = n;
}

SingleSequence::operator Batch() const {
  Batch b{.tokens = tokens_,
          .positions = positions_,
          .starts = starts_,
          .slots = {},
          .outputs = outputs_,
          .prompts = phase_ == Phase::prefill ? 1 : 0};
  if (cached_) b.slots = {&slot_, 1};
  return b;
}

void check(const Batch& b, int64_t vocab, const KvBounds& kv) {
  const auto rows = static_cast<int32_t>(b.tokens.size());
  if (b.positions.size() != b.tokens.size())
    fail("batch: {} positions for {} tokens", b.positions.size(), rows);
  if (b.starts.size() < 2 || b.starts.front() != 0 || b.starts.back() != rows)
    fail("batch: starts do not span {} rows", rows);
  if (!b.slots.empty() && b.slots.size() + 1 != b.starts.size())
    fail("batch: {} slots for {} sequences", b.slots.size(), b.starts.size() - 1);
  if (!b.tables.empty() && b.tables.size() + 1 != b.starts.size())
    fail("batch: {} block tables for {} sequences", b.tables.size(), b.starts.size() - 1);
  if (!b.adapters.empty() && b.adapters.size() + 1 != b.starts.size())
    fail("batch: {} adapters for {} sequences", b.adapters.size(), b.starts.size() - 1);
  for (int32_t token : b.tokens)
    if (token < 0 || token >= vocab)
      throw input_error("batch", fmt::format("token ids below {}", vocab), fmt::format("{}", token),
                        "is this the model's tokenizer?");
  for (size_t s = 0; s + 1 < b.starts.size(); ++s) {
    if (b.starts[s] >= b.starts[s + 1]) fail("batch: sequence {} has no rows", s);
    if (b.starts[s + 1] > rows) fail("batch: sequence {} ends at row {} of {}", s, b.starts[s + 1], rows);
    const int32_t first = b.positions[static_cast<size_t>(b.starts[s])];
    if (first < 0 || (!b.cached() && first != 0)) fail("batch: sequence {} starts at position {}", s, first);
    for (int32_t r = b.starts[s]; r < b.starts[s + 1]; ++r)
      if (b.positions[static_cast<size_t>(r)] != first + r - b.starts[s])
        fail("batch: positions of sequence {} do not count up", s);
  }
  for (size_t s = 0; b.cached() && s + 1 < b.starts.size(); ++s) {
    const auto last = static_cast<int64_t>(b.positions[static_cast<size_t>(b.starts[s + 1]) - 1]);
    const std::span<const int32_t> table = b.table(s);
    if (last >= static_cast<int64_t>(table.size()) * kv.block_tokens)
      fail("batch: position {} of sequence {} in {} KV blocks of {} tokens", last, s, table.size(),
           kv.block_tokens);
    for (int32_t block : table)
      if (block < 0 || block >= kv.blocks)
        fail("batch: KV block {} of sequence {}, compiled for {}", block, s, kv.blocks);
  }
  if (b.cached() && kv.open_slots > 0) {
    if (b.slots.empty()) fail("batch: no slots, which keys in spans need");
    for (const int32_t slot : b.slots)
      if (slot < 0 || slot >= kv.open_slots) fail("batch: slot {}, compiled for {}", slot, kv.open_slots);
  }
  if (b.prompts < 0 || b.prompts >= static_cast<int64_t>(b.starts.size()))
    fail("batch: {} prompts among {} sequences", b.prompts, b.starts.size() - 1);
  int32_t previous = -1;
  for (int32_t row : b.outputs) {
    if (row <= previous || row >= rows) fail("batch: output row {} out of range or order", row);
    previous = row;
  }
}

}  // namespace lathe
