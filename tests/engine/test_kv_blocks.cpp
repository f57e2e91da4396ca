#include <gtest/gtest.h>
#include <numeric>

#include "core/error.h"
#include "engine/kv_blocks.h"

namespace lathe {
namespace {

std::vector<int32_t> counting(int64_t n, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A sequence that computed all of its tokens.
BlockTable computed(KvBlocks& blocks, const std::vector<int32_t>& tokens, const Origin& origin = {}) {
  BlockTable table;
  std::vector<BlockCopy> copies;
  const int64_t cached = blocks.attach(tokens, origin, table), all = static_cast<int64_t>(tokens.size());
  EXPECT_TRUE(blocks.reserve(table, cached, all, copies));
  EXPECT_TRUE(copies.empty());
  blocks.publish(table, tokens, all, origin);
  return table;
}

int64_t cached(KvBlocks& blocks, const std::vector<int32_t>& tokens, const Origin& origin = {}) {
  BlockTable table;
  const int64_t found = blocks.attach(tokens, origin, table);
  blocks.release(table);
  return found;
}

TEST(KvBlocks, WholeBlocksOfTheSameBeginningAreShared) {
  KvBlocks blocks(8, 4);
  const BlockTable a = computed(blocks, counting(10));
  EXPECT_EQ(blocks.free_blocks(), 5);
  const BlockTable b = computed(blocks, counting(11));
  EXPECT_EQ(b.blocks[0], a.blocks[0]);
  EXPECT_EQ(b.blocks[1], a.blocks[1]);
  EXPECT_NE(b.blocks[2], a.blocks[2]);
  EXPECT_EQ(blocks.references(a.blocks[0]), 2);
  EXPECT_EQ(blocks.free_blocks(), 4);
}

TEST(KvBlocks, TheLastTokenIsAlwaysComputed) {
  KvBlocks blocks(8, 4);
  computed(blocks, counting(8));
  EXPECT_EQ(cached(blocks, counting(8)), 4);
  EXPECT_EQ(cached(blocks, counting(9)), 8);
}

TEST(KvBlocks, FreedBlocksStayUntilTheyAreNeededOldestFirst) {
  KvBlocks blocks(4, 4);
  BlockTable a = computed(blocks, counting(8)), b = computed(blocks, counting(8, 100));
  blocks.release(a);
  blocks.release(b);
  EXPECT_EQ(blocks.free_blocks(), 4);
  EXPECT_EQ(cached(blocks, counting(9)), 8);         // used again: now the youngest
  BlockTable c = computed(blocks, counting(4, 50));  // evicts the end of b
  EXPECT_EQ(cached(blocks, counting(9, 100)), 4);
  EXPECT_EQ(cached(blocks, counting(9)), 8);
  blocks.release(c);
}

TEST(KvBlocks, AnotherSpaceOrAnotherBeginningSharesNothing) {
  KvBlocks blocks(8, 4);
  computed(blocks, counting(8));
  EXPECT_EQ(cached(blocks, counting(9), {.space = 1}), 0);
  std::vector<int32_t> other = counting(9);
  other[0] = 77;
  EXPECT_EQ(cached(blocks, other), 0);  // though its second block has the same tokens
}

TEST(KvBlocks, WhatDecodingComputedIsNotAPrompt) {
  KvBlocks blocks(8, 4);
  computed(blocks, counting(12), {.prompt = 6});
  EXPECT_EQ(cached(blocks, counting(13), {.prompt = 13}), 4);
  EXPECT_EQ(cached(blocks, counting(13), {.prompt = 6}), 12);
  EXPECT_EQ(cached(blocks, counting(13), {.prompt = 4}), 4);
}

TEST(KvBlocks, AForkCopiesTheBlockThatItWrites) {
  KvBlocks blocks(4, 4);
  BlockTable a = computed(blocks, counting(6)), b;
  blocks.fork(a, b);
  EXPECT_EQ(blocks.free_blocks(), 2);
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(blocks.reserve(b, 6, 7, copies));
  ASSERT_EQ(copies.size(), 1u);
  EXPECT_EQ(copies[0].from, a.blocks[1]);
  EXPECT_EQ(copies[0].to, b.blocks[1]);
  EXPECT_EQ(b.blocks[0], a.blocks[0]);
  copies.clear();
  ASSERT_TRUE(blocks.reserve(a, 6, 7, copies));  // now the only one to hold it
  EXPECT_TRUE(copies.empty());
}

TEST(KvBlocks, ARefusalChangesNothing) {
  KvBlocks blocks(2, 4);
  BlockTable a = computed(blocks, counting(4));
  std::vector<BlockCopy> copies;
  EXPECT_FALSE(blocks.reserve(a, 4, 13, copies));
  EXPECT_EQ(a.blocks.size(), 1u);
  EXPECT_EQ(blocks.free_blocks(), 1);
  EXPECT_TRUE(blocks.reserve(a, 4, 8, copies));
}

TEST(KvBlocks, ExpectsBlocks) {
  EXPECT_THROW(KvBlocks(0, 4), Error);
  EXPECT_THROW(KvBlocks(4, 0), Error);
}

}  // namespace
}  // namespace lathe
