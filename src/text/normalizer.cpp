#include "text/normalizer.h"

#include <algorithm>
#include <array>
#include <utf8proc.h>

#include "core/error.h"
#include "text/utf8.h"

namespace lathe {

namespace {

// Below this every code point is its own NFC and, but for the decomposable Latin-1 letters, everything else.
constexpr char32_t kFirstNotNfc = 0x300;

bool already_normal(std::string_view text, UnicodeForm form) {
  const char32_t limit = form == UnicodeForm::nfc ? kFirstNotNfc : 0x80;
  for (size_t i = 0; i < text.size();) {
    if (next_code_point(text, i) >= limit) return false;
  }
  return true;
}

utf8proc_propval_t combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// utf8proc_map would do, but it sorts combining marks by insertion: a text of a million marks takes it hours.
std::string normal_form(const std::string& text, UnicodeForm form) {
  const bool compose = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  const auto option = [](bool on, utf8proc_option_t flag) { return on ? flag : utf8proc_option_t{}; };
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | option(compatible, UTF8PROC_COMPAT) |
                                                      (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  std::array<utf8proc_int32_t, 32> parts{};  // the longest decomposition has 18
  for (size_t i = 0; i < text.size();) {
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next_code_point(text, i)),
                                               parts.data(), parts.size(), options, &boundary);
    if (count < 0 || static_cast<size_t>(count) > parts.size()) fail("utf8proc_decompose_char failed");
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }

  // Canonical ordering: runs of combining marks by class, stably.
  for (auto run = points.begin(); run != points.end();) {
    const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
    run = std::find_if(run, points.end(), is_mark);
    const auto end = std::find_if_not(run, points.end(), is_mark);
    std::stable_sort(run, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  if (compose) {
    const auto count =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), options);
    if (count < 0) fail("utf8proc_normalize_utf32 failed");
    points.resize(static_cast<size_t>(count));
  }
  std::string out;
  out.reserve(text.size());
  for (const auto c : points) append_utf8(out, static_cast<char32_t>(c));
  return out;
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view replacement,
                        const Budget& budget) {
  std::string out;
  out.reserve(text.size());
  for (size_t found; (found = text.find(pattern)) != std::string_view::npos;) {
    out += text.substr(0, found);
    out += replacement;
    budget.check_bytes(out.size());
    text.remove_prefix(found + pattern.size());
  }
  return out += text;
}

Normalizer unicode_normalizer(UnicodeForm form) {
  return [form](std::string text, Budget&) {
    return already_normal(text, form) ? text : normal_form(text, form);
  };
}

Normalizer lowercase_normalizer() {
  return [](const std::string& text, Budget&) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size();) {
      const char32_t c = next_code_point(text, i);
      if (c == 0x130) {  // the one character whose full lower case has two (SpecialCasing.txt)
        out += "i\xCC\x87";
      } else {
        append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
      }
    }
    return out;
  };
}

Normalizer strip_normalizer(bool left, bool right) {
  return [left, right](const std::string& text, Budget&) {
    size_t begin = text.size(), end = 0;  // of what is not white space
    for (size_t i = 0; i < text.size();) {
      const size_t start = i;
      if (is_white_space(next_code_point(text, i))) continue;
      begin = std::min(begin, start);
      end = i;
    }
    if (begin > end) return std::string(left || right ? "" : text);
    if (!left) begin = 0;
    if (!right) end = text.size();
    return text.substr(begin, end - begin);
  };
}

Normalizer prepend_normalizer(std::string prefix) {
  return [prefix = std::move(prefix)](const std::string& text, Budget&) {
    return text.empty() ? text : prefix + text;
  };
}

Normalizer replace_normalizer(std::string pattern, std::string replacement) {
  return [pattern = std::move(pattern), replacement = std::move(replacement)](const std::string& text,
                                                                              const Budget& budget) {
    return replace_all(text, pattern, replacement, budget);
  };
}

Normalizer replace_normalizer(Regex pattern, std::string replacement) {
  return [pattern = std::move(pattern), replacement = std::move(replacement)](const std::string& text,
                                                                              Budget& budget) {
    std::vector<ByteRange> matches;
    pattern.find_all(text, budget, matches);
    std::string out;
    size_t done = 0;
    for (const ByteRange& match : matches) {
      out.append(text, done, match.begin - done);
      out += replacement;
      budget.check_bytes(out.size());
      done = match.end;
    }
    return out.append(text, done);
  };
}

std::string normalize(const std::vector<Normalizer>& normalizers, std::string_view text, Budget& budget) {
  std::string out(text);
  for (const Normalizer& step : normalizers) {
    out = step(std::move(out), budget);
    budget.spend_bytes(out.size());
  }
  return out;
}

}  // namespace lathe
