#include "text/grammar/regex_expr.h"

#include <algorithm>

#include "core/error.h"
#include "text/utf8.h"

namespace lathe::grammar {

namespace {

constexpr size_t kMaxPattern = size_t{64} << 10;
constexpr int kMaxDepth = 100;
constexpr int64_t kMaxRepeat = 10'000;

CharacterSet digits() { return {'0', '9'}; }
CharacterSet word() {
  CharacterSet out('a', 'z');
  out.add('A', 'Z');
  out.add('0', '9');
  out.add('_', '_');
  return out;
}
CharacterSet white_space() {  // ECMA-262: WhiteSpace and LineTerminator
  CharacterSet out(0x09, 0x0D);
  for (const char32_t c : {0x20, 0xA0, 0x1680, 0x202F, 0x205F, 0x3000, 0xFEFF}) out.add(c, c);
  out.add(0x2000, 0x200A);
  out.add(0x2028, 0x2029);
  return out;
}
CharacterSet not_line_end() {
  CharacterSet ends('\n', '\n');
  ends.add('\r', '\r');
  ends.add(0x2028, 0x2029);
  return ends.complement();
}

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view where, bool whole,
         const std::function<ExprPtr(const CharacterSet&)>& leaf)
      : in_(pattern), where_(where), whole_(whole), leaf_(leaf) {}

  ExprPtr run() {
    if (in_.size() > kMaxPattern)
      throw input_error(where_, fmt::format("a pattern of at most {} bytes", kMaxPattern),
                        fmt::format("{}", in_.size()));
    if (!valid_utf8(in_)) throw input_error(where_, "a pattern in UTF-8", "other bytes");
    // ^ and $ stand at the ends of the pattern's own alternatives and nowhere else.
    std::vector<ExprPtr> items;
    do {
      const bool begins = skip("^");
      ExprPtr middle = items_of_sequence(0);
      const bool ends = skip("$");
      if (at_ < in_.size() && peek() != '|')
        unsupported(peek() == ')' ? "')' without '('" : "an anchor inside");
      std::vector<ExprPtr> parts;
      const ExprPtr anything = repeat(leaf_(CharacterSet::any()), 0, -1);
      if (!whole_ && !begins) parts.push_back(anything);
      parts.push_back(std::move(middle));
      if (!whole_ && !ends) parts.push_back(anything);
      items.push_back(sequence(std::move(parts)));
    } while (skip("|"));
    return alternatives(std::move(items));
  }

