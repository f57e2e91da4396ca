#include "text/grammar/json_rules.h"

#include <fmt/format.h>

#include "text/utf8.h"

namespace lathe::grammar {

namespace {

CharacterSet set_of(std::string_view chars) {
  CharacterSet out;
  for (const char c : chars) out.add(static_cast<char32_t>(c), static_cast<char32_t>(c));
  return out;
}

CharacterSet ranges(std::initializer_list<std::pair<char, char>> list) {
  CharacterSet out;
  for (const auto& [first, last] : list) out.add(static_cast<char32_t>(first), static_cast<char32_t>(last));
  return out;
}

CharacterSet must_escape() {
  CharacterSet out = set_of("\"\\");
  out.add(0, 0x1F);
  return out;
}

std::string escape(char32_t c) {
  constexpr std::string_view letters = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
  const size_t known = c < 0x80 ? letters.find(static_cast<char>(c)) : std::string_view::npos;
  if (known != std::string_view::npos) return {'\\', names[known]};
  return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
}

}  // namespace

ExprPtr json_characters(const CharacterSet& set) {
  const CharacterSet plain = set.without(must_escape()), escaped = set.within(must_escape());
  std::vector<ExprPtr> items = {characters(plain)};
  for (const auto& [first, last] : escaped.ranges())
    for (char32_t c = first; c <= last; ++c) items.push_back(bytes(escape(c)));
  return alternatives(std::move(items));
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text, at);
    if (c < 0x20 || c == '"' || c == '\\') {
      out += escape(c);
    } else {
      out += text.substr(begin, at - begin);
    }
  }
  return out + '"';
}

JsonRules::JsonRules(Rules& rules) {
  const auto one = [](std::string_view chars) { return characters(set_of(chars)); };
  const auto list = [&](ExprPtr item, int32_t gap) {  // item (gap "," gap item)*
    return sequence({item, repeat(sequence({rule(gap), bytes(","), rule(gap), item}), 0, -1)});
  };
  constexpr int64_t kMaxSpace = 64;
  space = rules.add("space", repeat(one(" \t\n\r"), 0, kMaxSpace));
  const ExprPtr digit = characters(ranges({{'0', '9'}}));
  const ExprPtr hex = characters(ranges({{'0', '9'}, {'a', 'f'}, {'A', 'F'}}));
  // \uXXXX of a character, or of a pair of surrogates.
  const ExprPtr not_d = characters(ranges({{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}}));
  const ExprPtr low_d = sequence({one("dD"), characters(ranges({{'0', '7'}})), hex, hex});
  const ExprPtr pair = sequence({one("dD"), one("89abAB"), hex, hex, bytes("\\u"), one("dD"),
                                 characters(ranges({{'c', 'f'}, {'C', 'F'}})), hex, hex});
  const ExprPtr unit = alternatives({sequence({not_d, hex, hex, hex}), low_d, pair});
  character = rules.add(
      "character",
      alternatives(
          {characters(must_escape().complement()),
           sequence({bytes("\\"), alternatives({one("\"\\/bfnrt"), sequence({bytes("u"), unit})})})}));
  string = rules.add("string", sequence({bytes("\""), repeat(rule(character), 0, -1), bytes("\"")}));
  const ExprPtr whole =
      alternatives({bytes("0"), sequence({characters(ranges({{'1', '9'}})), repeat(digit, 0, -1)})});
  integer = rules.add("integer", sequence({repeat(bytes("-"), 0, 1), whole}));
  number = rules.add(
      "number",
      sequence({rule(integer), repeat(sequence({bytes("."), repeat(digit, 1, -1)}), 0, 1),
                repeat(sequence({one("eE"), repeat(one("+-"), 0, 1), repeat(digit, 1, -1)}), 0, 1)}));
  boolean = rules.add("boolean", alternatives({bytes("true"), bytes("false")}));
  null = rules.add("null", bytes("null"));
  array = rules.add("array");
  object = rules.add("object");
  value = rules.add("value", alternatives({rule(object), rule(array), rule(string), rule(number),
                                           rule(boolean), rule(null)}));
  const auto enclosed = [&](const char* open, ExprPtr items, const char* close) {
    return sequence(
        {bytes(open), rule(space), repeat(sequence({std::move(items), rule(space)}), 0, 1), bytes(close)});
  };
  rules.bodies[static_cast<size_t>(array)] = enclosed("[", list(rule(value), space), "]");
  const ExprPtr member = sequence({rule(string), rule(space), bytes(":"), rule(space), rule(value)});
  rules.bodies[static_cast<size_t>(object)] = enclosed("{", list(member, space), "}");
}

}  // namespace lathe::grammar
