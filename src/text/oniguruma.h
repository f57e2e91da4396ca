// Regular expressions of tokenizer.json are written for Oniguruma (Ruby syntax); ours run in PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// The same expression in PCRE2's syntax (with UTF, UCP and MULTILINE): \s, \w, \b, \p{Script} get Oniguruma's
// meaning. Throws InputError, naming the construct, for what means something else in PCRE2 or is not in
// Oniguruma. Reference: https://github.com/kkos/oniguruma/blob/master/doc/RE and pcre2pattern(3).
std::string pcre2_from_oniguruma(std::string_view pattern, std::string_view where);

}  // namespace lathe
