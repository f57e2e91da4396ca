// Random runs over random slots against what a sequence should find in its pages.
#include <gtest/gtest.h>
#include <map>
#include <set>

#include "core/error.h"
#include "core/rng.h"
#include "kernels/attention.h"
#include "runtime/open_spans.h"

namespace lathe {
namespace {

TEST(OpenSpans, PagesHoldWhatTheirSequencesWroteLast) {
  constexpr int64_t slots = 5, most_rows = 200;
  Rng rng(3);
  OpenSpans spans(slots, most_rows);
  EXPECT_EQ(spans.pages(), 2 * slots + most_rows / key_span);
  std::map<int32_t, std::map<int64_t, uint64_t>> memory;  // by page: what was written at a row of it
  std::map<int64_t, uint64_t> written[slots];             // by position
  int64_t computed[slots] = {}, furthest[slots] = {};
  uint64_t stamp = 0;
  for (int step = 0; step < 4000; ++step) {
    spans.begin();
    int64_t budget = most_rows;
    std::set<int32_t> of_run;
    for (int32_t slot = 0; slot < slots; ++slot) {
      int64_t& now = computed[slot];
      if (rng.below(4) == 0 || budget == 0) continue;
      const uint64_t luck = rng.below(40);
      if (luck == 0) {  // another sequence, which begins behind what a prefix cache has
        written[slot].clear();
        now = furthest[slot] = static_cast<int64_t>(rng.below(3)) * key_span;
      } else if (luck < 10) {  // drafts are taken back
        for (auto back = rng.below(key_span + 1);
             back > 0 && now > furthest[slot] - key_span && written[slot].contains(now - 1); --back)
          written[slot].erase(--now);
      }
      const int64_t most = luck < 30 ? std::min<int64_t>(budget, 3) : budget;
      const int64_t rows = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(most)));
      budget -= rows;
      const int32_t* pages = spans.place(slot, now, rows);
      const auto at = [&](int64_t position) -> uint64_t& {
        return memory[pages[(position - span_start(now)) / key_span]][position % key_span];
      };
      for (int64_t p = now; p < now + rows; ++p) at(p) = written[slot][p] = ++stamp;
      for (int64_t p = span_start(now); p < now + rows; ++p)
        if (written[slot].contains(p)) {
          ASSERT_EQ(at(p), written[slot][p]) << "step " << step << ", position " << p;
        }
      for (int64_t span = 0; span <= (now + rows - 1) / key_span - now / key_span; ++span) {
        ASSERT_TRUE(of_run.insert(pages[span]).second);
        ASSERT_LT(pages[span], spans.pages());
      }
      now += rows;
      furthest[slot] = std::max(furthest[slot], now);
    }
    if (rng.below(10) == 0) {
      const auto from = static_cast<int32_t>(rng.below(slots)), to = static_cast<int32_t>(rng.below(slots));
      if (from == to) continue;
      for (const OpenSpans::Copy& c : spans.fork(from, to)) memory[c.to] = memory[c.from];
      written[to] = written[from];
      computed[to] = computed[from];
      furthest[to] = furthest[from];
    }
  }
}

TEST(OpenSpans, ASlotHasOneSequenceOfARun) {
  OpenSpans spans(2, 64);
  spans.begin();
  spans.place(1, 0, 3);
  EXPECT_THROW(spans.place(1, 3, 3), Error);
  spans.begin();
  spans.place(1, 3, 3);
}

}  // namespace
}  // namespace lathe
