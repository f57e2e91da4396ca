#include "server/infill.h"

#include <optional>

namespace lathe {
namespace {

// In order: Qwen2.5 and CodeGemma, StarCoder, DeepSeek, Code Llama, SantaCoder.
struct Marks {
  std::string_view prefix, suffix, middle;
};
constexpr Marks known[] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"},
    {"\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
};

}  // namespace

std::vector<int32_t> infill_prompt(const Tokenizer& tokenizer, std::string_view prefix,
                                   std::string_view suffix) {
  for (const Marks& marks : known) {
    const std::optional<int32_t> before = tokenizer.id(marks.prefix), behind = tokenizer.id(marks.suffix),
                                 here = tokenizer.id(marks.middle);
    if (!before || !behind || !here) continue;
    std::vector<int32_t> all = tokenizer.encode("");  // what every text begins with: <s>, or nothing
    const auto add = [&](int32_t mark, std::string_view text) {
      all.push_back(mark);
      for (const int32_t token :
           tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}))
        all.push_back(token);
    };
    add(*before, prefix);
    add(*behind, suffix);
    all.push_back(*here);
    return all;
  }
  return {};
}

}  // namespace lathe
