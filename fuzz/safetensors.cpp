// Any bytes as a safetensors file: items inside the file, or InputError.
#include "io/safetensors.h"

#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& [name, item] :
         lathe::SafetensorsFile::parse_header(std::as_bytes(std::span(data, size)), "fuzz")) {
      const size_t bytes = static_cast<size_t>(lathe::elements(item.shape)) * lathe::dtype_bytes(item.dtype);
      if (item.end > size || item.end - item.begin != bytes) __builtin_trap();
    }
  } catch (const lathe::InputError&) {
  }
  return 0;
}
