#include "text/oniguruma.h"

#include "core/error.h"

namespace lathe {

namespace {

// \w is Alphabetic, a mark, a decimal digit or a connector; outside of character classes also, by a quirk of
// its Latin-1 table, one of six superscripts and fractions. (PCRE2's is a letter, any number or an
// underscore.) Found by comparing every code point.
constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kQuirk = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        inside_class(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(std::string_view construct) const {
    throw input_error(where_, "a regular expression without " + std::string(construct),
                      "'" + printable(in_) + "'");
  }

  char peek(size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void copy(size_t bytes) {
    out_ += in_.substr(at_, bytes);
    at_ += bytes;
  }

  void replace(size_t bytes, std::string_view by) {
    out_ += by;
    at_ += bytes;
  }

  void escape() {
    const std::string word = in_class_ ? std::string(kWord) : fmt::format("{}{}", kWord, kQuirk);
    const char c = peek(1);
    switch (c) {
      case 's':
        return replace(2, "\\p{White_Space}");
      case 'S':
        return replace(2, "\\P{White_Space}");
      case 'v':
        return replace(2, "\\x0b");
      case 'w':
        return replace(2, in_class_ ? word : "[" + word + "]");
      case 'W':
        if (in_class_) unsupported("\\W inside a character class");
        return replace(2, "[^" + word + "]");
      case 'b':
      case 'B': {
        if (in_class_) unsupported("\\b inside a character class");
        const std::string here = "[" + word + "]";
        const std::string edge = "(?<=" + here + ")(?!" + here + ")|(?<!" + here + ")(?=" + here + ")";
        const std::string inner = "(?<=" + here + ")(?=" + here + ")|(?<!" + here + ")(?!" + here + ")";
        return replace(2, "(?:" + (c == 'b' ? edge : inner) + ")");
      }
      case 'p':
      case 'P':
        return property();
      case 'u':
        return replace(6, "\\x{" + hex_digits(4) + "}");
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
      case 'x':
      case 'A':
      case 'z':
      case 'Z':
        return copy(2);
      case '\0':
        unsupported("a backslash at its end");
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) unsupported(std::string("\\") + c);
        return copy(2);
    }
  }

  std::string hex_digits(size_t count) const {
    const std::string_view digits = in_.substr(std::min(in_.size(), at_ + 2), count);
    if (digits.size() != count ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
      unsupported("\\u that four hex digits do not follow");
    }
    return std::string(digits);
  }

  // General categories have one or two letters; longer names are taken for scripts, which PCRE2 would
  // otherwise read as script *extensions*.
  void property() {
    const size_t close = in_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) unsupported("\\p that {name} does not follow");
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    if (name.size() > 2 && name[0] != '^') {
      out_ += in_.substr(at_, 3);
      out_ += "sc:";
      at_ += 3;
    }
    copy(close + 1 - at_);
  }

  void open_class() {
    in_class_ = true;
    copy(peek(1) == '^' ? 2 : 1);
    if (peek(0) == ']') unsupported("']' first in a character class");
  }

  void inside_class(char c) {
    if (c == '[') unsupported("a nested character class");
    if (c == '&' && peek(1) == '&') unsupported("&& (intersection) in a character class");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void group() {
    if (peek(1) == '*') unsupported("(*");
    if (peek(1) != '?') return copy(1);
    for (const std::string_view allowed : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"}) {
      if (in_.substr(at_).starts_with(allowed)) return copy(allowed.size());
    }
    // Elsewhere (?i) reaches differently far in the two syntaxes.
    if (at_ == 0 && in_.starts_with("(?i)")) return copy(4);
    unsupported("'" + printable(in_.substr(at_, 4)) + "'");
  }

  // In Ruby syntax {n}+ repeats the repetition and {n}? makes it optional; {,n} is {0,n}.
  void interval() {
    const size_t close = in_.find('}', at_);
    const std::string_view body = close == std::string_view::npos ? "" : in_.substr(at_ + 1, close - at_ - 1);
    const size_t comma = body.find(',');
    const auto number = [](std::string_view s) {
      return !s.empty() && s.find_first_not_of("0123456789") == std::string_view::npos;
    };
    const std::string_view upper = comma == std::string_view::npos ? "" : body.substr(comma + 1);
    if (!number(body.substr(0, comma)) || !(upper.empty() || number(upper))) unsupported("a bare '{'");
    copy(close + 1 - at_);
    if (peek(0) == '+' || (peek(0) == '?' && comma == std::string_view::npos)) unsupported("{n}+ and {n}?");
  }

  std::string_view in_;
  std::string_view where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string pcre2_from_oniguruma(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

}  // namespace lathe
