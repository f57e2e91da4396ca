// What one call may cost. A tokenizer file can ask for anything (an expression that backtracks without end, a
// replacement that makes every byte a kilobyte), and a text can be made to fit it.
#pragma once

#include <cstddef>
#include <string_view>

namespace lathe {

// The longest text that encode() takes and decode() makes, in bytes.
inline constexpr size_t kMaxText = size_t{256} << 20;

// CPU time for regular expressions: published patterns need less than 0.1 s per MB and get 2 s and 2 s per
// MB. Bytes made by all normalizers, pre-tokenizers and decoders together: published pipelines make less than
// 10 times the text (each space 3 bytes, each byte 2) and get 64 times.
class Budget {
 public:
  explicit Budget(size_t text_bytes);

  // Before every attempt to match; looks at the clock every 64th time. InputError when time is up.
  void spend_attempt(std::string_view pattern);

  // A step has made, or is making, a text of so many bytes. InputError when that is too much.
  void check_bytes(size_t bytes) const;
  void spend_bytes(size_t bytes);

 private:
  double deadline_;  // seconds of CPU time of this thread
  unsigned attempts_ = 0;
  size_t bytes_left_;
};

}  // namespace lathe
