#include "engine/kv_blocks.h"

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"

namespace lathe {

KvBlocks::KvBlocks(int64_t blocks, int64_t block_tokens, uint64_t salt)
    : block_tokens_(block_tokens), salt_(salt) {
  if (blocks < 1 || block_tokens < 1 || blocks > INT32_MAX)
    throw Error(fmt::format("KvBlocks: expected positive numbers, found {} blocks of {} tokens", blocks,
                            block_tokens));
  blocks_.resize(static_cast<size_t>(blocks));
  tokens_.resize(static_cast<size_t>(blocks * block_tokens));
  for (int32_t b = 0; b < blocks; ++b) {
    blocks_[static_cast<size_t>(b)].references = 1;
    give(b);
  }
}

KvBlocks::Content KvBlocks::content(std::span<const int32_t> tokens, int64_t index, uint64_t parent,
                                    const Origin& origin) const {
  const int64_t first = index * block_tokens_;
  return {parent, origin.space, std::clamp<int64_t>(origin.prompt - first, 0, block_tokens_),
          tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(block_tokens_))};
}

uint64_t KvBlocks::hash(const Content& c) const {
  uint64_t h = salt_;
  const auto mix = [&](uint64_t value) { h = Rng(h ^ value).next(); };
  mix(c.parent);
  mix(c.space);
  mix(static_cast<uint64_t>(c.prompt));
  for (const int32_t token : c.tokens) mix(static_cast<uint64_t>(token));
  return h;
}

std::span<int32_t> KvBlocks::held(int32_t block) {
  return {tokens_.data() + block * block_tokens_, static_cast<size_t>(block_tokens_)};
}

int32_t KvBlocks::find(const Content& c) const {
  const auto [begin, end] = named_.equal_range(hash(c));
  for (auto at = begin; at != end; ++at) {
    const Block& b = blocks_[static_cast<size_t>(at->second)];
    if (b.parent == c.parent && b.space == c.space && b.prompt == c.prompt &&
        std::equal(c.tokens.begin(), c.tokens.end(), tokens_.begin() + at->second * block_tokens_))
      return at->second;
  }
  return -1;
}

int64_t KvBlocks::attach(std::span<const int32_t> tokens, const Origin& origin, BlockTable& table) {
  const auto most = static_cast<int64_t>(tokens.size()) - 1;
  while ((table.named + 1) * block_tokens_ <= most) {
    const int32_t block = find(content(tokens, table.named, table.name, origin));
    if (block < 0) break;
    take(block);
    table.blocks.push_back(block);
    table.name = blocks_[static_cast<size_t>(block)].name;
    ++table.named;
  }
  return table.named * block_tokens_;
}

bool KvBlocks::reserve(BlockTable& table, int64_t first, int64_t tokens, std::vector<BlockCopy>& copies) {
  const auto at = static_cast<size_t>(first / block_tokens_);
  const bool shared = at < table.blocks.size() && references(table.blocks[at]) > 1;
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(table.blocks.size());
  if (std::max<int64_t>(missing, 0) + shared > free_) return false;
  if (shared) {
    const int32_t mine = take_free();
    copies.push_back({table.blocks[at], mine});
    give(table.blocks[at]);
    table.blocks[at] = mine;
  }
  for (int64_t i = 0; i < missing; ++i) table.blocks.push_back(take_free());
  return true;
}

void KvBlocks::publish(BlockTable& table, std::span<const int32_t> tokens, int64_t computed,
                       const Origin& origin) {
  while ((table.named + 1) * block_tokens_ <= computed) {
    const Content c = content(tokens, table.named, table.name, origin);
    const int32_t id = table.blocks[static_cast<size_t>(table.named)];
    Block& block = blocks_[static_cast<size_t>(id)];
    if (block.name == 0) {  // a fork may have named the block that both share
      const int32_t twin = find(c);
      block.name = twin < 0 ? next_name_++ : blocks_[static_cast<size_t>(twin)].name;
      block.parent = c.parent;
      block.space = c.space;
      block.prompt = c.prompt;
      std::ranges::copy(c.tokens, held(id).begin());
      named_.emplace(hash(c), id);
    }
    table.name = block.name;
    ++table.named;
  }
}

void KvBlocks::fork(const BlockTable& from, BlockTable& to) {
  to = from;
  for (const int32_t block : to.blocks) take(block);
}

// The last block first: of a sequence, the end is worth least to others.
void KvBlocks::release(BlockTable& table) {
  for (auto b = table.blocks.rbegin(); b != table.blocks.rend(); ++b) give(*b);
  table = {};
}

void KvBlocks::take(int32_t id) {
  Block& block = blocks_[static_cast<size_t>(id)];
  if (block.references++ == 0) unlink(id);
}

int32_t KvBlocks::take_free() {
  const int32_t id = oldest_;
  unlink(id);
  Block& block = blocks_[static_cast<size_t>(id)];
  if (block.name != 0) {
    const auto [begin, end] = named_.equal_range(hash({block.parent, block.space, block.prompt, held(id)}));
    named_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == id; }));
  }
  block = {};
  block.references = 1;
  return id;
}

void KvBlocks::give(int32_t id) {
  Block& block = blocks_[static_cast<size_t>(id)];
  if (--block.references > 0) return;
  block.previous = newest_;
  block.next = -1;
  (newest_ < 0 ? oldest_ : blocks_[static_cast<size_t>(newest_)].next) = id;
  newest_ = id;
  ++free_;
}

void KvBlocks::unlink(int32_t id) {
  const Block& block = blocks_[static_cast<size_t>(id)];
  (block.previous < 0 ? oldest_ : blocks_[static_cast<size_t>(block.previous)].next) = block.next;
  (block.next < 0 ? newest_ : blocks_[static_cast<size_t>(block.next)].previous) = block.previous;
  --free_;
}

}  // namespace lathe
