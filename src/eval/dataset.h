// Texts to calibrate and to evaluate on, kept apart.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace lathe {

struct Text {
  std::string path;           // where it came from
  std::string sha256;         // of those bytes
  size_t begin = 0, end = 0;  // the bytes of the file that were read; max_tokens are the first tokens of them
  std::vector<int32_t> tokens;
};

// Reads UTF-8 text; `max_tokens` 0 means all of it. InputError when the file is unreadable or too short to
// score.
Text read_text(const std::filesystem::path&, const Tokenizer&, int64_t max_tokens = 0);

// The first part to calibrate and search on, the rest held out. Cut at a line end near `fraction` of the
// bytes, and tokenized separately, so not a byte is shared.
std::pair<Text, Text> split_text(const std::filesystem::path&, const Tokenizer&, double fraction);

// InputError when the two share bytes: the same file with overlapping ranges, or equal contents.
void require_held_out(const Text& calibration, const Text& evaluation);

}  // namespace lathe
