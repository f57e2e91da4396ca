// Any bytes as a GGUF file: tensors whose blocks decode and a config, or InputError.
#include "io/gguf.h"

#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const GgufFile file = GgufFile::parse(bytes, "fuzz");
    for (const GgufTensor& t : file.tensors) {
      Weight w{t.numerics, t.packing, t.shape, {}};
      size_t offset = t.offset;
      for (const Part& part : t.packing->parts(t.numerics, t.shape)) {
        w.parts.push_back(Tensor::zeros(part.dtype, part.shape));
        std::copy_n(bytes.data() + offset, w.parts.back().bytes(), w.parts.back().storage.data);
        offset = t.scale_offset;
      }
      check_parts(w, t.name);
      read_all(w);
    }
    config_from_gguf(file, "fuzz").dump();
  } catch (const InputError&) {
  }
  return 0;
}
