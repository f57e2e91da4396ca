#include "text/jinja/python_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <utf8proc.h>

#include "text/utf8.h"

namespace lathe::jinja {

namespace {

size_t character_bytes(std::string_view text, size_t at) {
  const auto b = static_cast<unsigned char>(text[at]);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

bool ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Code points whose full upper or title case is not one code point (SpecialCasing.txt), but for U+00DF.
bool special_upper(char32_t c) {
  return c == 0x149 || c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 || (c >= 0x1E96 && c <= 0x1E9A) ||
         (c >= 0x1F50 && c <= 0x1F56) || (c >= 0x1F80 && c <= 0x1FFC) || (c >= 0xFB00 && c <= 0xFB17);
}
// U+0130 becomes two; a sigma depends on what follows.
bool special_lower(char32_t c) { return c == 0x130 || c == 0x3A3; }

utf8proc_int32_t signed_point(char32_t c) { return static_cast<utf8proc_int32_t>(c); }

bool append_upper(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "SS";
    return true;
  }
  if (special_upper(c)) return false;
  append_utf8(out, static_cast<char32_t>(utf8proc_toupper(signed_point(c))));
  return true;
}

bool append_title(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "Ss";
    return true;
  }
  if (special_upper(c)) return false;
  append_utf8(out, static_cast<char32_t>(utf8proc_totitle(signed_point(c))));
  return true;
}

bool append_lower(std::string& out, char32_t c) {
  if (special_lower(c)) return false;
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(signed_point(c))));
  return true;
}

bool cased(char32_t c) {
  const auto category = utf8proc_category(signed_point(c));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

bool in_set(std::string_view set, std::string_view character) {
  for (size_t at = 0; at < set.size(); at += character_bytes(set, at))
    if (set.substr(at, character_bytes(set, at)) == character) return true;
  return false;
}

std::vector<std::string> split_at_space(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  for (text = strip(text, Side::left); !text.empty(); text = strip(text, Side::left)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.emplace_back(strip(text, Side::right));
      break;
    }
    size_t end = 0;
    for (size_t at = 0; at < text.size(); end = at)
      if (is_python_space(next_code_point(text, at))) break;
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<std::string> rsplit_at_space(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  for (text = strip(text, Side::right); !text.empty(); text = strip(text, Side::right)) {
    if (static_cast<int64_t>(parts.size()) == limit) {
      parts.emplace_back(strip(text, Side::left));
      break;
    }
    size_t begin = 0;
    for (size_t at = 0; at < text.size();)
      if (is_python_space(next_code_point(text, at))) begin = at;
    parts.emplace_back(text.substr(begin));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

size_t code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size(); at += character_bytes(text, at))
    out.emplace_back(text.substr(at, character_bytes(text, at)));
  return out;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t at = 0;
  while (index > 0 && at < text.size()) {
    at += character_bytes(text, at);
    --index;
  }
  return at;
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  const auto stripped = [&](std::string_view character) {
    size_t at = 0;
    return chars ? in_set(*chars, character) : is_python_space(next_code_point(character, at));
  };
  if (side != Side::right) {
    while (!text.empty() && stripped(text.substr(0, character_bytes(text, 0))))
      text.remove_prefix(character_bytes(text, 0));
  }
  if (side != Side::left) {
    while (!text.empty()) {
      size_t begin = text.size() - 1;
      while ((static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
      if (!stripped(text.substr(begin))) break;
      text = text.substr(0, begin);
    }
  }
  return text;
}

std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator,
                               int64_t limit, bool from_right) {
  if (!separator)
    return from_right && limit >= 0 ? rsplit_at_space(text, limit) : split_at_space(text, limit);
  std::vector<std::string> parts;
  const auto more = [&] { return limit < 0 || static_cast<int64_t>(parts.size()) < limit; };
  if (from_right) {
    for (size_t at; more() && (at = text.rfind(*separator)) != std::string_view::npos;
         text = text.substr(0, at))
      parts.emplace_back(text.substr(at + separator->size()));
    parts.emplace_back(text);
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  for (size_t at; more() && (at = text.find(*separator)) != std::string_view::npos;
       text.remove_prefix(at + separator->size()))
    parts.emplace_back(text.substr(0, at));
  parts.emplace_back(text);
  return parts;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(text, at);
    const bool breaks =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.emplace_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t limit) {
  std::string out;
  const auto more = [&] { return limit != 0; };
  if (old.empty()) {  // between all characters
    for (size_t at = 0;; at += character_bytes(text, at)) {
      if (more()) {
        out += by;
        --limit;
      }
      if (at >= text.size()) return out;
      out += text.substr(at, character_bytes(text, at));
    }
  }
  for (size_t at; more() && (at = text.find(old)) != std::string_view::npos; --limit) {
    out += text.substr(0, at);
    out += by;
    text.remove_prefix(at + old.size());
  }
  return out += text;
}

std::optional<std::string> upper(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();)
    if (!append_upper(out, next_code_point(text, at))) return std::nullopt;
  return out;
}

std::optional<std::string> lower(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();)
    if (!append_lower(out, next_code_point(text, at))) return std::nullopt;
  return out;
}

std::optional<std::string> capitalize(std::string_view text) {
  std::string out;
  if (text.empty()) return out;
  size_t at = 0;
  if (!append_title(out, next_code_point(text, at))) return std::nullopt;
  while (at < text.size())
    if (!append_lower(out, next_code_point(text, at))) return std::nullopt;
  return out;
}

std::optional<std::string> title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (!(inside ? append_lower(out, c) : append_title(out, c))) return std::nullopt;
    inside = cased(c);
  }
  return out;
}

std::string repr(std::string_view text) {
  const bool single = text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text, at);
    const auto category = utf8proc_category(signed_point(c));
    const bool hidden = category == UTF8PROC_CATEGORY_CN || category >= UTF8PROC_CATEGORY_ZS;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == ' ' || !hidden) {
      out += text.substr(begin, at - begin);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return out += quote;
}

std::string repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer{};
  // Python's rule for 'r': an exponent below -4 or of 16 and more is written.
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string out(buffer.data(), end);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

void append_json_string(std::string& out, std::string_view text, bool ensure_ascii) {
  const auto escaped = [&](uint32_t unit) { out += fmt::format("\\u{:04x}", unit); };
  const bool copy = !ensure_ascii || ascii(text);
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) < 0x80 || copy) {
      ++at;
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            escaped(static_cast<unsigned char>(c));
          } else {
            out += c;
          }
      }
      continue;
    }
    const auto point = static_cast<uint32_t>(next_code_point(text, at));
    if (point >= 0x10000) {
      escaped(0xD800 + ((point - 0x10000) >> 10));
      escaped(0xDC00 + ((point - 0x10000) & 0x3FF));
    } else {
      escaped(point);
    }
  }
  out += '"';
}

}  // namespace lathe::jinja
