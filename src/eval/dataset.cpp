#include "eval/dataset.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"

namespace lathe {
namespace {

// The first place at or after `from` where a line begins, so that a cut never splits a word or a character.
size_t next_line(std::string_view text, size_t from) {
  if (from >= text.size()) return text.size();
  const size_t newline = text.find('\n', from);
  return newline == std::string_view::npos ? text.size() : newline + 1;
}

Text tokenize(const std::filesystem::path& path, std::string_view file, size_t begin, size_t end,
              const Tokenizer& tokenizer) {
  const std::string_view used = file.substr(begin, end - begin);
  return {path.string(), sha256(used), begin, end, tokenizer.encode(used)};
}

void require_length(const Text& text) {
  if (text.tokens.size() < 2)
    throw input_error(text.path, "a text of at least 2 tokens", std::to_string(text.tokens.size()),
                      "nothing can be scored");
}

// A text cut out of another may tokenize differently where it was cut, so a few tokens at either end do not
// count.
bool lies_inside(std::span<const int32_t> part, std::span<const int32_t> whole) {
  constexpr size_t edge = 4;
  if (part.size() > 4 * edge) part = part.subspan(edge, part.size() - 2 * edge);
  return std::search(whole.begin(), whole.end(), part.begin(), part.end()) != whole.end();
}

}  // namespace

Text read_text(const std::filesystem::path& path, const Tokenizer& tokenizer, int64_t max_tokens) {
  const Mapping file(path);
  const std::string_view all = file.text();
  const auto limit = static_cast<size_t>(std::max<int64_t>(max_tokens, 0));

  // Only as much of a long file as the limit needs is read; 8 bytes a token is more than usual text takes.
  size_t end = limit == 0 ? all.size() : next_line(all, limit * 8);
  Text text = tokenize(path, all, 0, end, tokenizer);
  while (limit > 0 && text.tokens.size() < limit && end < all.size()) {
    end = next_line(all, end * 2);
    text = tokenize(path, all, 0, end, tokenizer);
  }
  if (limit > 0 && text.tokens.size() > limit) text.tokens.resize(limit);
  require_length(text);
  return text;
}

std::pair<Text, Text> split_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                 double fraction) {
  if (!(fraction > 0 && fraction < 1))
    fail("cannot split a text at {}: expected a fraction between 0 and 1", fraction);
  const Mapping file(path);
  const std::string_view all = file.text();
  const size_t cut = next_line(all, static_cast<size_t>(static_cast<double>(all.size()) * fraction));
  std::pair<Text, Text> parts{tokenize(path, all, 0, cut, tokenizer),
                              tokenize(path, all, cut, all.size(), tokenizer)};
  if (parts.first.tokens.size() < 2 || parts.second.tokens.size() < 2)
    throw input_error(path.string(), "a text long enough to split into two parts",
                      fmt::format("{} bytes with a line end at {}", all.size(), cut), "give a longer text");
  return parts;
}

void require_held_out(const Text& calibration, const Text& evaluation) {
  std::error_code ignored;
  const bool same_file = std::filesystem::equivalent(calibration.path, evaluation.path, ignored);
  const bool overlap = calibration.begin < evaluation.end && evaluation.begin < calibration.end;
  if (same_file && overlap)
    throw input_error(evaluation.path, "a text held out from calibration",
                      fmt::format("bytes {} to {} of the calibration file, which used {} to {}",
                                  evaluation.begin, evaluation.end, calibration.begin, calibration.end),
                      "evaluate on another text");
  if (lies_inside(calibration.tokens, evaluation.tokens) ||
      lies_inside(evaluation.tokens, calibration.tokens))
    throw input_error(evaluation.path, "a text held out from calibration",
                      fmt::format("the contents of {}", calibration.path), "evaluate on another text");
}

}  // namespace lathe
