// Regular expressions as grammars: what defines a language, without what only guides a search.
#pragma once

#include <functional>
#include <string_view>

#include "text/grammar/expr.h"

namespace lathe::grammar {

// `whole`: the text matches from its first to its last character. Otherwise, as JSON schemas mean it, some
// part of it does, unless ^ and $ say more. InputError naming `where` for a malformed pattern or an
// unsupported construct. `leaf` turns a set of characters into an expression; without it, into their UTF-8.
ExprPtr parse_regex(std::string_view pattern, std::string_view where, bool whole,
                    const std::function<ExprPtr(const CharacterSet&)>& leaf = characters);

}  // namespace lathe::grammar
