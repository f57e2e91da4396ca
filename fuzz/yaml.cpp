// Any bytes as YAML that people write: a JSON value, or InputError.
#include "core/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  try {
    to_json(parse_yaml({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz");
  } catch (const InputError&) {
  }
  return 0;
}
