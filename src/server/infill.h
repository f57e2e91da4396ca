// Text between a prompt and what follows it, by models that were trained to fill gaps.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace lathe {

// Prefix, suffix, middle (arXiv 2207.14255), each behind the token that the vocabulary has for it. Empty: it
// has none. What looks like a special token in either text is text.
std::vector<int32_t> infill_prompt(const Tokenizer&, std::string_view prefix, std::string_view suffix);

}  // namespace lathe
