// What every kind of grammar is read into: rules over expressions over bytes and characters.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::grammar {

// Code points as sorted ranges that do not touch; never surrogates.
class CharacterSet {
 public:
  CharacterSet() = default;
  CharacterSet(char32_t first, char32_t last) { add(first, last); }
  static CharacterSet any();  // every Unicode scalar value

  void add(char32_t first, char32_t last);
  void add(const CharacterSet&);
  CharacterSet complement() const;
  CharacterSet without(const CharacterSet& other) const;
  CharacterSet within(const CharacterSet& other) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<std::pair<char32_t, char32_t>>& ranges() const { return ranges_; }

 private:
  std::vector<std::pair<char32_t, char32_t>> ranges_;
};

struct Expr;
struct Network;
using ExprPtr = std::shared_ptr<const Expr>;

struct Expr {
  enum class Kind { bytes, characters, sequence, alternatives, repeat, rule, network };
  Kind kind = Kind::bytes;
  std::string bytes;
  CharacterSet characters;
  std::vector<ExprPtr>
      items;  // of a sequence or of alternatives; the one that repeats. No alternatives: nothing matches
  int64_t min = 0, max = 0;  // repetitions; max < 0: no limit
  int32_t rule = 0;
  std::shared_ptr<const Network> network;
};

ExprPtr bytes(std::string);  // "" matches the empty text
ExprPtr characters(CharacterSet);
ExprPtr sequence(std::vector<ExprPtr>);
ExprPtr alternatives(std::vector<ExprPtr>);
ExprPtr repeat(ExprPtr, int64_t min, int64_t max);
ExprPtr rule(int32_t index);
ExprPtr compiled(std::shared_ptr<const Network>);  // the texts of another grammar
ExprPtr text_without(
    std::string_view mark);  // any text; the mark's first character is not in its rest, or all of it
// Any text without these marks, which begin with one character that is in the rest of none.
ExprPtr text_without(std::span<const std::string_view> marks);
inline ExprPtr nothing() { return alternatives({}); }  // matches no text at all

struct Rules {
  std::vector<std::string> names;
  std::vector<ExprPtr> bodies;
  int32_t root = 0;

  int32_t add(std::string name, ExprPtr body = nullptr) {
    names.push_back(std::move(name));
    bodies.push_back(std::move(body));
    return static_cast<int32_t>(names.size()) - 1;
  }
};

}  // namespace lathe::grammar
