#include "text/pre_tokenizer.h"

#include <optional>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace lathe {

namespace {

// Finds the matches in a piece, from left to right.
using Finder = std::function<void(std::string_view piece, Budget&, std::vector<ByteRange>& matches)>;

struct Part {
  ByteRange range;
  bool is_match;
};

// The piece as an alternation of matches and of what is between them.
std::vector<Part> parts_of(size_t size, const std::vector<ByteRange>& matches, bool invert) {
  std::vector<Part> parts;
  size_t done = 0;
  for (const ByteRange& match : matches) {
    if (match.begin > done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done < size) parts.push_back({{done, size}, invert});
  return parts;
}

// Appends the pieces that `parts` make, moved by `offset`; empty ones are dropped.
void join_parts(const std::vector<Part>& parts, SplitBehavior behavior, size_t offset,
                std::vector<ByteRange>& out) {
  const size_t first = out.size();
  bool fresh = true;  // the next part begins a piece
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto [range, is_match] = parts[i];
    const bool previous_match = i > 0 && parts[i - 1].is_match;
    switch (behavior) {
      case SplitBehavior::removed:
        if (is_match) continue;
        break;
      case SplitBehavior::isolated:
        break;
      case SplitBehavior::merged_with_previous:
        fresh = i == 0 || !is_match || previous_match;
        break;
      case SplitBehavior::merged_with_next:
        fresh = i == 0 || is_match || !previous_match;
        break;
      case SplitBehavior::contiguous:
        fresh = i == 0 || is_match != previous_match;
        break;
    }
    if (fresh) {
      out.push_back({range.begin + offset, range.end + offset});
    } else {
      out.back().end = range.end + offset;
    }
  }
  out.erase(std::remove_if(out.begin() + static_cast<ptrdiff_t>(first), out.end(),
                           [](const ByteRange& r) { return r.begin == r.end; }),
            out.end());
}

PreTokenizer split_by(Finder find, SplitBehavior behavior, bool invert) {
  return [find = std::move(find), behavior, invert](Pieces& pieces) {
    std::vector<ByteRange> out, matches;
    for (const ByteRange& piece : pieces.ranges) {
      const std::string_view text =
          std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin);
      matches.clear();
      find(text, pieces.budget, matches);
      join_parts(parts_of(text.size(), matches, invert), behavior, piece.begin, out);
    }
    pieces.ranges = std::move(out);
  };
}

// Rewrites every piece.
template <class Rewrite>
void rewrite_pieces(Pieces& pieces, Rewrite rewrite) {
  std::string text;
  std::vector<ByteRange> ranges;
  for (const ByteRange& piece : pieces.ranges) {
    const size_t begin = text.size();
    const bool first = pieces.at_start && piece.begin == 0;
    text += rewrite(std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin), first);
    pieces.budget.spend_bytes(text.size() - begin);
    ranges.push_back({begin, text.size()});
  }
  pieces.at_start = pieces.at_start && !pieces.ranges.empty() && pieces.ranges.front().begin == 0;
  pieces.text = std::move(text);
  pieces.ranges = std::move(ranges);
}

}  // namespace

PreTokenizer split_pre_tokenizer(Regex regex, SplitBehavior behavior, bool invert) {
  return split_by(
      [regex = std::move(regex)](std::string_view text, Budget& budget, std::vector<ByteRange>& matches) {
        regex.find_all(text, budget, matches);
      },
      behavior, invert);
}

PreTokenizer split_pre_tokenizer(std::string pattern, SplitBehavior behavior, bool invert) {
  return split_by(
      [pattern = std::move(pattern)](std::string_view text, Budget&, std::vector<ByteRange>& matches) {
        for (size_t at = 0; (at = text.find(pattern, at)) != std::string_view::npos; at += pattern.size()) {
          matches.push_back({at, at + pattern.size()});
        }
      },
      behavior, invert);
}

PreTokenizer split_pre_tokenizer(bool (*is_match)(char32_t), SplitBehavior behavior) {
  return split_by(
      [is_match](std::string_view text, Budget&, std::vector<ByteRange>& matches) {
        for (size_t i = 0; i < text.size();) {
          const size_t begin = i;
          if (is_match(next_code_point(text, i))) matches.push_back({begin, i});
        }
      },
      behavior, false);
}

PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex) {
  std::optional<PreTokenizer> split;
  if (use_regex) split = split_pre_tokenizer(Regex(kGpt2Pattern, "GPT-2"), SplitBehavior::isolated, false);
  return [split = std::move(split), add_prefix_space](Pieces& pieces) {
    if (add_prefix_space) {
      rewrite_pieces(pieces, [](std::string_view piece, bool) {
        return piece.starts_with(' ') ? std::string(piece) : " " + std::string(piece);
      });
    }
    if (split) (*split)(pieces);
    rewrite_pieces(pieces, [](std::string_view piece, bool) { return bytes_to_characters(piece); });
  };
}

PreTokenizer metaspace_pre_tokenizer(std::string replacement, Prepend prepend, bool split) {
  const PreTokenizer cut = split_pre_tokenizer(replacement, SplitBehavior::merged_with_next, false);
  return [replacement, prepend, split, cut](Pieces& pieces) {
    rewrite_pieces(pieces, [&](std::string_view piece, bool first) {
      std::string out = replace_all(piece, " ", replacement, pieces.budget);
      const bool wanted = prepend == Prepend::always || (prepend == Prepend::first && first);
      return wanted && !out.starts_with(replacement) ? replacement + out : out;
    });
    if (split) cut(pieces);
  };
}

PreTokenizer whitespace_pre_tokenizer() {
  // Of neighbouring runs of word characters and of others, each is a piece; white space is dropped.
  return [words = split_pre_tokenizer(is_word, SplitBehavior::contiguous),
          spaces = split_pre_tokenizer(is_white_space, SplitBehavior::removed)](Pieces& pieces) {
    spaces(pieces);
    words(pieces);
  };
}

}  // namespace lathe