 private:
  [[noreturn]] void unsupported(std::string_view construct) const {
    throw input_error(fmt::format("{}: byte {}", where_, at_),
                      "a regular expression that this grammar supports",
                      fmt::format("{} in '{}'", construct, printable(in_, 80)));
  }

  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  bool skip(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  ExprPtr alternation(int depth) {
    if (depth > kMaxDepth) unsupported(fmt::format("more than {} levels of nesting", kMaxDepth));
    std::vector<ExprPtr> items;
    do items.push_back(items_of_sequence(depth));
    while (skip("|"));
    return alternatives(std::move(items));
  }

  ExprPtr items_of_sequence(int depth) {
    std::vector<ExprPtr> items;
    while (at_ < in_.size() && peek() != '|' && peek() != ')' && peek() != '$' && peek() != '^')
      items.push_back(repetitions(atom(depth)));
    return items.empty() ? bytes("") : sequence(std::move(items));
  }

  ExprPtr repetitions(ExprPtr item) {
    int64_t min = 0, max = 0;
    if (skip("*")) {
      max = -1;
    } else if (skip("+")) {
      min = 1, max = -1;
    } else if (skip("?")) {
      max = 1;
    } else if (!counts(min, max)) {
      return item;
    }
    skip("?");  // lazy: the same language
    if (peek() == '+') unsupported("a possessive repetition");
    if (peek() == '*' || peek() == '?' || (peek() == '{' && braces()))
      unsupported("a repetition of a repetition");
    return repeat(std::move(item), min, max);
  }

  // "{n}", "{n,}" or "{n,m}" follows. Otherwise the brace is a character.
  bool braces() const {
    size_t i = 1;
    const size_t begin = i;
    while (peek(i) >= '0' && peek(i) <= '9') ++i;
    if (i == begin) return false;
    if (peek(i) == ',') ++i;
    while (peek(i) >= '0' && peek(i) <= '9') ++i;
    return peek(i) == '}';
  }

  bool counts(int64_t& min, int64_t& max) {
    if (peek() != '{' || !braces()) return false;
    ++at_;
    const auto number = [&] {
      int64_t n = 0;
      for (; peek() >= '0' && peek() <= '9'; ++at_) n = std::min(kMaxRepeat + 1, n * 10 + peek() - '0');
      if (n > kMaxRepeat) unsupported(fmt::format("more than {} repetitions", kMaxRepeat));
      return n;
    };
    max = min = number();
    if (skip(",")) max = peek() == '}' ? -1 : number();
    if (max >= 0 && max < min) unsupported("a lower bound above the upper");
    ++at_;
    return true;
  }

  ExprPtr atom(int depth) {
    const char c = peek();
    if (c == '(') return group(depth);
    if (c == '[') return leaf_(character_class());
    if (c == '.') {
      ++at_;
      return leaf_(not_line_end());
    }
    if (c == '*' || c == '+' || c == '?' || (c == '{' && braces())) unsupported("nothing to repeat");
    if (c == '\\') return leaf_(escape(false));
    const char32_t literal = next_code_point(in_, at_);
    return leaf_({literal, literal});
  }

  ExprPtr group(int depth) {
    ++at_;
    if (skip("?")) {
      const bool named = peek() == 'P' ? peek(1) == '<' : peek() == '<' && peek(1) != '=' && peek(1) != '!';
      if (named) {
        const size_t close = in_.find('>', at_);
        if (close == std::string_view::npos) unsupported("a group's name without an end");
        at_ = close + 1;
      } else if (!skip(":")) {
        unsupported("a look-around, condition or flag");
      }
    }
    ExprPtr out = alternation(depth + 1);
    if (peek() == '^' || peek() == '$') unsupported("an anchor in a group");
    if (!skip(")")) unsupported("'(' without ')'");
    return out;
  }

  CharacterSet escape(bool in_class) {
    ++at_;
    if (at_ >= in_.size()) unsupported("'\\' at the end");
    const char32_t c = next_code_point(in_, at_);
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return digits().complement();
      case 'w':
        return word();
      case 'W':
        return word().complement();
      case 's':
        return white_space();
      case 'S':
        return white_space().complement();
      case 'n':
        return {'\n', '\n'};
      case 'r':
        return {'\r', '\r'};
      case 't':
        return {'\t', '\t'};
      case 'f':
        return {'\f', '\f'};
      case 'v':
        return {'\v', '\v'};
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'c': {
        const char letter = peek();
        if (!((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z')))
          unsupported("\\c without a letter");
        ++at_;
        const auto control = static_cast<char32_t>(letter % 32);
        return {control, control};
      }
      case 'b':
        if (in_class) return {'\b', '\b'};
        break;
      case '0':
        if (!(peek() >= '0' && peek() <= '9')) return {0, 0};
        break;
      default:
        break;
    }
    const bool punctuation =
        c < 0x80 && !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
    if (!punctuation) {
      std::string text;
      append_utf8(text, c);
      unsupported("\\" + text);
    }
    return {c, c};
  }

  CharacterSet hex(size_t count) {
    const auto read = [&](size_t digits_wanted) {
      char32_t out = 0;
      for (size_t i = 0; i < digits_wanted; ++i, ++at_) {
        const char c = peek();
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) unsupported("an escape without its hexadecimal digits");
        out = out * 16 + static_cast<char32_t>(digit);
      }
      return out;
    };
    char32_t c = read(count);
    if (c >= 0xD800 && c <= 0xDBFF && skip("\\u")) {
      const char32_t low = read(4);
      if (low < 0xDC00 || low > 0xDFFF) unsupported("a lone surrogate");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    if (c >= 0xD800 && c <= 0xDFFF) unsupported("a lone surrogate");
    return {c, c};
  }

  CharacterSet character_class() {
    ++at_;
    const bool negated = skip("^");
    CharacterSet set;
    for (bool first_item = true; first_item || peek() != ']'; first_item = false) {
      if (at_ >= in_.size()) unsupported("'[' without ']'");
      if (peek() == ']') unsupported("']' first in a class, which ECMA-262 and Python read differently");
      if (peek() == '[' && (peek(1) == ':' || peek(1) == '=' || peek(1) == '.')) unsupported("a POSIX class");
      const CharacterSet first = class_item();
      const bool range = peek() == '-' && peek(1) != ']' && at_ + 1 < in_.size();
      if (!range) {
        set.add(first);
        continue;
      }
      ++at_;
      const CharacterSet last = class_item();
      const auto one = [](const CharacterSet& s) {
        return s.ranges().size() == 1 && s.ranges()[0].first == s.ranges()[0].second;
      };
      if (!one(first) || !one(last) || last.ranges()[0].first < first.ranges()[0].first)
        unsupported("a range between what are not ascending characters");
      set.add(first.ranges()[0].first, last.ranges()[0].first);
    }
    ++at_;
    return negated ? set.complement() : set;
  }

  CharacterSet class_item() {
    if (peek() == '\\') return escape(true);
    const char32_t c = next_code_point(in_, at_);
    return {c, c};
  }

  std::string_view in_;
  std::string_view where_;
  bool whole_;
  const std::function<ExprPtr(const CharacterSet&)>& leaf_;
  size_t at_ = 0;
};

}  // namespace

ExprPtr parse_regex(std::string_view pattern, std::string_view where, bool whole,
                    const std::function<ExprPtr(const CharacterSet&)>& leaf) {
  return Parser(pattern, where, whole, leaf).run();
}

}  // namespace lathe::grammar
