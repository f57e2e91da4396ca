#include <gtest/gtest.h>
#include <list>
#include <numeric>
#include <string>
#include <unordered_map>

#include "core/error.h"
#include "core/rng.h"
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

// What KvBlocks must do, told with whole prefixes in place of names and a list in place of links.
class Naive {
 public:
  Naive(int64_t blocks, int64_t block_tokens)
      : block_tokens_(block_tokens),
        references_(static_cast<size_t>(blocks), 0),
        keys_(static_cast<size_t>(blocks)) {
    for (int32_t b = 0; b < blocks; ++b) free_.push_back(b);
  }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  int64_t references(int32_t block) const { return references_[static_cast<size_t>(block)]; }

  // All that the keys and values of a block depend on.
  std::string key(std::span<const int32_t> tokens, const Origin& origin, int64_t index) const {
    std::string k = std::to_string(origin.space) + ":";
    for (int64_t i = 0; i < (index + 1) * block_tokens_; ++i) {
      k += static_cast<char>('a' + tokens[static_cast<size_t>(i)]);
      if (i < origin.prompt) k += '\'';
    }
    return k;
  }
  bool is_known(const std::string& key) const { return holders_.contains(key); }
  const std::string& key_of(int32_t block) const { return keys_[static_cast<size_t>(block)]; }
  void take(int32_t block) {
    if (references_[static_cast<size_t>(block)]++ == 0) free_.remove(block);
  }
  void give(int32_t block) {
    if (--references_[static_cast<size_t>(block)] == 0) free_.push_back(block);
  }
  int32_t take_oldest() {
    const int32_t block = free_.front();
    take(block);
    name(block, {});
    return block;
  }
  void name(int32_t block, const std::string& key) {
    std::string& own = keys_[static_cast<size_t>(block)];
    if (const auto it = holders_.find(own); it != holders_.end() && --it->second == 0) holders_.erase(it);
    own = key;
    if (!key.empty()) ++holders_[key];
  }

 private:
  int64_t block_tokens_;
  std::list<int32_t> free_;  // least recently used first
  std::vector<int64_t> references_;
  std::vector<std::string> keys_;  // by block; empty: nothing that can be shared
  std::unordered_map<std::string, int> holders_;
};

struct Life {
  std::vector<int32_t> tokens;
  Origin origin;
  BlockTable table;
  int64_t computed = 0;
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

class Lives {
 public:
  Lives(uint64_t seed, int64_t blocks, int64_t block_tokens)
      : random_(seed), real_(blocks, block_tokens, seed), naive_(blocks, block_tokens) {}

  void act() {
    const uint64_t kind = random_.below(10);
    if (all_.empty() || kind < 2) return begin();
    const auto at = static_cast<size_t>(random_.below(all_.size()));
    Life& l = all_[at];
    if (kind < 5) return compute(l);
    if (kind < 7) return write(at);
    if (kind == 7) return fork(l);
    if (kind == 8 || all_.size() > 12) end(at);
  }
  void check() const {
    ASSERT_EQ(real_.free_blocks(), naive_.free_blocks());
    for (const Life& l : all_)
      for (const int32_t b : l.table.blocks) ASSERT_EQ(real_.references(b), naive_.references(b));
  }
  int64_t operations = 0, hits = 0, evictions = 0, copies = 0, refusals = 0;

