#include "text/grammar/expr.h"

#include <algorithm>
#include <map>

#include "text/utf8.h"

namespace lathe::grammar {

CharacterSet CharacterSet::any() {
  CharacterSet out(0, 0xD7FF);
  out.add(0xE000, 0x10FFFF);
  return out;
}

void CharacterSet::add(char32_t first, char32_t last) {
  if (first < 0xD800 && last > 0xDFFF) {
    add(first, 0xD7FF);
    return add(0xE000, last);
  }
  if (first >= 0xD800 && first <= 0xDFFF) first = 0xE000;
  if (last >= 0xD800 && last <= 0xDFFF) last = 0xD7FF;
  if (first > last) return;
  auto it = std::lower_bound(ranges_.begin(), ranges_.end(), first,
                             [](const auto& range, char32_t c) { return range.second + 1 < c; });
  auto end = it;
  while (end != ranges_.end() && end->first <= last + 1) {
    first = std::min(first, end->first);
    last = std::max(last, end->second);
    ++end;
  }
  it = ranges_.erase(it, end);
  ranges_.insert(it, {first, last});
}

void CharacterSet::add(const CharacterSet& other) {
  for (const auto& [first, last] : other.ranges_) add(first, last);
}

CharacterSet CharacterSet::complement() const {
  CharacterSet out;
  char32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) out.add(next, first - 1);
    next = last + 1;
  }
  if (next <= 0x10FFFF) out.add(next, 0x10FFFF);
  return out;
}

CharacterSet CharacterSet::without(const CharacterSet& other) const { return within(other.complement()); }

CharacterSet CharacterSet::within(const CharacterSet& other) const {
  CharacterSet out;
  for (const auto& [a, b] : ranges_)
    for (const auto& [c, d] : other.ranges_)
      if (std::max(a, c) <= std::min(b, d)) out.add(std::max(a, c), std::min(b, d));
  return out;
}

namespace {

ExprPtr make(Expr e) { return std::make_shared<const Expr>(std::move(e)); }

}  // namespace

ExprPtr bytes(std::string text) {
  Expr e;
  e.bytes = std::move(text);
  return make(std::move(e));
}

ExprPtr characters(CharacterSet set) {
  Expr e;
  e.kind = Expr::Kind::characters;
  e.characters = std::move(set);
  return make(std::move(e));
}

ExprPtr sequence(std::vector<ExprPtr> items) {
  if (items.size() == 1) return items[0];
  Expr e;
  e.kind = Expr::Kind::sequence;
  e.items = std::move(items);
  return make(std::move(e));
}

ExprPtr alternatives(std::vector<ExprPtr> items) {
  if (items.size() == 1) return items[0];
  Expr e;
  e.kind = Expr::Kind::alternatives;
  e.items = std::move(items);
  return make(std::move(e));
}

ExprPtr repeat(ExprPtr item, int64_t min, int64_t max) {
  Expr e;
  e.kind = Expr::Kind::repeat;
  e.items = {std::move(item)};
  e.min = min;
  e.max = max;
  return make(std::move(e));
}

ExprPtr rule(int32_t index) {
  Expr e;
  e.kind = Expr::Kind::rule;
  e.rule = index;
  return make(std::move(e));
}

ExprPtr compiled(std::shared_ptr<const Network> network) {
  Expr e;
  e.kind = Expr::Kind::network;
  e.network = std::move(network);
  return make(std::move(e));
}

// What begins like the mark either goes on otherwise, or is followed by the mark's first character again, or
// by the end.
ExprPtr text_without(std::string_view mark) {
  size_t at = 0;
  const char32_t letter = next_code_point(mark, at);
  int64_t letters = 1;
  for (; at < mark.size(); ++letters)
    if (next_code_point(mark, at) != letter) return text_without({&mark, 1});
  const CharacterSet only(letter, letter);
  const ExprPtr fewer = repeat(characters(only), 0, letters - 1);
  return sequence({repeat(sequence({fewer, characters(only.complement())}), 0, -1), fewer});
}

ExprPtr text_without(std::span<const std::string_view> marks) {
  size_t first_end = 0;
  const char32_t letter = next_code_point(marks[0], first_end);
  const CharacterSet first(letter, letter);
  std::map<std::string, CharacterSet> begun;  // what makes a beginning of a mark a longer one, or another
  for (const std::string_view mark : marks)
    for (size_t at = first_end; at < mark.size();) {
      CharacterSet& goes_on = begun.try_emplace(std::string(mark.substr(0, at)), first).first->second;
      const char32_t next = next_code_point(mark, at);
      goes_on.add(next, next);
    }
  std::vector<ExprPtr> beginnings, otherwise;
  for (const auto& [beginning, goes_on] : begun) {
    beginnings.push_back(bytes(beginning));
    otherwise.push_back(sequence({bytes(beginning), characters(goes_on.complement())}));
  }
  const ExprPtr many = repeat(alternatives(std::move(beginnings)), 0, -1);
  return sequence({repeat(alternatives({characters(first.complement()),
                                        sequence({many, alternatives(std::move(otherwise))})}),
                          0, -1),
                   many});
}

}  // namespace lathe::grammar
