#include "text/bpe.h"

#include <algorithm>
#include <fmt/format.h>

#include "text/utf8.h"

namespace lathe {

namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

std::array<int32_t, 256> byte_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids{};
  for (size_t b = 0; b < ids.size(); ++b) ids[b] = vocabulary.find(fmt::format("<0x{:02X}>", b));
  return ids;
}

Bpe::Bpe(Vocabulary vocabulary, Options options)
    : vocabulary_(std::move(vocabulary)), options_(options), bytes_(byte_tokens(vocabulary_)) {
  for (char32_t c = 0; c < one_char_.size(); ++c) {
    std::string text;
    append_utf8(text, c);
    one_char_[c] = vocabulary_.find(text);
  }
}

void Bpe::add_merge(int32_t left, int32_t right, int32_t merged) {
  merges_[pair_key(left, right)] = {next_rank_++, merged};
}

void Bpe::add_symbols(std::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](int32_t id) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  };
  int32_t pending_unk = -1;
  for (size_t at = 0; at < piece.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(piece, at);
    const std::string_view text = piece.substr(begin, at - begin);
    const int32_t id = c < one_char_.size() ? one_char_[c] : vocabulary_.find(text);
    if (id >= 0) {
      if (pending_unk >= 0) add(pending_unk);
      pending_unk = -1;
      add(id);
      continue;
    }
    const auto byte_id = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
    if (options_.byte_fallback &&
        std::all_of(text.begin(), text.end(), [&](char b) { return byte_id(b) >= 0; })) {
      for (const char byte : text) add(byte_id(byte));  // a pending unk stays behind them, as in `tokenizers`
      continue;
    }
    if (pending_unk >= 0 && !options_.fuse_unk) add(pending_unk);
    pending_unk = options_.unk;
  }
  if (pending_unk >= 0) add(pending_unk);
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::add_candidate(Scratch& scratch, int32_t left, int32_t right) const {
  const auto id = [&](int32_t index) { return scratch.symbols[static_cast<size_t>(index)].id; };
  const Merge* merge = merges_.find(pair_key(id(left), id(right)));
  if (merge == nullptr) return;
  scratch.heap.push_back({merge->rank, left, merge->merged});
  std::push_heap(scratch.heap.begin(), scratch.heap.end());
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const {
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_.find(piece); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  add_symbols(piece, scratch);
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  for (size_t i = 1; i < symbols.size(); ++i) {
    add_candidate(scratch, static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }
  while (!heap.empty()) {
    const Scratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(top.left)];
    if (left.id < 0 || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = merges_.find(pair_key(left.id, right.id));
    if (merge == nullptr || merge->merged != top.merged) continue;  // the pair is no longer what it was
    left.id = top.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.left;
      add_candidate(scratch, top.left, left.next);
    }
    if (left.previous >= 0) add_candidate(scratch, left.previous, top.left);
  }
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace lathe
