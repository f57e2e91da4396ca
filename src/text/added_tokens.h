// Tokens found in the text before anything else happens to it: <|im_start|> and the like.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/hash_map.h"
#include "text/regex.h"
#include "text/vocabulary.h"

namespace lathe {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // as the file has it
  std::string text;          // as it is looked for and decoded: the content, normalized if `normalized`
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text, its content normalized as well
  bool special = false;      // control token: skip_special_tokens drops it, without parse_special it is text
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken>);  // contents and ids are unique

  // A stretch of the text: a token, or text to be encoded when `id` is negative.
  struct Stretch {
    ByteRange range;
    int32_t id;
  };
  // Cuts `text` at the tokens that are looked for in raw or in `normalized` text, leftmost first, longest of
  // those that begin at one place, as `tokenizers` does. Special tokens are skipped unless `parse_special`.
  std::vector<Stretch> split(std::string_view text, bool normalized, bool parse_special) const;

  const AddedToken* find(int32_t id) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  // A trie over bytes. Most positions of a text end at the root, which is an array; deeper nodes are few.
  struct Trie {
    std::array<int32_t, 256> root{};       // by byte: node, 0 for none
    HashMap<int32_t> edges;                // (node << 8 | byte) -> node
    std::vector<int32_t> token_at = {-1};  // by node: index into tokens_, -1 for none
    void add(std::string_view content, int32_t index);
    // The longest token at the front of `text`: {index, bytes}, index -1 when there is none.
    std::pair<int32_t, size_t> longest(std::string_view text) const;
  };

  std::vector<AddedToken> tokens_;
  HashMap<int32_t> by_id_;  // index + 1
  Trie raw_, normalized_;
};

}  // namespace lathe
