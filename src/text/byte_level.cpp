#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace lathe {

namespace {

struct Alphabet {
  std::array<std::string, 256> character;  // UTF-8, by byte
  std::array<int, 0x144> byte;             // by code point; -1: not of the alphabet

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      append_utf8(character[static_cast<size_t>(b)], c);
      byte[c] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

std::string bytes_to_characters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) out += alphabet().character[static_cast<unsigned char>(byte)];
  return out;
}

std::string characters_to_bytes(std::string_view token) {
  if (!valid_utf8(token)) return std::string(token);
  const Alphabet& table = alphabet();
  std::string out;
  for (size_t i = 0; i < token.size();) {
    const char32_t c = next_code_point(token, i);
    if (c >= table.byte.size() || table.byte[c] < 0) return std::string(token);
    out += static_cast<char>(table.byte[c]);
  }
  return out;
}

}  // namespace lathe
