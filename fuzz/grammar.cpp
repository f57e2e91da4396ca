// A kind (g, r), a grammar, a zero byte, a text: the grammar is read or refused; one that was read accepts
// the text or not, byte by byte as token by token, and a mask over all single bytes is what the next byte may
// be.
#include "text/grammar.h"

#include <cstdint>
#include <cstdlib>

#include "core/error.h"
#include "text/token_mask.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

std::shared_ptr<const lathe::TokenTrie> single_bytes() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.push_back(std::string(1, static_cast<char>(b)));
  return std::make_shared<lathe::TokenTrie>(tokens);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto trie = single_bytes();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  if (zero == 0) return 0;
  const std::string_view source = input.substr(1, zero - 1),
                         text = input.substr(std::min(zero + 1, size)).substr(0, 256);
  try {
    const auto grammar =
        input[0] == 'r' ? lathe::Grammar::regex(source, "fuzz") : lathe::Grammar::gbnf(source, "fuzz");
    lathe::GrammarMatcher matcher(std::make_shared<lathe::TokenMasks>(grammar, trie));
    bool alive = true;
    for (size_t i = 0; alive; ++i) {
      const auto mask = matcher.mask();
      require(matcher.complete() || (mask[0] | mask[1] | mask[2] | mask[3]) != 0);
      if (i == text.size()) break;
      const auto byte = static_cast<unsigned char>(text[i]);
      const bool allowed = mask[byte / 64] >> (byte % 64) & 1;
      alive = matcher.accept(static_cast<int32_t>(byte));
      require(alive == allowed);
    }
    require(grammar.accepts(text) == (alive && matcher.complete()));
  } catch (const lathe::InputError&) {
  }
  return 0;
}
