// Token strings and their ids, both ways: one arena of bytes, one table of offsets, one hash of ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

class Vocabulary {
 public:
  // Ids lie below this (the largest published vocabularies have some 260,000 tokens), so that one absurd id
  // in a file cannot make the tables huge.
  static constexpr int64_t kMaxId = int64_t{1} << 22;

  enum class Added { ok, duplicate_token, duplicate_id };
  // `token` must not be empty, `id` must lie in [0, kMaxId). Unless the answer is `ok`, nothing changes.
  Added add(std::string_view token, int32_t id);
  void reserve(size_t tokens, size_t bytes);

  int32_t find(std::string_view token) const;  // -1: not there
  bool contains(int32_t id) const {
    return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].length != 0;
  }
  // Empty for an id without a token. `id` must lie in [0, size()).
  std::string_view token(int32_t id) const {
    const Token& t = tokens_[static_cast<size_t>(id)];
    return {arena_.data() + t.offset, t.length};
  }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // largest id + 1; there may be gaps

 private:
  struct Token {
    size_t offset = 0;
    uint32_t length = 0;
  };
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  size_t place(std::string_view token, uint64_t hash) const;
  void rehash(size_t capacity);

  std::string arena_;
  std::vector<Token> tokens_;  // by id
  std::vector<Slot> slots_;    // open addressing, at most three quarters full
  size_t count_ = 0;
};

}  // namespace lathe
