// Which tokens may come next: a grammar over bytes meets a vocabulary of byte strings. A token is allowed
// when the text with it is the beginning of a text that the grammar accepts; characters may span tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar.h"
#include "text/grammar/work.h"

namespace lathe {

// A vocabulary as a trie. Immutable; one per tokenizer serves all grammars and threads.
class TokenTrie {
 public:
  // The bytes of each token by id (Tokenizer::token_bytes()); tokens with empty strings are never allowed.
  explicit TokenTrie(std::span<const std::string> tokens);

  // Nodes in the order of a walk: the children of node i begin at i + 1, what follows its subtree is at end.
  struct Node {
    uint8_t byte;
    uint16_t depth;  // 1 below the root
    int32_t end;
    int32_t first_token, token_count;  // in sorted_ids: those that end here
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<int32_t>& sorted_ids() const { return sorted_ids_; }
  std::string_view token(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  int32_t size() const { return static_cast<int32_t>(offsets_.size()) - 1; }
  size_t max_depth() const { return max_depth_; }

 private:
  std::string bytes_;
  std::vector<size_t> offsets_;
  std::vector<Node> nodes_;
  std::vector<int32_t> sorted_ids_;
  size_t max_depth_ = 0;
};

// What all texts under one grammar and one vocabulary share: for each place in the grammar, the tokens that
// stay within its rule, and the points of the trie where the rule ends. Thread-safe.
class TokenMasks {
 public:
  TokenMasks(Grammar, std::shared_ptr<const TokenTrie>);
  ~TokenMasks();
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;
  const TokenTrie& trie() const { return *trie_; }
  const Grammar& grammar() const { return grammar_; }
  size_t states() const { return grammar_.states(); }
  // What finding masks may cost one request, all its texts together: about 50 ms at once, and for each token
  // as much as reading the vocabulary twice, which is what masks of long texts of bounded length need.
  std::shared_ptr<grammar::Work> budget() const;
  int64_t budget_of_token() const;

 private:
  friend class GrammarMatcher;
  struct Place;
  Grammar grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<const Place>> places_;  // by node of the network
  size_t bytes_ = 0;
};

// One text being written. Not thread-safe.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<TokenMasks>);  // on a budget of its own
  GrammarMatcher(std::shared_ptr<TokenMasks>, std::shared_ptr<grammar::Work> budget);
  ~GrammarMatcher();
  GrammarMatcher(GrammarMatcher&&) noexcept;
  GrammarMatcher& operator=(GrammarMatcher&&) noexcept;

  // Bit id % 64 of word id / 64: may token `id` come next? Valid until the next call. End tokens are the
  // caller's (they are special and have no bytes): allowed when complete(). All zero only when nothing may
  // follow. InputError when the grammar is too ambiguous at this point (grammar/automaton.h), or the budget
  // is spent; so do accept() and the constructors.
  std::span<const uint64_t> mask();
  // False, and nothing changes, when the token is not allowed.
  bool accept(int32_t id);
  bool accept(std::string_view bytes);
  bool complete() const;  // the text so far is accepted as a whole

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
