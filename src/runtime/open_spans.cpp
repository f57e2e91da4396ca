#include "runtime/open_spans.h"

#include <utility>

#include "core/error.h"
#include "kernels/attention.h"

namespace lathe {

// n rows lie in at most n / key_span + 2 spans, of which two are kept.
OpenSpans::OpenSpans(int64_t slots, int64_t most_rows) : slots_(static_cast<size_t>(slots)) {
  int32_t next = 0;
  for (Slot& slot : slots_)
    for (Page& page : slot.kept) page.page = next++;
  const auto passing = static_cast<size_t>(most_rows / key_span);
  for (size_t i = 0; i < passing; ++i) free_.push_back(next++);
  passing_.reserve(passing);
  table_.reserve(2 * slots_.size() + passing);
}

int64_t OpenSpans::pages() const {
  return static_cast<int64_t>(2 * slots_.size() + free_.size() + passing_.size());
}

void OpenSpans::begin() {
  ++run_;
  table_.clear();
  free_.insert(free_.end(), passing_.begin(), passing_.end());
  passing_.clear();
}

const int32_t* OpenSpans::place(int32_t slot, int64_t first, int64_t rows) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  if (std::exchange(s.run, run_) == run_) fail("batch: slot {} has two sequences", slot);
  const int64_t from = first / key_span, last = (first + rows - 1) / key_span;
  const int32_t* table = table_.data() + table_.size();
  for (int64_t span = from; span <= last; ++span) {
    Page& kept = s.kept[static_cast<size_t>(span % 2)];
    if (kept.span >= from && kept.span < span) {  // this run reads it
      passing_.push_back(std::exchange(kept.page, free_.back()));
      free_.pop_back();
    }
    kept.span = span;
    table_.push_back(kept.page);
  }
  return table;
}

std::array<OpenSpans::Copy, 2> OpenSpans::fork(int32_t from, int32_t to) {
  std::array<Copy, 2> copies{};
  for (size_t i = 0; i < copies.size(); ++i) {
    const Page& theirs = slots_[static_cast<size_t>(from)].kept[i];
    Page& own = slots_[static_cast<size_t>(to)].kept[i];
    own.span = theirs.span;
    copies[i] = {theirs.page, own.page};
  }
  return copies;
}

}  // namespace lathe
