// Writes a Hugging Face directory, one weight at a time. Atomicity is the caller's AtomicDirectory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/checkpoint.h"

namespace lathe {

// What will be written, in order. Quantized entries use a packing of a file format ("ct.pack32", "ct.fp8",
// "bnb.nf4") and are called "<module>.weight".
struct PlannedEntry {
  std::string name;  // "model.layers.0.mlp.up_proj.weight"
  Numerics numerics;
  const Packing* packing = nullptr;
  Shape shape;
};

// compressed-tensors' quantization_config for these entries: one config group per numerics and packing, its
// targets the exact names of its modules (what is not named is not quantized, so nothing need be ignored).
// Null when nothing is quantized, keys and values neither, and `transforms` (its transform_config) is empty.
// bitsandbytes' for weights in nf4; InputError when others are quantized too, or keys and values, or there
// are transforms.
Json quantization_config(const std::vector<PlannedEntry>&, const Json& transforms = Json::object(),
                         const CacheScheme& = {});

inline constexpr size_t standard_shard_bytes = 5'000'000'000;

class CheckpointWriter {
 public:
  // Shards at 5 GB like transformers: model.safetensors, or model-00001-of-0000N.safetensors and an index.
  // Error on packings that have no name on disk, InputError on groups that do not divide the columns: no
  // other reader of the format takes those. quantization_config in `config` is replaced.
  CheckpointWriter(const fs::path& directory, Json config, std::vector<PlannedEntry> entries,
                   size_t shard_bytes = standard_shard_bytes, Json transforms = Json::object(),
                   const CacheScheme& cache = {});
  ~CheckpointWriter();
  void write(const Weight&);  // the next entry
  std::string finish();       // config.json, index; returns the model's hash (io/model_hash.h)
 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Tokenizer files, generation_config.json, chat templates: byte for byte.
void copy_companions(const fs::path& from, const fs::path& to);

}  // namespace lathe
