// Keys that are rounded by channel, 32 positions at a time (KvType::int4_channel): a row's bits depend on its
// position and the tokens before it, however the cache came to hold them.
#include <gmock/gmock.h>

#include "core/error.h"
#include "core/rng.h"
#include "runtime/models.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

constexpr KvType kv = KvType::int4_channel;
constexpr int32_t length = 140;  // over four spans, and three tiles of 64 keys

const Model& model() {
  static const Model m = load(Checkpoint::open(golden("qwen3")));  // heads of 32, two queries to a key
  return m;
}

// Rows of a run that reach the head. Prompts that want more score a text, and their head takes the kernels
// for many rows, which may be others (decision 005).
int64_t outputs_of(int32_t count, Phase phase) {
  return phase == Phase::prefill ? std::min<int64_t>(count, most_sampled_outputs) : count;
}

// Positions [first, first + count) of a text in a slot or in pages: the logits of the last outputs_of.
struct Cache {
  Plan plan;
  std::vector<int32_t> table = {};  // empty: slots
  std::vector<float> run(std::span<const int32_t> tokens, int32_t first, int32_t count, Phase phase,
                         int32_t slot = 0) {
    const SingleSequence sequence(tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                                  first, outputs_of(count, phase), true, phase);
    Batch batch = sequence;
    const std::span<const int32_t> tables[] = {table};
    batch.slots = {&slot, 1};
    if (!table.empty()) batch.tables = tables;
    return rows_of(plan.run(batch));
  }
};
Cache slots(const IsaLevel& level) {
  return {Plan::compile(model(), {.threads = 2,
                                  .isa = level.features,
                                  .max_tokens = length,
                                  .max_outputs = length,
                                  .slots = 2,
                                  .context = length + 3,
                                  .kv = kv})};
}
Cache pages(const IsaLevel& level, int64_t block_tokens) {
  const auto blocks = static_cast<int32_t>(length / block_tokens + 1);
  Cache c{Plan::compile(model(), {.threads = 2,
                                  .isa = level.features,
                                  .max_tokens = length,
                                  .max_outputs = length,
                                  .slots = 3,
                                  .kv_blocks = 2 * blocks,
                                  .block_tokens = block_tokens,
                                  .kv = kv})};
  for (int32_t b = 0; b < blocks; ++b) c.table.push_back(2 * blocks - 1 - 2 * b);
  return c;
}

std::vector<float> last(const std::vector<float>& rows, size_t numbers) {
  return {rows.end() - static_cast<long>(std::min(numbers, rows.size())), rows.end()};
}
void append(std::vector<float>& to, const std::vector<float>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

TEST(KeySpans, BitsDependNeitherOnTheCacheNorOnTheCut) {
  const std::vector<int32_t> tokens = random_tokens(length, 1);
  for (const IsaLevel& level : isa_levels())
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      SCOPED_TRACE(level.name);
      Cache in_slot = slots(level), in_pages = pages(level, 64);
      const std::vector<float> expected =
          rows_of(in_slot.plan.run(SingleSequence(tokens, 0, outputs_of(length, phase), false, phase)));
      EXPECT_EQ(in_slot.run(tokens, 0, length, phase), expected);
      EXPECT_EQ(in_pages.run(tokens, 0, length, phase, 2), expected);
      for (const std::vector<int32_t>& cuts :
           {std::vector<int32_t>{31, 1, 1, 63, 40, 4}, {32, 96, 12}, {5, 130, 5}}) {
        std::vector<float> in_parts[2];
        int32_t at = 0;
        for (const int32_t count : cuts) {
          append(in_parts[0], in_slot.run(tokens, at, count, phase, 1));
          append(in_parts[1], in_pages.run(tokens, at, count, phase));
          at += count;
        }
        EXPECT_EQ(last(in_parts[0], expected.size()), expected);
        EXPECT_EQ(last(in_parts[1], expected.size()), expected);
      }
      std::vector<float> single;
      for (int32_t at = 0; at < length; ++at) append(single, in_pages.run(tokens, at, 1, phase));
      EXPECT_EQ(last(single, expected.size()), expected);
    }
}

// Drafts may fill a span and begin the next before they are taken back.
TEST(KeySpans, DraftsAreTakenBack) {
  const std::vector<int32_t> tokens = random_tokens(length, 1);
  std::vector<int32_t> wrong = random_tokens(length, 2);
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Cache cache = pages(level, 32);
    const std::vector<float> expected = cache.run(tokens, 0, length, Phase::decode);
    std::vector<float> got = cache.run(tokens, 0, 25, Phase::decode);
    for (int32_t at = 25; at < length; ++at) {
      cache.run(wrong, at, std::min(32, length - at), Phase::decode);
      append(got, cache.run(tokens, at, 1, Phase::decode));
    }
    EXPECT_EQ(got, expected);
  }
}

