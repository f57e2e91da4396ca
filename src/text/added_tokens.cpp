#include "text/added_tokens.h"

#include "text/utf8.h"

namespace lathe {

namespace {

// The code point that ends at `position` > 0.
char32_t code_point_before(std::string_view text, size_t position) {
  do --position;
  while ((static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return next_code_point(text, position);
}

char32_t code_point_at(std::string_view text, size_t position) { return next_code_point(text, position); }

bool is_single_word(std::string_view text, ByteRange at) {
  return (at.begin == 0 || !is_word(code_point_before(text, at.begin))) &&
         (at.end == text.size() || !is_word(code_point_at(text, at.end)));
}

size_t white_space_before(std::string_view text, size_t position, size_t floor) {
  while (position > floor && is_white_space(code_point_before(text, position))) {
    do --position;
    while ((static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  }
  return position;
}

size_t white_space_after(std::string_view text, size_t position) {
  while (position < text.size()) {
    size_t next = position;
    if (!is_white_space(next_code_point(text, next))) break;
    position = next;
  }
  return position;
}

}  // namespace

void AddedTokens::Trie::add(std::string_view content, int32_t index) {
  int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t& next = node == 0 ? root[byte] : edges[static_cast<uint64_t>(node) << 8 | byte];
    if (next == 0) {
      next = static_cast<int32_t>(token_at.size());
      token_at.push_back(-1);
    }
    node = next;
  }
  if (token_at[static_cast<size_t>(node)] < 0) token_at[static_cast<size_t>(node)] = index;
}

std::pair<int32_t, size_t> AddedTokens::Trie::longest(std::string_view text) const {
  std::pair<int32_t, size_t> best{-1, 0};
  int32_t node = root[static_cast<unsigned char>(text[0])];
  for (size_t length = 1; node != 0; ++length) {
    const int32_t index = token_at[static_cast<size_t>(node)];
    if (index >= 0) best = {index, length};
    if (length == text.size()) break;
    const int32_t* next =
        edges.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[length]));
    node = next ? *next : 0;
  }
  return best;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    by_id_[static_cast<uint64_t>(token.id)] = static_cast<int32_t>(i) + 1;
    if (!token.text.empty()) (token.normalized ? normalized_ : raw_).add(token.text, static_cast<int32_t>(i));
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const int32_t* index = id < 0 ? nullptr : by_id_.find(static_cast<uint64_t>(id));
  return index ? &tokens_[static_cast<size_t>(*index - 1)] : nullptr;
}

std::vector<AddedTokens::Stretch> AddedTokens::split(std::string_view text, bool normalized,
                                                     bool parse_special) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const auto [index, length] = trie.longest(text.substr(at));
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    ByteRange range{at, at + length};
    at = range.end;
    if (token.special && !parse_special) continue;
    if (token.single_word && !is_single_word(text, range)) continue;
    if (range.end <= done) continue;  // white space that the token before has taken (rstrip), it keeps
    range.begin = token.lstrip ? white_space_before(text, range.begin, done) : std::max(range.begin, done);
    if (token.rstrip) range.end = white_space_after(text, range.end);
    if (done < range.begin) out.push_back({{done, range.begin}, -1});
    out.push_back({range, token.id});
    done = range.end;
  }
  if (done < text.size()) out.push_back({{done, text.size()}, -1});
  return out;
}

}  // namespace lathe
