// UTF-8 and the few classes of Unicode characters that tokenizers name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

bool valid_utf8(std::string_view);

// Ill-formed sequences become U+FFFD, one for each maximal subpart (Unicode 15, section 3.9), as in Rust and
// Python.
std::string repair_utf8(std::string_view);

// Bytes at the front of `text` that later bytes cannot change: all but an unfinished sequence at the end.
size_t complete_utf8(std::string_view text);

// The code point at `position`, which moves past it. The text must be valid UTF-8.
char32_t next_code_point(std::string_view text, size_t& position);
void append_utf8(std::string& out, char32_t);

bool is_white_space(char32_t);  // property White_Space
bool is_number(char32_t);       // categories Nd, Nl, No
bool is_punctuation(char32_t);  // categories P*, and the ASCII symbols
bool is_word(char32_t);         // \w of UTS 18: Alphabetic, M*, Nd, Pc, Join_Control (as in Rust's regex)

}  // namespace lathe
