// Decoders: token strings back to text, a chain of steps over the list of strings.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "text/budget.h"

namespace lathe {

// A step may leave bytes that are not UTF-8: a character's bytes can lie in several tokens.
// `Repair::as_reference` turns them into U+FFFD where the Hugging Face decoder of that name does;
// `Repair::later` leaves them alone, for a stream that waits for the rest.
enum class Repair { as_reference, later };
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>, Repair, Budget&)>;

Decoder byte_level_decoder();                 // one string: the bytes of all tokens
Decoder byte_fallback_decoder();              // runs of <0xNN> become their bytes
Decoder join_decoder(std::string separator);  // one string
// Takes `content` off the front of each string, up to `start` times.
Decoder strip_decoder(std::string content, size_t start);
Decoder replace_decoder(std::string pattern, std::string replacement);
// `replacement` becomes a space, and nothing in the first string when it was `prepended` there.
Decoder metaspace_decoder(std::string replacement, bool prepended);

}  // namespace lathe
