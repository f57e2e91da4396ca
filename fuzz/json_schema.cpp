// A schema, a zero byte, a text: the schema becomes a grammar or is refused; what the grammar accepts is
// JSON.
#include "text/json_schema.h"

#include <cstdint>
#include <cstdlib>

#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(zero + 1, size)).substr(0, 512);
  try {
    const auto schema = lathe::parse_json(input.substr(0, zero), "fuzz");
    const auto grammar = lathe::json_schema(schema, "fuzz");
    if (grammar.accepts(text) && !lathe::Grammar::json().accepts(text)) std::abort();
  } catch (const lathe::InputError&) {
  }
  return 0;
}
