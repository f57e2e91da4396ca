#include "engine/knee.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

namespace lathe {
namespace {

constexpr int64_t fewest = 16;  // a tile's rows: fewer cost the same
constexpr int repeats = 3;

double fastest_step(Plan& plan, int64_t rows, bool prompt) {
  const std::vector<int32_t> tokens(static_cast<size_t>(rows), 0);
  std::vector<int32_t> positions(tokens.size()), blocks(static_cast<size_t>(plan.kv_blocks()));
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(blocks.begin(), blocks.end(), 0);
  const int32_t starts[] = {0, static_cast<int32_t>(rows)}, last[] = {static_cast<int32_t>(rows - 1)};
  const std::span<const int32_t> tables[] = {blocks};
  Batch batch{.tokens = tokens, .positions = positions, .starts = starts, .slots = {}, .outputs = last};
  batch.prompts = prompt;
  batch.tables = tables;
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    plan.run(batch);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

int64_t prompt_rows_of_a_decode_step(Plan& plan, int64_t most) {
  const int64_t cache = plan.kv_blocks() * plan.kv_block_tokens();
  const double decode = fastest_step(plan, 1, false);
  int64_t rows = std::min(fewest, most);
  while (2 * rows <= std::min(most, cache) && fastest_step(plan, 2 * rows, true) <= decode) rows *= 2;
  return rows;
}

}  // namespace lathe
