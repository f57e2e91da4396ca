// SentencePiece BPE as GGUF files carry it: pieces with scores and no merges. Characters are joined while the
// joined text is a token, the highest score first (leftmost of equals); the rest falls back to bytes. Follows
// llm_tokenizer_spm of llama.cpp (src/llama-vocab.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace lathe {

class Spm {
 public:
  // `scores` by id, none NaN. `unk` stands for characters whose bytes have no tokens; -1: they are dropped.
  Spm(Vocabulary, std::vector<float> scores, int32_t unk);

  struct Scratch;
  // Appends the ids of one piece of valid UTF-8, in O(n log n).
  void encode(std::string_view piece, std::vector<int32_t>& ids, Scratch&) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void add_candidate(std::string_view piece, Scratch&, int32_t left, int32_t right) const;

  Vocabulary vocabulary_;
  std::vector<float> scores_;
  int32_t unk_;
  std::array<int32_t, 256> bytes_;  // ids of <0xNN>, -1 for none
};

struct Spm::Scratch {
  struct Symbol {
    size_t begin, length;    // in the piece; length 0: merged away
    int32_t previous, next;  // neighbours by index; -1: none
  };
  struct Candidate {
    float score;
    int32_t left;
    size_t length;  // of the joined text: neighbours that have changed since make another length
    bool operator<(const Candidate& o) const { return score != o.score ? score < o.score : left > o.left; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

}  // namespace lathe
