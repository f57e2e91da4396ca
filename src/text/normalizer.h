// Normalizers: the text itself is changed before it is split.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace lathe {

// Takes valid UTF-8 and gives valid UTF-8, within the budget.
using Normalizer = std::function<std::string(std::string, Budget&)>;

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };
Normalizer unicode_normalizer(UnicodeForm);
Normalizer lowercase_normalizer();
Normalizer strip_normalizer(bool left, bool right);                           // white space at the ends
Normalizer prepend_normalizer(std::string prefix);                            // an empty text stays empty
Normalizer replace_normalizer(std::string pattern, std::string replacement);  // `pattern` is not empty
Normalizer replace_normalizer(Regex pattern, std::string replacement);  // the replacement is literal, no $1

std::string normalize(const std::vector<Normalizer>&, std::string_view text, Budget&);

// Every `pattern` (not empty) in `text` becomes `replacement`, from left to right.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view replacement,
                        const Budget&);

}  // namespace lathe
