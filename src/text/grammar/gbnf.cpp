#include "text/grammar/gbnf.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "text/utf8.h"

namespace lathe::grammar {

namespace {

constexpr size_t kMaxSource = size_t{1} << 20;
constexpr int kMaxDepth = 100;
constexpr int64_t kMaxRepeat = 10'000;

class Parser {
 public:
  Parser(std::string_view source, std::string_view where) : in_(source), where_(where) {}

  Rules run() {
    if (in_.size() > kMaxSource)
      error(fmt::format("at most {} bytes", kMaxSource), fmt::format("{}", in_.size()));
    if (!valid_utf8(in_)) error("UTF-8", "other bytes");
    for (space(true); at_ < in_.size(); space(true)) rule_definition();
    for (size_t i = 0; i < rules_.names.size(); ++i)
      if (!rules_.bodies[i])
        error("a definition of every rule", "none of '" + printable(rules_.names[i], 60) + "'");
    auto root = index_.find("root");
    if (root == index_.end()) error("a rule 'root'", "none");
    rules_.root = root->second;
    return std::move(rules_);
  }

 private:
  [[noreturn]] void error(std::string_view expected, std::string_view found) const {
    const auto line =
        1 +
        std::count(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, in_.size())), '\n');
    throw input_error(fmt::format("{}: line {}", where_, line), expected, found);
  }
  [[noreturn]] void expected(std::string_view what) const {
    error(what, at_ < in_.size() ? "'" + printable(in_.substr(at_, 12)) + "'" : "the end of the grammar");
  }

  char peek() const { return at_ < in_.size() ? in_[at_] : '\0'; }
  bool skip(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  void space(bool newlines) {
    while (at_ < in_.size()) {
      if (peek() == '#') {
        while (at_ < in_.size() && peek() != '\n' && peek() != '\r') ++at_;
      } else if (peek() == ' ' || peek() == '\t' || (newlines && (peek() == '\n' || peek() == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  static bool name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }

  int32_t rule_name() {
    const size_t begin = at_;
    while (name_char(peek())) ++at_;
    if (at_ == begin) expected("the name of a rule");
    const std::string name(in_.substr(begin, at_ - begin));
    auto [it, fresh] = index_.try_emplace(name, 0);
    if (fresh) it->second = rules_.add(name);
    return it->second;
  }

  void rule_definition() {
    const auto index = static_cast<size_t>(rule_name());
    space(false);
    if (!skip("::=")) expected("'::='");
    if (rules_.bodies[index]) error("every rule once", "'" + printable(rules_.names[index], 60) + "' twice");
    space(true);
    ExprPtr body = alternation(false, 0);
    if (at_ < in_.size() && peek() != '\n' && peek() != '\r') expected("the end of the rule");
    rules_.bodies[index] = std::move(body);
  }

  ExprPtr alternation(bool nested, int depth) {
    if (depth > kMaxDepth) error(fmt::format("at most {} levels of nesting", kMaxDepth), "more");
    std::vector<ExprPtr> items = {items_of_sequence(nested, depth)};
    for (;;) {
      const size_t here = at_;
      space(true);  // an alternative may begin on the next line
      if (!skip("|")) {
        if (!nested) at_ = here;
        return alternatives(std::move(items));
      }
      space(true);
      items.push_back(items_of_sequence(nested, depth));
    }
  }

  ExprPtr items_of_sequence(bool nested, int depth) {
    std::vector<ExprPtr> items;
    for (space(nested);; space(nested)) {
      const char c = peek();
      if (c == '"') {
        items.push_back(literal());
      } else if (c == '[') {
        items.push_back(character_class());
      } else if (c == '.') {
        ++at_;
        items.push_back(characters(CharacterSet::any()));
      } else if (c == '(') {
        ++at_;
        space(true);
        items.push_back(alternation(true, depth + 1));
        if (!skip(")")) expected("')'");
      } else if (name_char(c)) {
        // In parentheses a name could begin the next rule where they were not closed.
        items.push_back(rule(rule_name()));
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        if (items.empty()) expected("something to repeat");
        items.back() = repetition(items.back());
      } else {
        return items.empty() ? bytes("") : sequence(std::move(items));
      }
    }
  }

  ExprPtr repetition(ExprPtr item) {
    const char c = in_[at_++];
    int64_t min = c == '+' ? 1 : 0, max = c == '?' ? 1 : -1;
    if (c == '{') {
      space(true);
      const auto number = [&]() -> int64_t {
        const size_t begin = at_;
        int64_t n = 0;
        for (; peek() >= '0' && peek() <= '9'; ++at_) n = std::min(kMaxRepeat + 1, n * 10 + peek() - '0');
        if (at_ == begin) expected("a number");
        if (n > kMaxRepeat) error(fmt::format("at most {} repetitions", kMaxRepeat), "more");
        return n;
      };
      min = peek() == ',' ? 0 : number();
      space(true);
      max = min;
      if (skip(",")) {
        space(true);
        max = peek() == '}' ? -1 : number();
        space(true);
      }
      if (!skip("}")) expected("'}'");
      if (max >= 0 && max < min) error("a lower bound below the upper", "one above");
    }
    // (x{0,9999}){0,9999} has a hundred million copies: each is a rule, so they cost only their sum.
    return repeat(std::move(item), min, max);
  }

  char32_t character() {
    if (at_ >= in_.size()) expected("a character");
    if (peek() != '\\') {
      if (peek() == '\n') expected("a character");
      return next_code_point(in_, at_);
    }
    ++at_;
    const char c = peek();
    ++at_;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<char32_t>(c);
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      default:
        --at_;
        expected("an escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH");
    }
  }

  char32_t hex(size_t digits) {
    char32_t out = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) expected("a hexadecimal digit");
      out = out * 16 + static_cast<char32_t>(digit);
      if (out > 0x10FFFF) error("a code point", "a larger number");
    }
    if (out >= 0xD800 && out <= 0xDFFF) error("a code point", "a surrogate");
    return out;
  }

  ExprPtr literal() {
    ++at_;
    std::string text;
    while (peek() != '"') append_utf8(text, character());
    ++at_;
    return bytes(std::move(text));
  }

  ExprPtr character_class() {
    ++at_;
    const bool negated = skip("^");
    CharacterSet set;
    while (peek() != ']') {
      const char32_t first = character();
      char32_t last = first;
      if (peek() == '-' && at_ + 1 < in_.size() && in_[at_ + 1] != ']') {
        ++at_;
        last = character();
      }
      if (last < first) error("a range that ascends", "one that descends");
      set.add(first, last);
    }
    ++at_;
    return characters(negated ? set.complement() : set);
  }

  std::string_view in_;
  std::string_view where_;
  size_t at_ = 0;
  Rules rules_;
  std::map<std::string, int32_t> index_;
};

}  // namespace

Rules parse_gbnf(std::string_view source, std::string_view where) { return Parser(source, where).run(); }

}  // namespace lathe::grammar
