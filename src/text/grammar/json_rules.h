// JSON (RFC 8259) as rules; what JSON schemas are put together from.
#pragma once

#include "text/grammar/expr.h"

namespace lathe::grammar {

// Adds its rules.
struct JsonRules {
  explicit JsonRules(Rules&);
  int32_t space;      // up to 64 bytes of white space
  int32_t character;  // one code point within a string, as it is or as an escape
  int32_t string, integer, number, boolean, null, array, object, value;
};

// A code point of `set` within a JSON string, written as JSON must: '"', '\' and controls as their shortest
// escape, the others as they are.
ExprPtr json_characters(const CharacterSet& set);
// A text as a JSON string in that form, with its quotes.
std::string json_string(std::string_view text);

}  // namespace lathe::grammar
