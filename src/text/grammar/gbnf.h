// llama.cpp's grammar notation.
#pragma once

#include <string_view>

#include "text/grammar/expr.h"

namespace lathe::grammar {

// InputError naming `where`, the line and what is wrong.
Rules parse_gbnf(std::string_view source, std::string_view where);

}  // namespace lathe::grammar
