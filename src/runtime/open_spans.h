// Which pages hold the open keys of which sequence: those of its last spans, in bf16 (KvType::int4_channel).
// Pure bookkeeping: a page is a number; its memory, key_span rows in every layer, belongs to the plan.
//
// A query reads its own span as it was written, so a run has a page for each span that its rows lie in.
// Behind the run a sequence keeps those of its last two spans: the open one, and the one before, so that the
// last key_span tokens that it ever had can be taken back and written again (drafts).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace lathe {

class OpenSpans {
 public:
  OpenSpans() = default;
  // For sequences in `slots` slots, and runs of at most so many rows.
  OpenSpans(int64_t slots, int64_t most_rows);

  int64_t pages() const;

  void begin();  // a run
  // The pages of the spans from position `first` to first + rows - 1, in order; valid until begin(). Error
  // when the run has a sequence in this slot already.
  const int32_t* place(int32_t slot, int64_t first, int64_t rows);

  struct Copy {
    int32_t from, to;
  };
  // The sequence in slot `from` goes on in slot `to` as well: pages to copy.
  std::array<Copy, 2> fork(int32_t from, int32_t to);

 private:
  struct Page {
    int64_t span = -1;
    int32_t page = -1;
  };
  struct Slot {
    std::array<Page, 2> kept;  // of even spans, of odd ones
    uint64_t run = 0;          // the last with a sequence in this slot
  };

  uint64_t run_ = 0;
  std::vector<Slot> slots_;
  std::vector<int32_t> free_, passing_;  // passing: of this run's spans that are not kept
  std::vector<int32_t> table_;           // of all sequences of this run
};

}  // namespace lathe
