#include "text/spm.h"

#include <algorithm>

#include "text/bpe.h"
#include "text/utf8.h"

namespace lathe {

Spm::Spm(Vocabulary vocabulary, std::vector<float> scores, int32_t unk)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      unk_(unk),
      bytes_(byte_tokens(vocabulary_)) {}

void Spm::add_candidate(std::string_view piece, Scratch& scratch, int32_t left, int32_t right) const {
  const Scratch::Symbol& a = scratch.symbols[static_cast<size_t>(left)];
  const Scratch::Symbol& b = scratch.symbols[static_cast<size_t>(right)];
  const int32_t id = vocabulary_.find(piece.substr(a.begin, a.length + b.length));
  if (id < 0) return;
  scratch.heap.push_back({scores_[static_cast<size_t>(id)], left, a.length + b.length});
  std::push_heap(scratch.heap.begin(), scratch.heap.end());
}

void Spm::encode(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (size_t at = 0; at < piece.size();) {
    const size_t begin = at;
    next_code_point(piece, at);
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({begin, at - begin, index - 1, at < piece.size() ? index + 1 : -1});
  }
  for (size_t i = 1; i < symbols.size(); ++i) {
    add_candidate(piece, scratch, static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }
  while (!heap.empty()) {
    const Scratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(top.left)];
    if (left.length == 0 || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (left.length + right.length != top.length) continue;
    left.length = top.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.left;
      add_candidate(piece, scratch, top.left, left.next);
    }
    if (left.previous >= 0) add_candidate(piece, scratch, left.previous, top.left);
  }
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.length == 0) continue;
    const std::string_view text = piece.substr(symbol.begin, symbol.length);
    if (const int32_t id = vocabulary_.find(text); id >= 0) {
      ids.push_back(id);
      continue;
    }
    for (const char byte : text) {
      const int32_t id = bytes_[static_cast<unsigned char>(byte)];
      if (id >= 0 || unk_ >= 0) ids.push_back(id >= 0 ? id : unk_);
    }
  }
}

}  // namespace lathe
