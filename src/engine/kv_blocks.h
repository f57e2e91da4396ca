// Which blocks of a paged KV cache hold which tokens. Pure bookkeeping: a block is a number, its memory
// belongs to the plan.
//
// A full block gets a name that stands for all tokens up to its end, so that a later sequence with the same
// beginning shares it (the prefix cache). Shared blocks are counted; free ones keep what they hold until they
// are needed, the least recently used first. After vLLM's block pool, but for the names: they are interned,
// not hashed, so a hit is always the same tokens.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace lathe {

// The blocks of one sequence, by position, and how far they are named.
struct BlockTable {
  std::vector<int32_t> blocks;
  int64_t named = 0;  // leading blocks that have a name
  uint64_t name = 0;  // of the last of them; 0: none
};

// What keys and values depend on besides the tokens.
struct Origin {
  uint64_t space = 0;  // adapter, cache salt: sequences of different spaces never share
  // Tokens that prompts' kernels computed; decoding may round otherwise (docs/decisions/005). Large where
  // both give the same bits.
  int64_t prompt = INT64_MAX;
};

struct BlockCopy {
  int32_t from, to;
};

class KvBlocks {
 public:
  // Error unless both are positive. `salt` keeps the placing of names secret from those who choose the
  // tokens.
  KvBlocks(int64_t blocks, int64_t block_tokens, uint64_t salt = 0);

  int64_t block_tokens() const { return block_tokens_; }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t free_blocks() const { return free_; }
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }
  int64_t references(int32_t block) const { return blocks_[static_cast<size_t>(block)].references; }

  // Gives an empty table the cached blocks that hold the beginning of `tokens`; returns how many tokens that
  // is. At least the last token stays to be computed, since somebody wants its logits.
  int64_t attach(std::span<const int32_t> tokens, const Origin&, BlockTable&);

  // Room for positions [0, tokens), where those from `first` on will be written: a block that others share is
  // replaced by a copy, which the caller makes before it writes. False, and nothing has changed, when too few
  // are free.
  bool reserve(BlockTable&, int64_t first, int64_t tokens, std::vector<BlockCopy>& copies);

  // Names the blocks that [0, computed) has filled: from now on they can be shared.
  void publish(BlockTable&, std::span<const int32_t> tokens, int64_t computed, const Origin&);

  // A second sequence with the same past.
  void fork(const BlockTable&, BlockTable& to);
  void release(BlockTable&);

 private:
  struct Block {
    int64_t references = 0;
    uint64_t name = 0, parent = 0;  // parent: the name of the block before; 0: there is none
    uint64_t space = 0;
    int64_t prompt = 0;                // tokens of it that are a prompt's
    int32_t previous = -1, next = -1;  // in the list of free blocks
  };
  struct Content {
    uint64_t parent, space;
    int64_t prompt;
    std::span<const int32_t> tokens;
  };

  Content content(std::span<const int32_t> tokens, int64_t index, uint64_t parent, const Origin&) const;
  uint64_t hash(const Content&) const;
  int32_t find(const Content&) const;  // -1: nobody holds it
  std::span<int32_t> held(int32_t block);
  void take(int32_t block);  // one reference more
  int32_t take_free();       // the least recently used, forgotten
  void give(int32_t block);  // one reference less
  void unlink(int32_t block);

  int64_t block_tokens_, free_ = 0;
  uint64_t salt_, next_name_ = 1;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;                       // [blocks, block_tokens] of named blocks
  std::unordered_multimap<uint64_t, int32_t> named_;  // by hash of the content
  int32_t oldest_ = -1, newest_ = -1;                 // free blocks
};

}  // namespace lathe
