// A tokenizer, a zero byte, a text: the tokenizer is built or refused with an InputError, and one that was
// built encodes the text and decodes what came of it and what the text's bytes mean as ids. The tokenizer is
// a tokenizer.json or, when it begins with "llama\n" or "gpt2\n", a vocabulary with a line for each token:
// type, score, text.
#include "text/tokenizer.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "text/utf8.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void decode(const lathe::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special_tokens) {
  require(lathe::valid_utf8(tokenizer.decode(ids, skip_special_tokens)));
  lathe::StreamDecoder stream(tokenizer, skip_special_tokens);
  for (const int32_t id : ids) require(lathe::valid_utf8(stream.push(id)));
  require(lathe::valid_utf8(stream.finish()));
}

lathe::Tokenizer build(std::string_view input) {
  const size_t end = std::min(input.find('\n'), input.size());
  if (input.substr(0, end) != "llama" && input.substr(0, end) != "gpt2")
    return lathe::Tokenizer::parse(input, "fuzz");
  lathe::VocabularySpec spec;
  spec.where = "fuzz";
  spec.model = input.substr(0, end);
  spec.bos = 0;
  for (input.remove_prefix(std::min(end + 1, input.size())); !input.empty();) {
    const std::string_view line = input.substr(0, input.find('\n'));
    spec.types.push_back(line.empty() ? 1 : line[0] - '0');
    spec.scores.push_back(line.size() < 2 ? 0.0f : static_cast<float>(line[1]));
    spec.tokens.emplace_back(line.substr(std::min<size_t>(2, line.size())));
    input.remove_prefix(std::min(input.size(), line.size() + 1));
  }
  return lathe::Tokenizer::from_vocabulary(spec);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(zero + 1, size));
  try {
    const auto tokenizer = build(input.substr(0, zero));
    for (const bool parse_special : {true, false}) {
      const auto ids =
          tokenizer.encode(text, {.add_special_tokens = parse_special, .parse_special = parse_special});
      for (const int32_t id : ids) {
        require(id >= 0 && id < tokenizer.vocab_size());
        require(tokenizer.id(tokenizer.token(id)).has_value());
      }
      decode(tokenizer, ids, parse_special);
    }
    std::vector<int32_t> ids;
    for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte) % tokenizer.vocab_size());
    decode(tokenizer, ids, false);
  } catch (const lathe::InputError&) {
  }
  return 0;
}
