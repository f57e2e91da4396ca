#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace lathe::jinja {

namespace {

// \r\n and \r are line breaks like \n; one at the end goes.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view where) : source_(source), where_(where) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) outside();
    put(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(std::string_view expected, std::string_view found) const {
    throw input_error(fmt::format("{}: line {}", where_, line_), expected, found);
  }

  std::string_view rest() const { return source_.substr(at_); }
  bool follows(std::string_view text) const { return rest().starts_with(text); }

  void put(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void advance(size_t bytes) {
    const auto passed = source_.substr(at_, bytes);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    at_ += passed.size();
    if (!passed.empty()) line_starting_ = passed.back() == '\n';
  }

  void skip_space() { advance(rest().size() - strip(rest(), Side::left).size()); }

  // Data up to the next tag, then the tag.
  void outside() {
    size_t tag = at_;
    while (tag < source_.size() &&
           !(source_[tag] == '{' && tag + 1 < source_.size() &&
             (source_[tag + 1] == '{' || source_[tag + 1] == '%' || source_[tag + 1] == '#')))
      ++tag;
    std::string_view data = source_.substr(at_, tag - at_);
    if (tag == source_.size()) {
      if (!data.empty()) put(TokenKind::data, std::string(data));
      advance(data.size());
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const size_t whole = data.size();
    data = before_tag(data, kind, sign);
    if (!data.empty()) put(TokenKind::data, std::string(data));
    advance(whole + (sign == '-' || sign == '+' ? 3 : 2));
    if (kind == '#') return comment();
    if (kind == '{') {
      put(TokenKind::variable_begin, "");
      return inside("}}", TokenKind::variable_end);
    }
    if (raw()) return;
    put(TokenKind::block_begin, "");
    inside("%}", TokenKind::block_end);
  }

  // "-" strips what stands before a tag; before a block or comment alone on its line, so does lstrip_blocks.
  std::string_view before_tag(std::string_view data, char kind, char sign) const {
    if (sign == '-') return strip(data, Side::right);
    if (sign == '+' || kind == '{') return data;
    const size_t newline = data.rfind('\n');
    if (newline == std::string_view::npos && !line_starting_) return data;
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return strip(data.substr(line), Side::both).empty() ? data.substr(0, line) : data;
  }

  // The end of a block or comment: "-" strips what follows, "+" keeps the newline that trim_blocks drops.
  void after_tag(size_t bytes, bool minus, bool plus) {
    advance(bytes);
    if (minus) return skip_space();
    if (!plus && follows("\n")) advance(1);
  }

  void comment() {
    const size_t close = source_.find("#}", at_);
    if (close == std::string_view::npos) error("'#}' at the end of a comment", "the end of the template");
    const char sign = close > at_ ? source_[close - 1] : '\0';
    after_tag(close + 2 - at_, sign == '-', sign == '+');
  }

  // {% raw %}: everything up to {% endraw %} is data.
  bool raw() {
    std::string_view tail = strip(rest(), Side::left);
    if (!tail.starts_with("raw")) return false;
    tail = strip(tail.substr(3), Side::left);
    const bool minus = tail.starts_with("-%}");
    if (!minus && !tail.starts_with("%}")) return false;
    advance(rest().size() - tail.size() + (minus ? 3 : 2));
    if (minus) skip_space();
    for (size_t open = source_.find("{%", at_); open != std::string_view::npos;
         open = source_.find("{%", open + 2)) {
      std::string_view end = source_.substr(open + 2);
      const char sign = end.empty() ? '\0' : end[0];
      if (sign == '-' || sign == '+') end.remove_prefix(1);
      end = strip(end, Side::left);
      if (!end.starts_with("endraw")) continue;
      end = strip(end.substr(6), Side::left);
      const char close = end.empty() ? '\0' : end[0];
      if (close == '-' || close == '+') end.remove_prefix(1);
      if (!end.starts_with("%}")) continue;
      const std::string_view data = before_tag(source_.substr(at_, open - at_), '%', sign);
      if (!data.empty()) put(TokenKind::data, std::string(data));
      after_tag(rest().size() - end.size() + 2, close == '-', close == '+');
      return true;
    }
    error("{% endraw %}", "the end of the template");
  }

  // The inside of a tag up to `close`.
  void inside(std::string_view close, TokenKind end) {
    std::string open;  // brackets that wait for their partner
    for (;;) {
      skip_space();
      if (at_ == source_.size()) error(fmt::format("'{}'", close), "the end of the template");
      if (open.empty()) {
        const bool block = end == TokenKind::block_end;
        const bool minus = follows("-") && rest().substr(1).starts_with(close);
        const bool plus = block && follows("+") && rest().substr(1).starts_with(close);
        if (minus || plus || follows(close)) {
          put(end, "");
          if (block) return after_tag(minus || plus ? 3 : 2, minus, plus);
          advance(minus ? 3 : 2);
          if (minus) skip_space();
          return;
        }
      }
      const char c = source_[at_];
      if (name_start(c)) {
        name();
      } else if (digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        op(open);
      }
    }
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && (name_start(source_[end]) || digit(source_[end]))) ++end;
    put(TokenKind::name, std::string(source_.substr(at_, end - at_)));
    advance(end - at_);
  }

  void number() {
    size_t end = at_;
    bool real = false;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < source_.size() &&
             (digit(source_[end]) ||
              (source_[end] == '_' && end > begin && end + 1 < source_.size() && digit(source_[end + 1]))))
        ++end;
      return end > begin;
    };
    const auto at = [&](size_t i) { return i < source_.size() ? source_[i] : '\0'; };
    digits();
    if (at(end) == 'x' || at(end) == 'o' || at(end) == 'b') error("a decimal number", "another base");
    // "1.foo" is an item of 1, "a.0.b" reads 0 as a number: a point needs a digit after it.
    if (at(end) == '.' && digit(at(end + 1)) && !(at_ > 0 && source_[at_ - 1] == '.')) {
      ++end;
      real = digits();
    }
    if (at(end) == 'e' || at(end) == 'E') {
      const size_t sign = at(end + 1) == '+' || at(end + 1) == '-' ? 1 : 0;
      if (digit(at(end + 1 + sign))) {
        end += 1 + sign;
        real = digits();
      }
    }
    std::string text(source_.substr(at_, end - at_));
    std::erase(text, '_');
    put(real ? TokenKind::real : TokenKind::integer, std::move(text));
    advance(end - at_);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("the end of a string", "the end of the template");
    put(TokenKind::string, unescape(source_.substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
  }

  // Python's escapes.
  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      constexpr std::string_view from = "abfnrtv\\'\"", to = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t known = from.find(c); known != std::string_view::npos) {
        out += to[known];
      } else if (c == '\n') {
        continue;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_utf8(out, code_point(text, i + 1, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16));
        i += c == 'x' ? 2 : c == 'u' ? 4 : 8;
      } else if (c >= '0' && c <= '7') {
        size_t length = 1;
        while (length < 3 && i + length < text.size() && text[i + length] >= '0' && text[i + length] <= '7')
          ++length;
        append_utf8(out, code_point(text, i, length, 8));
        i += length - 1;
      } else if (c == 'N') {
        error("a character by its code", "\\N{name}");
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  char32_t code_point(std::string_view text, size_t begin, size_t length, int base) const {
    const std::string digits(text.substr(std::min(begin, text.size()), length));
    const std::string_view allowed = base == 16 ? "0123456789abcdefABCDEF" : "01234567";
    if (digits.size() != length || digits.find_first_not_of(allowed) != std::string::npos)
      error(fmt::format("{} digits in an escape", length), "'" + printable(digits) + "'");
    const auto c = static_cast<char32_t>(std::stoul(digits, nullptr, base));
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) error("a character", "\\u" + digits);
    return c;
  }

  void op(std::string& open) {
    constexpr std::array<std::string_view, 26> operators = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                                            "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                            "]",  "{",  "}",  "|",  ",",  ":",  ".", ";"};
    for (const std::string_view text : operators) {
      if (!follows(text)) continue;
      if (text == "(") open += ')';
      if (text == "[") open += ']';
      if (text == "{") open += '}';
      if (text == ")" || text == "]" || text == "}") {
        if (open.empty() || open.back() != text[0])
          error(open.empty() ? "an expression" : fmt::format("'{}'", open.back()), fmt::format("'{}'", text));
        open.pop_back();
      }
      put(TokenKind::op, std::string(text));
      return advance(text.size());
    }
    error("an expression", "'" + printable(rest().substr(0, 1)) + "'");
  }

  std::string_view source_;
  std::string_view where_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view where) {
  const std::string text = normalize_newlines(source);
  return Lexer(text, where).run();
}

}  // namespace lathe::jinja
