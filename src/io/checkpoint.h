// A model on disk, whatever the container. Opening reads headers; loading maps bytes. No architecture is
// known here.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "quant/cache_numerics.h"
#include "quant/packing.h"

namespace lathe {

// A parameter as stored. One entry may be several tensors of the file: compressed-tensors' weight_packed,
// weight_scale and weight_zero_point are the parts of the entry "<module>.weight".
struct Entry {
  std::string name;
  Numerics numerics;
  const Packing* packing = nullptr;
  Shape shape;       // logical
  size_t bytes = 0;  // of all parts
  std::string file;  // relative to the checkpoint, for messages
};

struct GgufFile;

class Checkpoint {
 public:
  // `path`: a Hugging Face directory (config.json; model.safetensors or model.safetensors.index.json) or a
  // .gguf file. Checks every header claim against the files: InputError naming file, tensor, expected and
  // found.
  static Checkpoint open(const fs::path& path);

  const fs::path& path() const;
  bool is_gguf() const;
  const GgufFile* gguf() const;      // null for a directory
  const Json& config() const;        // config.json; for GGUF the same keys synthesised from its metadata
  const CacheScheme& cache() const;  // what the config says about keys and values
  std::span<const Entry> entries() const;  // sorted by name
  const Entry* find(std::string_view name) const;
  Weight load(std::string_view name) const;  // parts are views of the mapping
  void forget(std::string_view name) const;  // its pages may leave memory; a later read maps them again

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace lathe
