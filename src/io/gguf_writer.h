// Writes GGUF version 3, one tensor at a time. Atomicity is the caller's AtomicFile.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "io/gguf.h"

namespace lathe {

// A metadata entry, in the types that llama.cpp's own converter gives them.
struct GgufEntry {
  std::string key;
  std::variant<uint32_t, float, bool, std::string, std::vector<std::string>, std::vector<int32_t>,
               std::vector<float>>
      value;
};

class GgufWriter {
 public:
  struct Item {
    std::string name;
    const GgufType* type;
    Shape shape;
    bool experts = false;  // the first dimension is of experts: written as so many weights
  };
  // The header, with all metadata and the places of all tensors. Error on rows that are not whole blocks.
  GgufWriter(const fs::path&, const std::vector<GgufEntry>& metadata, std::vector<Item> items);
  void write(const Weight&);  // the next item or expert; Error when it is not what was announced
  void finish();              // Error when items are missing

 private:
  FileWriter out_;
  std::vector<Item> items_;
  size_t next_ = 0;
  int64_t written_ = 0;  // experts of the next item
};

// The way back of config_from_gguf: architecture and hyperparameters of a Hugging Face config. InputError
// where GGUF cannot say them. Llama 3's rope scaling is a tensor (rope_freqs.weight) and not here.
std::vector<GgufEntry> metadata_from_config(const Json& config);

}  // namespace lathe
