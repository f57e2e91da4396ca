#include "engine/step_cost.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

namespace lathe {
namespace {

constexpr int64_t fewest_rows = 16, many_sequences = 16, long_past = 2048;
constexpr double longest_step = .25;  // seconds of a prompt's step that nobody should wait for
constexpr double as_good = 1.05;      // times the time per row

// Seconds of `sequences` of equal length, `past` tokens after their beginning; the best of some runs.
double fastest_step(Plan& plan, int64_t sequences, int64_t rows_each, bool prompt, int64_t past = 0) {
  const int64_t blocks_each = plan.kv_blocks() / sequences;
  std::vector<int32_t> tokens, positions, starts{0}, last, slots,
      blocks(static_cast<size_t>(plan.kv_blocks()));
  std::vector<std::span<const int32_t>> tables;
  std::iota(blocks.begin(), blocks.end(), 0);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t i = 0; i < rows_each; ++i) {
      tokens.push_back(0);
      positions.push_back(static_cast<int32_t>(past + i));
    }
    starts.push_back(static_cast<int32_t>(tokens.size()));
    last.push_back(starts.back() - 1);
    slots.push_back(static_cast<int32_t>(s));
    tables.push_back(std::span<const int32_t>(blocks).subspan(static_cast<size_t>(s * blocks_each),
                                                              static_cast<size_t>(blocks_each)));
  }
  Batch batch{.tokens = tokens, .positions = positions, .starts = starts, .slots = slots, .outputs = last};
  batch.prompts = prompt ? sequences : 0;
  batch.tables = tables;
  // The first touches memory: a cache of huge pages takes most of a second for it.
  double best = 1e30, total = 0;
  for (int i = 0; i < 2 || (i < 4 && total < longest_step); ++i) {
    const auto start = std::chrono::steady_clock::now();
    plan.run(batch);
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, took);
    total += took;
    if (took > 4 * longest_step && prompt) break;
  }
  return best;
}

}  // namespace

MeasuredSteps measure_steps(Plan& plan, int64_t most_rows, int64_t most_sequences) {
  MeasuredSteps m;
  const int64_t many = std::min({many_sequences, most_sequences, most_rows, plan.kv_blocks()});
  const double one = fastest_step(plan, 1, 1, false), all = fastest_step(plan, many, 1, false);
  m.cost.stream = many > 1 ? std::max(0., (all - one) / static_cast<double>(many - 1)) : 0;
  m.cost.decode = std::max(0., one - m.cost.stream);

  // The largest of the fastest per row: beside decoding, larger steps are fewer.
  const int64_t capacity = plan.kv_blocks() * plan.kv_block_tokens(), most = std::min(most_rows, capacity);
  const int64_t few = std::min(fewest_rows, most);
  const double of_few = fastest_step(plan, 1, few, true);
  int64_t rows = few;
  double time = of_few, best = of_few / static_cast<double>(few);  // seconds, and per row
  for (int64_t n = 2 * few; n <= most; n *= 2) {
    const double took = fastest_step(plan, 1, n, true), each = took / static_cast<double>(n);
    if (took > longest_step) break;
    if (each > best * as_good) continue;
    rows = n;
    time = took;
    best = std::min(best, each);
  }
  m.prompt_rows = rows;
  if (const int64_t past = std::min(long_past, capacity - few); past > 0)
    m.cost.key =
        std::max(0., fastest_step(plan, 1, few, true, past) - of_few) / static_cast<double>(few * past);
  m.cost.row = rows > few ? std::max(0., (time - of_few) / static_cast<double>(rows - few))
                          : time / static_cast<double>(rows);
  m.cost.prompt = std::max(0., time - m.cost.row * static_cast<double>(rows));
  return m;
}

}  // namespace lathe