 private:
  void begin() {
    Life l;
    l.tokens.resize(1 + random_.below(20));
    for (int32_t& t : l.tokens) t = random_.below(8) == 0;
    l.origin.space = random_.below(8) == 0;
    if (random_.below(2)) l.origin.prompt = l.size();
    ++operations;
    const int64_t cached = real_.attach(l.tokens, l.origin, l.table), block = real_.block_tokens();
    ASSERT_EQ(cached, static_cast<int64_t>(l.table.blocks.size()) * block);
    for (size_t i = 0; i < l.table.blocks.size(); ++i) {
      ASSERT_EQ(naive_.key_of(l.table.blocks[i]), naive_.key(l.tokens, l.origin, static_cast<int64_t>(i)));
      naive_.take(l.table.blocks[i]);
    }
    const auto next = static_cast<int64_t>(l.table.blocks.size());
    if ((next + 1) * block < l.size()) {
      ASSERT_FALSE(naive_.is_known(naive_.key(l.tokens, l.origin, next))) << "more was known";
    }
    hits += cached > 0;
    l.computed = cached;
    all_.push_back(std::move(l));
    if (!reserve(all_.back())) end(all_.size() - 1);
  }
  // Room for all tokens, where what was not computed will be written.
  bool reserve(Life& l) {
    ++operations;
    const auto at = static_cast<size_t>(l.computed / real_.block_tokens());
    const bool shared = at < l.table.blocks.size() && naive_.references(l.table.blocks[at]) > 1;
    const int64_t missing = real_.blocks_for(l.size()) - static_cast<int64_t>(l.table.blocks.size());
    const bool fits = missing + shared <= naive_.free_blocks();
    std::vector<int32_t> expected = l.table.blocks;
    std::vector<BlockCopy> made;
    EXPECT_EQ(real_.reserve(l.table, l.computed, l.size(), made), fits);
    EXPECT_EQ(made.size(), fits && shared ? 1u : 0u);
    refusals += !fits;
    if (!fits) return false;
    if (shared) {
      const int32_t mine = naive_.take_oldest();
      EXPECT_EQ(made[0].from, expected[at]);
      EXPECT_EQ(made[0].to, mine);
      naive_.give(expected[at]);
      expected[at] = mine;
      ++copies;
    }
    for (int64_t i = 0; i < missing; ++i) {
      evictions += 1;
      expected.push_back(naive_.take_oldest());
    }
    EXPECT_EQ(l.table.blocks, expected) << "the least recently used go first";
    return true;
  }
  void compute(Life& l) {
    if (l.computed == l.size()) return;
    ++operations;
    l.computed += 1 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(l.size() - l.computed)));
    for (int64_t i = l.table.named; (i + 1) * real_.block_tokens() <= l.computed; ++i)
      if (const int32_t b = l.table.blocks[static_cast<size_t>(i)]; naive_.key_of(b).empty())
        naive_.name(b, naive_.key(l.tokens, l.origin, i));
    real_.publish(l.table, l.tokens, l.computed, l.origin);
    ASSERT_EQ(l.table.named, l.computed / real_.block_tokens());
  }
  void write(size_t at) {
    Life& l = all_[at];
    if (l.computed < l.size() || l.size() > 40) return;
    l.tokens.push_back(random_.below(8) == 0);
    if (!reserve(l)) end(at);
  }
  // As behind a prompt: all was computed.
  void fork(const Life& of) {
    if (of.computed < of.size()) return;
    ++operations;
    Life twin{of.tokens, of.origin, {}, of.computed};
    real_.fork(of.table, twin.table);
    for (const int32_t b : twin.table.blocks) naive_.take(b);
    all_.push_back(std::move(twin));
  }
  void end(size_t at) {
    ++operations;
    const std::vector<int32_t> blocks = all_[at].table.blocks;
    real_.release(all_[at].table);
    for (auto b = blocks.rbegin(); b != blocks.rend(); ++b) naive_.give(*b);
    all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  Rng random_;
  KvBlocks real_;
  Naive naive_;
  std::vector<Life> all_;
};

TEST(KvBlocks, FiveMillionRandomOperationsAgreeWithTheNaiveModel) {
  int64_t operations = 0, hits = 0, evictions = 0, copies = 0, refusals = 0;
  for (uint64_t seed = 0; operations < 5'000'000; ++seed) {
    Rng random(seed);
    const int64_t block = 1 + static_cast<int64_t>(random.below(5));
    Lives lives(seed, 3 + static_cast<int64_t>(random.below(40)), block);
    for (int i = 0; i < 20'000; ++i) {
      lives.act();
      if (i % 16 == 0) lives.check();
      if (HasFailure()) FAIL() << "seed " << seed << ", action " << i;
    }
    operations += lives.operations;
    hits += lives.hits;
    evictions += lives.evictions;
    copies += lives.copies;
    refusals += lives.refusals;
  }
  EXPECT_GT(hits, 100'000);
  EXPECT_GT(evictions, 100'000);
  EXPECT_GT(copies, 10'000);
  EXPECT_GT(refusals, 10'000);
}

TEST(KvBlocks, ExpectsBlocks) {
  EXPECT_THROW(KvBlocks(0, 4), Error);
  EXPECT_THROW(KvBlocks(4, 0), Error);
}

}  // namespace
}  // namespace lathe
