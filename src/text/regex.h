// Regular expressions over UTF-8, by PCRE2 with its JIT. (std::regex knows no \p{L} and overflows the stack
// on long repeats.)
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/budget.h"

namespace lathe {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0, end = 0;
};

class Regex {
 public:
  // `pattern` in Oniguruma's (Ruby) syntax, as tokenizer.json has it. InputError when it is malformed or uses
  // what means something else in PCRE2.
  Regex(std::string_view pattern, std::string_view where);

  // All matches from left to right, none overlapping, empty ones included unless they touch the match before.
  // `text` must be valid UTF-8. Thread-safe.
  void find_all(std::string_view text, Budget&, std::vector<ByteRange>& matches) const;

 private:
  std::string pattern_;  // as given, for messages
  std::shared_ptr<const void> code_;
};

}  // namespace lathe
