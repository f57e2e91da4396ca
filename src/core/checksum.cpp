#include "core/checksum.h"

#include <bit>
#include <cstring>

namespace lathe {
namespace {

// A bijection of the chain for each word, and of the word for each chain.
uint64_t next(uint64_t chain, uint64_t word) { return std::rotl((chain ^ word) * 0x9e3779b97f4a7c15u, 29); }

}  // namespace

// Eight chains that do not wait for each other; then what is left, and how much there was.
void Checksum::add(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::array<uint64_t, 8> chains = chains_, words;
  size_t left = bytes;
  for (; left >= sizeof words; p += sizeof words, left -= sizeof words) {
    std::memcpy(words.data(), p, sizeof words);
    for (size_t i = 0; i < words.size(); ++i) chains[i] = next(chains[i], words[i]);
  }
  words = {};
  std::memcpy(words.data(), p, left);
  for (size_t i = 0; i < words.size(); ++i) chains[i] = next(chains[i], words[i]);
  chains[0] = next(chains[0], bytes);
  chains_ = chains;
}

uint64_t Checksum::value() const {
  uint64_t joined = 0;
  for (const uint64_t chain : chains_) joined = next(joined, chain);
  return joined;
}

}  // namespace lathe