// A fork shares the blocks that are full, has a copy of the one that is not, and its own open keys.
TEST(KeySpans, ForksGoOnAsTheOneTheyCameFrom) {
  const std::vector<int32_t> tokens = random_tokens(length, 1);
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Cache cache = pages(level, 64);
    const std::vector<float> all = cache.run(tokens, 0, length, Phase::decode);
    const std::vector<float> expected(all.begin() + 110 * static_cast<long>(all.size()) / length, all.end());
    cache.run(tokens, 0, 110, Phase::decode);
    Cache fork = std::move(cache);
    const std::vector<int32_t> own = fork.table;
    fork.plan.copy_block(own[1], 0);
    fork.plan.copy_slot(0, 2);
    fork.run(random_tokens(length, 3), 110, 30, Phase::decode);  // the first goes its own way
    fork.table = {own[0], 0, own[2]};
    EXPECT_EQ(fork.run(tokens, 110, 30, Phase::decode, 2), expected);
  }
}

TEST(KeySpans, ABatchOfPromptsAndDecodingHasTheBitsOfEachAlone) {
  const std::vector<int32_t> a = random_tokens(length, 1), b = random_tokens(length, 2);
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Cache cache = slots(level);
    cache.run(a, 0, 20, Phase::prefill, 0);
    const std::vector<float> of_a = cache.run(a, 20, 60, Phase::prefill, 0);
    cache.run(b, 0, 63, Phase::prefill, 1);
    const std::vector<float> of_b = cache.run(b, 63, 2, Phase::decode, 1);
    std::vector<int32_t> tokens(a.begin() + 20, a.begin() + 80), positions, outputs, starts{0, 60, 62},
        where{0, 1};
    tokens.insert(tokens.end(), {b[63], b[64]});
    for (int32_t p = 20; p < 80; ++p) positions.push_back(p);
    positions.insert(positions.end(), {63, 64});
    for (int32_t r = 0; r < 62; ++r) outputs.push_back(r);
    cache.run(a, 0, 20, Phase::prefill, 0);
    cache.run(b, 0, 63, Phase::prefill, 1);
    const std::vector<float> together = rows_of(cache.plan.run({.tokens = tokens,
                                                                .positions = positions,
                                                                .starts = starts,
                                                                .slots = where,
                                                                .outputs = outputs,
                                                                .prompts = 1}));
    std::vector<float> expected = of_a;
    append(expected, of_b);
    EXPECT_EQ(together, expected);
  }
}

TEST(KeySpans, TakesAsManyBytesAsInt4AndTheOpenRows) {
  const auto bytes = [&](KvType type, int64_t slots) {
    return Plan::compile(model(), {.threads = 1,
                                   .max_tokens = 64,
                                   .max_outputs = 1,
                                   .slots = slots,
                                   .kv_blocks = 4,
                                   .block_tokens = 32,
                                   .kv = type})
        .kv_bytes();
  };
  // Two pages per slot and one per 32 rows of a run: keys in bf16, half of what 32 tokens of a bf16 cache
  // are.
  const size_t page = bytes(KvType::bf16, 1) / 4 / 2;
  EXPECT_EQ(bytes(kv, 1), bytes(KvType::int4, 1) + (2 + 2) * page);
  EXPECT_EQ(bytes(kv, 5), bytes(KvType::int4, 1) + (10 + 2) * page);
}

TEST(KeySpans, WhatCannotBeIsRefused) {
  Target target{
      .threads = 1, .max_tokens = 8, .max_outputs = 1, .kv_blocks = 4, .block_tokens = 48, .kv = kv};
  EXPECT_THROW(Plan::compile(model(), target), InputError);  // a block ends inside a span
  target.block_tokens = 64;
  Plan plan = Plan::compile(model(), target);
  const std::vector<int32_t> tokens = random_tokens(length, 1), table{0, 1};
  const SingleSequence sequence({tokens.data(), 3}, 0, 1, false);
  Batch batch = sequence;
  const std::span<const int32_t> tables[] = {table};
  batch.tables = tables;
  EXPECT_THROW(plan.run(batch), Error);  // no slots
  const int32_t slot = 1;
  batch.slots = {&slot, 1};
  EXPECT_THROW(plan.run(batch), Error);  // there is one
  EXPECT_THROW(plan.copy_slot(0, 1), Error);
}

}  // namespace
}  // namespace lathe
