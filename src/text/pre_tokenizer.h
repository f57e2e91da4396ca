// Pre-tokenizers: the normalized text is cut into pieces that the model encodes one by one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "text/regex.h"

namespace lathe {

// A text and its pieces, in order. What no range covers has been removed.
struct Pieces {
  std::string text;
  std::vector<ByteRange> ranges;
  bool at_start = true;  // `text` begins where the whole input begins
  Budget& budget;
};

using PreTokenizer = std::function<void(Pieces&)>;

// What becomes of the matches of a pattern; everything between them is a piece as well.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// `invert`: what does not match is the match.
PreTokenizer split_pre_tokenizer(Regex, SplitBehavior, bool invert);
PreTokenizer split_pre_tokenizer(std::string pattern, SplitBehavior, bool invert);  // a literal, not empty
PreTokenizer split_pre_tokenizer(bool (*is_match)(char32_t), SplitBehavior);        // single code points

inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Each piece's bytes in GPT-2's byte alphabet, cut by GPT-2's expression before that when `use_regex`.
PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex);

// Spaces become `replacement` (one code point), which is put before the pieces that `prepend` says; with
// `split`, every replacement begins a piece.
enum class Prepend { never, first, always };
PreTokenizer metaspace_pre_tokenizer(std::string replacement, Prepend, bool split);

PreTokenizer whitespace_pre_tokenizer();  // \w+|[^\w\s]+

}  // namespace lathe
