// Byte-pair encoding: characters are joined, the pair of the lowest rank first.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/hash_map.h"
#include "text/vocabulary.h"

namespace lathe {

class Bpe {
 public:
  struct Options {
    int32_t unk = -1;            // stands for characters the vocabulary lacks; -1: they are dropped
    bool fuse_unk = false;       // one unk for a run of them
    bool byte_fallback = false;  // before unk: the tokens <0xNN> of their bytes, if all are there
    bool ignore_merges = false;  // a piece that is a token is that token
  };
  Bpe(Vocabulary, Options);

  // Merges are added in order of rank.
  void reserve_merges(size_t count) { merges_.reserve(count); }
  void add_merge(int32_t left, int32_t right, int32_t merged);

  // Room that encode() works in: kept from piece to piece.
  struct Scratch;
  // Appends the ids of one piece of valid UTF-8. O(n log n): a megabyte of one letter takes 0.2 s.
  void encode(std::string_view piece, std::vector<int32_t>& ids, Scratch&) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank = 0, merged = 0;
  };
  void add_symbols(std::string_view piece, Scratch&) const;
  void add_candidate(Scratch&, int32_t left, int32_t right) const;

  Vocabulary vocabulary_;
  Options options_;
  HashMap<Merge> merges_;  // left id << 32 | right id
  int32_t next_rank_ = 0;
  std::array<int32_t, 0x180>
      one_char_;  // ids of the first code points (the byte alphabet is among them), -1 for none
  std::array<int32_t, 256> bytes_;  // ids of <0xNN>, -1 for none
};

struct Bpe::Scratch {
  struct Symbol {
    int32_t id, previous, next;  // neighbours by index; -1: none. id -1: merged away
  };
  struct Candidate {
    int32_t rank, left, merged;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;  // lowest rank on top, the leftmost of equals
};

// The ids of <0x00> ... <0xFF> in a vocabulary, -1 for those it lacks.
std::array<int32_t, 256> byte_tokens(const Vocabulary&);

}  // namespace lathe
