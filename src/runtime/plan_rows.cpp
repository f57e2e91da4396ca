// Chains of steps that each go row by row: norm and packing, silu * up and packing, rotation and cache.
#include <algorithm>

#include "runtime/plan_impl.h"

namespace lathe {

// Joins the chain that the last step is, where it is one: row r of a step needs no row of another but r, so
// no worker has to wait in between. Where every node is timed, each has its own step.
void Plan::Impl::add_row_step(RowStep step) {
  const auto space = [&](const RowStep& s) { return graph.value(s.of).rows; };
  const bool joins = !target.profile && !steps.empty() && !steps.back().chain.empty() &&
                     space(steps.back().chain[0]) == space(step);
  if (!joins) steps.push_back({building, nullptr});
  steps.back().chain.push_back(std::move(step));
}

void Plan::Impl::run_chain(std::vector<RowStep>& chain, const Batch& b) {
  int64_t elements = 0;  // of the largest step: a chain never makes a region where none of its steps would
  for (RowStep& step : chain) {
    step.rows = step.phase ? rows_of(step.of, *step.phase, b) : Range{0, rows(step.of, b)};
    elements = std::max(elements, (step.rows.end - step.rows.begin) * step.width);
  }
  const int64_t all = rows(chain[0].of, b);
  if (elements >= serial_elements && all >= team->size())
    return parallel([&](const Share& share) {
      const Range mine = part_of(all, share.worker, share.workers);
      for (int64_t row = mine.begin; row < mine.end; ++row)
        for (const RowStep& step : chain)
          if (row >= step.rows.begin && row < step.rows.end)
            step.run(b, step.rows,
                     {static_cast<int>(row - step.rows.begin),
                      static_cast<int>(step.rows.end - step.rows.begin), share.scratch});
    });
  for (const RowStep& step : chain) {  // by the calling thread alone, or rows too wide for one worker each
    const int64_t count = step.rows.end - step.rows.begin;
    if (count > 0)
      elementwise(count * step.width, [&](const Share& share) { step.run(b, step.rows, share); });
  }
}

}  // namespace lathe
