// The parts of an answer, and how its readers look at what has come of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

struct AnswerPart {
  enum class Kind : uint8_t { text, thought, call, arguments };
  Kind kind = Kind::text;
  std::string text;   // of a call, the tool's name; of arguments, JSON
  int64_t call = -1;  // whose, from 0
};

// More of the last part, or another one; nothing where the text is empty.
inline void add_part(std::vector<AnswerPart>& parts, AnswerPart::Kind kind, std::string_view text,
                     int64_t call = -1) {
  if (text.empty()) return;
  if (!parts.empty() && parts.back().kind == kind && parts.back().call == call &&
      kind != AnswerPart::Kind::call)
    parts.back().text += text;
  else
    parts.push_back({kind, std::string(text), call});
}

inline bool is_answer_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

inline size_t leading_space(std::string_view s) {
  return static_cast<size_t>(std::ranges::find_if_not(s, is_answer_space) - s.begin());
}

// More may make `s` begin with `mark`.
inline bool may_become(std::string_view s, std::string_view mark) {
  return s.size() < mark.size() && mark.starts_with(s);
}

}  // namespace lathe
