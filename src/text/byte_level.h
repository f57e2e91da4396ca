// The byte alphabet of GPT-2: every byte as one printable character, so that a BPE over characters sees
// bytes. Bytes 33-126, 161-172 and 174-255 are the character of the same number, the other 68 are U+0100
// onwards in order (space is U+0120, newline U+010A).
#pragma once

#include <string>
#include <string_view>

namespace lathe {

std::string bytes_to_characters(std::string_view bytes);

// The inverse. A token with a character outside the alphabet (an added token, say) stands for itself.
std::string characters_to_bytes(std::string_view token);

}  // namespace lathe
