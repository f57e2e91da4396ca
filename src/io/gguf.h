// GGUF version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "quant/packing.h"

namespace lathe {

// A metadata value. Integers widen to int64 (u64 above its range is refused), floats to double.
struct GgufValue {
  std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
               std::vector<std::string>>
      value;
};

// ggml's tensor types. Rows without a packing are known by name only, so that a message can say it.
struct GgufType {
  uint32_t id;
  std::string_view name;  // "Q4_K"
  std::string_view packing;
  Numerics numerics;
  int64_t block;  // elements
};
std::span<const GgufType> gguf_types();

struct GgufTensor {
  std::string name;  // "x.weight[3]": of expert 3, where the file has one tensor for all of a layer
  Numerics numerics;
  const Packing* packing = nullptr;
  Shape shape;                   // row-major: GGUF's dimensions reversed
  size_t offset = 0, bytes = 0;  // in the file
  size_t scale_offset = 0;       // NVFP4: of the f32 number for the whole weight, where numerics.global
};

// Header, metadata and tensor infos, all checked against the bytes there are.
struct GgufFile {
  std::string where;  // for messages
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;

  static GgufFile parse(std::span<const std::byte> file, std::string_view where);

  // Typed metadata; InputError naming the key when it is absent or of another type.
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  const std::string& text(std::string_view key) const;
  bool truth(std::string_view key) const;
  bool has(std::string_view key) const { return metadata.contains(key); }
};

// Hugging Face config keys from GGUF metadata ("llama.block_count" becomes num_hidden_layers, ...).
// Architecture names pass through as model_type, but for those with experts (llama is mixtral then, qwen2moe
// qwen2_moe).
Json config_from_gguf(const GgufFile&, std::string_view where);

}  // namespace lathe
